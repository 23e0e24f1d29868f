"""The answers of verbs as JSON, each described once.

`--json` prints these to stdout. The documentation's page of answers is made from the declarations,
and tests compare them with what the verbs print. Keys keep their names and meanings; a new version
may add keys. Numbers that are not finite are null.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, NotRequired

from pydantic import Field
from typing_extensions import TypedDict


def _is(meaning: str) -> Any:
    return Field(description=meaning)


_Path = Annotated[str, _is("The path that was written.")]
_Sha256 = Annotated[str, _is("SHA-256 of the weights, in hexadecimal.")]
_Licence = Annotated[str, _is("What the licence asks for; empty if nothing is known.")]
_Preprocessing = Annotated[
    dict[str, Any], _is("How evaluation images are prepared; see `model.json`.")
]
_Provenance = Annotated[dict[str, Any], _is("Where the weights came from.")]
_ClassNames = Annotated[list[str], _is("The classes in the order of their numbers.")]
_Lines = Annotated[list[str], _is("Lines for people.")]

Prediction = TypedDict(
    "Prediction",
    {
        "class": Annotated[str, _is("The name of the class.")],
        "prob": Annotated[float, _is("The probability, from 0 to 1.")],
    },
)


class Predicted(TypedDict):
    """The prediction of one image. The last three are there if a coverage was fitted."""

    image: Annotated[str, _is("The path of the image.")]
    predictions: Annotated[list[Prediction], _is("The best class first.")]
    possible: NotRequired[
        Annotated[list[str], _is("The classes that cannot be excluded, the best first.")]
    ]
    foreign: NotRequired[Annotated[bool, _is("Whether it is unlike the validation images.")]]
    foreignness: NotRequired[Annotated[float, _is("How unlike; above 1 for a foreign image.")]]


class Label(TypedDict):
    """A label that an image has."""

    name: Annotated[str, _is("The name of the class.")]
    score: Annotated[float, _is("The probability, from 0 to 1.")]
    threshold: Annotated[float, _is("The probability from which on the label counts.")]


class PredictedLabels(TypedDict):
    """The labels of one image, of a model that gives an image any number of them."""

    image: Annotated[str, _is("The path of the image.")]
    labels: Annotated[list[Label], _is("The most probable label first; there may be none.")]
    scores: Annotated[dict[str, float], _is("The probability of every class by its name.")]


Share = TypedDict(
    "Share",
    {
        "class": Annotated[str, _is("The name of the class.")],
        "share": Annotated[float, _is("The share of the pixels, from 0 to 1.")],
    },
)


class PredictedMap(TypedDict):
    """The classes of the pixels of one image."""

    image: Annotated[str, _is("The path of the image.")]
    height: Annotated[int, _is("Of the image, in pixels.")]
    width: Annotated[int, _is("Of the image, in pixels.")]
    classes: Annotated[list[Share], _is("The classes that occur, the largest share first.")]
    overlay: NotRequired[Annotated[str, _is("The picture for people, with `--out`.")]]
    index: NotRequired[Annotated[str, _is("The picture of class indices, with `--out`.")]]


class LabelFigures(TypedDict):
    """The figures that follow from labels above a threshold."""

    f1_macro: Annotated[float, _is("The mean F1 of the classes that occur.")]
    f1_micro: Annotated[float, _is("F1 of the labels of all classes together.")]
    exact_match: Annotated[float, _is("The share of images with no wrong label.")]
    hamming: Annotated[float, _is("The share of wrong labels.")]
    precision: Annotated[list[float | None], _is("null for a class that was never predicted.")]
    recall: Annotated[list[float | None], _is("null for a class that no image has.")]
    f1: Annotated[list[float | None], _is("null for a class that no image has.")]
    counts: Annotated[
        list[list[int]], _is("For each class: labels found, found ones that are wrong, and missed.")
    ]


class ValidatedLabels(TypedDict):
    """The figures of a model that gives an image any number of labels."""

    weights: Annotated[str, _is("The path of the weights or the artifact.")]
    report: Annotated[str, _is("The path of the page for people.")]
    class_names: _ClassNames
    skipped: Annotated[list[str], _is("The images that could not be read.")]
    images: Annotated[int, _is("The number of images.")]
    loss: Annotated[float | None, _is("The mean binary cross entropy of the known labels.")]
    map_macro: Annotated[float | None, _is("The mean average precision over the classes.")]
    map_micro: Annotated[float | None, _is("The average precision of all labels together.")]
    ap: Annotated[list[float | None], _is("null for a class that no image has.")]
    support: Annotated[list[int], _is("The number of images that have each class.")]
    unknown: Annotated[int, _is("The number of labels that are not known.")]
    empty: Annotated[int, _is("The number of images that have none of the classes.")]
    absent: Annotated[int, _is("The number of classes that no image has.")]
    at_half: Annotated[LabelFigures, _is("If a label counts from 0.5 on.")]
    fitted: Annotated[LabelFigures | None, _is("At the thresholds; null without them.")]
    thresholds: Annotated[list[float], _is("One for each class; empty if there are none.")]
    together: Annotated[list[list[int]], _is("The number of images that have both classes.")]


class ClassOfPixels(TypedDict):
    """The figures of one class of pixels."""

    name: Annotated[str, _is("The name of the class.")]
    iou: Annotated[float | None, _is("Intersection over union; null if it does not occur.")]
    recall: Annotated[float | None, _is("The share that was found; null without pixels.")]
    pixels: Annotated[int, _is("The pixels of the class.")]


Confusion = TypedDict(
    "Confusion",
    {
        "class": Annotated[str, _is("The right class.")],
        "predicted": Annotated[str, _is("The class that was predicted.")],
        "pixels": Annotated[int, _is("The number of pixels.")],
    },
)


class ValidatedMaps(TypedDict):
    """The figures of a segmentor."""

    weights: Annotated[str, _is("The path of the weights.")]
    report: Annotated[str, _is("The path of the page for people.")]
    class_names: _ClassNames
    skipped: Annotated[list[str], _is("The images that could not be read.")]
    images: Annotated[int, _is("The number of images.")]
    miou: Annotated[float, _is("The mean IoU over the classes that occur or are predicted.")]
    pixel_accuracy: Annotated[float, _is("The share of pixels whose class was found.")]
    mean_accuracy: Annotated[float, _is("The mean recall over the classes that occur.")]
    classes_counted: Annotated[int, _is("The number of classes that the mean IoU is over.")]
    classes: Annotated[list[ClassOfPixels], _is("In the order of their numbers.")]
    confusions: Annotated[list[Confusion], _is("The most frequent mistakes, at most 15.")]


class FoundMask(TypedDict):
    """A mask as a run-length code of COCO."""

    size: Annotated[list[int], _is("Height and width of the image, in pixels.")]
    counts: Annotated[str, _is("The code in its compressed form.")]


FoundObject = TypedDict(
    "FoundObject",
    {
        "class": Annotated[str, _is("The name of the class.")],
        "score": Annotated[float, _is("How sure the detector is, from 0 to 1.")],
        "box": Annotated[list[float], _is("x0, y0, x1 and y1, in pixels.")],
        "mask": NotRequired[Annotated[FoundMask, _is("What it covers, if masks are found.")]],
    },
)


class PredictedObjects(TypedDict):
    """The objects in one image."""

    image: Annotated[str, _is("The path of the image.")]
    width: Annotated[int, _is("In pixels, upright as EXIF says.")]
    height: Annotated[int, _is("The same.")]
    objects: Annotated[list[FoundObject], _is("The best object first; there may be none.")]


class AveragePrecision(TypedDict):
    """The average precision of boxes or of masks."""

    ap: Annotated[float | None, _is("The mean over IoU from 0.5 to 0.95; null without objects.")]
    ap50: Annotated[float | None, _is("At an IoU of 0.5.")]
    ap75: Annotated[float | None, _is("At an IoU of 0.75.")]
    ap_small: Annotated[float | None, _is("Of objects below 32 x 32 pixels.")]
    ap_medium: Annotated[float | None, _is("Of objects between these.")]
    ap_large: Annotated[float | None, _is("Of objects above 96 x 96 pixels.")]
    recall: Annotated[float | None, _is("The mean of the largest recall.")]
    by_class: Annotated[list[float | None], _is("ap of each class; null without objects.")]
    by_class50: Annotated[list[float | None], _is("ap50 of each class.")]


class ValidatedObjects(TypedDict):
    """The figures of a detector."""

    weights: Annotated[str, _is("The path of the weights.")]
    report: Annotated[str, _is("The path of the page for people.")]
    class_names: _ClassNames
    skipped: Annotated[list[str], _is("The images that could not be read.")]
    images: Annotated[int, _is("The number of images.")]
    objects: Annotated[list[int], _is("The number of objects of each class, without crowds.")]
    found: Annotated[int, _is("The number of objects found, at any score.")]
    ap: Annotated[float | None, _is("That of masks if there are any, else that of boxes.")]
    ap50: Annotated[float | None, _is("The same at an IoU of 0.5.")]
    ap75: Annotated[float | None, _is("The same at an IoU of 0.75.")]
    box_ap: NotRequired[Annotated[float | None, _is("That of boxes, if there are masks.")]]
    box_ap50: NotRequired[Annotated[float | None, _is("The same at an IoU of 0.5.")]]
    boxes: Annotated[AveragePrecision, _is("The figures of boxes.")]
    masks: Annotated[AveragePrecision | None, _is("The figures of masks; null without masks.")]


class CoverageFound(TypedDict):
    """How the "unknown" answer fares on images that it was not fitted on."""

    asked: Annotated[float, _is("The coverage that was asked for.")]
    covered: Annotated[float, _is("The share of images whose right class is possible.")]
    images: Annotated[int, _is("The number of these images.")]
    fitted_images: Annotated[int, _is("The number of images that it was fitted on.")]
    mean_possible: Annotated[float, _is("How many classes are possible, on average.")]
    none_possible: Annotated[float, _is("The share of images without a possible class.")]
    foreign: Annotated[float, _is("The share of images that count as foreign.")]


class AnswersFound(TypedDict):
    """How often the most probable class is one of several right ones."""

    top1: Annotated[float, _is("The share of images.")]
    images: Annotated[int, _is("The number of images with a right class.")]


class Validated(TypedDict):
    """The figures of a classifier. Those of each class are lists in the order of the classes."""

    weights: Annotated[str, _is("The path of the weights or the artifact.")]
    report: Annotated[str, _is("The path of the page for people.")]
    class_names: _ClassNames
    skipped: Annotated[list[str], _is("The images that could not be read.")]
    images: Annotated[int, _is("The number of images.")]
    top1: Annotated[float, _is("The share of images whose most probable class is right.")]
    top5: Annotated[float | None, _is("The top-5 accuracy; null below five classes.")]
    loss: Annotated[float | None, _is("The mean loss.")]
    balanced_accuracy: Annotated[float, _is("The mean recall over the classes that occur.")]
    macro_precision: Annotated[float, _is("The mean of the precision over the classes.")]
    macro_recall: Annotated[float, _is("The mean of the recall over the classes.")]
    macro_f1: Annotated[float, _is("The mean of F1 over the classes.")]
    ece: Annotated[float, _is("The expected calibration error.")]
    precision: Annotated[list[float | None], _is("null for a class that was never predicted.")]
    recall: Annotated[list[float | None], _is("null for a class without images.")]
    f1: Annotated[list[float | None], _is("null for a class that does not occur.")]
    support: Annotated[list[int], _is("The number of images of each class.")]
    confusion: NotRequired[
        Annotated[
            list[list[int]],
            _is("Rows are targets, columns are predictions. Up to 2,000 classes."),
        ]
    ]
    pairs: NotRequired[
        Annotated[
            list[list[int]],
            _is("Above 2,000 classes: target, prediction and images of each pair that occurs."),
        ]
    ]
    calibration: Annotated[
        list[list[float | None]], _is("Images, mean confidence and accuracy of each bin.")
    ]
    answers: NotRequired[Annotated[AnswersFound, _is("With `--answers`.")]]
    sizes: NotRequired[
        Annotated[
            dict[str, Any], _is("With `--sizes`: the same figures by the image size in pixels.")
        ]
    ]
    intervals: NotRequired[
        Annotated[
            dict[str, list[float]],
            _is("The ends of the 95 % intervals of top1, top5, balanced_accuracy and macro_f1."),
        ]
    ]
    unknown: NotRequired[Annotated[CoverageFound, _is("With `--coverage`.")]]


class FailedImage(TypedDict):
    """An image that could not be read."""

    path: Annotated[str, _is("The path of the image.")]
    error: Annotated[str, _is("What is wrong with it.")]


class Embedded(TypedDict):
    """Embeddings that were written."""

    path: _Path
    rows: Annotated[int, _is("The number of images.")]
    dimensions: Annotated[int, _is("The length of an embedding.")]
    normalize: Annotated[str, _is("none or l2.")]
    files: Annotated[list[str], _is("All files that were written.")]
    failed: Annotated[list[FailedImage], _is("The images without a row.")]
    sha256: _Sha256
    licence: _Licence


class Exported(TypedDict):
    """An artifact."""

    path: _Path
    format: Annotated[str, _is("onnx, openvino, aoti, ...")]
    precision: Annotated[str, _is("The arithmetic.")]
    input: Annotated[str, _is("images or pixels.")]
    outputs: Annotated[list[str], _is("The names of what it returns.")]
    sha256: Annotated[str, _is("SHA-256 of the model's file.")]
    licence: _Licence
    certificate: Annotated[dict[str, Any], _is("As in certificate.json.")]


class Converted(TypedDict):
    """Weights in the format of another library."""

    path: _Path
    format: Annotated[str, _is("The format, as in `--to`.")]
    notes: _Lines


class Pushed(TypedDict):
    """A repository of the Hub."""

    repository: Annotated[str, _is("OWNER/NAME.")]
    url: Annotated[str, _is("Its address; empty with `--dry_run`.")]
    folder: Annotated[str, _is("The folder that was kept; empty without `--out`.")]
    format: Annotated[str, _is("transformers or timm.")]
    files: Annotated[list[str], _is("The files of the repository.")]
    license: Annotated[str, _is("The licence on the card; empty if there is none.")]
    base_model: Annotated[str, _is("Where training started from; empty if unknown.")]


class LeftOut(TypedDict):
    """A tensor that is not part of the network."""

    name: Annotated[str, _is("The name of the tensor.")]
    reason: Annotated[str, _is("Why it is not used.")]


class Inspected(TypedDict):
    """A weights file."""

    path: Annotated[str, _is("The file or folder.")]
    bytes: Annotated[int, _is("The size of all its files.")]
    sha256: _Sha256
    format: Annotated[str, _is("convnextv2, timm, official, transformers, ...")]
    container: Annotated[str, _is("The kind of file, such as safetensors.")]
    kind: Annotated[str, _is("classifier, multi_label, encoder, fcmae, segmentation or detection.")]
    model: Annotated[str, _is("The size, such as convnextv2_tiny; custom for others.")]
    arguments: Annotated[dict[str, Any], _is("The arguments of the network.")]
    fcmae: Annotated[dict[str, Any], _is("The arguments of FCMAE; empty for other kinds.")]
    head: Annotated[dict[str, Any], _is("Arguments of the head of a segmentor or detector.")]
    tensors: Annotated[int, _is("The number of tensors.")]
    parameters: Annotated[int, _is("The number of parameters.")]
    dtypes: Annotated[list[str], _is("The types of the tensors.")]
    preprocessing: _Preprocessing
    class_names: _ClassNames
    training: Annotated[dict[str, Any], _is("Step, epoch and the figures measured then.")]
    provenance: _Provenance
    licence: _Licence
    has_average: Annotated[bool, _is("Whether an average of the weights is beside them.")]
    not_finite: Annotated[list[str], _is("The tensors with NaN or infinite values.")]
    left_out: Annotated[list[LeftOut], _is("What is not part of the network.")]
    notes: _Lines


class PairedFigures(TypedDict):
    """A model compared with the first one, image by image."""

    images: Annotated[int, _is("The images that both could read.")]
    gained: Annotated[int, _is("Images that only this model gets right.")]
    lost: Annotated[int, _is("Images that only the first model gets right.")]
    difference: Annotated[float, _is("Accuracy less that of the first model, from -1 to 1.")]
    interval: Annotated[list[float], _is("The 95 % interval of the difference.")]
    p_value: Annotated[float, _is("McNemar's exact test, two-sided.")]


class ComparedModel(TypedDict):
    """One of the models that are compared."""

    path: Annotated[str, _is("The path that was given.")]
    top1: Annotated[float | None, _is("null for pre-training.")]
    balanced_accuracy: Annotated[float | None, _is("null for pre-training.")]
    paired: Annotated[PairedFigures | None, _is("null for the first model and pre-training.")]


class Comparison(TypedDict):
    """Models that were measured on the same images."""

    page: _Path
    models: Annotated[list[ComparedModel], _is("In the order in which they were given.")]


class Probed(TypedDict):
    """What probes of frozen features found."""

    weights: Annotated[str, _is("The path of the weights or the artifact.")]
    knn: Annotated[float, _is("The accuracy of the nearest neighbours, from 0 to 1.")]
    linear: Annotated[float, _is("The accuracy of the linear probe, from 0 to 1.")]
    l2: Annotated[float, _is("The regularisation of the linear probe.")]
    commonest: Annotated[float, _is("The share of the most frequent class.")]
    training_images: Annotated[int, _is("The training images.")]
    validation_images: Annotated[int, _is("The validation images.")]


class Sides(TypedDict):
    """Sides of images."""

    min: Annotated[int, _is("In pixels.")]
    median: Annotated[float, _is("In pixels.")]
    max: Annotated[int, _is("In pixels.")]


class CorrectedData(TypedDict):
    """What is left of a data set without its faults."""

    path: Annotated[str | None, _is("The table or folder for data_dir; null if nothing is left.")]
    images: Annotated[int, _is("The images in it.")]
    dropped: Annotated[dict[str, int], _is("Reason: number of images that are left out.")]
    changed: Annotated[int, _is("The labels that were changed.")]


class ClassImages(TypedDict):
    """How often a class occurs."""

    name: Annotated[str, _is("The name of the class.")]
    images: Annotated[dict[str, int], _is("Split: number of images that have it.")]
    amounts: Annotated[dict[str, int], _is("Split: objects or pixels; empty for classification.")]


class Audited(TypedDict):
    """What an audit found. `audit.json` has the findings as well."""

    out: _Path
    data: Annotated[str, _is("The folder or table.")]
    task: Annotated[str, _is("classification, segmentation or detection.")]
    images: Annotated[int, _is("The images.")]
    splits: Annotated[dict[str, int], _is("Split: number of images.")]
    classes: Annotated[list[ClassImages], _is("The classes.")]
    width: Annotated[Sides, _is("The widths.")]
    height: Annotated[Sides, _is("The heights.")]
    formats: Annotated[dict[str, int], _is("Format: number of files.")]
    bands: Annotated[dict[str, int], _is("Number of bands: number of files.")]
    file_bytes: Annotated[int, _is("The size of all files.")]
    counts: Annotated[dict[str, int], _is("Kind of finding: how many there are.")]
    annotations: Annotated[list[str], _is("What is wrong with annotations.")]
    notes: _Lines
    labels: Annotated[str, _is("How wrong labels were looked for, or why they were not.")]
    corrected: CorrectedData
    seconds: Annotated[float, _is("The time that it took.")]


class ExplainedImage(TypedDict):
    """What speaks for the answer to one image."""

    image: Annotated[str, _is("The path of the image.")]
    target: Annotated[str, _is("The class that is explained.")]
    prob: Annotated[float, _is("Its probability, from 0 to 1.")]
    logit: Annotated[float, _is("Its logit, or the difference to that of `against`.")]
    offset: Annotated[float, _is("The part of it that does not depend on the image.")]
    activation: Annotated[
        list[list[float]], _is("The class activation map, by rows. Its mean + offset = logit.")
    ]
    occlusion_strongest: Annotated[
        float, _is("The largest change of the log odds, averaged over the squares on a pixel.")
    ]


NearImage = TypedDict(
    "NearImage",
    {
        "image": Annotated[str, _is("The path of the training image.")],
        "class": Annotated[str, _is("Its class.")],
        "similarity": Annotated[float, _is("The cosine similarity of the embeddings.")],
    },
)


class ExplainedMistake(TypedDict):
    """An image that the classifier gets wrong."""

    image: Annotated[str, _is("The path of the image.")]
    target: Annotated[str, _is("The class that its label says.")]
    answer: Annotated[str, _is("The class that the classifier says.")]
    prob: Annotated[float, _is("The probability of the answer, from 0 to 1.")]
    nearest: Annotated[list[NearImage], _is("The nearest training images, the nearest first.")]


class ExplainedAnswers(TypedDict):
    """The explanations on a page."""

    page: _Path
    weights: Annotated[str, _is("The path of the weights.")]
    images: Annotated[list[ExplainedImage], _is("The images that were given.")]
    mistakes: Annotated[list[ExplainedMistake], _is("The most confident mistakes first.")]


class PackedImages(TypedDict):
    """Images that were packed into tar files."""

    path: Annotated[str, _is("The folder of the tar files.")]
    shards: Annotated[int, _is("The tar files.")]
    kept: Annotated[int, _is("How many of them were there already.")]
    images: Annotated[int, _is("The images.")]
    size: Annotated[int, _is("Bytes of all tar files.")]


class Replayed(TypedDict):
    """One image of a step that was not finite."""

    name: Annotated[str, _is("The image.")]
    target: Annotated[str, _is("Its class; empty without labels.")]
    loss: Annotated[float | None, _is("The loss of this image alone.")]
    gradient_norm: Annotated[float | None, _is("The norm of its gradient.")]


_Channels = Annotated[list[float | None], _is("One number for each channel.")]
_DeepChannels = Annotated[
    list[float | None], _is("For more than 8 bits; one number for each channel.")
]
Statistics = TypedDict(
    "Statistics",
    {
        "images": Annotated[int, _is("The images that were measured.")],
        "images_given": Annotated[int, _is("The images that there are.")],
        "in_channels": Annotated[int, _is("The number of channels.")],
        "mean": _Channels,
        "std": _Channels,
        "value_range": Annotated[list[float] | None, _is("null for 8-bit files.")],
        "types": Annotated[dict[str, int], _is("Type of the values: number of files.")],
        "bands": Annotated[dict[str, int], _is("Number of bands: number of files.")],
        "height": Annotated[Sides, _is("The heights.")],
        "width": Annotated[Sides, _is("The widths.")],
        "minimum": NotRequired[_DeepChannels],
        "percentile_0.1": NotRequired[_DeepChannels],
        "percentile_99.9": NotRequired[_DeepChannels],
        "maximum": NotRequired[_DeepChannels],
        "percentiles_exact": NotRequired[
            Annotated[bool, _is("Whether the percentiles are exact; else to 0.4 %.")]
        ],
        "nan_or_no_data": NotRequired[Annotated[list[int], _is("Values of each channel.")]],
        "infinite": NotRequired[Annotated[list[int], _is("Values of each channel.")]],
        "other_bands": Annotated[list[str], _is("Files with another number of channels.")],
        "unreadable": Annotated[list[str], _is("Files that cannot be read, and why.")],
    },
)


class PlannedCluster(TypedDict):
    """What a recipe will cost on several devices.

    The least figures hold if as much communication as possible runs beside the computation, the
    most if none does.
    """

    ranks: Annotated[int, _is("The devices.")]
    global_batch: Annotated[int, _is("The images in a step, on all devices together.")]
    parameters: Annotated[int, _is("The parameters that are trained.")]
    mbytes_per_step: Annotated[float, _is("What each device sends in a step, in MB.")]
    compute_s: Annotated[float, _is("The computation of a step.")]
    communication_s: Annotated[float, _is("The communication of a step by itself.")]
    steps: Annotated[int, _is("The steps of the whole run.")]
    least_hours: Annotated[float, _is("The time of the whole run, at least.")]
    most_hours: Annotated[float, _is("The time of the whole run, at most.")]
    least_share: Annotated[float, _is("The share of waiting for communication, at least.")]
    most_share: Annotated[float, _is("The share of waiting for communication, at most.")]


class Planned(TypedDict):
    """What a recipe will cost on this machine."""

    verb: Annotated[str, _is("train or pretrain.")]
    images_per_second: Annotated[float, _is("The pace of training.")]
    data_wait: NotRequired[Annotated[float, _is("The share of the time spent waiting for data.")]]
    memory_gib: NotRequired[Annotated[float, _is("The peak memory of the host.")]]
    epochs: Annotated[int, _is("The epochs of the whole run.")]
    steps: Annotated[int, _is("The steps of the whole run.")]
    hours: Annotated[float, _is("The time of the whole run, without evaluation.")]
    disk_gib: NotRequired[Annotated[float, _is("The disk space of the run folder.")]]
    cluster: NotRequired[Annotated[PlannedCluster, _is("With `ranks`.")]]


class Benchmarked(TypedDict):
    """One row of a benchmark. A row that failed has only the failure."""

    work: Annotated[str, _is("pretrain, train, inference or loader.")]
    model: Annotated[str, _is("The size; empty for loader.")]
    backend: Annotated[str, _is("The engine.")]
    images_per_second: NotRequired[Annotated[float, _is("The median.")]]
    spread: NotRequired[Annotated[float, _is("Half the interquartile range, over the median.")]]
    memory_mib: NotRequired[Annotated[float, _is("The peak beyond what the imports took.")]]
    failure: NotRequired[Annotated[str, _is("Why there is no figure.")]]


class Model(TypedDict):
    """One size of the network."""

    model: Annotated[str, _is("Its name.")]
    depths: Annotated[list[int], _is("The blocks in each stage.")]
    dims: Annotated[list[int], _is("The channels of each stage.")]
    parameters: Annotated[int, _is("The parameters, with 1000 classes.")]
    gmacs: Annotated[float, _is("Billions of multiply-adds of one image.")]


class PublicWeights(TypedDict):
    """Public weights, with `--weights`."""

    name: Annotated[str, _is("What `--init` takes.")]
    repository: Annotated[str, _is("OWNER/NAME on the Hugging Face Hub.")]
    parameters_m: Annotated[float, _is("Millions of parameters.")]
    licence: Annotated[str, _is("The identifier of the licence.")]
    allows_commerce: Annotated[bool, _is("Whether it allows commercial use.")]
    top1: Annotated[float | None, _is("Published top-1 on ImageNet-1K, in percent.")]
    image_size: Annotated[int, _is("The side in pixels that it was measured at.")]
    note: Annotated[str, _is("What one should know beside that.")]


class RecipeLine(TypedDict):
    """One recipe that comes with the package."""

    name: Annotated[str, _is("What `--config` takes.")]
    summary: Annotated[str, _is("The first line of the file.")]


class Answer(NamedTuple):
    """How a verb answers.

    Attributes:
        kind: A TypedDict of this module.
        form: "object", "array" of objects, or "lines" with one object each.
    """

    kind: Any
    form: str = "object"


ANSWERS: dict[str, Answer] = {
    "validate": Answer(Validated),
    "validate with several labels": Answer(ValidatedLabels),
    "validate of a segmentor": Answer(ValidatedMaps),
    "validate of a detector": Answer(ValidatedObjects),
    "predict": Answer(Predicted, "lines"),
    "predict with several labels": Answer(PredictedLabels, "lines"),
    "predict of a segmentor": Answer(PredictedMap, "lines"),
    "predict of a detector": Answer(PredictedObjects, "lines"),
    "compare": Answer(Comparison),
    "embed": Answer(Embedded),
    "probe": Answer(Probed),
    "audit": Answer(Audited),
    "explain": Answer(ExplainedAnswers),
    "pack_data": Answer(PackedImages),
    "export": Answer(Exported),
    "convert": Answer(Converted),
    "push": Answer(Pushed),
    "inspect": Answer(Inspected),
    "replay": Answer(Replayed, "array"),
    "statistics": Answer(Statistics),
    "plan": Answer(Planned),
    "benchmark": Answer(Benchmarked, "array"),
    "models": Answer(Model, "array"),
    "models --weights": Answer(PublicWeights, "array"),
    "recipes": Answer(RecipeLine, "array"),
}
"""The verbs with `--json`, and their answers. Some options and models lead to another answer."""
