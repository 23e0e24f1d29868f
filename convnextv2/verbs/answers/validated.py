"""The answers of validate: figures of each kind of model."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict

from convnextv2.verbs.answers.keys import ClassNames, means


class _Evaluation(TypedDict):
    """The keys with which the figures of all kinds of models begin."""

    weights: Annotated[str, means("The path of the weights or the artifact.")]
    report: Annotated[str, means("The path of the report.")]
    class_names: ClassNames
    skipped: Annotated[list[str], means("The images that could not be read.")]
    images: Annotated[int, means("The number of images.")]


class LabelFigures(TypedDict):
    """The figures that follow from labels above a threshold."""

    f1_macro: Annotated[float, means("The mean F1 of the classes that occur.")]
    f1_micro: Annotated[float, means("F1 of the labels of all classes together.")]
    exact_match: Annotated[float, means("The share of images with no wrong label.")]
    hamming: Annotated[float, means("The share of wrong labels.")]
    precision: Annotated[list[float | None], means("null for a class that was never predicted.")]
    recall: Annotated[list[float | None], means("null for a class that no image has.")]
    f1: Annotated[list[float | None], means("null for a class that no image has.")]
    counts: Annotated[
        list[list[int]],
        means("For each class: true positives, false positives and false negatives."),
    ]


class ValidatedLabels(_Evaluation):
    """The figures of a model that gives an image any number of labels."""

    loss: Annotated[float | None, means("The mean binary cross entropy of the known labels.")]
    map_macro: Annotated[float | None, means("The mean average precision over the classes.")]
    map_micro: Annotated[float | None, means("The average precision of all labels together.")]
    ap: Annotated[list[float | None], means("null for a class that no image has.")]
    support: Annotated[list[int], means("The number of images that have each class.")]
    unknown: Annotated[int, means("The number of labels that are not known.")]
    empty: Annotated[int, means("The number of images that have none of the classes.")]
    absent: Annotated[int, means("The number of classes that no image has.")]
    at_half: Annotated[LabelFigures, means("The figures at a threshold of 0.5 for every class.")]
    fitted: Annotated[
        LabelFigures | None, means("The figures at the fitted thresholds; null without them.")
    ]
    thresholds: Annotated[
        list[float], means("The threshold of each class; empty if there are none.")
    ]
    together: Annotated[
        list[list[int]], means("For each pair of classes, the images that have both.")
    ]


class ClassOfPixels(TypedDict):
    """The figures of one class of pixels."""

    name: Annotated[str, means("The name of the class.")]
    iou: Annotated[float | None, means("Intersection over union; null if it does not occur.")]
    recall: Annotated[float | None, means("The share that was found; null without pixels.")]
    pixels: Annotated[int, means("The pixels of the class.")]


Confusion = TypedDict(
    "Confusion",
    {
        "class": Annotated[str, means("The right class.")],
        "predicted": Annotated[str, means("The class that was predicted.")],
        "pixels": Annotated[int, means("The number of pixels.")],
    },
)


class ValidatedMaps(_Evaluation):
    """The figures of a segmentor."""

    miou: Annotated[float, means("The mean IoU over the classes that occur or are predicted.")]
    pixel_accuracy: Annotated[float, means("The share of pixels whose class was found.")]
    mean_accuracy: Annotated[float, means("The mean recall over the classes that occur.")]
    classes_counted: Annotated[int, means("The number of classes in the mean IoU.")]
    classes: Annotated[list[ClassOfPixels], means("In the order of their numbers.")]
    confusions: Annotated[list[Confusion], means("The most frequent mistakes, at most 15.")]


class AveragePrecision(TypedDict):
    """The average precision of boxes or of masks."""

    ap: Annotated[float | None, means("The mean over IoU from 0.5 to 0.95; null without objects.")]
    ap50: Annotated[float | None, means("At an IoU of 0.5.")]
    ap75: Annotated[float | None, means("At an IoU of 0.75.")]
    ap_small: Annotated[float | None, means("The AP of objects below 32 x 32 pixels.")]
    ap_medium: Annotated[float | None, means("The AP of objects between these sizes.")]
    ap_large: Annotated[float | None, means("The AP of objects above 96 x 96 pixels.")]
    recall: Annotated[float | None, means("The mean of the highest recall over classes and IoU.")]
    by_class: Annotated[list[float | None], means("ap of each class; null without objects.")]
    by_class50: Annotated[list[float | None], means("ap50 of each class.")]


class ValidatedObjects(_Evaluation):
    """The figures of a detector."""

    objects: Annotated[list[int], means("The number of objects of each class, without crowds.")]
    found: Annotated[int, means("The number of objects found, at any score.")]
    ap: Annotated[float | None, means("The AP of masks if there are any, else that of boxes.")]
    ap50: Annotated[float | None, means("The same at an IoU of 0.5.")]
    ap75: Annotated[float | None, means("The same at an IoU of 0.75.")]
    box_ap: NotRequired[Annotated[float | None, means("The AP of boxes, if there are masks.")]]
    box_ap50: NotRequired[Annotated[float | None, means("The same at an IoU of 0.5.")]]
    boxes: Annotated[AveragePrecision, means("The figures of boxes.")]
    masks: Annotated[AveragePrecision | None, means("The figures of masks; null without masks.")]


class CoverageFound(TypedDict):
    """The quality of the "unknown" answer on images that it was not fitted on."""

    asked: Annotated[float, means("The coverage that was asked for.")]
    covered: Annotated[float, means("The share of images whose right class is possible.")]
    images: Annotated[int, means("The number of these images.")]
    fitted_images: Annotated[int, means("The number of images that it was fitted on.")]
    mean_possible: Annotated[float, means("The mean number of possible classes.")]
    none_possible: Annotated[float, means("The share of images without a possible class.")]
    foreign: Annotated[float, means("The share of images that count as foreign.")]


class AnswersFound(TypedDict):
    """The accuracy if an image may have several right classes."""

    top1: Annotated[float, means("The share of images whose most probable class is a right one.")]
    images: Annotated[int, means("The number of images with a right class.")]


class Validated(_Evaluation):
    """The figures of a classifier. Those of each class are lists in the order of the classes."""

    top1: Annotated[float, means("The share of images whose most probable class is right.")]
    top5: Annotated[float | None, means("The top-5 accuracy; null below five classes.")]
    loss: Annotated[float | None, means("The mean loss.")]
    balanced_accuracy: Annotated[float, means("The mean recall over the classes that occur.")]
    macro_precision: Annotated[float, means("The mean of the precision over the classes.")]
    macro_recall: Annotated[float, means("The mean of the recall over the classes.")]
    macro_f1: Annotated[float, means("The mean of F1 over the classes.")]
    ece: Annotated[float, means("The expected calibration error.")]
    precision: Annotated[list[float | None], means("null for a class that was never predicted.")]
    recall: Annotated[list[float | None], means("null for a class without images.")]
    f1: Annotated[list[float | None], means("null for a class that does not occur.")]
    support: Annotated[list[int], means("The number of images of each class.")]
    confusion: NotRequired[
        Annotated[
            list[list[int]],
            means("Rows are targets, columns are predictions. Up to 2,000 classes."),
        ]
    ]
    pairs: NotRequired[
        Annotated[
            list[list[int]],
            means("Above 2,000 classes: target, prediction and images of each pair that occurs."),
        ]
    ]
    calibration: Annotated[
        list[list[float | None]], means("Images, mean confidence and accuracy of each bin.")
    ]
    answers: NotRequired[Annotated[AnswersFound, means("With `--answers`.")]]
    sizes: NotRequired[
        Annotated[
            dict[str, Any], means("With `--sizes`: the same figures by the image size in pixels.")
        ]
    ]
    intervals: NotRequired[
        Annotated[
            dict[str, list[float]],
            means(
                "The ends of the 95 % intervals of top1, top5, balanced_accuracy and macro_f1, as "
                "far as they can be computed."
            ),
        ]
    ]
    unknown: NotRequired[Annotated[CoverageFound, means("With `--coverage`.")]]
