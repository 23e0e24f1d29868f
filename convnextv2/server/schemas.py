"""The JSON of requests and answers. It is shown by OpenAPI, and requests are checked by it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, PrivateAttr


class ErrorDetail(BaseModel):
    """An error. Programs rely on `code`, which does not change; `message` says it in words."""

    code: str
    message: str


class ErrorBody(BaseModel):
    """The body of every error outside /v2."""

    error: ErrorDetail


class V2Error(BaseModel):
    """The body of every error under /v2.

    KServe's protocol has only the message. The code is in the header X-Error-Code.
    """

    error: str


class ImagesJson(BaseModel):
    """A request in JSON. `images` holds image files in base64."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[list[str], FailFast()] = Field(min_length=1)


class ClassProbability(BaseModel):
    """One class of one image."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(alias="class")
    prob: float


class Explanation(BaseModel):
    """The contribution of each part of the image to the logit of the most probable class.

    `map` holds rows of numbers, for the part of the image that the network saw. `seen` is the top,
    left, height and width of that part, as shares of the upright image.
    """

    map: list[list[float]]
    seen: tuple[float, float, float, float]


class LabelScore(BaseModel):
    """A label that one image has: its probability is at least the threshold."""

    name: str
    score: float
    threshold: float


class ImagePrediction(BaseModel):
    """The prediction of a classifier for one image.

    A model that gives an image one class returns `predictions`. A model that gives an image any
    number of labels returns `labels` and `scores`. `labels` are those that the image has; the list
    may be empty. `scores` has the probability of every class. A classifier that was fitted with a
    coverage also returns `possible`, the classes that cannot be excluded, the most probable first
    (there may be none); `foreign`, whether the image is unlike those that it was fitted on; and
    `foreignness`, which is above 1 for a foreign image.
    """

    image: str
    predictions: list[ClassProbability] | None = None
    possible: list[str] | None = None
    foreign: bool | None = None
    foreignness: float | None = None
    labels: list[LabelScore] | None = None
    scores: dict[str, float] | None = None
    embedding: list[float] | None = None
    explanation: Explanation | None = None


class PredictResponse(BaseModel):
    """The predictions of a classifier for the images of a request, in their order."""

    model: str
    version: str
    images: list[ImagePrediction]


class ReconstructResponse(BaseModel):
    """The reconstruction of an image by a pre-trained model, as PNG files in base64.

    `masked` is the input of the network. `reconstruction` has the original visible tiles. `seen` is
    the top, left, height and width of the part of the upright image that both show, as shares.
    """

    model: str
    version: str
    masked: str
    reconstruction: str
    seen: tuple[float, float, float, float]


class RunLengths(BaseModel):
    """A mask in COCO's form: height and width, and the compressed lengths of its runs."""

    size: tuple[int, int]
    counts: str


class DetectedObject(BaseModel):
    """One object in an image.

    `box` is x0, y0, x1, y1 in pixels of the upright image. `mask` or `polygons` are present if they
    were requested. If the server reduces the masks of large images, the size of `mask` is smaller
    than the image. Each polygon is a list of alternating x and y, in pixels of the image.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(alias="class")
    score: float
    box: tuple[float, float, float, float]
    mask: RunLengths | None = None
    polygons: list[list[float]] | None = None


class CountedClass(BaseModel):
    """A class of found objects, their number, and its colour in pictures."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(alias="class")
    index: int
    count: int
    colour: str


class DetectedImage(BaseModel):
    """The objects in one image, the best first, and the number of each class."""

    image: str
    height: int
    width: int
    objects: list[DetectedObject]
    classes: list[CountedClass]
    overlay: str | None = None


class DetectResponse(BaseModel):
    """The objects that a detector finds in the images of a request, in their order."""

    model: str
    version: str
    images: list[DetectedImage]


class PixelClass(BaseModel):
    """A class of pixels, its share of the image, and its colour in pictures."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(alias="class")
    index: int
    share: float
    colour: str


class ClassRuns(BaseModel):
    """The mask of a class, as the compressed lengths of its runs, of the map's size."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(alias="class")
    index: int
    counts: str


class ClassMap(BaseModel):
    """The class of every pixel, as a PNG file of class numbers in base64, or as runs."""

    height: int
    width: int
    png: str | None = None
    rle: list[ClassRuns] | None = None


class SegmentedImage(BaseModel):
    """The classes of the pixels of one image, the largest share first."""

    image: str
    height: int
    width: int
    classes: list[PixelClass]
    map: ClassMap | None = None
    overlay: str | None = None


