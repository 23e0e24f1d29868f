import re
from pathlib import Path

import pytest
import yaml

from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.mindcv import keys
from convnextv2.recipe.read import read_recipe
from convnextv2.recipe.values import read_value

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
# What MindCV writes beside a run whose user chose nothing but a model and AdamW.
DUMP = yaml.safe_load("""
mode: 0
distribute: false
val_while_train: false
val_interval: 1
log_interval: 100
seed: 42
device_target: Ascend
dataset: imagenet
data_dir: ./
train_split: train
val_split: val
dataset_download: false
num_parallel_workers: 8
shuffle: true
num_samples: null
batch_size: 128
drop_remainder: true
image_resize: 224
scale: [0.08, 1.0]
ratio: [0.75, 1.333]
hflip: 0.5
vflip: 0.0
color_jitter: 0.4
interpolation: bilinear
auto_augment: null
aug_splits: 0
re_prob: 0.0
re_scale: [0.02, 0.33]
re_ratio: [0.3, 3.3]
re_value: 0
re_max_attempts: 10
mean: [123.675, 116.28, 103.53]
std: [58.395, 57.12, 57.375]
crop_pct: 0.875
mixup: 0.0
cutmix: 0.0
cutmix_prob: 1.0
aug_repeats: 0
model: convnextv2_atto
num_classes: null
in_channels: 3
drop_rate: null
drop_path_rate: null
pretrained: false
ckpt_path: ''
resume_opt: false
keep_checkpoint_max: 10
ckpt_save_dir: ./ckpt
ckpt_save_interval: 1
ckpt_save_policy: latest_k
epoch_size: 90
dataset_sink_mode: true
ema: false
ema_decay: 0.9999
clip_grad: false
clip_value: 15.0
layer_decay: null
gradient_accumulation_steps: 1
opt: adamw
momentum: 0.9
weight_decay: 1.0e-06
use_nesterov: false
weight_decay_filter: disable
eps: 1.0e-10
scheduler: cosine_decay
lr: 0.001
min_lr: 1.0e-06
warmup_epochs: 3
warmup_factor: 0.0
decay_epochs: 100
decay_rate: 0.9
multi_step_decay_milestones: [30, 60, 90]
lr_epoch_stair: false
num_cycles: 1
cycle_decay: 1.0
loss: CE
label_smoothing: 0.0
aux_factor: 0.0
reduction: mean
amp_level: O0
val_amp_level: O0
amp_cast_list: null
loss_scale_type: fixed
loss_scale: 1.0
drop_overflow_update: false
eval_shuffle: false
config: my.yaml
""")
COMPLETE = "model: convnextv2_atto\nopt: adamw\n"


def write(folder, text):
    path = folder / "mindcv.yaml"
    path.write_text(text)
    return path


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


def test_tables_have_no_key_that_mindcv_has_not():
    known = {key for key, fate in FATES.items() if fate != "same"}
    assert known - keys.KEYS == {"enable_modelarts"}
    assert keys.KEYS <= known


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
    spelled_out, _ = read_recipe({}, config=write(tmp_path, yaml.safe_dump(DUMP)))
    same = {
        "dataset": "imagenet",
        "workers": 8,
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
    }
    assert spelled_out == left_out.model_copy(update=same)
    assert set(DUMP) == set(FATES) - {"enable_modelarts", "filter_bias_and_bn"}


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


@pytest.mark.parametrize(
    ("key", "value", "knob", "ours"),
    [
        ("amp_level", "O0", "precision", "float32"),
        ("amp_level", "o3", "precision", "auto"),
        ("amp_level", "bfloat16", "precision", "bfloat16"),
        ("device_target", "Ascend", "device", "auto"),
        ("device_target", "GPU", "device", "cuda"),
        ("device_target", "CPU", "device", "cpu"),
        ("device_target", "NPU", "device", "npu"),
        ("scheduler", "cosine_decay", "schedule", "cosine"),
        ("scheduler", "constant", "schedule", "constant"),
        ("re_value", "0", "erase_value", 0.0),
        ("re_value", "random", "erase_value", "random"),
        ("re_value", "[1, 2, 3]", "erase_value", (1.0, 2.0, 3.0)),
        ("loss", "CE", "loss", "ce"),
        ("loss", "BCE", "loss", "bce"),
        ("drop_path_rate", None, "drop_path_rate", 0.0),
        ("layer_decay", None, "layer_decay", None),
        ("dataset", "", "dataset", ""),
        ("ckpt_path", "a.ckpt", "init", "a.ckpt"),
    ],
)
def test_values_are_translated(key, value, knob, ours):
    assert getattr(read_recipe({key: value})[0], knob) == ours


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("scheduler", "stepwise", "cosine_decay, warmup_cosine_decay, exponential_decay"),
        ("opt", "adamwhy", "sgd, adam, adamw"),
        ("loss", "hinge", "ce, bce, asl_single_label"),
        ("interpolation", "cubic", "nearest, bilinear, bicubic"),
        ("weight_decay_filter", "filter_bias_and_bn", "norm_and_bias, disable, auto"),
        ("amp_level", "O4", "O0, O1, O2, O3"),
        ("pretrained", "maybe", "True or False"),
        ("filter_bias_and_bn", "True", "weight_decay_filter"),
    ],
)
def test_what_is_not_offered_is_refused_with_what_is(key, value, told):
    with pytest.raises(RecipeError, match=f"{key} = {value}: .*{told}"):
        read_recipe({key: value})


