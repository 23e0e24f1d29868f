import json
from pathlib import Path

import pytest
import timm
import torch
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

from convnextv2.errors import CheckpointError
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.describe import distinct
from convnextv2.weights.load import open_weights, restore

from .test_convert import DEPTHS, DIMS, IMAGES, difference, logits, random_model, save


def change(folder: Path, name: str, **more) -> Path:
    """Replace parts of a JSON file in a Hub folder."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return folder


@pytest.mark.parametrize(
    ("activation", "ours"), [("gelu", "exact"), ("gelu_pytorch_tanh", "tanh"), ("gelu_new", "tanh"), ("gelu_fast", "tanh")]
)
def test_transformers_forms_of_gelu_give_its_logits(activation: str, ours: str, tmp_path: Path) -> None:
    config = ConvNextV2Config(hidden_sizes=list(DIMS), depths=list(DEPTHS), num_labels=5, hidden_act=activation)
    theirs = ConvNextV2ForImageClassification(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs.save_pretrained(tmp_path)
    opened = open_weights(tmp_path)
    assert opened.description.arguments["gelu"] == ours
    with torch.inference_mode():
        assert difference(logits(restore(opened)), theirs.double()(IMAGES).logits) < 1e-10


@pytest.mark.parametrize("activation", ["relu", "tanh", "quick_gelu", "silu", 5, ["gelu"]])
def test_any_other_activation_is_refused(activation: object, tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")
    for target in ("transformers", "timm"):
        convert_weights(weights, target, tmp_path / target)
    with pytest.raises(CheckpointError, match="its activation is"):
        open_weights(change(tmp_path / "transformers", "config.json", hidden_act=activation))
    with pytest.raises(CheckpointError, match="its activation is"):
        open_weights(change(tmp_path / "timm", "config.json", model_args={"act_layer": activation}))


def test_what_timms_arguments_change_otherwise_is_refused(tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "timm", tmp_path / "timm")
    for name, value in (("norm_eps", 1e-5), ("output_stride", 16)):
        with pytest.raises(CheckpointError, match=f"{name} = {value}, only"):
            open_weights(change(tmp_path / "timm", "config.json", model_args={name: value}))
    open_weights(change(tmp_path / "timm", "config.json", model_args={"norm_eps": 1e-6, "output_stride": 32}))


@pytest.mark.parametrize("eps", ["abc", None, -1, True, [1]])
def test_an_epsilon_that_is_no_number_is_refused(eps: object, tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "transformers", tmp_path / "hf")
    with pytest.raises(CheckpointError, match=r"layer_norm_eps = .*, expected a number"):
        open_weights(change(tmp_path / "hf", "config.json", layer_norm_eps=eps))


@pytest.mark.parametrize(("number", "name"), [(0, "nearest"), (1, "lanczos"), (2, "bilinear"), (3, "bicubic"), (4, "area")])
def test_every_interpolation_survives_transformers_and_timm(number: int, name: str, tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")
    weights.description.preprocessing["interpolation"] = name
    for target in ("transformers", "timm"):
        convert_weights(weights, target, tmp_path / target)
        assert open_weights(tmp_path / target).description.preprocessing["interpolation"] == name
    assert json.loads((tmp_path / "transformers" / "preprocessor_config.json").read_text())["resample"] == number
    config = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True))
    assert timm.data.create_transform(**config)


def test_timms_squash_where_we_crop_is_announced(tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "timm", tmp_path / "timm")
    config = json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"]
    for side, preset, announced in ((256, "timm", True), (384, "official", False)):
        cfg = config | {"crop_mode": "squash", "crop_pct": 1.0, "input_size": [3, side, side]}
        opened = open_weights(change(tmp_path / "timm", "config.json", pretrained_cfg=cfg))
        assert opened.description.preprocessing["eval_preset"] == preset
        assert any("crop_mode 'squash' at 256 x 256 px" in line for line in opened.lines()) == announced


@pytest.mark.parametrize("target", ["official", "mmpretrain"])
def test_folders_of_formats_without_a_config_keep_names_and_preparation(target: str, tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours", class_names=["a", "b", "c", "d", "e"])
    weights.description.preprocessing.update({"image_size": [64, 64], "crop_pct": 0.9})
    convert_weights(weights, target, tmp_path / "folder")
    back = open_weights(tmp_path / "folder").description
    assert (back.class_names, back.preprocessing) == (["a", "b", "c", "d", "e"], weights.description.preprocessing)


@pytest.mark.parametrize(
    "wrong", [{"mean": "abc"}, {"crop_pct": 0}, {"std": [0, 1, 1]}, {"image_size": 5}, {"eval_preset": "zebra"}, {"a": 1}]
)
def test_preprocessing_of_wrong_types_is_one_line(wrong: dict, tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "official", tmp_path / "folder")
    with pytest.raises(CheckpointError, match="the preprocessing beside the weights cannot be"):
        open_weights(change(tmp_path / "folder", "config.json", preprocessing=wrong))


def test_names_that_occur_twice_get_their_number() -> None:
    assert distinct(["crane", "owl", "crane"]) == ["crane (0)", "owl", "crane (2)"]
