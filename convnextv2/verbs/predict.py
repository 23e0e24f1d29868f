"""Apply a trained model to images: classes, labels, maps or objects."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from convnextv2.console import print_json
from convnextv2.data.folders import files
from convnextv2.data.loader import build_prediction_loader
from convnextv2.data.output_path import check_outside_data
from convnextv2.deploy.artifact import Artifact
from convnextv2.errors import DataError
from convnextv2.find import recipe_of
from convnextv2.inference.opening import open_model
from convnextv2.inference.prediction_file import (
    check_folder,
    check_prediction_file,
    write_predictions,
)
from convnextv2.inference.result import result_of
from convnextv2.inference.scorer import open_scorer
from convnextv2.kernels import choice
from convnextv2.lock import locked
from convnextv2.places import check_unread
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.recipe.prior import Prior
from convnextv2.text import counted, plain
from convnextv2.verbs.detect import detect
from convnextv2.verbs.options.predicting import PredictOptions
from convnextv2.verbs.remote import described, predict_by_server
from convnextv2.verbs.segment import segment
from convnextv2.weights.description import DENSE_KINDS
from convnextv2.weights.opened import Weights


@takes(PredictOptions)
def predict(options: PredictOptions) -> list[dict[str, Any]]:
    """Print the most probable classes of images, or their labels, and return them.

    If `out` is given, they are also written to a file, together with the names of the images that
    could not be read. With `json`, one JSON object is printed for each image as soon as it is
    classified. For a segmentor, the share of every class in the pixels is printed, and `out` is a
    folder for overlays and maps of class indices. For a detector, the objects are printed, and
    `out` is a folder for pictures and COCO's JSON.

    Returns:
        One dictionary for each image. Its form depends on the model.

        - Classifier: `{"image": name, "predictions": [{"class": name, "prob": probability}, ...]}`.
          If it was fitted with a coverage, also `"possible": [name, ...]`, `"foreign"` and
          `"foreignness"`.
        - Several labels per image: `{"image": name, "labels": [{"name": name, "score": probability,
          "threshold": threshold}, ...], "scores": {name: probability}}`.
        - Segmentor: `{"image": name, "height": px, "width": px, "classes": [{"class": name,
          "share": share}, ...]}`, with `"overlay"` and `"index"` if `out` is given.
        - Detector: `{"image": name, "width": px, "height": px, "objects": [{"class": name, "score":
          score, "box": [x0, y0, x1, y1], "mask": code}, ...]}`.
    """
    recipe, notes = options.recipe()
    opened = None if options.server else open_model(options.run)
    remote = described(options) if options.server else {}
    kind = remote.get("kind", "") if opened is None else opened.description.kind
    file: Path | None = None
    folder: Path | None = None
    if options.out and kind in DENSE_KINDS:
        folder = Path(options.out)
        _check_folder(folder, options, kind, opened)
    elif options.out:
        file = Path(options.out)
        check_prediction_file(file)
    for note in notes:
        print(note, file=sys.stderr)
    if kind not in ("detection", "") and options.changed("threshold"):
        why = "each label has its own" if kind == "multi_label" else "it is for detectors"
        print(f"No effect here: threshold ({why}).", file=sys.stderr)
    failures: dict[str, str] = {}
    if opened is None:
        found = predict_by_server(options, recipe, remote, failures.__setitem__)
    else:
        found = _predict_here(opened, options, recipe, failures.__setitem__)
    results = []
    with nullcontext("") if folder is None else locked(folder) as unlocked:
        if unlocked:
            print(unlocked, file=sys.stderr)
        for result in found:
            results.append(result)
            _show(result, options.json)
    for name, why in failures.items():
        print(f"{plain(name)}: {plain(why)} Skipped.", file=sys.stderr)
    if file is not None:
        write_predictions(file, results, failures)
        print(f"Predictions: {file}", file=sys.stderr)
    if failures and not results:
        raise DataError(f"Of {counted(len(failures), 'image(s)')}, none can be read.")
    return results


def _check_folder(
    folder: Path, options: PredictOptions, kind: str, opened: Weights | Artifact | None
) -> None:
    """Check that a folder may be written, and that nothing in it will be read as an image."""
    check_folder(folder, kind)
    check_unread(folder, options.images)
    if isinstance(opened, Weights):
        check_outside_data(folder, recipe_of(opened.path))


def _predict_here(
    opened: Weights | Artifact,
    options: PredictOptions,
    recipe: Recipe,
    on_bad: Callable[[str, str], object],
) -> Iterator[dict[str, Any]]:
    """Predict on this machine, by the kind of the model."""
    if opened.description.kind == "segmentation":
        return segment(opened, options, recipe, on_bad)
    if opened.description.kind == "detection":
        return detect(opened, options, recipe, on_bad)
    return classify(
        opened, options.images, recipe, top_k=options.top_k, prior=options.prior, on_bad=on_bad
    )


def classify(
    classifier: str | Path | Weights | Artifact,
    images: Sequence[str | Path],
    recipe: Recipe,
    *,
    top_k: int,
    prior: Prior = "trained",
    on_bad: Callable[[str, str], object] | None = None,
) -> Iterator[dict[str, Any]]:
    """Classify images on this machine.

    Args:
        classifier: A run folder, weights or an artifact. Weights and artifacts may be open already.
        images: Files and folders.
        recipe: Its device, precision, batch_size, workers, bad_images, max_image_pixels and kernels
            are used.
        top_k: The number of classes to return for each image, if it has one class.
        prior: The class frequencies that the probabilities assume; see `prior_shift`.
        on_bad: Called at the end with the name of each image that cannot be read and was left out,
            and the reason.

    Yields:
        What `predict` returns for each image.
    """
    choice.choose(recipe.kernels)
    scorer = open_scorer(classifier, device=recipe.device, precision=recipe.precision, prior=prior)
    for line in scorer.notes:
        print(line, file=sys.stderr)  # other programs may read the output
    if scorer.is_multi_label and top_k != PredictOptions.top_k:
        why = "all labels above their thresholds are shown"
        print(f"No effect here: top_k ({why}).", file=sys.stderr)
    transform = scorer.transform
    source = files(images, max_pixels=recipe.max_image_pixels)
    for line in source.notes:
        print(line, file=sys.stderr)
    loader = build_prediction_loader(recipe, source, transform)
    for batch in loader:
        scores = scorer(batch.pixels)
        for i, index in enumerate(batch.indices.tolist()):
            yield {"image": source.names[index], **result_of(scorer, scores.row(i), top_k)}
    for name, why in loader.skipped.items():
        if on_bad is not None:
            on_bad(name, why)


def _show(result: dict[str, Any], json: bool) -> None:
    if json:
        print_json(result)
        return
    print(plain(result["image"]))
    if "classes" in result:
        for each in result["classes"]:
            print(f"  {each['share']:7.2%}  {plain(each['class'])}")
        return
    if "objects" in result:
        for one in result["objects"]:
            corners = ", ".join(f"{value:.0f}" for value in one["box"])
            print(f"  {one['score']:7.2%}  {plain(one['class'])}  ({corners})")
        if not result["objects"]:
            print("  no object")
        return
    if "labels" in result:
        for label in result["labels"]:
            limit = f"(threshold {label['threshold']:.2%})"
            print(f"  {label['score']:7.2%}  {plain(label['name'])}  {limit}")
        if not result["labels"]:
            print("  no label")
        return
    for prediction in result["predictions"]:
        print(f"  {prediction['prob']:7.2%}  {plain(prediction['class'])}")
    if "possible" in result:
        print(f"  possible: {plain(', '.join(result['possible'])) or 'none of the classes'}")
        if result["foreign"]:
            print(f"  foreign: {result['foreignness']:.2f} times the limit for known images")
