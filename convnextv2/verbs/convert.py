"""Take weights of any known format to another one."""

from __future__ import annotations

from pathlib import Path

from convnextv2.run import find_weights
from convnextv2.text import plain
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.load import open_weights


def convert(weights: str | Path, *, to: str, out: str | Path, ema: bool = False, allow_drift: bool = False) -> Path:
    """Write weights for another library.

    weights: a run folder, a file or Hub folder of any known format, or OWNER/NAME on the Hugging Face Hub. to: official, timm,
    transformers, mmpretrain, mindcv or convnextv2. out: a file where it has a suffix, else a folder in the Hub's layout. ema:
    take the averaged weights of a training checkpoint. allow_drift: write also what the target computes a little
    differently. Returns the path."""
    opened = open_weights(find_weights(weights), average=ema)
    for line in opened.lines() + convert_weights(opened, to, Path(out), allow_drift=allow_drift):
        print(plain(line))
    return Path(out)
