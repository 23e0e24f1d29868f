"""Export a graph by torch.export. Every format is made from the resulting program."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.deploy.formats.artifact_format import DTYPES
from convnextv2.deploy.graph import Exportable


def export_program(
    graph: Exportable, example: Tensor, precision: str, dynamic: bool
) -> torch.export.ExportedProgram:
    """Export a graph for any batch size.

    Args:
        graph: The graph. Its weights are converted to the precision in place.
        example: An input of the graph.
        precision: The arithmetic; a key of `DTYPES`.
        dynamic: Whether the program takes images of any multiple of the total stride.

    Returns:
        The program.
    """
    graph.model.to(DTYPES[precision])
    batch, stride = torch.export.Dim("batch", min=1, max=4096), graph.total_stride
    shape: dict[int, Any] = {0: batch}
    if dynamic:
        first = 2 if graph.input == "images" else 1
        shape |= {
            first + i: stride * torch.export.Dim(name, min=1, max=512)
            for i, name in enumerate(("rows", "columns"))
        }
    # The example has two images, because torch.export treats a size of one as a constant.
    example = example[:1].expand(2, *example.shape[1:]).contiguous()
    assert isinstance(graph, nn.Module)
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes=(shape,))


_TALKERS = ("onnx", "utils.cpp_extension", "_inductor.package.package")
"""The modules of PyTorch that log lines about exporting, and about opening what was exported."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' warnings and log lines, which are about themselves."""
    loggers = [logging.getLogger(f"torch.{name}") for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
