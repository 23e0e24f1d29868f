"""Explain a classifier's answers to single images by activation and occlusion maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.console import say
from convnextv2.data.folders import files
from convnextv2.data.named_sets import default_class_names
from convnextv2.data.notices import none_readable
from convnextv2.data.output_path import check_outside_data
from convnextv2.data.transforms import EvalTransform, normaliser
from convnextv2.device import choose_device
from convnextv2.errors import CheckpointError, DataError, RecipeError
from convnextv2.evaluation.explanation_page import ExplainedImage, image_section
from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.heat import heat_picture
from convnextv2.files import name_after, replacing
from convnextv2.find import recipe_of
from convnextv2.inference.explanation import Question, activation_map, enlarge, occlusion_map
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.places import check_folder_place, check_unread
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import brief, plain
from convnextv2.verbs.explain_data import VOTES, Explained
from convnextv2.verbs.options.measuring import ExplainOptions
from convnextv2.weights.class_names import distinct
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore

MAX_IMAGES = 100


@dataclass(frozen=True)
class _Explainer:
    """The classifier, what to explain of its answers, and how to cover images.

    Attributes:
        model: The classifier, on its device.
        names: The names of its classes.
        target: The row of the class to explain; None for the most probable one of each image.
        against: The row of the other class; None for no other.
        multi_label: Whether an image may have any number of labels.
        patch: Side of the square that covers a part of the image, in px.
        step: The distance from one square to the next, in px.
        batch_size: Covered images that are scored at once.
    """

    model: ConvNeXtV2
    names: Sequence[str]
    target: int | None
    against: int | None
    multi_label: bool
    patch: int
    step: int
    batch_size: int


def explain_images(opened: Weights, options: ExplainOptions, given: Recipe) -> Explained:
    """Make the maps of single images.

    Args:
        opened: The weights of a classifier.
        options: The options of the verb.
        given: The recipe with the knobs of the verb.

    Raises:
        CheckpointError: The weights have no classifier.
        RecipeError: A class is not known, or there are too many images.
        DataError: No image can be read, or one cannot and `bad_images` is "fail".
    """
    how = opened.preprocessing
    device = choose_device(given.device)
    transform = EvalTransform(how)
    normalise = normaliser(how)
    explainer = _build_explainer(
        opened, options, given.images_per_batch(32), min(how.image_size), device
    )
    folder = Path(options.pictures) if options.pictures else None
    if folder is not None:
        check_unread(folder, options.images, option="pictures")
        check_outside_data(folder, recipe_of(opened.path), option="pictures")
        check_folder_place(folder, option="pictures")
    source = files([Path(path) for path in options.images], max_pixels=given.max_image_pixels)
    if len(source) > MAX_IMAGES:
        raise RecipeError(
            f"images: {len(source):,} given, expected at most {MAX_IMAGES}. Name fewer, or leave "
            "them out for a page about the whole data."
        )
    shown: list[ExplainedImage] = []
    answers: list[dict[str, Any]] = []
    for index, name in enumerate(source.names):
        try:
            pixels = transform(source.pixels(index, how.channels, how.value_range))
        except DataError as error:
            if given.bad_images == "fail":
                raise
            say(f"{plain(str(error))} Left out.")
            continue
        each, answer = _explain(explainer, name, pixels, normalise(pixels[None].to(device))[0])
        shown.append(each)
        answers.append(answer)
        if folder is not None:
            for kind, picture in (("activation", each.activation), ("occlusion", each.occlusion)):
                file = name_after(name, f"-{kind}.png", prefix=f"{index:03d}-")
                with replacing(folder / file, makes_folder=True) as temporary:
                    picture.save(temporary, "PNG")
        say(f"{plain(name)}: {each.answer}")
    if not shown:
        raise none_readable(source.names)
    figures = {"images": f"{len(shown):,}"}
    return Explained([image_section(shown)], {"images": answers, "mistakes": []}, figures)


def _build_explainer(
    opened: Weights, options: ExplainOptions, batch_size: int, side: int, device: torch.device
) -> _Explainer:
    """Open the classifier, and choose squares for images whose shorter side is `side` px."""
    model = restore(opened)
    if not isinstance(model, ConvNeXtV2) or not model.num_classes:
        raise CheckpointError(
            f"{opened.path}: has no classifier whose answer could be explained. Leave the images "
            "out for a map of embeddings, or train a classifier."
        )
    names = distinct(opened.description.class_names or default_class_names(model.num_classes))
    target, against = _row(names, "target", options), _row(names, "against", options)
    if against is not None and (against == target or len(names) == 1):
        raise RecipeError(f"against = {options.against}: is the target itself. Name another class.")
    patch = options.patch_px or max(1, round(side / 7))
    return _Explainer(
        model.to(device).eval(),
        names,
        target,
        against,
        opened.description.kind == "multi_label",
        patch,
        options.step_px or max(1, patch // 2),
        batch_size,
    )


def _row(names: Sequence[str], option: str, options: ExplainOptions) -> int | None:
    """Find the class that an option names; None if it is empty.

    Raises:
        RecipeError: There is no such class.
    """
    text: str = getattr(options, option)
    if not text:
        return None
    if text not in names:
        raise RecipeError(f"{option} = {text}: expected one of the classes ({brief(list(names))}).")
    return list(names).index(text)


def _explain(
    explainer: _Explainer, name: str, pixels: Tensor, image: Tensor
) -> tuple[ExplainedImage, dict[str, Any]]:
    """Explain one image.

    Args:
        explainer: The classifier, and what to explain.
        name: The path of the image.
        pixels: The image as the network sees it, uint8 (C, H, W).
        image: The same, normalised, on the model's device.

    Returns:
        The entries for the page and for the JSON answer.
    """
    with torch.inference_mode():
        logits = explainer.model(image[None])
        assert isinstance(logits, Tensor)
        logits = logits.float()
    probs = (logits.sigmoid() if explainer.multi_label else logits.softmax(-1))[0].cpu()
    order = probs.argsort(descending=True, stable=True).tolist()
    row = explainer.target
    if row is None:
        row = next(each for each in order if each != explainer.against)
    question = Question(row, explainer.against, explainer.multi_label)
    activation = activation_map(explainer.model, image, question)
    heat = enlarge(activation.map, (pixels.shape[1], pixels.shape[2]))
    covered = occlusion_map(
        explainer.model,
        image,
        question,
        patch=explainer.patch,
        step=explainer.step,
        batch_size=explainer.batch_size,
    )
    title, prob = explainer.names[row], float(probs[row])
    why = (
        title if explainer.against is None else f"{title}, not {explainer.names[explainer.against]}"
    )
    what = "logit" if explainer.against is None else "difference of the logits"
    mean = activation.logit - activation.offset
    shown = ExplainedImage(
        plain(Path(name).name),
        f"Why {why}?",
        f"{title} {prob:.1%}",
        [(explainer.names[each], float(probs[each])) for each in order[:VOTES]],
        to_picture(pixels),
        heat_picture(pixels, heat),
        f"{what} {activation.logit:.2f} = {activation.offset:.2f} + mean of the map {mean:.2f}; "
        f"strongest {_strongest(activation.map):+.2f}",
        heat_picture(pixels, covered),
        f"squares of {explainer.patch} px; the log odds change by up to {_strongest(covered):+.2f}",
    )
    answer = {
        "image": name,
        "target": title,
        "prob": prob,
        "logit": activation.logit,
        "offset": activation.offset,
        "activation": activation.map.tolist(),
        "occlusion_strongest": _strongest(covered),
    }
    return shown, answer


def _strongest(values: Tensor) -> float:
    """Return the value with the largest magnitude."""
    return float(values.flatten()[values.abs().argmax()])
