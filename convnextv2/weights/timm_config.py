"""Reads the configurations of timm, and reports the values that are not understood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convnextv2.errors import CheckpointError
from convnextv2.preprocessing import Preprocessing
from convnextv2.weights.containers import Container

_TIMM_EPS = {"convnext_xxlarge": 1e-5, "test_convnext": 1e-5, "test_convnext2": 1e-5}
"""Epsilon of all norms in those of timm's networks where it is not 1e-6."""
_XXLARGE = (3, 4, 30, 3)
"""The depths of timm's convnext_xxlarge. They identify it if there is no configuration."""

_TIMM_BUILT: dict[str, tuple[Any, ...]] = {
    "output_stride": (32, None),
    "global_pool": ("avg", "fast", "fastavg", "", None),
    "norm_layer": (None,),
}
"""Arguments of timm's model that change what it computes, with the values that can be built. The
first value is the usual one."""

_TIMM_SHOWN = """
    in_chans num_classes depths dims kernel_sizes ls_init_value stem_type patch_size
    norm_eps head_norm_first head_hidden_size conv_mlp conv_bias use_grn act_layer
"""
"""Arguments of timm's model that follow from the tensors' names and shapes, or are read below."""
_TIMM_IDLE = """
    head_init_scale drop_rate drop_path_rate device dtype pretrained pretrained_strict
    checkpoint_path scriptable exportable no_jit cache_dir num_features
"""
"""Arguments that have no effect on a trained network."""
_TIMM_UNDERSTOOD = frozenset((_TIMM_SHOWN + _TIMM_IDLE).split())
TIMM_PREPROCESSING = frozenset(
    """
    input_size interpolation crop_pct crop_mode mean std url file state_dict hf_hub_id
    hf_hub_filename source architecture tag custom_load test_input_size test_crop_pct
    test_pool_size min_input_size fixed_input_size pool_size num_classes num_features
    label_offset label_names label_descriptions labels first_conv classifier license description
    origin_url paper_name paper_ids notes global_pool
    """.split()
)

TIMM_NAMES = {
    "nearest": "nearest",
    "lanczos": "lanczos",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "area": "box",
}
"""timm's name for each kind of interpolation."""


def timm_eps(depths: tuple[int, ...], architecture: str = "") -> float:
    """Return the default epsilon of all norms in a network of timm.

    Args:
        depths: The number of blocks in each stage.
        architecture: timm's name for the network; empty if it is unknown.
    """
    return _TIMM_EPS.get(architecture, 1e-5 if depths == _XXLARGE else 1e-6)


def architecture(container: Container) -> str:
    """Return timm's name for the network in a configuration; empty if there is none."""
    return str(container.config.get("architecture", ""))


def check_timm_arguments(container: Container) -> None:
    """Raise CheckpointError if timm's arguments ask for a network that cannot be built here."""
    for name, value in timm_arguments(container).items():
        if name in _TIMM_BUILT and value not in _TIMM_BUILT[name]:
            usual = _TIMM_BUILT[name][0]
            raise CheckpointError(
                f"{container.config_path}: {name} = {ascii(value)[:60]}, but only {usual} can be "
                "built here."
            )
        if name not in _TIMM_BUILT and name not in _TIMM_UNDERSTOOD:
            raise CheckpointError(
                f"{container.config_path}: model_args has {ascii(name)[:60]} = "
                f"{ascii(value)[:60]}, which is not known here and may change what the model "
                "computes. Remove it there if it does not."
            )


def timm_notes(container: Container) -> list[str]:
    """List the values of timm's pretrained_cfg that have no effect here, as lines to print."""
    return [
        f"timm's pretrained_cfg: {ascii(name)[:60]} = {ascii(value)[:60]} is not known here, and "
        "is ignored."
        for name, value in (timm_pretrained_cfg(container) or {}).items()
        if (name not in TIMM_PREPROCESSING or name == "label_offset")
        and value not in (None, False, 0, "")
    ]


def timm_pretrained_cfg(container: Container) -> Mapping[str, Any] | None:
    """Return timm's pretrained_cfg, which is the whole of an old configuration."""
    config = container.config
    whole = config if "architecture" in config and "input_size" in config else None
    found = config.get("pretrained_cfg", whole)
    return found if isinstance(found, dict) else None


def timm_arguments(container: Container) -> Mapping[str, Any]:
    """Return timm's model_args, with the pooling that older versions of timm wrote beside them."""
    config = container.config
    arguments = config.get("model_args")
    beside = {"global_pool": config["global_pool"]} if "global_pool" in config else {}
    return beside | (arguments if isinstance(arguments, dict) else {})


def timm_preprocessing(
    timm: Mapping[str, Any], usual: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Read the preprocessing of images from timm's pretrained_cfg.

    Args:
        timm: The pretrained_cfg.
        usual: The values of `Description.preprocessing` that it does not state.

    Returns:
        The values of `Description.preprocessing`, and lines to print about what they cannot
        express.
    """
    mode = timm.get("crop_mode") or "center"
    named = {theirs: name for name, theirs in TIMM_NAMES.items()}
    found: dict[str, Any] = {
        **usual,
        "image_size": [int(side) for side in timm["input_size"][1:]],
        "crop_pct": float(timm["crop_pct"]),
        "interpolation": named[timm["interpolation"]],
        "mean": timm["mean"],
        "std": timm["std"],
    }
    if mode == "squash" and Preprocessing.read(found).warps and found["crop_pct"] == 1:
        return found, []
    found["eval_preset"] = "timm"
    if mode == "center":
        return found, []
    size = " x ".join(map(str, found["image_size"]))
    return found, [
        f"timm's crop_mode {ascii(mode)[:60]} at {size} px is not known here: images are cropped."
    ]
