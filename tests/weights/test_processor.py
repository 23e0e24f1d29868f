import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.errors import CheckpointError
from convnextv2.preprocessing import Preprocessing
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.opened import open_weights

from .networks import random_model, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hf")
    convert_weights(save(random_model(), path / "ours"), "transformers", path / "hf")
    return path / "hf"


def photograph(height: int = 60, width: int = 96) -> Image.Image:
    """A smooth picture, on which two ways of resizing agree, and every crop shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (rows / height, columns / width, 0.5 + 0.4 * np.sin(rows / 20 + columns / 30))
    return Image.fromarray((np.stack(channels, -1) * 255).round().astype(np.uint8))


def opened(folder: Path, **config):
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return open_weights(folder)


def ours(folder: Path, **config) -> torch.Tensor:
    transform = EvalTransform(
        Preprocessing.read(opened(folder, **config).description.preprocessing)
    )
    pixels = torch.from_numpy(np.array(photograph())).permute(2, 0, 1)
    return BatchTransform(transform.preprocessing.mean, transform.preprocessing.std).normalise(
        transform(pixels)[None]
    )


def theirs(folder: Path) -> torch.Tensor:
    processor = AutoImageProcessor.from_pretrained(folder)
    return processor(images=photograph(), return_tensors="pt")["pixel_values"]


CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 48}}
NORMAL = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "config",
    [
        CONVNEXT,
        CONVNEXT | NORMAL | {"crop_pct": 0.9},
        CONVNEXT | NORMAL | {"do_normalize": False},
        CONVNEXT | NORMAL | {"do_rescale": False},
        CONVNEXT | NORMAL | {"rescale_factor": 1 / 127.5},
        CONVNEXT | {"size": 48},
        CONVNEXT | {"size": {"shortest_edge": 384}},
        CONVNEXT | {"do_center_crop": True, "crop_size": {"height": 40, "width": 40}},
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 48, "crop_pct": 0.875},
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 32}},
        {"image_processor_type": "ViTImageProcessor", "size": 32, "resample": 3},
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 53},
            "crop_size": 48,
        },
        {
            "image_processor_type": "BitImageProcessor",
            "size": 48,
            "crop_size": {"height": 48, "width": 48},
        },
    ],
)
def test_images_come_out_as_from_transformers(config: dict, folder: Path) -> None:
    made = ours(folder, **config)
    assert opened(folder, **config).notes == []
    expected = theirs(folder)
    assert made.shape == expected.shape
    scale = float(expected.max() - expected.min())
    assert float((made - expected).abs().max()) < 0.02 * scale


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}},
            "warps images.*at 224 x 224 px",
        ),
        ({"image_processor_type": "DeiTImageProcessor"}, "warps images"),
        (
            {"image_processor_type": "CLIPImageProcessor", "do_center_crop": False},
            "does not crop images that are not square",
        ),
        (CONVNEXT | {"do_resize": False}, "do_resize = False"),
        (
            CONVNEXT | {"do_flip_channel_order": True},
            "do_flip_channel_order = True is not known here",
        ),
        (
            {"image_processor_type": "ZebraImageProcessor", "size": 32},
            "ZebraImageProcessor is not known here",
        ),
    ],
)
def test_what_cannot_be_done_here_is_said(config: dict, said: str, folder: Path) -> None:
    found = opened(folder, **config)
    assert len(found.notes) == 1 and re.search(said, found.notes[0]), found.notes
    EvalTransform(Preprocessing.read(found.description.preprocessing))


@pytest.mark.parametrize(
    "null", ["image_mean", "image_std", "size", "crop_pct", "resample", "crop_size"]
)
def test_null_means_the_default_of_the_class(null: str, folder: Path) -> None:
    config = CONVNEXT | {"crop_pct": 0.875, "resample": 3} | {null: None}
    found = opened(folder, **config).description.preprocessing
    assert (found["mean"], found["std"], found["crop_pct"]) == (
        [0.5] * 3,
        [0.5] * 3,
        1.0 if null == "size" else 48 / 54,
    )
    assert found["image_size"] == ([384, 384] if null == "size" else [48, 48])


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": "abc"},
        {"size": {}},
        {"size": -5},
        {"size": 0},
        {"resample": "x"},
        {"image_mean": 5},
        {"rescale_factor": 0},
    ]
    + [
        {"crop_pct": 0},
        {"crop_pct": "x"},
        {"size": 10**400},
        {"rescale_factor": float("nan")},
        {"image_std": [0, 1, 1]},
    ],
)
def test_values_that_mean_nothing_are_one_line(wrong: dict, folder: Path) -> None:
    with pytest.raises(
        CheckpointError, match="the preprocessing beside the weights cannot be"
    ) as error:
        opened(folder, **CONVNEXT | wrong)
    assert str(error.value).isprintable()
