"""The same artifact behind LitServe, for comparison.

python benchmarks/serving/litserve_peer.py ARTIFACT PORT MAX_BATCH
"""

import sys
from typing import Any

import litserve
import torch
from fastapi import Request
from torch import Tensor

from convnextv2.data.decode import decode
from convnextv2.inference.result import top
from convnextv2.inference.scorer import open_scorer


class Api(litserve.LitAPI):  # type: ignore[misc]
    """The bytes of an image in a form in, its five most probable classes out."""

    def setup(self, device: Any) -> None:
        """Load the artifact."""
        self.scorer = open_scorer(sys.argv[1])

    def decode_request(self, request: Request) -> Tensor:
        """Decode and prepare as our server does; LitServe hands over the form."""
        transform, data = self.scorer.transform, request["image"].file.read()  # type: ignore[index]
        return transform(
            decode(data, name="image", channels=transform.preprocessing.channels, max_pixels=10**8)
        )

    def batch(self, inputs: list[Tensor]) -> Tensor:
        """Images of one size."""
        return torch.stack(inputs)

    def predict(self, x: Tensor) -> Any:
        """Probabilities of a batch."""
        return self.scorer(x).probs

    def unbatch(self, output: Any) -> list[Any]:
        """Row by row."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Answer as our server does."""
        return {"predictions": top(output, self.scorer.class_names, 5)}


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=int(sys.argv[3]), batch_timeout=0.002), accelerator="cpu", timeout=60
    )
    server.run(port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
