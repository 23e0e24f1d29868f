import json
import time
from pathlib import Path

import pytest
import timm
import torch
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

from convnextv2.errors import CheckpointError
from convnextv2.weights.class_names import distinct
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import restore

from .networks import DEPTHS, DIMS, IMAGES, difference, logits, random_model, save


def change(folder: Path, name: str, **more) -> Path:
    """Replace parts of a JSON file in a Hub folder."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return folder


@pytest.mark.parametrize(
    ("activation", "ours"),
    [("gelu", "exact"), ("gelu_pytorch_tanh", "tanh"), ("gelu_new", "tanh"), ("gelu_fast", "tanh")],
)
def test_transformers_forms_of_gelu_give_its_logits(
    activation: str, ours: str, tmp_path: Path
) -> None:
    config = ConvNextV2Config(
        hidden_sizes=list(DIMS), depths=list(DEPTHS), num_labels=5, hidden_act=activation
    )
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
    with pytest.raises(CheckpointError, match="output_stride = 16, but only"):
        open_weights(change(tmp_path / "timm", "config.json", model_args={"output_stride": 16}))
    arguments = {"norm_eps": 1e-5, "output_stride": 32}
    told = open_weights(change(tmp_path / "timm", "config.json", model_args=arguments))
    assert told.description.arguments["norm_eps"] == told.description.arguments["inner_eps"] == 1e-5


def test_a_configuration_that_contradicts_the_tensors_is_told(tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "transformers", tmp_path / "hf")
    assert not [note for note in open_weights(tmp_path / "hf").notes if "tensors" in note]
    wrong = {"hidden_sizes": [8, 16, 24, 999], "model_type": "convnext"}
    told = " ".join(open_weights(change(tmp_path / "hf", "config.json", **wrong)).notes)
    assert "hidden_sizes = [8, 16, 24, 999], but the tensors are of" in told
    assert "model_type = 'convnext', but the tensors are of convnextv2" in told


@pytest.mark.parametrize("eps", ["abc", None, -1, True, [1]])
def test_an_epsilon_that_is_no_number_is_refused(eps: object, tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "transformers", tmp_path / "hf")
    with pytest.raises(CheckpointError, match=r"layer_norm_eps = .*, expected a number"):
        open_weights(change(tmp_path / "hf", "config.json", layer_norm_eps=eps))


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "nearest"), (1, "lanczos"), (2, "bilinear"), (3, "bicubic"), (4, "area")],
)
def test_every_interpolation_survives_transformers_and_timm(
    number: int, name: str, tmp_path: Path
) -> None:
    weights = save(random_model(), tmp_path / "ours")
    weights.description.preprocessing["interpolation"] = name
    for target in ("transformers", "timm"):
        convert_weights(weights, target, tmp_path / target)
        assert open_weights(tmp_path / target).description.preprocessing["interpolation"] == name
    assert (
        json.loads((tmp_path / "transformers" / "preprocessor_config.json").read_text())["resample"]
        == number
    )
    config = timm.data.resolve_model_data_config(
        timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    )
    assert timm.data.create_transform(**config)


def test_timms_squash_where_we_crop_is_announced(tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "timm", tmp_path / "timm")
    config = json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"]
    for side, preset, announced in ((256, "timm", True), (384, "official", False)):
        cfg = config | {"crop_mode": "squash", "crop_pct": 1.0, "input_size": [3, side, side]}
        opened = open_weights(change(tmp_path / "timm", "config.json", pretrained_cfg=cfg))
        assert opened.description.preprocessing["eval_preset"] == preset
        assert (
            any("crop_mode 'squash' at 256 x 256 px" in line for line in opened.lines())
            == announced
        )


@pytest.mark.parametrize("target", ["official", "mmpretrain"])
def test_folders_of_formats_without_a_config_keep_names_and_preprocessing(
    target: str, tmp_path: Path
) -> None:
    weights = save(random_model(), tmp_path / "ours", class_names=["a", "b", "c", "d", "e"])
    weights.description.preprocessing.update({"image_size": [64, 64], "crop_pct": 0.9})
    convert_weights(weights, target, tmp_path / "folder")
    back = open_weights(tmp_path / "folder").description
    assert (back.class_names, back.preprocessing) == (
        ["a", "b", "c", "d", "e"],
        weights.description.preprocessing,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": "abc"},
        {"crop_pct": 0},
        {"std": [0, 1, 1]},
        {"image_size": 5},
        {"eval_preset": "zebra"},
        {"a": 1},
    ],
)
def test_preprocessing_of_wrong_types_is_one_line(wrong: dict, tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "official", tmp_path / "folder")
    with pytest.raises(CheckpointError, match="the preprocessing beside the weights cannot be"):
        open_weights(change(tmp_path / "folder", "config.json", preprocessing=wrong))


def test_names_that_occur_twice_get_their_number() -> None:
    assert distinct(["crane", "owl", "crane"]) == ["crane (0)", "owl", "crane (2)"]


def test_the_classes_of_imagenet_22k_are_told_apart_at_once() -> None:
    names = [f"n{i}" for i in range(21_841)]
    start = time.process_time()
    assert distinct(names) == names
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("pool", "right"), [("avg", True), ("fastavg", True), ("max", False), ("avgmax", False)]
)
def test_another_pooling_of_timm_is_refused(pool: str, right: bool, tmp_path: Path) -> None:
    size = {"depths": DEPTHS, "dims": DIMS, "num_classes": 5}
    theirs = timm.create_model("convnextv2_atto", global_pool=pool, **size).eval()
    timm.models.save_for_hf(theirs, tmp_path / "hf", model_args=size | {"global_pool": pool})
    if right:
        with torch.inference_mode():
            assert (
                difference(logits(restore(open_weights(tmp_path / "hf"))), theirs.double()(IMAGES))
                < 1e-5
            )
    else:
        with pytest.raises(
            CheckpointError, match=f"global_pool = '{pool}', but only avg can be built here"
        ):
            open_weights(tmp_path / "hf")


def test_every_argument_of_timms_model_is_told_apart() -> None:
    """A new argument of timm is refused until its effect is known.

    This test fails if the installed timm has such an argument.
    """
    import inspect

    from convnextv2.weights.timm_config import _TIMM_BUILT, _TIMM_UNDERSTOOD, TIMM_PREPROCESSING

    arguments = set(inspect.signature(timm.models.convnext.ConvNeXt.__init__).parameters) - {"self"}
    assert arguments <= _TIMM_UNDERSTOOD | _TIMM_BUILT.keys()
    assert set(timm.models.PretrainedCfg.__dataclass_fields__) <= TIMM_PREPROCESSING


def test_every_setting_of_transformers_is_told_apart() -> None:
    from convnextv2.weights.transformers_config import TRANSFORMERS_KNOWN

    assert set(ConvNextV2Config().to_dict()) <= TRANSFORMERS_KNOWN


def test_arguments_that_are_not_known_are_refused_or_said(tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")
    for target in ("transformers", "timm"):
        convert_weights(weights, target, tmp_path / target)
        assert open_weights(tmp_path / target).notes == []
    with pytest.raises(
        CheckpointError, match="model_args has 'window' = 7, which is not known here"
    ):
        open_weights(change(tmp_path / "timm", "config.json", model_args={"window": 7}))
    cfg = json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"]
    change(
        tmp_path / "timm",
        "config.json",
        model_args={"drop_rate": 0.5},
        pretrained_cfg=cfg | {"label_offset": 1, "x\ny": 2},
    )
    notes = open_weights(tmp_path / "timm").notes
    assert ["label_offset" in notes[0], "'x\\ny' = 2 is not known" in notes[1]] == [
        True,
        True,
    ] and len(notes) == 2
    notes = open_weights(change(tmp_path / "transformers", "config.json", window=7)).notes
    assert notes == ["config.json: 'window' = 7 is not known here, and is ignored."]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("regression", "are not classes"),
        (None, ""),
        (5, "are not classes"),
    ],
)
def test_a_problem_that_is_not_one_of_classes_is_said(
    kind: object, said: str, tmp_path: Path
) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "transformers", tmp_path / "hf")
    notes = open_weights(change(tmp_path / "hf", "config.json", problem_type=kind)).notes
    assert said in "".join(notes) and len(notes) == bool(said)


def test_timms_configurations_of_old_are_read(tmp_path: Path) -> None:
    convert_weights(save(random_model(), tmp_path / "ours"), "timm", tmp_path / "timm")
    path = tmp_path / "timm" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps(content["pretrained_cfg"] | {"architecture": "convnextv2_atto", "crop_pct": 0.9})
    )
    assert open_weights(tmp_path / "timm").description.preprocessing["crop_pct"] == 0.9
