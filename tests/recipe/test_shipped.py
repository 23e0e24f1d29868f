"""Every recipe in the tree resolves, and says at its head what it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convnextv2
from convnextv2.data.transforms import build_batch_transform, build_eval_transform, build_train_transform
from convnextv2.recipe.read import list_recipes, read_recipe
from convnextv2.run import Run
from convnextv2.training.assembly import build_network

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
    for field in ("Command:", "Hardware:", "Result:"):
        assert field in head
    assert f"--config {Path(name).name}" in head or name in head or name.startswith("demo")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part, name, i in ((part, name, i) for part in ("train", "val") for name in "ab" for i in range(4)):
        path = root / part / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_recipe_runs_two_steps_with_a_small_network(name: str, photos: Path, tmp_path: Path) -> None:
    """All but depths, widths, image size, batch and length is the recipe's."""
    verb = convnextv2.pretrain if "fcmae" in name or "pretrain" in name else convnextv2.train
    small = {"model": "custom", "depths": (1, 1, 3, 1), "dims": (4, 8, 12, 16), "image_size": 64, "batch_size": 4, "epochs": 1}
    small |= {
        "warmup_epochs": 0,
        "workers": 0,
        "device": "cpu",
        "distribute": "auto",
        "tensorboard": False,
        "save_every_epochs": 1,
    }
    small |= {"decoder_dim": 8} if verb is convnextv2.pretrain else {"num_classes": 10}
    where = {"data_dir": photos, "dataset": "", "dataset_download": False}
    verb(config=name, out=tmp_path / "run", **small, **where)
    epochs = [record for record in Run(tmp_path / "run").metrics() if record["kind"] == "epoch"]
    assert [record["step"] for record in epochs] == [2]
