"""What an artifact computes: a model with named inputs and outputs, ready to be exported."""

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
"""Names of what each kind of artifact returns. logits: (N, classes). embedding: (N, dims[3]), pooled and normalised. explanation:
(N, h, w), how much each position adds to the logit of the most probable class. stage1 to stage4: (N, dims[i], h, w)."""


def output_names(outputs: str, input: str) -> tuple[str, ...]:
    """Names of what a graph returns.

    Args:
        outputs: Key of `OUTPUTS`.
        input: "images" or "pixels"; a classifier of pixels returns probabilities.

    Returns:
        The names, in the graph's order.
    """
    names = OUTPUTS[outputs]
    return ("probs", *names[1:]) if input == "pixels" and outputs == "classifier" else names


class Graph(nn.Module):
    """A model from its input to the outputs of its kind, all float32.

    model: in evaluation mode; its floating-point dtype is that of the arithmetic. input: "images", normalised float32 (N, C, H,
    W); or "pixels", uint8 (N, H, W, C), which the graph normalises: what remains outside is decoding, resizing and cropping. A
    classifier of pixels returns "probs" in place of "logits". mean, std: per channel, on the scale 0 to 1; for pixels."""

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
        """Of what `forward` returns, in its order."""
        return output_names(self.outputs, self.input)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs that `output_names` lists."""
        if self.input == "pixels":
            x = ((x.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        model = self.model
        x = x.to(next(model.parameters()).dtype)
        if self.outputs == "backbone":
            return tuple(stage.float() for stage in model.features(x))
        encoded = model.encode(x)
        assert model.norm is not None
        # As in ConvNeXtV2.forward, but what follows the encoder costs next to nothing, so it stays in float32.
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
        """Class activation map (Zhou et al. 2016). With the final norm's deviation held at what it is for the pooled vector, a
        logit is the mean over positions of what this returns, plus what does not depend on the image."""
        mean = pooled.mean(-1, keepdim=True)
        deviation = ((pooled - mean).square().mean(-1, keepdim=True) + eps).sqrt()
        centred = row - row.mean(
            -1, keepdim=True
        )  # the norm takes the mean over channels from each position's vector
        return (encoded * (centred / deviation)[:, None, None, :]).sum(-1)