def test_clipping_is_a_switch_and_a_number(tmp_path):
    assert read_recipe({"clip_grad": "True"})[0].clip_norm == 15.0
    assert read_recipe({"clip_grad": "True", "clip_value": "2"})[0].clip_norm == 2.0
    recipe, notes = read_recipe({"clip_grad": "False", "clip_value": "2"})
    assert recipe.clip_norm is None and "clip_value" in notes[0]
    path = write(tmp_path, COMPLETE + "clip_grad: True\nclip_value: 5\n")
    assert read_recipe({}, config=path)[0].clip_norm == 5.0
    assert read_recipe({"clip_value": "6"}, config=path)[0].clip_norm == 6.0
    assert read_recipe({"clip_norm": "7"}, config=path)[0].clip_norm == 7.0
    assert read_recipe({"clip_grad": "False"}, config=path)[0].clip_norm is None
    for wrong in (
        {"clip_grad": "2.5"},
        {"clip_grad": "True", "clip_value": "-1"},
        {"clip_grad": "True", "clip_norm": "1"},
    ):
        with pytest.raises(RecipeError, match=r"^clip_\w+ = [^\n]*$"):
            read_recipe(wrong)


def test_mindcvs_eps_reaches_rmsprop_only(tmp_path):
    path = write(tmp_path, COMPLETE + "eps: 1e-6\nepoch_size: 1\n")
    recipe, notes = read_recipe({}, config=path)
    assert recipe.eps == 1e-8 and "eps (in MindCV" in notes[-1]
    assert read_recipe({"eps": "1e-5"}, config=path)[0].eps == 1e-5
    assert read_recipe({"opt": "rmsprop"}, config=path)[0].eps == 1e-6
    assert read_recipe({"opt": "rmsprop"}, config=write(tmp_path, COMPLETE))[0].eps == 1e-10


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ({"interpolation": "pilcubic"}, {"interpolation": "bicubic", "antialias": True}),
        ({"interpolation": "area"}, {"interpolation": "area", "antialias": None}),
        ({"interpolation": "antialias"}, {"interpolation": "lanczos", "antialias": True}),
        ({"opt": "nesterov"}, {"optimizer": "sgd", "nesterov": True}),
        ({"opt": "momentum"}, {"optimizer": "sgd", "nesterov": False}),
        (
            {"pretrained": "True", "model": "convnextv2_nano"},
            {"init": "facebook/convnextv2-nano-1k-224"},
        ),
        ({"ckpt_path": "a/tiny-3_6.ckpt"}, {"init": "a/tiny-3_6.ckpt", "resume_init": True}),
        ({"ckpt_path": "runs/pre"}, {"init": "runs/pre", "resume_init": False}),
        ({"init": "a/tiny-3_6.ckpt"}, {"init": "a/tiny-3_6.ckpt", "resume_init": False}),
        ({"ckpt_save_policy": None}, {"keep_policy": "all"}),
        ({"ckpt_save_policy": "top_k"}, {"keep_policy": "top_k"}),
        ({"val_amp_level": "O2"}, {"val_precision": "auto"}),
        ({"loss_scale_type": "auto"}, {"loss_scale": 2.0**24}),
        ({"loss_scale_type": "auto", "loss_scale": "1024"}, {"loss_scale": 1024.0}),
        ({"loss_scale_type": "dynamic"}, {"loss_scale": 65536.0}),
        ({"color_jitter": None}, {"color_jitter": 0.0}),
        ({"use_nesterov": "True", "opt": "adamw"}, {"nesterov": False}),
        ({"use_nesterov": "True", "opt": "momentum"}, {"nesterov": True}),
        ({"multi_step_decay_milestones": "[3, 6]"}, {"decay_milestones": (3, 6)}),
        ({"amp_cast_list": "[nn.Conv2d, __import__('os').abort()]"}, {"precision": "auto"}),
        (
            {"loss": "JSD", "aug_splits": "3", "auto_augment": "augmix-m5"},
            {"loss": "jsd", "aug_splits": 3},
        ),
    ],
)
def test_values_that_stand_for_more_than_one_knob(given, ours):
    recipe, _ = read_recipe(given)
    assert {name: getattr(recipe, name) for name in ours} == ours


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scheduler": "one_cycle", "warmup_epochs": "3"}, "warm-up of its own"),
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


@pytest.mark.parametrize("empty", ["''", "null", "none"])
def test_pretrained_beside_an_empty_ckpt_path_starts_from_published_weights(empty, tmp_path):
    recipe, _ = read_recipe({"pretrained": "True"}, config="convnextv2_tiny_ascend")
    assert recipe.init == "facebook/convnextv2-tiny-1k-224"
    path = write(tmp_path, f"{COMPLETE}pretrained: True\nckpt_path: {empty}\n")
    assert read_recipe({}, config=path)[0].init == "facebook/convnextv2-atto-1k-224"


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
        and f"MindCV prepares {dataset} in a way of its own" in notes[-1]
    )
    assert read_recipe({"hflip": "0.3"}, config=write(tmp_path, keys))[0].hflip == 0.3
    assert read_recipe({"dataset": dataset, "hflip": "0.3"})[0] == Recipe(
        dataset=dataset, hflip=0.3
    )


def test_a_precision_that_depends_on_the_device_is_announced():
    _, notes = read_recipe({"amp_level": "O2"})
    assert notes == [
        "amp_level O2: bfloat16 where the device has it, float16 on GPUs before it, else float32."
    ]
