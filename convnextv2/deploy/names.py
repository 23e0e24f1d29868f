"""The names of formats and precisions of artifacts, for options and descriptions alike.

This module needs no PyTorch. `formats.ARTIFACT_FORMATS` says what each format does.
"""

from __future__ import annotations

from typing import Literal

FormatName = Literal["onnx", "torch", "aoti", "openvino"]
PrecisionName = Literal["float32", "float16", "bfloat16", "int8"]
