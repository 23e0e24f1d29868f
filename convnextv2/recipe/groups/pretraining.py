"""The knobs of pre-training (FCMAE)."""

from __future__ import annotations

from functools import partial

from convnextv2.preprocessing import LONGEST_SIDE_PX
from convnextv2.recipe.groups.declare import Knobs, declare
from convnextv2.sizes import MAX_BLOCKS, MAX_WIDTH

_pretrain = partial(declare, group="pre-training", only="pretrain")


class PretrainingKnobs(Knobs):
    """The knobs of pre-training (FCMAE)."""

    mask_ratio: float = _pretrain(0.6, "Share of the tiles that is masked.", gt=0, lt=1)
    tile: int | None = _pretrain(
        None,
        "Side of a tile. If empty, the total stride (8 x stem_stride).",
        unit="px",
        ge=1,
        le=LONGEST_SIDE_PX,
    )
    norm_target: bool = _pretrain(
        True, "Normalise the pixels of each masked tile before they serve as targets of the loss."
    )
    decoder_dim: int = _pretrain(512, "Number of channels in the decoder.", ge=1, le=MAX_WIDTH)
    decoder_depth: int = _pretrain(1, "Number of blocks in the decoder.", ge=1, le=MAX_BLOCKS)
    health_every_epochs: int | None = _pretrain(
        None,
        "Number of epochs between examinations of the features and gradients on a fixed set of "
        "images, for the report. They also take place before the first epoch and after the last "
        "one. If empty, there are none.",
        unit="epochs",
        ge=1,
        le=1_000_000,
    )
    probe_every_epochs: int | None = _pretrain(
        None,
        "Number of epochs between probes of the frozen features, by nearest neighbours and a "
        "linear layer, which needs labelled images. They also take place before the first epoch "
        "and after the last one. If empty, there are none.",
        unit="epochs",
        ge=1,
        le=1_000_000,
    )
    probe_dir: str = _pretrain(
        "",
        "Labelled images for `probe_every_epochs`: a folder or a table. If empty, those of the "
        "run.",
        idle=("no_probe",),
    )
