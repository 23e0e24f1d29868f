"""Combinations of MindCV's keys of which one has no effect, or which contradict each other."""

import re

import pytest
from mindcv_recipes import COMPLETE, write

from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe

# Pairs of a line and another beside it that leaves it without effect, which must be said, or that
# cannot go with it.
IDLE = [
    ("resume_opt: True", "ckpt_path: ''"), ("val_interval: 3", "val_while_train: False"),
    ("cutmix_prob: 0.5", "mixup: 0.0"), ("keep_checkpoint_max: 3", "ckpt_save_policy: null"),
    ("warmup_factor: 0.1", "warmup_epochs: 0"), ("label_smoothing: 0.1", "loss: asl_multi_label"),
    ("loss_scale: 2.0", "amp_level: O0"), ("use_nesterov: True", "mode: 0"),
    ("momentum: 0.8", "mode: 0"), ("eps: 1e-5", "mode: 0"),
    ("color_jitter: 0.1", "auto_augment: augmix"), ("re_scale: [0.1, 0.2]", "re_prob: 0.0"),
    ("ema_decay: 0.9", "ema: False"), ("num_cycles: 2", "scheduler: step_decay"),
    ("cycle_decay: 0.5", "scheduler: step_decay"),
    ("decay_epochs: 9", "scheduler: polynomial_decay"), ("decay_rate: 0.5", "mode: 0"),
    ("multi_step_decay_milestones: [3]", "mode: 0"), ("min_lr: 1e-5", "scheduler: step_decay"),
    ("train_split: a", "dataset: cifar10"), ("hflip: 0.1", "dataset: cifar10"),
    ("scale: [0.5, 1]", "dataset: mnist"), ("auto_augment: augmix", "dataset: cifar100"),
    ("mean: [1, 1, 1]", "dataset: cifar10"), ("clip_value: 3", "clip_grad: False"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scheduler": "one_cycle", "warmup_epochs": "3"}, "has its own warm-up"),
        ({"ckpt_save_policy": "top_k", "val_while_train": "False"}, "val_while_train = True"),
        ({"loss": "jsd"}, "aug_splits = 3"),
        ({"aug_splits": "3"}, "Set auto_augment"),
        ({"aug_splits": "3", "auto_augment": "augmix", "mixup": "0.1"}, "mixup = 0"),
        ({"opt": "adam", "use_nesterov": "True"}, "nadam"),
        ({"pretrained": "True", "ckpt_path": "a.ckpt"}, "Drop one of them"),
        ({"reduction": "sum", "loss": "asl_single_label"}, "Use mean"),
        ({"dataset_download": "True"}, "image folders cannot be downloaded"),
        ({"dataset_download": "True", "dataset": "imagenet"}, "image folders cannot be downloaded"),
        ({"mode": "banana"}, "mode = banana: expected 0 or 1"),
        ({"loss_scale": "abc"}, "loss_scale = abc: expected a number >= 1"),
        ({"loss_scale": "0.5"}, "loss_scale = 0.5: expected a number >= 1"),
        (
            {"loss_scale_type": "whatever"},
            "loss_scale_type = whatever: expected one of fixed, dynamic, auto",
        ),
        ({"drop_overflow_update": "maybe"}, "drop_overflow_update = maybe: expected True or False"),
        ({"dataset_sink_mode": "2"}, "dataset_sink_mode = 2: expected True or False"),
        ({"clip_value": "abc"}, "clip_value = abc: expected a number"),
        ({"aux_factor": "x"}, "aux_factor = x: expected a number"),
    ],
)
def test_what_cannot_go_together_is_refused(given, told):
    with pytest.raises(RecipeError, match=told):
        read_recipe(given)


@pytest.mark.parametrize(("line", "beside"), IDLE)
def test_what_other_keys_leave_without_effect_is_said(line, beside, tmp_path):
    key = line.split(":")[0]
    _, notes = read_recipe(
        {}, config=write(tmp_path, f"{COMPLETE}{line}\n{beside}\ndataset_sink_mode: True\n")
    )
    assert re.search(rf"No effect here: .*\b{key}\b", notes[-1])


def test_other_combinations_that_do_less_than_they_seem_to_are_told():
    assert "larger part" in read_recipe({"loss": "asl_single_label", "mixup": "0.8"})[1][-1]


@pytest.mark.parametrize(
    ("dataset", "mean"), [("cifar10", 0.4914), ("cifar100", 0.4914), ("mnist", 0.1307)]
)
def test_mindcvs_small_sets_are_prepared_as_there(dataset, mean, tmp_path):
    keys = (
        f"{COMPLETE}mode: 0\ndataset: {dataset}\nimage_resize: 64\nauto_augment: randaug\n"
        "re_prob: 0.25\nhflip: 0.3\n"
    )
    recipe, notes = read_recipe({}, config=write(tmp_path, keys))
    assert (recipe.auto_augment, recipe.erase_prob, recipe.color_jitter, recipe.crop_pct) == (
        None,
        0.0,
        0.0,
        1.0,
    )
    assert (recipe.interpolation, recipe.mean[0], recipe.image_size) == ("bilinear", mean, 64)
    assert (recipe.crop_padding, recipe.hflip, recipe.in_channels) == (
        (0, 0.0, 1) if dataset == "mnist" else (4, 0.5, 3)
    )
    assert (
        f"mean [{mean}" in notes[0]
        and f"MindCV has its own preprocessing for {dataset}" in notes[-1]
    )
    assert read_recipe({"hflip": "0.3"}, config=write(tmp_path, keys))[0].hflip == 0.3
    assert read_recipe({"dataset": dataset, "hflip": "0.3"})[0] == Recipe(
        dataset=dataset, hflip=0.3
    )