class SegmentResponse(BaseModel):
    """The classes that a segmentor finds in the images of a request, in their order."""

    model: str
    version: str
    images: list[SegmentedImage]


class ModelVersion(BaseModel):
    """One version of a model.

    `thresholds` has the lowest probability at which each class counts, if the kind is multi_label.
    `coverage` is the share of images whose right class is among the possible ones; null if the
    model returns neither possible classes nor foreign images.
    """

    version: str
    engine: str
    sha256: str
    kind: Literal["classifier", "multi_label", "pre-trained", "segmentation", "detection"]
    image_size: tuple[int, int]
    class_names: list[str]
    thresholds: list[float]
    coverage: float | None
    preprocessing: dict[str, Any]
    notes: list[str]
    certificate: dict[str, Any]


class ModelInfo(BaseModel):
    """One model. The newest version comes last."""

    name: str
    versions: list[ModelVersion]


class ModelList(BaseModel):
    """The names of all models."""

    models: list[str]


class Status(BaseModel):
    """The state of the server."""

    status: Literal["ok", "ready"]


# ---- KServe's inference protocol, version 2 ----


class V2Tensor(BaseModel):
    """A tensor of a request.

    `image_files` (BYTES) are image files, which JSON holds in base64. `pixels` (UINT8) have the
    model's size, (N, H, W, C), row by row. A tensor has either `data` or, in `parameters`,
    `binary_data_size`.
    """

    name: Literal["image_files", "pixels"]
    shape: Annotated[list[int], FailFast()] = Field(min_length=1, max_length=4)
    datatype: Literal["BYTES", "UINT8"]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}
    _raw: bytes | None = PrivateAttr(None)

    @property
    def raw(self) -> bytes | None:
        """The values, if they came in binary form."""
        return self._raw

    @raw.setter
    def raw(self, value: bytes) -> None:
        self._raw = value


class V2Wanted(BaseModel):
    """An output that a request wants.

    Its `parameters` may hold `binary_data` (the binary form) and `classification` (how many of the
    most probable classes).
    """

    name: Literal["probs", "embedding"]
    parameters: dict[str, Any] = {}


class V2Request(BaseModel):
    """A request with one input.

    `outputs` names the wanted outputs; if it is empty, all are returned. The parameter
    `binary_data_output` requests the binary form of all outputs.
    """

    id: str = ""
    inputs: Annotated[list[V2Tensor], FailFast()] = Field(min_length=1, max_length=1)
    parameters: dict[str, Any] = {}
    outputs: Annotated[list[V2Wanted], FailFast()] = Field([], max_length=2)


class V2Output(BaseModel):
    """A tensor of an answer. It has either `data` or, in `parameters`, `binary_data_size`."""

    name: str
    shape: list[int]
    datatype: Literal["FP32", "BYTES"]
    data: list[float | str] | None = None
    parameters: dict[str, Any] = {}


class V2Response(BaseModel):
    """An answer with its outputs."""

    id: str
    model_name: str
    model_version: str
    outputs: list[V2Output]


class V2Metadata(BaseModel):
    """The inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


class V2Config(BaseModel):
    """The inputs and outputs of a model, in the form of Triton's model configuration."""

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
    """A request for the index. With `ready`, it lists only the versions that are ready."""

    ready: bool = False


class V2LoadRequest(BaseModel):
    """A request to load a model again."""

    parameters: dict[str, Any] = {}


class V2Loaded(BaseModel):
    """The changes made by loading a model again; empty if its files are unchanged."""

    name: str
    changes: list[str]


class V2Server(BaseModel):
    """The server's name, its version, and the extensions of the protocol that it has."""

    name: str
    version: str
    extensions: list[str]


class V2Live(BaseModel):
    """The liveness of the server."""

    live: bool


class V2Ready(BaseModel):
    """The readiness of the server or of a model."""

    ready: bool


_WHY = {
    400: "The request cannot be understood.",
    401: "The API key is missing or wrong.",
    404: "There is no such model or version.",
    408: "The body arrived too slowly.",
    413: "The body, the number of images or an image is too large.",
    415: "The body is not an image that the server can read, or has another content type.",
    422: "A parameter has a wrong value.",
    429: "Too many images or bodies are waiting. Retry-After says when to retry.",
    503: "Not ready, shutting down, or no answer within the deadline. Retry-After says when to "
    "retry.",
}
"""The meaning of each status of a refusal."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": why} for status, why in _WHY.items()
}
"""The refusals of every path that takes a body, for OpenAPI."""

V2_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": V2Error, "description": why} for status, why in _WHY.items()
}
"""The refusals of every path under /v2 that takes a body, for OpenAPI."""
