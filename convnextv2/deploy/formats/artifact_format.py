"""The functions that write and open a format of artifacts."""

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
"""An opened model, in the engine of its format.

It takes the input for any batch size, and returns the outputs in the order of the graph that the
artifact was made from. One thread may call it at a time."""

Files = Mapping[str, bytes]
"""The content of the files of an artifact, by name."""

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.float32,
}
"""The dtype of the weights of a graph while it is exported, by the artifact's precision."""


@dataclass(frozen=True)
class ArtifactFormat:
    """One format of artifacts.

    Attributes:
        file: The name of the model's file in the artifact's folder.
        run_packages: The packages that running an artifact needs, besides PyTorch.
        write_packages: The packages that writing one needs as well.
        precisions: The precisions that the format has, of `PRECISIONS`.
        write: Writes a model. Takes the graph, an example of its input, the file, the precision,
            and whether the artifact is to take images of any size.
        open: Opens a model. Takes its files, the precision, and the number of threads.
    """

    file: str
    run_packages: tuple[str, ...]
    write_packages: tuple[str, ...]
    precisions: tuple[str, ...]
    write: Callable[[Exportable, Tensor, Path, str, bool], None]
    open: Callable[[Files, str, int], Runner]
