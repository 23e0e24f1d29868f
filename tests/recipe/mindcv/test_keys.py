import re
from pathlib import Path

import pytest
import yaml
from mindcv_recipes import COMPLETE, write

from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.mindcv import keys
from convnextv2.recipe.read import read_recipe

# Every flag of MindCV's config.py, and a few more of its YAML keys, with what becomes of it here.
# `same`: our knob of that name. `->`: another name. `only`: any value is refused but the one that
# means what we do. `none`: it has no effect, which is announced. `refused`: any value is refused.
FATES = {
    "mode": "none", "distribute": "same", "val_while_train": "same",
    "val_interval": "-> val_every_epochs", "log_interval": "-> log_every_steps", "seed": "same",
    "device_target": "-> device", "dataset": "same", "data_dir": "same", "train_split": "same",
    "val_split": "same", "dataset_download": "same", "num_parallel_workers": "-> workers",
    "shuffle": "same", "num_samples": "same", "batch_size": "same",
    "drop_remainder": "-> drop_last", "image_resize": "-> image_size", "scale": "same",
    "ratio": "same", "hflip": "same", "vflip": "same", "color_jitter": "same",
    "interpolation": "same", "auto_augment": "same", "aug_splits": "same",
    "re_prob": "-> erase_prob", "re_scale": "-> erase_scale", "re_ratio": "-> erase_ratio",
    "re_value": "-> erase_value", "re_max_attempts": "-> erase_attempts", "mean": "same",
    "std": "same", "crop_pct": "same", "mixup": "same", "cutmix": "same",
    "cutmix_prob": "-> mix_prob", "aug_repeats": "same", "model": "same", "num_classes": "same",
    "in_channels": "same", "drop_rate": "only none", "drop_path_rate": "same",
    "pretrained": "only False", "ckpt_path": "-> init", "resume_opt": "same",
    "keep_checkpoint_max": "-> keep_checkpoints", "ckpt_save_dir": "-> out",
    "ckpt_save_interval": "-> save_every_epochs", "ckpt_save_policy": "-> keep_policy",
    "epoch_size": "-> epochs", "dataset_sink_mode": "none", "ema": "same", "ema_decay": "same",
    "clip_grad": "-> clip_norm", "clip_value": "none", "layer_decay": "same",
    "gradient_accumulation_steps": "-> accumulate", "opt": "-> optimizer", "momentum": "same",
    "weight_decay": "same", "use_nesterov": "-> nesterov", "weight_decay_filter": "same",
    "eps": "same", "scheduler": "-> schedule", "lr": "same", "min_lr": "same",
    "warmup_epochs": "same", "warmup_factor": "same", "decay_epochs": "same", "decay_rate": "same",
    "multi_step_decay_milestones": "-> decay_milestones", "lr_epoch_stair": "same",
    "num_cycles": "same", "cycle_decay": "same", "loss": "same", "label_smoothing": "same",
    "aux_factor": "none", "reduction": "-> loss_reduction", "amp_level": "-> precision",
    "val_amp_level": "-> val_precision", "amp_cast_list": "none", "loss_scale_type": "none",
    "loss_scale": "same", "drop_overflow_update": "none", "eval_shuffle": "none", "config": "none",
    "enable_modelarts": "refused", "filter_bias_and_bn": "refused",
}  # fmt: skip
# Key: a value that is not MindCV's default, and what becomes of it if it does not stay the same.
CHANGED: dict[str, tuple] = {
    "distribute": (True,), "val_while_train": (True,), "val_interval": (3,), "log_interval": (7,),
    "seed": (1,), "device_target": ("CPU", "cpu"), "dataset": ("cifar10",), "data_dir": ("d",),
    "train_split": ("a",), "val_split": ("b",), "dataset_download": (True,),
    "num_parallel_workers": (2,), "shuffle": (False,), "num_samples": (9,), "batch_size": (8,),
    "drop_remainder": (False,), "image_resize": (96,), "scale": ([0.5, 1.0], (0.5, 1.0)),
    "ratio": ([0.5, 2.0], (0.5, 2.0)), "hflip": (0.1,), "vflip": (0.1,), "color_jitter": (0.1,),
    "interpolation": ("bicubic",), "auto_augment": ("augmix",), "aug_splits": (3,),
    "re_prob": (0.5,), "re_scale": ([0.1, 0.2], (0.1, 0.2)), "re_ratio": ([0.5, 2.0], (0.5, 2.0)),
    "re_value": ("random",), "re_max_attempts": (3,), "mean": ([127.0] * 3, (127.0,) * 3),
    "std": ([50.0] * 3, (50.0,) * 3), "crop_pct": (0.9,), "mixup": (0.5,), "cutmix": (0.5,),
    "cutmix_prob": (0.5,), "aug_repeats": (3,), "model": ("convnextv2_tiny",), "num_classes": (7,),
    "in_channels": (1,), "drop_path_rate": (0.2,), "ckpt_path": ("a.ckpt",), "resume_opt": (True,),
    "keep_checkpoint_max": (3,), "ckpt_save_dir": ("x",), "ckpt_save_interval": (2,),
    "ckpt_save_policy": ("top_k",), "epoch_size": (8,), "ema": (True,), "ema_decay": (0.9,),
    "clip_grad": (True, 15.0), "layer_decay": (0.9,), "gradient_accumulation_steps": (2,),
    "opt": ("lamb",), "momentum": (0.8,), "weight_decay": (0.1,), "use_nesterov": (True,),
    "weight_decay_filter": ("auto",), "eps": (1e-5,), "scheduler": ("step_decay", "step"),
    "lr": (0.1,), "min_lr": (1e-5,), "warmup_epochs": (1,), "warmup_factor": (0.1,),
    "decay_epochs": (50,), "decay_rate": (0.5,), "multi_step_decay_milestones": ([3, 6], (3, 6)),
    "lr_epoch_stair": (True,), "num_cycles": (2,), "cycle_decay": (0.5,), "loss": ("BCE", "bce"),
    "label_smoothing": (0.1,), "reduction": ("sum",), "amp_level": ("O2", "auto"),
    "val_amp_level": ("O2", "auto"), "loss_scale": (2.0,),
}  # fmt: skip


