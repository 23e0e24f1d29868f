"""A format of artifacts: how it is written, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.deploy.graph import Exportable

Array = NDArray[Any]

Runner = Callable[[Array], list[Array]]
"""A model that an artifact was opened as, in whatever engine its format needs.

It takes the input for any batch size, and returns the outputs in the order of the graph that the
artifact was made from. One thread may call it at a time."""

Files = Mapping[str, bytes]
"""The files of an artifact: name to content."""

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.float32,
}
"""The type of the weights that a graph has while it is exported, by the artifact's precision."""


@dataclass(frozen=True)
class ArtifactFormat:
    """One format of artifacts.

    Attributes:
        file: The name of the model's file in the artifact's folder.
        run_packages: The packages that running an artifact needs, besides PyTorch.
        write_packages: The packages that writing one needs as well.
        precisions: The precisions that the format has, of `PRECISIONS`.
        write: Writes a model. Takes the graph, an example of its input, the file, the precision,
            and whether the artifact shall take images of any size.
        open: Opens a model. Takes its files, the precision, and the number of threads.
    """

    file: str
    run_packages: tuple[str, ...]
    write_packages: tuple[str, ...]
    precisions: tuple[str, ...]
    write: Callable[[Exportable, Tensor, Path, str, bool], None]
    open: Callable[[Files, str, int], Runner]
