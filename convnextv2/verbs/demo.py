"""Pre-train, fine-tune, predict and reconstruct with images that come with the package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from PIL import Image

from convnextv2.console import say
from convnextv2.data.sources import find_sources
from convnextv2.errors import RunError
from convnextv2.evaluation.gallery import to_picture
from convnextv2.files import replacing
from convnextv2.recipe.options import takes
from convnextv2.recipe.read import read_recipe
from convnextv2.verbs.options.learning import DemoOptions
from convnextv2.verbs.predict import predict
from convnextv2.verbs.pretrain import pretrain
from convnextv2.verbs.reconstruct import reconstruct
from convnextv2.verbs.train import train

_IMAGES = 4
"""The number of images that are saved as files."""

QUICK = {"epochs": 1, "num_samples": 640, "warmup_epochs": 0}


@takes(DemoOptions)
def demo(options: DemoOptions) -> Path:
    """Run pre-training, fine-tuning, validation and prediction on the bundled images.

    Returns:
        The path of the report.

    Raises:
        RunError: `out` holds something other than an earlier demo.
    """
    started = time.perf_counter()
    folder = Path(options.out)
    for name in ("pretrain", "train"):
        path = folder / name
        if path.exists() and not (path / "recipe.yaml").is_file():
            raise RunError(
                f"out = {folder}: {path} was not written by a demo, so it is not replaced. Choose "
                "another folder."
            )
    changes: dict[str, Any] = {"overwrite": True, **(QUICK if options.quick else {})}

    _title("1. Pre-training without labels (FCMAE)")
    pretrained = pretrain("demo_pretrain", out=str(folder / "pretrain"), **changes)
    _title("2. Fine-tuning on labelled images")
    trained = train("demo", init=str(pretrained.path), out=str(folder / "train"), **changes)

    pictures = _save_some_images(folder / "images")
    _title("3. Prediction")
    predict(trained.path, pictures, top_k=3)
    _title("4. Reconstruction of masked images")
    reconstruct(pretrained.path, pictures, out=folder / "reconstructions.png")
    say(f"\nDone in {time.perf_counter() - started:.0f} s. Open {trained.report} in a browser.")
    return trained.report


def _title(text: str) -> None:
    say(f"\n{text}")


def _save_some_images(folder: Path) -> list[Path]:
    """Save a few bundled validation images as PNG files, for the verbs that take image files."""
    folder.mkdir(parents=True, exist_ok=True)
    _, source = find_sources(read_recipe({}, config="demo")[0], labelled=True)
    assert source is not None and source.targets is not None
    paths = []
    for i in range(_IMAGES):
        index = i * len(source) // _IMAGES
        name = source.class_names[source.targets[index]].replace("/", "-").replace(" ", "-").lower()
        paths.append(folder / f"{i}-{name}.png")
        picture: Image.Image = to_picture(source.pixels(index, 1))
        with replacing(paths[-1]) as temporary:
            picture.save(temporary, "PNG")
    return paths