@pytest.mark.parametrize(("key", "fate"), FATES.items())
def test_no_key_of_mindcv_is_ignored_in_silence(key, fate, tmp_path):
    kind, _, argument = fate.partition(" ")
    if kind == "same":
        assert key in Recipe.model_fields
    elif kind == "->":
        assert keys.RENAMED[key] == argument in Recipe.model_fields
    elif kind == "none":
        value = "fixed" if key == "loss_scale_type" else 1
        _, notes = read_recipe({}, config=write(tmp_path, f"{COMPLETE}{key}: {value}\n"))
        assert any(note.startswith("No effect here:") and key in note for note in notes)
    else:
        with pytest.raises(RecipeError, match=f"{key} = something: .+"):
            read_recipe({}, config=write(tmp_path, f"{COMPLETE}{key}: something\n"))
        if kind == "only":
            read_recipe({key: argument})
            read_recipe({}, config=write(tmp_path, f"{COMPLETE}{key}: {argument}\n"))


def test_the_documentation_has_every_key_with_its_fate():
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "mindcv.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \| .+ \|$", text, flags=re.MULTILINE))
    assert rows.keys() == FATES.keys()
    for key, ours in rows.items():
        kind, _, argument = FATES[key].partition(" ")
        expected = {
            "same": f"`{key}`",
            "->": f"`{argument}`",
            "none": "no effect",
            "only": "checked",
            "refused": "refused",
        }[kind]
        assert ours == expected, key


def test_mindcvs_dump_has_every_option():
    dump = yaml.safe_load((Path(__file__).parent / "every_option.yaml").read_text())
    assert set(dump) == set(FATES) - {"enable_modelarts", "filter_bias_and_bn"}


def test_tables_have_no_key_that_mindcv_has_not():
    known = {key for key, fate in FATES.items() if fate != "same"}
    assert known - keys.KEYS == {"enable_modelarts"}
    assert keys.KEYS <= known


def test_every_key_that_is_a_knob_reaches_it(tmp_path):
    assert CHANGED.keys() == {
        key for key, fate in FATES.items() if fate == "same" or fate.startswith("->")
    }
    needs = {
        "aug_splits": {"auto_augment": "augmix"},
        "dataset_download": {"dataset": "mnist"},
        "eps": {"opt": "rmsprop"},
    }
    needs |= {"ckpt_save_policy": {"val_while_train": True}, "use_nesterov": {"opt": "sgd"}}
    for key, (value, *ours) in CHANGED.items():
        keys = {"model": "convnextv2_atto", "opt": "adamw", "mode": 0} | needs.get(key, {})
        before, after = (
            read_recipe({}, config=write(tmp_path, yaml.safe_dump(d)))[0]
            for d in (keys, keys | {key: value})
        )
        knob = key if FATES[key] == "same" else FATES[key].removeprefix("-> ")
        assert getattr(after, knob) == (ours[0] if ours else value) != getattr(before, knob), key
