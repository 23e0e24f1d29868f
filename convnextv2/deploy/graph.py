"""The graph: a network with named inputs and outputs, from which artifacts are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from convnextv2.model.convnext import ConvNeXtV2

Outputs = Literal["classifier", "multi_label", "features", "backbone"]
Input = Literal["images", "pixels"]

OUTPUTS: dict[str, tuple[str, ...]] = {
    "classifier": ("logits", "embedding", "explanation"),
    "multi_label": ("logits", "embedding", "explanation"),
    "features": ("embedding",),
    "backbone": ("stage1", "stage2", "stage3", "stage4"),
}
"""The outputs of each kind of artifact, by name.

    logits            (N, classes)
    embedding         (N, dims[3]), the pooled and normalised features
    explanation       (N, h, w), the contribution of each position to the logit of the most
                      probable class, or of the label whose logit is furthest above its threshold
    stage1 to stage4  (N, dims[i], h, w), the maps of the stages
"""

MAP_OUTPUTS = ("pixel_logits",)
"""The output of a segmentor: (N, classes, h, w)."""

BOX_OUTPUTS = ("class_logits", "box_deltas")
"""The outputs of a detector's box head: (R, classes + 1) and (R, 4 * (classes + 1))."""

MASK_OUTPUTS = ("mask_logits",)
"""The output of a detector's mask head: (R, classes + 1, h, w)."""

AXES = {
    "class_logits": 2,
    "box_deltas": 2,
    "logits": 2,
    "probs": 2,
    "embedding": 2,
    "explanation": 3,
}
"""The number of axes of an output. All other outputs, and all inputs, have four."""


def trunk_outputs(levels: int) -> tuple[str, ...]:
    """Return the names of the outputs of a detector's first part.

    Args:
        levels: The number of maps in which objects are searched for.

    Returns:
        The names of the maps (N, C, h, w), of the anchors' logits (N, A, h, w), and of their deltas
        (N, 4 * A, h, w), each from fine to coarse.
    """
    kinds = ("map", "objectness", "anchor_deltas")
    return tuple(f"{kind}{i}" for kind in kinds for i in range(1, levels + 1))


class Exportable(Protocol):
    """An `nn.Module` with one input and named outputs, which a format can write."""

    @property
    def model(self) -> nn.Module:
        """The network. Its weights are converted to the dtype of the artifact."""

    @property
    def input(self) -> str:
        """The name of the input."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""

    @property
    def total_stride(self) -> int:
        """The total stride of the network, in pixels.

        If the artifact takes images of any size, their sides must be multiples of it.
        """

    def __call__(self, *arguments: Any) -> Any:
        """Compute the outputs."""


def output_names(outputs: str, input: str) -> tuple[str, ...]:
    """Return the names of the outputs of a graph.

    Args:
        outputs: A key of `OUTPUTS`.
        input: "images" or "pixels"; a model of pixels that has classes returns probabilities.

    Returns:
        The names, in the graph's order.
    """
    names = OUTPUTS[outputs]
    return ("probs", *names[1:]) if input == "pixels" and has_classes(outputs) else names


def has_classes(outputs: str) -> bool:
    """Return whether a kind of artifact classifies whole images."""
    return OUTPUTS.get(outputs, ("",))[0] == "logits"


class Graph(nn.Module):
    """A network with one input and named outputs, which are all float32.

    Args:
        model: The network in evaluation mode. It computes in the dtype of its weights.
        outputs: The kind of its outputs; a key of `OUTPUTS`.
        input: "images", normalised float32 (N, C, H, W); or "pixels", uint8 (N, H, W, C), which the
            graph normalises, so that only decoding, resizing and cropping remain outside. A
            model with classes then returns "probs" in place of "logits": the softmax of a
            "classifier", and the sigmoid of "multi_label".
        mean: The mean of each channel on the scale 0 to 1; for pixels.
        std: The standard deviation of each channel on the scale 0 to 1; for pixels.
        temperature: The number by which logits are divided before softmax or sigmoid; for pixels.
        thresholds: For "multi_label": the lowest probability at which each class counts as present,
            after the temperature; empty for 0.5. They decide which class is explained.
    """

    mean: Tensor
    std: Tensor
    logit_thresholds: Tensor

    def __init__(
        self,
        model: ConvNeXtV2,
        outputs: Outputs,
        input: Input = "images",
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        temperature: float = 1.0,
        thresholds: Sequence[float] = (),
    ) -> None:
        super().__init__()
        assert outputs == "backbone" or model.norm is not None
        assert not has_classes(outputs) or model.head is not None
        self.model, self.outputs, self.input, self.temperature = model, outputs, input, temperature
        self.register_buffer("mean", 255 * torch.tensor(list(mean)), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(list(std)), persistent=False)
        limits = torch.tensor(list(thresholds) or [0.5], dtype=torch.float64)
        logits = temperature * limits.logit(eps=1e-12)
        self.register_buffer("logit_thresholds", logits.float(), persistent=False)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in the order of `forward`."""
        return output_names(self.outputs, self.input)

    @property
    def total_stride(self) -> int:
        """The total stride of the network, in pixels.

        If the artifact takes images of any size, their sides must be multiples of it.
        """
        return self.model.total_stride

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
        # The same layers as in ConvNeXtV2.forward, but in float32, since they cost next to nothing.
        encoded = encoded.float()
        pooled = encoded.mean((1, 2))
        weight, bias, eps = model.norm.weight.float(), model.norm.bias.float(), model.norm.eps
        embedding = nn.functional.layer_norm(pooled, weight.shape, weight, bias, eps)
        if self.outputs == "features":
            return (embedding,)
        assert model.head is not None
        rows = model.head.weight.float()
        logits = nn.functional.linear(embedding, rows, model.head.bias.float())
        explanation = self._explain(encoded, pooled, rows[self.explained(logits)] * weight, eps)
        if self.input == "pixels":
            return self.probabilities(logits), embedding, explanation
        return logits, embedding, explanation

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn the logits of a model with classes (N, classes) into probabilities."""
        divided = logits / self.temperature
        return divided.sigmoid() if self.outputs == "multi_label" else divided.softmax(-1)

    def explained(self, logits: Tensor) -> Tensor:
        """Return the class of each image that is explained, int64 (N,).

        Args:
            logits: The logits, float32 (N, classes).
        """
        shown = logits - self.logit_thresholds if self.outputs == "multi_label" else logits
        return shown.argmax(-1)

    @staticmethod
    def _explain(encoded: Tensor, pooled: Tensor, row: Tensor, eps: float) -> Tensor:
        """Compute the class activation map (Zhou et al. 2016).

        The standard deviation in the final norm is that of the pooled vector. A logit is then the
        mean of the map over its positions, plus a number that does not depend on the image.

        Args:
            encoded: The output of the encoder (N, h, w, D).
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
