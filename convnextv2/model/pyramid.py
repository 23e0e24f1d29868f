"""The pyramid: four feature maps of an image, for dense prediction."""

from __future__ import annotations

import re

from torch import Tensor, nn

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.layers import LayerNorm

_IN_ENCODER = re.compile(r"(?:\w+\.)*?encoder\.")


def name_in_encoder(name: str) -> str:
    """Return the name of a parameter within the encoder.

    Args:
        name: The parameter's name in a network around an encoder, such as a `Pyramid`, an `FCMAE`
            or anything that holds one of these.

    Returns:
        The name without everything up to `encoder.`. A name outside the encoder stays as it is.
    """
    return _IN_ENCODER.sub("", name, count=1) if _IN_ENCODER.match(name) else name


class Pyramid(nn.Module):
    """The outputs of an encoder's four stages, each with a layer norm of its own.

    These norms start afresh, because the final norm of a classifier has learned the statistics of
    pooled features, which are different.

    Args:
        encoder: A network that was built with `num_classes=None`.
    """

    def __init__(self, encoder: ConvNeXtV2) -> None:
        super().__init__()
        assert encoder.norm is None, "a pyramid takes a bare encoder: num_classes=None"
        self.encoder = encoder
        self.norms = nn.ModuleList(LayerNorm(dim, eps=1e-6) for dim in encoder.dims)

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return self.encoder.dims

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per position of each of the four maps."""
        return tuple(self.encoder.stem_stride * 2**i for i in range(len(self.dims)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the four maps.

        Args:
            images: (N, C, H, W), normalised. H and W are at least the encoder's total stride.

        Returns:
            For stage i, (N, dims[i], H // strides[i], W // strides[i]), channels-last in memory.

        Raises:
            ConvNeXtV2Error: The images are too small, or have another number of channels.
        """
        maps = self.encoder.features(images)
        return [
            norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for norm, x in zip(self.norms, maps, strict=True)
        ]
