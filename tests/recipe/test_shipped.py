"""Every recipe in the tree resolves, and says at its head what it is."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maps import draw_maps
from PIL import Image
from shapes import write_coco

import convnextv2
from convnextv2.data.build_transforms import (
    build_batch_transform,
    build_eval_transform,
    build_train_transform,
)
from convnextv2.recipe.files import list_recipes
from convnextv2.recipe.read import read_recipe
from convnextv2.run import Run
from convnextv2.training.build import build_network

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml"))


def test_all_recipes_are_listed_by_name() -> None:
    assert sorted(name for name, _ in list_recipes()) == NAMES and len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_recipe_resolves_and_builds(name: str) -> None:
    recipe, _ = read_recipe({}, config=name)
    with torch.device("meta"):
        build_network(recipe, 10)
    build_train_transform(recipe)
    build_eval_transform(recipe)
    build_batch_transform(recipe, 10)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_states_command_hardware_and_result(name: str) -> None:
    head = (CONFIGS / f"{name}.yaml").read_text().split("\n\n")[0]
    for field in ("Command:", "Hardware:", "Time:", "Result:"):
        assert field in head
    assert f"--config {Path(name).name}" in head or name in head or name.startswith("demo")
    assert not re.search(r"[A-Z]+_[A-Z]|\bN+[.:]N|TODO|TBD|\?\?", head)


# The paper's Tables 8 to 13, with what the official commands correct: learning rates are multiplied
# by the global batch / 256. Size: fine-tuned epochs, warm-up, lr, layer decay and its form, weight
# decay, drop path, mixup, cutmix, label smoothing.
FINETUNED = {
    "atto": (600, 0, 8e-4, 0.9, "single", 0.3, 0.1, 0.0, 0.0, 0.2),
    "femto": (600, 0, 8e-4, 0.9, "single", 0.05, 0.0, 0.3, 0.3, 0.2),
    "pico": (600, 0, 8e-4, 0.9, "single", 0.3, 0.0, 0.3, 0.3, 0.2),
    "nano": (600, 0, 8e-4, 0.9, "single", 0.3, 0.1, 0.5, 0.5, 0.2),
    "tiny": (300, 40, 3.2e-3, 0.9, "single", 0.05, 0.2, 0.8, 1.0, 0.1),
    "base": (100, 20, 2.5e-3, 0.6, "group", 0.05, 0.1, 0.8, 1.0, 0.1),
    "large": (100, 20, 2.5e-3, 0.6, "group", 0.05, 0.2, 0.8, 1.0, 0.1),
    "huge": (50, 10, 5e-3, 0.75, "single", 0.05, 0.3, 0.8, 1.0, 0.1),
}
# Size: layer decay and drop path on ImageNet-22K; then epochs, layer decay, drop path and moving
# average on ImageNet-1K.
VIA_22K = {
    "nano": (0.9, 0.0, 90, 0.9, 0.1, True),
    "tiny": (0.9, 0.0, 90, 0.9, 0.1, True),
    "base": (0.8, 0.1, 30, 0.8, 0.2, True),
    "large": (0.8, 0.1, 30, 0.8, 0.3, True),
    "huge": (0.8, 0.3, 30, 0.85, 0.5, False),
}


def values_of(name: str) -> dict[str, Any]:
    return read_recipe({}, config=name)[0].model_dump()


@pytest.mark.parametrize("size", FINETUNED)
def test_values_of_the_paper_for_pretraining_and_finetuning(size: str) -> None:
    masked = {
        "model": f"convnextv2_{size}", "image_size": 224, "epochs": 1600, "warmup_epochs": 40,
        "lr": 2.4e-3, "min_lr": 0.0, "lr_batch_size": 4096, "scale_lr": True, "optimizer": "adamw",
        "betas": (0.9, 0.95), "weight_decay": 0.05, "schedule": "cosine", "scale": (0.2, 1.0),
        "hflip": 0.5, "interpolation": "bicubic", "mask_ratio": 0.6, "norm_target": True,
        "decoder_dim": 512, "decoder_depth": 1, "drop_path_rate": 0.0, "ema": False,
        "clip_norm": None, "weight_decay_filter": "norm_and_bias", "tile": None, "stem_stride": 4,
        "auto_augment": None,
    }  # fmt: skip
    assert values_of(f"fcmae_{size}").items() >= masked.items()
    epochs, warmup, lr, layer_decay, form, weight_decay, drop_path, mixup, cutmix, smoothing = (
        FINETUNED[size]
    )
    tuned = {
        "model": f"convnextv2_{size}", "image_size": 224, "epochs": epochs, "warmup_epochs": warmup,
        "lr": lr, "min_lr": 1e-6, "lr_batch_size": 1024, "scale_lr": True, "optimizer": "adamw",
        "betas": None, "eps": 1e-8, "schedule": "cosine", "layer_decay": layer_decay,
        "layer_decay_form": form, "weight_decay": weight_decay, "drop_path_rate": drop_path,
        "mixup": mixup, "cutmix": cutmix, "mix_prob": 1.0, "mix_switch_prob": 0.5,
        "label_smoothing": smoothing, "auto_augment": "randaug-m9-mstd0.5-inc1", "erase_prob": 0.25,
        "erase_value": "random", "scale": (0.08, 1.0), "hflip": 0.5, "ema": True,
        "ema_decay": 0.9999, "ema_form": "constant", "head_init_scale": 0.001, "clip_norm": None,
        "eval_preset": "official", "crop_pct": 0.875, "interpolation": "bicubic",
        "weight_decay_filter": "norm_and_bias",
    }  # fmt: skip
    assert values_of(f"finetune_{size}").items() >= tuned.items()


@pytest.mark.parametrize("size", VIA_22K)
def test_values_of_the_paper_for_the_route_over_22k(size: str) -> None:
    layer_decay, drop_path, epochs, layer_decay_after, drop_path_after, ema = VIA_22K[size]
    both = {
        "model": f"convnextv2_{size}", "image_size": 224, "auto_augment": "randaug-m9-mstd0.5-inc1",
        "label_smoothing": 0.1, "head_init_scale": 0.001, "layer_decay_form": "single",
        "optimizer": "adamw", "scale_lr": True, "schedule": "cosine",
    }  # fmt: skip
    first = {
        "epochs": 90, "warmup_epochs": 5, "lr": 4e-3, "lr_batch_size": 4096, "weight_decay": 0.05,
        "mixup": 0.8, "cutmix": 1.0, "layer_decay": layer_decay, "drop_path_rate": drop_path,
        "ema": False, "val_while_train": False,
    }  # fmt: skip
    second = {
        "epochs": epochs, "warmup_epochs": 0, "lr": 5e-5, "lr_batch_size": 512,
        "weight_decay": 1e-8, "mixup": 0.0, "cutmix": 0.0, "layer_decay": layer_decay_after,
        "drop_path_rate": drop_path_after, "ema": ema,
    }  # fmt: skip
    assert values_of(f"in22k_{size}").items() >= (both | first).items()
    after = values_of(f"in22k_in1k_{size}")
    assert after.items() >= (both | second).items() and (not ema or after["ema_decay"] == 0.9999)


@pytest.mark.parametrize(
    ("size", "reference"), [("base", "52.1"), ("large", "53.7"), ("huge", "55.0")]
)
def test_values_of_the_paper_and_of_the_first_version_for_ade20k(size: str, reference: str) -> None:
    expected = {
        "task": "segmentation", "model": f"convnextv2_{size}", "image_size": 512, "batch_size": 2,
        "lr": 1e-4, "lr_batch_size": 16, "weight_decay": 0.05, "betas": None, "clip_norm": None,
        "optimizer": "adamw", "layer_decay": 0.9, "layer_decay_form": "stage",
        "drop_path_rate": 0.4, "schedule": "polynomial", "decay_rate": 1.0, "warmup_factor": 0.01,
        "scale_jitter": (0.5, 2.0), "max_class_share": 0.75, "photometric": 0.5, "hflip": 0.5,
        "reduce_zero_label": True, "head_channels": 512, "head_norm": "batch",
        "auxiliary_weight": 0.4, "ema": False, "slide": False, "interpolation": "bilinear",
    }  # fmt: skip
    values = values_of(f"segment_{size}")
    assert values.items() >= expected.items()
    steps_per_epoch = 20_210 // 16
    assert values["epochs"] * steps_per_epoch == pytest.approx(160_000, rel=0.005)
    assert values["warmup_epochs"] * steps_per_epoch == pytest.approx(1_500, rel=0.005)
    assert f"mIoU {reference} %" in (CONFIGS / f"segment_{size}.yaml").read_text()


# The values of the paper's appendix A.3 and of MMDetection's project for ConvNeXt V2. Size: images
# on each of 8 devices, accumulated batches, drop path.
DETECTED = {"base": (4, 1, 0.4), "large": (2, 2, 0.5), "huge": (1, 4, 0.5)}


@pytest.mark.parametrize("size", DETECTED)
def test_values_of_the_paper_for_detection(size: str) -> None:
    batch, accumulate, drop_path = DETECTED[size]
    values = {
        "model": f"convnextv2_{size}", "task": "detection", "image_size": 1024, "epochs": 36,
        "lr": 1e-4, "lr_batch_size": 32, "weight_decay": 0.05, "optimizer": "adamw", "betas": None,
        "scale_jitter": (0.1, 2.0), "hflip": 0.5, "soft_nms": True, "layer_decay": 0.95,
        "layer_decay_form": "group", "drop_path_rate": drop_path, "schedule": "multi_step",
        "decay_milestones": (27, 33), "decay_rate": 0.1, "clip_norm": None, "fpn_channels": 256,
        "finest_stride": 4, "anchor_scale": 8.0, "box_dim": 1024, "proposals": 1000, "rois": 512,
        "batch_size": batch, "accumulate": accumulate,
    }  # fmt: skip
    assert values_of(f"detect_{size}").items() >= values.items()
    assert 8 * batch * accumulate == 32


@pytest.mark.parametrize(
    "name", [name for name in NAMES if Path(name).parent.name in ("imagenet", "imagenet22k")]
)
def test_what_the_paper_does_not_say_is_at_the_head(name: str) -> None:
    lines = (CONFIGS / f"{name}.yaml").read_text().split("\n\n")[0].splitlines()
    head = " ".join(line.lstrip("# ") for line in lines)
    if "22k/" in name:
        assert "224 px and single are our choice" in head
    if "fcmae_" in name:
        unsaid = name.rpartition("_")[2] in ("atto", "femto", "pico", "nano", "tiny")
        assert ("does not say which for this size" in head) == unsaid


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part, name, i in (
        (part, name, i) for part in ("train", "val") for name in "ab" for i in range(4)
    ):
        path = root / part / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_recipe_runs_two_steps_with_a_small_network(
    name: str, photos: Path, tmp_path: Path
) -> None:
    """All but depths, widths, image size, batch, length and start is the recipe's."""
    verb = convnextv2.pretrain if "fcmae" in name or "pretrain" in name else convnextv2.train
    small = {
        "model": "custom",
        "depths": (1, 1, 3, 1),
        "dims": (4, 8, 12, 16),
        "image_size": 64,
        "batch_size": 4,
        "epochs": 1,
        "init": "",
    }
    small |= {
        "warmup_epochs": 0,
        "workers": 0,
        "device": "cpu",
        "distribute": "auto",
        "tensorboard": False,
        "save_every_epochs": 1,
    }
    where = {"data_dir": photos, "dataset": "", "dataset_download": False}
    if name.startswith("segment_"):
        where = {"data_dir": draw_maps(tmp_path / "maps")}
        small |= {"head_channels": 8, "reduce_zero_label": False}
    elif name.startswith("detect_"):
        where = {"data_dir": write_coco(tmp_path / "objects", train=8, val=2)}
        small |= {"fpn_channels": 8, "box_dim": 8, "rois": 8, "proposals": 20, "accumulate": 1}
    else:
        small |= {"decoder_dim": 8} if verb is convnextv2.pretrain else {"num_classes": 10}
    verb(config=name, out=tmp_path / "run", **small, **where)
    epochs = [record for record in Run(tmp_path / "run").metrics() if record["kind"] == "epoch"]
    assert [record["step"] for record in epochs] == [2]
