"""Print the most probable classes of one image as a dictionary, as MindCV's infer.py does."""

from __future__ import annotations

import sys
from pathlib import Path

from convnextv2.errors import CheckpointError, DataError
from convnextv2.find import find_weights, open_run_weights
from convnextv2.recipe.mindcv.keys import RENAMED
from convnextv2.recipe.options import takes
from convnextv2.verbs.options.predicting import InferOptions, PredictOptions
from convnextv2.verbs.predict import classify


@takes(InferOptions)
def infer(options: InferOptions) -> dict[str, float]:
    """Print and return the most probable classes of one image.

    The image is prepared as the weights say. MindCV's scripts pass the same knobs to every program.
    Those that have no effect here are named in one line.

    Returns:
        Class name -> probability, the most probable class first. If an image may have any number of
        labels, these are the labels that it has.
    """
    image_path, ckpt_path, knobs = options.image_path, options.ckpt_path, options.knob_values
    if not image_path:
        raise DataError(
            "image_path is missing: there is no image to classify. Give --image_path FILE."
        )
    if Path(image_path).is_dir():
        raise DataError(
            f"image_path = {image_path}: is a folder, expected one image. For many images, use "
            "convnextv2 predict."
        )
    if not ckpt_path:
        raise CheckpointError(
            "ckpt_path is missing: there are no weights to use. Give --ckpt_path CHECKPOINT."
        )
    opened = open_run_weights(find_weights(ckpt_path))
    held = opened.description.model
    if options.model and options.model != held:
        raise CheckpointError(
            f"model = {options.model}: {ckpt_path} holds {held}. Leave model out, or give the "
            "weights of that size."
        )
    idle = [name for name in knobs if RENAMED.get(name, name) not in InferOptions.knobs]
    if idle:
        print(f"No effect here: {', '.join(idle)}.", file=sys.stderr)
    used = {name: value for name, value in knobs.items() if name not in idle}
    recipe, notes = PredictOptions.read({"run": ckpt_path, "images": [image_path], **used}).recipe()
    for note in notes:
        print(note, file=sys.stderr)
    results = list(classify(opened, [image_path], recipe, top_k=options.top_k))
    if not results:
        raise DataError(
            f"{image_path}: cannot be read, so there is nothing to classify. Give another image."
        )
    if "labels" in results[0]:
        labels = {str(one["name"]): round(float(one["score"]), 6) for one in results[0]["labels"]}
        print(labels)
        return labels
    probs = {
        str(prediction["class"]): round(float(prediction["prob"]), 6)
        for prediction in results[0]["predictions"]
    }
    print(probs)
    return probs
