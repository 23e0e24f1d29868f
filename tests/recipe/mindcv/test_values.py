"""Values of MindCV's keys, translated to values of our knobs."""

import pytest
from mindcv_recipes import COMPLETE, write

from convnextv2.errors import RecipeError
from convnextv2.recipe.read import read_recipe


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
    assert recipe.eps == 1e-8 and "eps (MindCV passes" in notes[-1]
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


@pytest.mark.parametrize("empty", ["''", "null", "none"])
def test_pretrained_beside_an_empty_ckpt_path_starts_from_published_weights(empty, tmp_path):
    recipe, _ = read_recipe({"pretrained": "True"}, config="convnextv2_tiny_ascend")
    assert recipe.init == "facebook/convnextv2-tiny-1k-224"
    path = write(tmp_path, f"{COMPLETE}pretrained: True\nckpt_path: {empty}\n")
    assert read_recipe({}, config=path)[0].init == "facebook/convnextv2-atto-1k-224"


def test_a_precision_that_depends_on_the_device_is_announced():
    _, notes = read_recipe({"amp_level": "O2"})
    assert notes == [
        "amp_level O2: bfloat16 if the device supports it, float16 on older GPUs, otherwise "
        "float32."
    ]
