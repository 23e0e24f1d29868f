"""MindCV's infer.py: the five most probable classes of one image, as a dictionary."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from convnextv2.errors import CheckpointError, DataError
from convnextv2.recipe.knobs import INFERENCE
from convnextv2.recipe.mindcv import RENAMED
from convnextv2.recipe.read import read_recipe
from convnextv2.run import find_weights
from convnextv2.verbs.predict import predict
from convnextv2.weights.load import open_weights


def infer(
    *, image_path: str | Path = "", ckpt_path: str | Path = "", model: str = "", top_k: int = 5, **knobs: Any
) -> dict[str, float]:
    """Print and return {class: probability} of the best classes.

    image_path: an image. ckpt_path: weights of any known format, or a run folder. model: what MindCV wants to be told; an error
    where the weights are of another size. top_k: how many classes. knobs: as for `predict`; others, which MindCV's scripts pass
    to every program, are named as without effect. The image is prepared as the weights say."""
    if not image_path:
        raise DataError("image_path is missing: there is no image to classify. Give --image_path FILE.")
    if Path(image_path).is_dir():
        raise DataError(f"image_path = {image_path}: a folder, expected one image. For many use: convnextv2 predict.")
    if not ckpt_path:
        raise CheckpointError("ckpt_path is missing: there are no weights to use. Give --ckpt_path CHECKPOINT.")
    held = open_weights(find_weights(ckpt_path)).description.model
    if model and model != held:
        raise CheckpointError(f"model = {model}: {ckpt_path} holds {held}. Leave model out, or give the weights of that size.")
    read_recipe(knobs)  # finds what is no knob at all
    idle = [name for name in knobs if RENAMED.get(name, name) not in INFERENCE]
    if idle:
        print(f"No effect here: {', '.join(idle)}.", file=sys.stderr)
    used = {name: value for name, value in knobs.items() if name not in idle}
    with redirect_stdout(StringIO()):
        results = predict(ckpt_path, image_path, top_k=top_k, **used)
    if not results:
        raise DataError(f"{image_path}: cannot be read, so there is nothing to classify. Give another image.")
    probs = {str(prediction["class"]): round(float(prediction["prob"]), 6) for prediction in results[0]["predictions"]}
    print(probs)
    return probs
