"""Post-training quantisation to int8, calibrated on real images.

Weights are quantised per channel, activations per tensor.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.errors import DataError, MissingPackageError

CALIBRATION_IMAGES = 128
"""The largest number of images for calibration."""

MIN_IMAGES = 50
"""The smallest number of images for calibration, and for the measurement."""

_BATCH = 8


def calibration_images(count: int) -> Tensor:
    """Choose the images for calibration.

    They are evenly spread, and at most half of all images. An int8 model looks better than it is on
    the images that it was calibrated on, so it is measured on the others.

    Args:
        count: The number of images.

    Returns:
        Whether each image is used for calibration, bool (count,).

    Raises:
        DataError: There are too few images to calibrate and to measure on.
    """
    if count < 2 * MIN_IMAGES:
        raise DataError(
            f"precision = int8: only {count} images to calibrate and to measure on. Give at least "
            f"{2 * MIN_IMAGES}, with data_dir or a larger number of images."
        )
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.linspace(0, count - 1, min(count // 2, CALIBRATION_IMAGES)).round().long()] = True
    return chosen


def quantise(format: str, path: Path, input: str, images: NDArray[Any]) -> None:
    """Replace the float32 model of an artifact by its int8 form.

    Args:
        format: "onnx" or "openvino".
        path: The model's file.
        input: The name of the model's input.
        images: Inputs of the model, (N, ...), on which it is calibrated.

    Raises:
        MissingPackageError: A package is not installed.
    """
    parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    {"onnx": _onnx, "openvino": _openvino}[format](path, input, parts)


def _onnx(path: Path, input: str, parts: list[NDArray[Any]]) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._parts: Iterator[NDArray[Any]] = iter(parts)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            part = next(self._parts, None)
            return None if part is None else {input: part}

    prepared, quantised = path.with_name("prepared.onnx"), path.with_name("quantised.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    # Matrix products are nine tenths of the arithmetic. Quantising the depthwise convolution and
    # the norms would lose accuracy and gain no speed.
    quantize_static(
        str(prepared),
        str(quantised),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()
    os.replace(quantised, path)


def _openvino(path: Path, input: str, parts: list[NDArray[Any]]) -> None:
    if not find_spec("nncf"):
        raise MissingPackageError("nncf", "export")
    # nncf draws progress bars, and logs that there is no GPU.
    with contextlib.redirect_stdout(io.StringIO()):
        import nncf
        import openvino

        nncf.set_log_level(logging.ERROR)
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        model = openvino.Core().read_model(str(path))
        quantised = nncf.quantize(
            model,
            nncf.Dataset(parts),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(parts),
        )
    del model  # it holds the file of its weights open
    for suffix in (".xml", ".bin"):
        path.with_suffix(suffix).unlink(missing_ok=True)
    openvino.save_model(quantised, str(path), compress_to_fp16=False)
