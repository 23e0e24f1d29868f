"""Reads the preprocessing of images from the preprocessor_config.json of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nextafter
from typing import Any

from convnextv2.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    WARPS_FROM_PX,
    official_warps,
)

RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "area": 4}
"""Pillow's number for each kind of interpolation, which transformers writes."""


@dataclass(frozen=True)
class _Usual:
    """The defaults of a class of processors, for values that a configuration does not state.

    Attributes:
        size: The size to which images are resized, as the configuration writes it.
        resample: Pillow's number of the interpolation.
        crop_size: The side of the centre crop in pixels; 0 for no crop.
        mean: The mean of each channel, for values from 0 to 1.
        std: The standard deviation of each channel, for values from 0 to 1.
    """

    size: Mapping[str, int]
    resample: int = 3
    crop_size: int = 0
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def is_square(self) -> bool:
        """True if a size of one number means height and width, not the shortest edge."""
        return "height" in self.size


_CLIP = _Usual(
    {"shortest_edge": 224},
    crop_size=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
_CONVNEXT = "ConvNext"
_USUAL = {
    _CONVNEXT: _Usual({"shortest_edge": 384}),
    "ViT": _Usual({"height": 224, "width": 224}, resample=2),
    "CLIP": _CLIP,
    "Bit": _CLIP,
    "DeiT": _Usual({"height": 256, "width": 256}, crop_size=224),
    "EfficientNet": _Usual({"height": 346, "width": 346}),
    "Segformer": _Usual(
        {"height": 512, "width": 512}, resample=2, mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
}
_KNOWN = frozenset(
    (
        *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class"),
        *("do_resize", "size", "crop_pct", "resample", "do_center_crop", "crop_size"),
        *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
        *("do_convert_rgb", "default_to_square", "return_tensors", "data_format", "device"),
        *("input_data_format", "disable_grouping", "_valid_processor_keys", "image_seq_length"),
        *("do_reduce_labels", "reduce_labels"),  # of label maps
        *("backend", "model_type", "transformers_version", "auto_map", "antialias"),
    )
)
"""Keys of a configuration that are read here, or that change no pixel."""


@dataclass(frozen=True)
class Preparation:
    """The preprocessing of images by a processor.

    Attributes:
        arguments: The values that `Description.preprocessing` can hold.
        notes: A line to print about each part that the arguments cannot express.
    """

    arguments: dict[str, Any]
    notes: list[str]


def read_processor(config: Mapping[str, Any]) -> Preparation:
    """Read a processor's configuration as transformers does, with the defaults of its class.

    Args:
        config: The content of preprocessor_config.json.

    Returns:
        The size of the image in pixels, the crop, the interpolation, and mean and deviation for
        values from 0 to 1; and a line for each part of the configuration without a counterpart.

    Raises:
        KeyError: A part is missing, or a number does not stand for any kind of interpolation.
        TypeError: A part has the wrong type.
        ValueError: A part has an impossible value.
    """
    kind = str(
        config.get("image_processor_type") or config.get("feature_extractor_type") or _CONVNEXT
    )
    name = next((name for name in _USUAL if kind.startswith(name)), "")
    notes = [
        f"preprocessor_config.json: {_short(key)} = {_short(value)} is not known here, and is "
        "ignored."
        for key, value in config.items()
        if key not in _KNOWN and value not in (None, False)
    ]
    if not name:
        notes.append(
            f"preprocessor_config.json: {_short(kind)} is not known here; it is read as ViT's."
        )
    usual = _USUAL[name or "ViT"]
    found, more = _geometry(config, usual, is_convnext=name == _CONVNEXT)
    numbered = {number: name for name, number in RESAMPLE.items()}
    found["interpolation"] = numbered[_given(config, "resample", usual.resample)]
    return Preparation(found | _colours(config, usual), notes + more)


def _given(config: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a value of the configuration, or the default if it is missing or null."""
    value = config.get(name)
    return default if value is None else value


def _geometry(
    config: Mapping[str, Any], usual: _Usual, *, is_convnext: bool
) -> tuple[dict[str, Any], list[str]]:
    """Find size, crop and preset; return them with lines about what is done differently here."""
    notes: list[str] = []
    shortest, exact = _size(_given(config, "size", usual.size), usual.is_square)
    crops = _given(config, "do_center_crop", bool(usual.crop_size))
    crop = _box(_given(config, "crop_size", usual.crop_size or 224)) if crops else None
    warps = not shortest or (is_convnext and shortest >= WARPS_FROM_PX)
    if is_convnext and shortest and not warps:
        resized = int(shortest / float(_given(config, "crop_pct", 224 / 256)))
        shape = crop or (shortest, shortest)
    else:
        resized = shortest or max(exact)
        shape = crop or ((shortest, shortest) if shortest else exact)
        if not warps and not crop:
            notes.append(
                "Its processor does not crop images that are not square; here they are cropped."
            )
    can_warp = official_warps(shape)
    if warps and not can_warp:
        size = " x ".join(map(str, shape))
        notes.append(
            f"Its processor warps images, which is not known here at {size} px: they are cropped."
        )
    elif warps and max(shape) != resized:
        notes.append("Its processor warps and crops images; here they are only warped.")
    if config.get("do_resize") is False:
        notes.append(
            f"do_resize = False: its processor does not resize; here images are, to {shape[0]} px."
        )
    return {
        "image_size": [*shape],
        "crop_pct": crop_share(max(shape), resized),
        "eval_preset": "official" if warps == can_warp else "timm",
    }, notes


def crop_share(crop: int, resized: int) -> float:
    """Return crop / resized, adjusted so that crop / share, rounded down, is the resized side."""
    if crop <= 0 or resized <= 0:
        raise ValueError("size")
    share = min(crop / resized, 1.0)
    return share if int(crop / share) >= resized or share == 1 else nextafter(share, 0)


def _size(size: Any, is_square: bool) -> tuple[int, tuple[int, int]]:
    """Return the shortest edge and (0, 0), or 0 and the exact height and width."""
    if isinstance(size, Mapping):
        if size.get("shortest_edge") is not None:
            return int(size["shortest_edge"]), (0, 0)
        return 0, (int(size["height"]), int(size["width"]))
    if isinstance(size, list) and len(size) == 2:
        return 0, (int(size[0]), int(size[1]))
    return (0, (int(size), int(size))) if is_square else (int(size), (0, 0))


def _box(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    return int(size), int(size)


def _colours(config: Mapping[str, Any], usual: _Usual) -> dict[str, list[float]]:
    """Return mean and deviation for values from 0 to 1, whatever factor the processor applies."""
    mean, std = (
        [*_given(config, "image_mean", usual.mean)],
        [*_given(config, "image_std", usual.std)],
    )
    if config.get("do_normalize") is False:
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    rescales = config.get("do_rescale") is not False
    scale = 255 * float(_given(config, "rescale_factor", 1 / 255)) if rescales else 255.0
    if not isfinite(scale) or scale <= 0:
        raise ValueError("rescale_factor")
    if abs(scale - 1) < 1e-9:
        return {"mean": mean, "std": std}
    return {"mean": [value / scale for value in mean], "std": [value / scale for value in std]}


def _short(value: object) -> str:
    return ascii(value)[:60].strip("'")
