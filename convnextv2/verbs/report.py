"""Measure weights, and write the page that shows a run to people. Shared by train, pretrain, validate and demo."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import EvaluationLoader, build_evaluation_loader, resolve_workers
from convnextv2.data.named import default_class_names
from convnextv2.data.notices import left_out_line
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources, validation_source
from convnextv2.data.split_names import kind_of
from convnextv2.data.storage import Patience
from convnextv2.data.transforms import build_batch_transform
from convnextv2.deploy.artifact import is_artifact, open_artifact
from convnextv2.distributed import Place, choose_precision, say
from convnextv2.errors import CheckpointError, DataError
from convnextv2.evaluation.classes import ORDERS, match_rows, order_of, pairs
from convnextv2.evaluation.evaluate import Predictions, evaluate
from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.metrics import Evaluation
from convnextv2.evaluation.report import Example, build_report, write_report
from convnextv2.inference.scorer import open_scorer
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run, find_weights, open_run_weights, run_of
from convnextv2.training.supervised import autocast_logits
from convnextv2.verbs.reconstruct import reconstruct_source
from convnextv2.weights.files import Description
from convnextv2.weights.hub import repository_of
from convnextv2.weights.load import OURS, brief, load_model, restore

EXAMPLES = 8
"""Right and wrong predictions shown, of each."""
GALLERY_IMAGES = 8


@dataclass(frozen=True)
class Measured:
    """An evaluation, what it was made of, and on what."""

    evaluation: Evaluation
    predictions: Predictions
    source: Source
    description: Description
    parameters: int
    value_range: tuple[float, float] | None = None
    skipped: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Lines for people about the images."""
        lines = list(self.source.notes)
        if self.skipped:
            lines.append(f"{left_out_line(self.skipped, 'validation image')}.")
        return lines


