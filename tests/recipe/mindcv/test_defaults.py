"""Whose defaults hold: MindCV's where a recipe has its keys, and otherwise ours."""

from pathlib import Path

import pytest
from mindcv_recipes import COMPLETE, write

from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.mindcv import keys
from convnextv2.recipe.read import read_recipe
from convnextv2.recipe.values import read_value

EVERY_OPTION = Path(__file__).parent / "every_option.yaml"


def test_the_shipped_recipe_is_mindcvs():
    recipe, notes = read_recipe(
        {"data_dir": "d"}, config="configs/convnextv2/convnextv2_tiny_ascend.yaml"
    )
    assert recipe == Recipe(
        out="./ckpt", distribute=True, precision="auto", val_while_train=True, keep_checkpoints=10,
        log_every_steps=100, data_dir="d", dataset="imagenet", batch_size=128, drop_last=True,
        workers=16, image_size=224, scale=(0.08, 1.0), ratio=(0.75, 1.333), hflip=0.5,
        color_jitter=0.4, auto_augment="randaug-m9-mstd0.5-inc1", interpolation="bicubic",
        erase_prob=0.25, erase_scale=(0.02, 0.33), erase_value="random", mixup=0.8, cutmix=1.0,
        aug_repeats=3, eval_preset="mindcv", crop_pct=0.95, model="convnextv2_tiny",
        num_classes=1000, gelu="tanh", drop_path_rate=0.1, epochs=450, optimizer="adamw", lr=0.002,
        min_lr=3e-7, schedule="cosine", warmup_epochs=20, warmup_factor=1.75e-5, decay_epochs=430,
        weight_decay=0.049, weight_decay_filter="disable", loss="ce", label_smoothing=0.1,
        loss_scale=2.0**24, val_precision="float32", mindcv_files=True, ema_form="mindcv",
    )  # fmt: skip
    assert len(notes) == 3
    for key in ("mode", "dataset_sink_mode", "loss_scale_type", "momentum", "use_nesterov"):
        assert key in notes[-1]


def test_defaults_are_values_of_our_knobs():
    for name, value in keys.DEFAULTS.items():
        assert read_value(name, value) == value, name
    Recipe(**keys.DEFAULTS)


def test_mindcvs_defaults_hold_where_the_yaml_has_its_keys(tmp_path):
    recipe, notes = read_recipe({}, config=write(tmp_path, COMPLETE + "epoch_size: 7\n"))
    assert (
        recipe.epochs,
        recipe.color_jitter,
        recipe.interpolation,
        recipe.weight_decay_filter,
    ) == (
        7,
        0.4,
        "bilinear",
        "disable",
    )
    assert (recipe.eval_preset, recipe.gelu, recipe.precision, recipe.warmup_epochs) == (
        "mindcv",
        "tanh",
        "float32",
        3,
    )
    assert (
        "opt" in notes[0]
        and "color_jitter 0.4" in notes[0]
        and "epochs 90" not in notes[0]
        and "hflip" not in notes[0]
    )


def test_mindcvs_own_dump_of_every_option_reads_as_what_it_leaves_out(tmp_path):
    left_out, _ = read_recipe({}, config=write(tmp_path, COMPLETE))
    spelled_out, _ = read_recipe({}, config=write(tmp_path, EVERY_OPTION.read_text()))
    same = {
        "dataset": "imagenet",
        "workers": 8,
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
    }
    assert spelled_out == left_out.model_copy(update=same)


def test_our_defaults_hold_where_it_has_none(tmp_path):
    recipe, notes = read_recipe(
        {"epoch_size": "7"}, config=write(tmp_path, "model: convnextv2_tiny\nmixup: 0.8\n")
    )
    assert recipe == Recipe(model="convnextv2_tiny", mixup=0.8, epochs=7)
    assert notes == []


@pytest.mark.parametrize("in_yaml", [True, False])
def test_defaults_can_be_chosen(tmp_path, in_yaml):
    text = "epoch_size: 7\n" + "defaults: convnextv2\n" * in_yaml
    recipe, notes = read_recipe(
        {} if in_yaml else {"defaults": "convnextv2"}, config=write(tmp_path, text)
    )
    assert recipe == Recipe(epochs=7)
    assert notes == []
    recipe, _ = read_recipe(
        {"defaults": "mindcv", "model": "convnextv2_atto", "optimizer": "adamw"}
    )
    assert recipe.gelu == "tanh"
    with pytest.raises(RecipeError, match="defaults = timm: expected mindcv or convnextv2"):
        read_recipe({"defaults": "timm"})


def test_defaults_that_are_not_offered_must_be_set(tmp_path):
    with pytest.raises(RecipeError) as caught:
        read_recipe({}, config=write(tmp_path, "epoch_size: 7\n"))
    assert "model: not given" in str(caught.value)
