"""What goes over the wire, for OpenAPI and for the checks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, PrivateAttr


class ErrorDetail(BaseModel):
    """code: stable, for programs. message: for people."""

    code: str
    message: str


class ErrorBody(BaseModel):
    """The body of every error, but under /v2."""

    error: ErrorDetail


class V2Error(BaseModel):
    """The body of every error under /v2: the message alone, as KServe's protocol has it. The code is in X-Error-Code."""

    error: str


class ImagesJson(BaseModel):
    """A request in JSON. images: image files, base64."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[list[str], FailFast()] = Field(min_length=1)


class ClassProbability(BaseModel):
    """One class of one image."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(alias="class")
    prob: float


class Explanation(BaseModel):
    """How much each part of what the network saw adds to the logit of the most probable class. map: rows of numbers. seen: top,
    left, height and width of what the network saw, as shares of the upright image."""

    map: list[list[float]]
    seen: tuple[float, float, float, float]


class ImagePrediction(BaseModel):
    """Of one image."""

    image: str
    predictions: list[ClassProbability]
    embedding: list[float] | None = None
    explanation: Explanation | None = None


class PredictResponse(BaseModel):
    """Of one request, in the images' order."""

    model: str
    version: str
    images: list[ImagePrediction]


class ReconstructResponse(BaseModel):
    """PNG files, base64: what the network sees of the image, what is left of it, and the reconstruction."""

    model: str
    version: str
    masked: str
    reconstruction: str
    seen: tuple[float, float, float, float]


class ModelVersion(BaseModel):
    """One version of a model."""

    version: str
    engine: str
    sha256: str
    kind: Literal["classifier", "pre-trained"]
    image_size: tuple[int, int]
    class_names: list[str]
    preprocessing: dict[str, Any]
    notes: list[str]
    certificate: dict[str, Any]


class ModelInfo(BaseModel):
    """One model, its newest version last."""

    name: str
    versions: list[ModelVersion]


class ModelList(BaseModel):
    """All models."""

    models: list[str]


class Status(BaseModel):
    """Of the server."""

    status: Literal["ok", "ready"]


# ---- KServe's inference protocol, version 2 ----


class V2Tensor(BaseModel):
    """A tensor of a request. image_files (BYTES): image files, in JSON as base64. pixels (UINT8): at the model's size,
    (N, H, W, C), row by row. data: None where parameters has binary_data_size."""

    name: Literal["image_files", "pixels"]
    shape: Annotated[list[int], FailFast()] = Field(min_length=1, max_length=4)
    datatype: Literal["BYTES", "UINT8"]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}
    _raw: bytes | None = PrivateAttr(None)

    @property
    def raw(self) -> bytes | None:
        """The values in binary form, where they came so."""
        return self._raw

    @raw.setter
    def raw(self, value: bytes) -> None:
        self._raw = value


class V2Wanted(BaseModel):
    """An output that a request asks for. parameters: binary_data for the binary form; classification for the best classes."""

    name: Literal["probs", "embedding"]
    parameters: dict[str, Any] = {}


class V2Request(BaseModel):
    """A request: one input. outputs: those that are wanted, or none for all. parameters: binary_data_output for all outputs."""

    id: str = ""
    inputs: Annotated[list[V2Tensor], FailFast()] = Field(min_length=1, max_length=1)
    parameters: dict[str, Any] = {}
    outputs: Annotated[list[V2Wanted], FailFast()] = Field([], max_length=2)


class V2Output(BaseModel):
    """A tensor of an answer. data: None where parameters has binary_data_size."""

    name: str
    shape: list[int]
    datatype: Literal["FP32", "BYTES"]
    data: list[float | str] | None = None
    parameters: dict[str, Any] = {}


class V2Response(BaseModel):
    """An answer."""

    id: str
    model_name: str
    model_version: str
    outputs: list[V2Output]


class V2Metadata(BaseModel):
    """What a model takes and returns."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


class V2Config(BaseModel):
    """What a model takes and returns, in the form of Triton's model configuration."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]


class V2Indexed(BaseModel):
    """One version in the model repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class V2IndexRequest(BaseModel):
    """What the index shall hold. ready: only what answers."""

    ready: bool = False


class V2LoadRequest(BaseModel):
    """How a model shall be loaded."""

    parameters: dict[str, Any] = {}


class V2Loaded(BaseModel):
    """What loading a model again has changed; nothing where it lies there as before."""

    name: str
    changes: list[str]


class V2Server(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class V2Live(BaseModel):
    """Liveness."""

    live: bool


class V2Ready(BaseModel):
    """Readiness, of the server or of a model."""

    ready: bool


_WHY = {
    400: "The request cannot be understood.",
    401: "The API key is missing or wrong.",
    404: "There is no such model or version.",
    408: "The body came too slowly.",
    413: "The body, the number of images or an image is too large.",
    415: "What was sent is no image that is read here, or of another content type.",
    422: "A parameter has a wrong value.",
    429: "Too much is waiting. Retry-After says when to come again.",
    503: "Not ready, shutting down, or no answer within the deadline. Retry-After says when to come again.",
}
"""What each status of a refusal means."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": why} for status, why in _WHY.items()
}
"""Of every path that takes a request's body."""

V2_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": V2Error, "description": why} for status, why in _WHY.items()
}
"""Of every path under /v2 that does."""
