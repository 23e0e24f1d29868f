"""The graph: a network with named inputs and outputs, from which artifacts are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from convnextv2.model.convnext import ConvNeXtV2

Outputs = Literal["classifier", "features", "backbone"]
Input = Literal["images", "pixels"]

OUTPUTS: dict[str, tuple[str, ...]] = {
    "classifier": ("logits", "embedding", "explanation"),
    "features": ("embedding",),
    "backbone": ("stage1", "stage2", "stage3", "stage4"),
}
"""The outputs of each kind of artifact, by name.

    logits            (N, classes)
    embedding         (N, dims[3]), the pooled and normalised features
    explanation       (N, h, w), how much each position adds to the logit of the most probable class
    stage1 to stage4  (N, dims[i], h, w), the maps of the stages
"""


def output_names(outputs: str, input: str) -> tuple[str, ...]:
    """Name the outputs of a graph.

    Args:
        outputs: A key of `OUTPUTS`.
        input: "images" or "pixels"; a classifier of pixels returns probabilities.

    Returns:
        The names, in the graph's order.
    """
    names = OUTPUTS[outputs]
    return ("probs", *names[1:]) if input == "pixels" and outputs == "classifier" else names


class Graph(nn.Module):
    """A network from its input to named outputs, which are all float32.

    Args:
        model: The network in evaluation mode. The type of its weights is that of the arithmetic.
        outputs: What it returns; a key of `OUTPUTS`.
        input: "images", normalised float32 (N, C, H, W); or "pixels", uint8 (N, H, W, C), which the
            graph normalises, so that only decoding, resizing and cropping remain outside. A
            classifier of pixels returns "probs" in place of "logits".
        mean: The mean of each channel on the scale 0 to 1; for pixels.
        std: The standard deviation of each channel on the scale 0 to 1; for pixels.
        temperature: The number by which logits are divided before softmax; for pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: ConvNeXtV2,
        outputs: Outputs,
        input: Input = "images",
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        assert outputs == "backbone" or model.norm is not None
        assert outputs != "classifier" or model.head is not None
        self.model, self.outputs, self.input, self.temperature = model, outputs, input, temperature
        self.register_buffer("mean", 255 * torch.tensor(list(mean)), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(list(std)), persistent=False)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of what `forward` returns, in its order."""
        return output_names(self.outputs, self.input)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs that `output_names` lists.

        Args:
            x: Images or pixels, as `input` says.
        """
        if self.input == "pixels":
            x = ((x.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        model = self.model
        x = x.to(next(model.parameters()).dtype)
        if self.outputs == "backbone":
            return tuple(stage.float() for stage in model.features(x))
        encoded = model.encode(x)
        assert model.norm is not None
        # As in ConvNeXtV2.forward, but in float32: what follows the encoder costs next to nothing.
        encoded = encoded.float()
        pooled = encoded.mean((1, 2))
        weight, bias, eps = model.norm.weight.float(), model.norm.bias.float(), model.norm.eps
        embedding = nn.functional.layer_norm(pooled, weight.shape, weight, bias, eps)
        if self.outputs == "features":
            return (embedding,)
        assert model.head is not None
        rows = model.head.weight.float()
        logits = nn.functional.linear(embedding, rows, model.head.bias.float())
        explanation = self._explain(encoded, pooled, rows[logits.argmax(-1)] * weight, eps)
        if self.input == "pixels":
            return (logits / self.temperature).softmax(-1), embedding, explanation
        return logits, embedding, explanation

    @staticmethod
    def _explain(encoded: Tensor, pooled: Tensor, row: Tensor, eps: float) -> Tensor:
        """Compute the class activation map (Zhou et al. 2016).

        If the deviation in the final norm is held at that of the pooled vector, a logit is the mean
        of the map over its positions, plus a number that does not depend on the image.

        Args:
            encoded: What the encoder returns (N, h, w, D).
            pooled: Its mean over the positions (N, D).
            row: The row of the head for the most probable class, times the norm's weight (N, D).
            eps: The norm's epsilon.

        Returns:
            The map (N, h, w).
        """
        mean = pooled.mean(-1, keepdim=True)
        deviation = ((pooled - mean).square().mean(-1, keepdim=True) + eps).sqrt()
        # The norm subtracts the mean over channels from the vector of each position.
        centred = row - row.mean(-1, keepdim=True)
        return (encoded * (centred / deviation)[:, None, None, :]).sum(-1)
