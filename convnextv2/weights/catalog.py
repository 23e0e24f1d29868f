"""Public weights to start from, by short name.

The figures are top-1 accuracies on ImageNet-1K from timm's results-imagenet.csv (1.0.31). They were
not measured here. The licences are those of the weights. The data that the weights were trained on
have their own terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from convnextv2.errors import CheckpointError

_OWNER = "timm"


@dataclass(frozen=True)
class PublicWeights:
    """Weights on the Hugging Face Hub.

    Attributes:
        name: The short name, which is timm's.
        parameters_m: Millions of parameters.
        licence: The identifier of the licence.
        allows_commerce: Whether the licence allows commercial use.
        top1: Top-1 accuracy on ImageNet-1K in percent; None for weights without its 1,000 classes.
        image_size: The side of the images in pixels that `top1` was measured at.
        note: Anything else that users should know.
    """

    name: str
    parameters_m: float
    licence: str
    allows_commerce: bool
    top1: float | None
    image_size: int
    note: str = ""

    @property
    def repository(self) -> str:
        """OWNER/NAME on the Hub."""
        return f"{_OWNER}/{self.name}"

    @property
    def model(self) -> str:
        """The name of the size in this package."""
        return f"convnextv2_{self.name.partition('.')[0].rpartition('_')[2]}"


def _free(
    name: str, millions: float, top1: float | None, size: int = 224, note: str = ""
) -> PublicWeights:
    return PublicWeights(name, millions, "apache-2.0", True, top1, size, note)


def _meta(name: str, millions: float, top1: float | None, size: int = 224) -> PublicWeights:
    note = "" if top1 else "pre-trained by FCMAE only, no classes"
    return PublicWeights(name, millions, "cc-by-nc-4.0", False, top1, size, note)


def _dino(size: str, millions: float) -> PublicWeights:
    note = "no classes; its agreement must travel with the weights"
    return PublicWeights(
        f"convnext_{size}.dinov3_lvd1689m", millions, "dinov3-license", True, None, 224, note
    )


_IN22K = "ImageNet-22k's 21,841 classes"
_IN12K = "11,821 classes of ImageNet"

CATALOG: tuple[PublicWeights, ...] = (
    _free("convnext_atto.d2_in1k", 3.70, 75.67),
    _free("convnext_femto.d1_in1k", 5.22, 77.50),
    _free("convnext_pico.d1_in1k", 9.05, 79.52),
    _free("convnext_nano.in12k_ft_in1k", 15.59, 82.31),
    _free("convnext_nano.r384_in12k_ft_in1k", 15.59, 83.33, 384),
    _free("convnext_nano.d1h_in1k", 15.59, 80.76),
    _free("convnext_nano.in12k", 15.59, None, note=_IN12K),
    _free("convnext_tiny.in12k_ft_in1k", 28.59, 84.19),
    _free("convnext_tiny.in12k_ft_in1k_384", 28.59, 85.15, 384),
    _free("convnext_tiny.fb_in1k", 28.59, 82.07),
    _free("convnext_tiny.fb_in22k_ft_in1k", 28.59, 82.90, note="78.95 % at 288 px: keep to 224 px"),
    _free("convnext_tiny.fb_in22k", 28.59, None, note=_IN22K),
    _free("convnext_small.in12k_ft_in1k", 50.22, 85.16),
    _free("convnext_small.in12k_ft_in1k_384", 50.22, 86.19, 384),
    _free("convnext_small.fb_in1k", 50.22, 83.14),
    _free("convnext_small.fb_in22k_ft_in1k", 50.22, 84.58),
    _free("convnext_small.fb_in22k", 50.22, None, note=_IN22K),
    _free("convnext_base.clip_laion2b_augreg_ft_in12k_in1k", 88.59, 86.38, 256),
    _free("convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384", 88.59, 87.14, 384),
    _free("convnext_base.fb_in1k", 88.59, 83.84),
    _free("convnext_base.fb_in22k_ft_in1k", 88.59, 85.81),
    _free("convnext_base.fb_in22k", 88.59, None, note=_IN22K),
    _free("convnext_large.fb_in22k_ft_in1k", 197.77, 86.61),
    _free("convnext_large.fb_in22k_ft_in1k_384", 197.77, 87.46, 384),
    _free("convnext_large.fb_in1k", 197.77, 84.30),
    _free("convnext_large.fb_in22k", 197.77, None, note=_IN22K),
    _free("convnext_xlarge.fb_in22k_ft_in1k", 350.20, 86.97),
    _free("convnext_xlarge.fb_in22k_ft_in1k_384", 350.20, 87.76, 384),
    _free("convnext_xlarge.fb_in22k", 350.20, None, note=_IN22K),
    _dino("tiny", 28.59),
    _dino("small", 50.22),
    _dino("base", 88.59),
    _dino("large", 197.77),
    *(
        _meta(f"convnextv2_{size}.{tag}", millions, top1)
        for size, millions, tuned in (
            ("atto", 3.71, 76.64),
            ("femto", 5.23, 78.48),
            ("pico", 9.07, 80.30),
            ("nano", 15.62, 81.86),
            ("tiny", 28.64, 82.95),
            ("base", 88.72, 84.89),
            ("large", 197.96, 85.76),
            ("huge", 660.29, 86.26),
        )
        for tag, top1 in (("fcmae", None), ("fcmae_ft_in1k", tuned))
    ),
    _meta("convnextv2_nano.fcmae_ft_in22k_in1k", 15.62, 82.04),
    _meta("convnextv2_tiny.fcmae_ft_in22k_in1k", 28.64, 83.90),
    _meta("convnextv2_base.fcmae_ft_in22k_in1k", 88.72, 86.75),
    _meta("convnextv2_large.fcmae_ft_in22k_in1k", 197.96, 87.27),
)
"""For each size, `proposed_start` takes the first entry that has a top-1 accuracy and whose licence
allows commercial use."""

_BY_NAME = {weights.name: weights for weights in CATALOG}


def public_weights(name: str) -> PublicWeights | None:
    """Look up weights by short name.

    Args:
        name: What the user gave, such as "convnext_tiny.in12k_ft_in1k".

    Returns:
        The entry, or None if there is none of that name.
    """
    return _BY_NAME.get(name)


def near_names(name: str) -> list[str]:
    """Return up to three short names that a user may have meant by an unknown name."""
    longer = [known for known in _BY_NAME if known.startswith(f"{name}.")]
    return longer[:3] or get_close_matches(name, _BY_NAME, n=3, cutoff=0.7)


def proposed_start(model: str) -> PublicWeights:
    """Choose public weights for a size: the first in `CATALOG` that allow commercial use.

    Args:
        model: The size, such as "convnextv2_tiny".

    Returns:
        The entry, which has the classes of ImageNet-1K.

    Raises:
        CheckpointError: There is no such entry.
    """
    for weights in CATALOG:
        if weights.model == model and weights.allows_commerce and weights.top1:
            return weights
    sizes = dict.fromkeys(w.model for w in CATALOG if w.allows_commerce and w.top1)
    raise CheckpointError(
        f"init = pretrained: there are no public weights for model = {model} whose licence allows "
        f"commercial use. They exist for {', '.join(sizes)}. `convnextv2 models --weights` lists "
        "all."
    )
