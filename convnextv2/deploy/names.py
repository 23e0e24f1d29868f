"""The names of formats and precisions of artifacts, for options and descriptions.

This module does not import PyTorch. The formats themselves are in `formats.ARTIFACT_FORMATS`.
"""

from __future__ import annotations

from typing import Literal

FormatName = Literal["onnx", "torch", "aoti", "openvino"]
PrecisionName = Literal["float32", "float16", "bfloat16", "int8"]