def evaluate_weights(weights: Path, recipe: Recipe, place: Place) -> Measured:
    """Evaluate a classifier on the recipe's validation images, every one exactly once over all ranks."""
    if recipe.batch_size == "auto":
        say(
            f"batch_size auto: {recipe.images_per_batch()} here, since only training looks for what fits."
        )
    if is_artifact(weights):
        return _evaluate_artifact(weights, recipe, place)
    opened, owner = open_run_weights(weights), run_of(weights)
    if recipe.ema and opened.has_average:
        say(f"{weights}: measured are its averaged weights.")
        opened = open_run_weights(weights, average=True)
    elif recipe.ema and opened.origin.format == "mindcv":
        if (
            owner is None
            or weights.name != f"{owner.recipe.model}_best.ckpt"
            or not owner.recipe.ema
        ):
            raise CheckpointError(
                f"ema = True: {weights} has no averaged weights. Use --ema False to measure its plain ones."
            )
        say(f"{weights}: measured are averaged weights, as the run saves its best.")
    for line in opened.lines():
        say(line)
    model, description = restore(opened), opened.description
    if not isinstance(model, ConvNeXtV2) or not model.num_classes:
        raise CheckpointError(
            f"{weights}: a pre-trained encoder without a classifier, there is no accuracy to measure. Train one with --init."
        )
    _check_contradictions(recipe, model, description, weights)
    precision = recipe.precision if recipe.val_precision == "same" else recipe.val_precision
    recipe = recipe.model_copy(update={"in_channels": model.in_channels})
    source, description = labelled_images(weights, description, recipe)
    to_images = build_batch_transform(recipe, model.num_classes)
    model.to(place.device)
    loader = build_evaluation_loader(recipe, source, place, _quarantine(weights, recipe))
    evaluation, predictions = evaluate(
        autocast_logits(model, place, choose_precision(precision, place.device)),
        loader,
        num_classes=model.num_classes,
        to_images=lambda pixels: to_images.normalise(pixels.to(place.device)),
        place=place,
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    skipped = tuple(sorted(set().union(*place.gather(sorted(loader.skipped)))))
    return Measured(
        evaluation, predictions, source, description, parameters, recipe.value_range, skipped
    )


def _evaluate_artifact(path: Path, recipe: Recipe, place: Place) -> Measured:
    """The same for an artifact, which prepares its images in its own way."""
    scorer = open_scorer(path, device=recipe.device, precision=recipe.precision)
    for line in scorer.notes:
        say(line)
    card = open_artifact(path).card
    description = Description(
        "classifier",
        card.model,
        card.arguments,
        class_names=card.class_names,
        provenance=card.provenance,
    )
    source, description = labelled_images(path, description, recipe)
    loader = EvaluationLoader(
        source,
        scorer.transform,
        batch_size=recipe.images_per_batch(),
        channels=scorer.transform.channels,
        workers=resolve_workers(recipe.workers, place.local_world_size)[0],
        rank=place.rank,
        world_size=place.world_size,
        bad_images=recipe.bad_images,
        quarantine=_quarantine(path, recipe),
        patience=Patience(recipe.data_wait_s),
    )
    evaluation, predictions = evaluate(
        scorer.logits,
        loader,
        num_classes=len(scorer.class_names),
        to_images=lambda pixels: pixels,
        place=place,
    )
    parameters = sum(parameter.numel() for parameter in ConvNeXtV2(**card.arguments).parameters())
    skipped = tuple(sorted(set().union(*place.gather(sorted(loader.skipped)))))
    return Measured(
        evaluation,
        predictions,
        source,
        description,
        parameters,
        scorer.transform.value_range,
        skipped,
    )


def _quarantine(weights: Path, recipe: Recipe) -> Quarantine | None:
    """The list of the run that the weights are of, if its own images are measured."""
    owner = run_of(weights)
    if recipe.bad_images != "quarantine" or owner is None or not _same_data(owner.recipe, recipe):
        return None
    return Quarantine(owner.path)


def labelled_images(
    weights: Path, description: Description, recipe: Recipe
) -> tuple[Source, Description]:
    """The recipe's validation images for a classifier, with its rows as targets; and its description, every row with a name."""
    owner, rows = run_of(weights), description.arguments["num_classes"]
    trained_on = (
        owner is not None
        and Path(owner.recipe.data_dir).resolve() == Path(recipe.data_dir).resolve()
    )
    # Weights of others need not name their classes, or name them as the folders are named.
    # A run of ours names them: its `class_order` was about the weights that it started from.
    foreign = order_of(description) != OURS
    names = [] if foreign else description.class_names
    source = validation_source(recipe, names, trained_on=trained_on)
    if len(source.class_names) > rows:
        raise CheckpointError(
            f"{weights}: a classifier of {rows} classes, the data have {len(source.class_names)}. "
            "Fine-tune it first: convnextv2 train --init."
        )
    if foreign:
        source = with_rows(source, description, rows, weights, recipe.class_order)
        description = replace(description, class_names=list(source.class_names))
    return source, description


def _check_contradictions(
    recipe: Recipe, model: ConvNeXtV2, description: Description, weights: Path
) -> None:
    """The weights say what network they are; a recipe that says something else is meant for others. Raises CheckpointError."""
    told = {
        "model": description.model,
        "depths": model.depths,
        "dims": model.dims,
        "num_classes": model.num_classes,
    }
    asked = {name: getattr(recipe, name) for name in told if name in recipe.model_fields_set}
    wrong = {name: told[name] for name, value in asked.items() if value not in (None, told[name])}
    if recipe.in_channels not in (
        3,
        model.in_channels,
    ):  # 3 is also what MindCV's recipes leave out
        wrong["in_channels"] = model.in_channels
    for name, value in wrong.items():
        raise CheckpointError(
            f"{name} = {getattr(recipe, name)}: {weights} has {value}. Leave {name} out, or give the weights that belong to it."
        )
    if recipe.in_channels != model.in_channels:
        say(f"in_channels {model.in_channels}, as the weights have it.")


def with_rows(
    source: Source, description: Description, rows: int, weights: Path, order: str
) -> Source:
    """The source with the rows of a head as its targets, and a name for each row.

    Says by which rule they were found. Raises CheckpointError where that cannot be known.
    """
    classes, names = source.class_names, description.class_names
    match = match_rows(classes, names, rows, format=order_of(description), order=order)
    if isinstance(match, str):
        theirs = f" ({brief(list(names))})" if names else ""
        raise CheckpointError(
            f"{weights}: {match}{theirs}; the data's classes are {brief(list(classes))}. Which row "
            "is which class? Set class_order to text, natural or number, or to a file with one "
            "class name in each line, row by row."
        )
    for name, row in zip(classes, match.rows, strict=True):
        if row is None and names.count(name) > 1:
            raise CheckpointError(
                f"{weights}: {names.count(name)} of its classes are called {name!r}. Which is meant?"
            )
        if row is None:
            listed = f" ({brief(list(names))})" if names else ""
            where = order if order not in ORDERS else f"its {rows}{listed}"
            raise CheckpointError(
                f"{weights}: class {name!r} of the data is not among {where}. Name the folders as "
                "the rows are named, or set class_order."
            )
    part = f"{len(classes)} of {rows}" if len(classes) < rows else str(rows)
    say(f"Rows of {part} classes: {match.how} ({pairs(classes, match)}).")
    found = np.array(match.rows, dtype=np.int64)
    called = list(names) if len(names) == rows else default_class_names(rows)
    for row, name in zip(found.tolist(), classes, strict=True):
        called[row] = name
    assert source.targets is not None
    return replace(source, targets=found[source.targets], class_names=tuple(called))


def report_run(run: Run, place: Place) -> Evaluation | None:
    """Write the report of a finished run. For a classifier with validation images, evaluates its best weights on them first."""
    recipe = run.recipe
    weights = find_weights(run.path)
    alone = Place(place.device)  # the other ranks have nothing to do with the report
    if recipe_is_supervised(run):
        if find_sources(recipe, labelled=True)[1] is None:
            write_report(run.report, _page(run, None, recipe))
            return None
        measured = evaluate_weights(weights, recipe, alone)
        if measured.skipped:
            say(f"{left_out_line(measured.skipped, 'validation image')}.")
        write_evaluation_report(weights, measured, recipe)
        return measured.evaluation
    write_report(run.report, _pretraining_page(run, recipe, weights))
    return None


def recipe_is_supervised(run: Run) -> bool:
    """Whether a run trained a classifier: only those have a best evaluation or a head."""
    return load_model(find_weights(run.path))[1].kind == "classifier"


def write_evaluation_report(weights: Path, measured: Measured, recipe: Recipe) -> Path:
    """Write the page of an evaluation.

    Args:
        weights: What was evaluated.
        measured: The figures.
        recipe: Names the data.

    Returns:
        The path of the page. For the weights of a run it is the run's report.html, or, for other
        data than the run's own, report-DATA.html beside it. For weights on their own, and for
        MindCV's files in a run, it lies inside of their folder or beside the file under its name;
        for weights in the Hub's cache, in the current folder.
    """
    run = run_of(weights)
    if run and weights.parent != run.path:
        path = run.report if _same_data(run.recipe, recipe) else _page_of_data(run, recipe)
    elif repository := repository_of(weights):
        path = Path(f"{repository.rpartition('/')[2]}-report.html")
    else:
        path = (
            weights / "report.html"
            if weights.is_dir()
            else weights.with_name(f"{weights.stem}-report.html")
        )
    write_report(path, _page(run, measured, recipe))
    return path


def _same_data(recipe: Recipe, other: Recipe) -> bool:
    """Whether two recipes name the same validation images."""
    folders = [Path(each.data_dir).resolve() if each.data_dir else None for each in (recipe, other)]
    names = [(each.dataset, each.val_split) for each in (recipe, other)]
    return folders[0] == folders[1] and names[0] == names[1]


def _page_of_data(run: Run, recipe: Recipe) -> Path:
    """The run's own page stays as it is when the run is measured on other images."""
    folder = Path(recipe.data_dir).resolve()
    parts: list[str] = [folder.name if recipe.data_dir else recipe.dataset]
    if recipe.data_dir and kind_of(folder.name):  # every data set has a folder called test
        parts.insert(0, folder.parent.name)
    if recipe.val_split != run.recipe.val_split:
        parts.append(recipe.val_split)
    name = re.sub(r"[^\w.-]+", "-", "-".join(parts)) or "data"
    return run.path / f"report-{name}.html"


def _page(run: Run | None, measured: Measured | None, recipe: Recipe) -> str:
    name = str(run.path) if run else "RUN"
    gallery = pretrain_metrics = None
    if recipe.init and Path(recipe.init).exists():
        pretrained = find_weights(recipe.init)
        parent = run_of(pretrained)
        if parent and not recipe_is_supervised(parent):
            gallery = _gallery(parent, pretrained)
            pretrain_metrics = parent.metrics()
    summary = {
        "model": recipe.model.removeprefix("convnextv2_"),
        "image size": f"{recipe.image_size} px",
    }
    if measured:
        summary["parameters"] = _short(measured.parameters)
        if measured.skipped:
            summary["validation images left out"] = str(len(measured.skipped))
    return build_report(
        _title(recipe),
        summary=summary,
        recipe=recipe.model_dump(),
        metrics=run.metrics() if run else [],
        evaluation=measured.evaluation if measured else None,
        class_names=measured.description.class_names if measured else [],
        examples=_examples(measured, recipe) if measured else [],
        gallery=gallery,
        channels=_channels(measured, recipe),
        pretrain_metrics=pretrain_metrics,
        next_steps=[
            (f"convnextv2 predict {name} IMAGE_OR_FOLDER", "Classify new images."),
            (
                f"convnextv2 validate {name} --data_dir OTHER",
                "Measure it on other labelled images.",
            ),
            (
                f"convnextv2 train --config {name}/recipe.yaml --out NEW_RUN --lr {recipe.lr * 2:g}",
                "Try another learning rate.",
            ),
        ],
    )


def _pretraining_page(run: Run, recipe: Recipe, weights: Path) -> str:
    fine_tune = f"convnextv2 train --config small_data --data_dir DATA --init {run.path} --out RUN"
    return build_report(
        f"FCMAE pre-training: {_title(recipe)}",
        summary={
            "model": recipe.model.removeprefix("convnextv2_"),
            "masked": f"{recipe.mask_ratio:.0%}",
            "epochs": str(recipe.epochs),
        },
        recipe=recipe.model_dump(),
        pretrain_metrics=run.metrics(),
        gallery=_gallery(
            run, weights, Quarantine(run.path) if recipe.bad_images == "quarantine" else None
        ),
        channels=recipe.in_channels,
        next_steps=[
            (fine_tune, "Fine-tune the encoder on labelled images."),
            (
                f"convnextv2 reconstruct {run.path} IMAGE_OR_FOLDER",
                "See what it makes of other images.",
            ),
        ],
    )


def _channels(measured: Measured | None, recipe: Recipe) -> int:
    """Of the images; an artifact brings its own."""
    channels: int = (
        measured.description.arguments["in_channels"] if measured else recipe.in_channels
    )
    return channels


def _title(recipe: Recipe) -> str:
    network = recipe.model.replace("convnextv2_", "ConvNeXt V2 ").replace(
        "custom", f"ConvNeXt V2 {recipe.dims}"
    )
    data = Path(recipe.data_dir).name or {"bundled": "the bundled Fashion-MNIST images"}.get(
        recipe.dataset, recipe.dataset
    )
    return f"{network} on {data}"


def _gallery(run: Run, weights: Path, quarantine: Quarantine | None = None) -> Image.Image | None:
    """Reconstructions of images of a pre-training run.

    Args:
        run: The run, which may be an older one.
        weights: Its weights.
        quarantine: Its list of bad images, if the run is the one that is reported.

    Returns:
        The picture, or None where there is none, which is said: the run that is reported is
        finished, and its weights are whole.
    """
    recipe = run.recipe
    try:
        source, validation = find_sources(recipe, labelled=False)
        picture, skipped = reconstruct_source(
            weights,
            validation or source,
            count=GALLERY_IMAGES,
            mask_ratio=recipe.mask_ratio,
            seed=recipe.seed,
            device=recipe.device,
            bad_images=recipe.bad_images,
            quarantine=quarantine,
            patience=Patience(recipe.data_wait_s),
        )
    except DataError as error:
        say(f"No reconstructions in the report: {error}")
        return None
    if skipped:
        say(f"{left_out_line(skipped, 'gallery image')}.")
    return picture


def _examples(measured: Measured, recipe: Recipe) -> list[Example]:
    """The most confident mistakes, and right predictions evenly spread over the images."""
    predictions = measured.predictions
    right = predictions.classes[:, 0] == predictions.targets
    confident = np.argsort(-predictions.probs[:, 0])
    wrong = [i for i in confident if not right[i]][:EXAMPLES]
    spread = np.flatnonzero(right)
    chosen = (
        spread[
            np.linspace(0, len(spread) - 1, min(EXAMPLES, len(spread))).round().astype(int)
        ].tolist()
        if len(spread)
        else []
    )
    examples = []
    for i in [*wrong, *chosen]:
        try:
            examples.append(_example(measured, i, recipe))
        except DataError as error:  # damaged or gone since it was measured
            say(f"An example is left out of the report: {error}")
    return examples


def _short(count: int) -> str:
    """A number of parameters with one digit after the point: "3.4 M", "7.1 K", or "812"."""
    if count < 1000:
        return str(count)
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} K"


def _example(measured: Measured, i: int, recipe: Recipe) -> Example:
    names: Sequence[str] = measured.description.class_names
    predictions = measured.predictions
    index = int(predictions.indices[i])
    return Example(
        to_picture(
            measured.source.pixels(index, _channels(measured, recipe), measured.value_range)
        ),
        Path(measured.source.names[index]).name,
        names[predictions.targets[i]],
        [
            (names[c], float(p))
            for c, p in zip(predictions.classes[i], predictions.probs[i], strict=True)
        ],
    )
