"""The statements of an artifact are true, and misfits are reported before any computation."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import run_program
from torch import nn
from trees import CLASSES, photograph

from convnextv2 import validate
from convnextv2.deploy.artifact import open_artifact
from convnextv2.deploy.formats import installed_formats
from convnextv2.errors import ArtifactError
from convnextv2.inference.scorer import open_scorer

Exported = Callable[..., Path]
SHAPES = {
    "images": [None, 3, 64, 64],
    "logits": [None, 4],
    "embedding": [None, 48],
    "explanation": [None, 2, 2],
}
WRONG = [(1, 3, 96, 96), (1, 3, 128, 64), (1, 1, 64, 64), (1, 64, 64, 3)]

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


def need(format: str) -> None:
    if format not in installed_formats():
        pytest.skip(f"{format} is not installed")


def edited(artifact: Path, folder: Path, **changes: Any) -> Path:
    """Copy an artifact, and edit the artifact.json of the copy as a user might by hand."""
    copy = shutil.copytree(artifact, folder)
    card = json.loads((copy / "artifact.json").read_text())
    (copy / "artifact.json").write_text(json.dumps(card | changes))
    return copy


@pytest.mark.parametrize("format", installed_formats())
def test_an_open_artifact_outlives_its_files(
    format: str, exported: Exported, tmp_path: Path
) -> None:
    """`cp` and `rsync --inplace` first cut the file that is there to nothing.

    An engine that has mapped it would end the process.
    """
    copy = shutil.copytree(exported(format), tmp_path / "copy")
    run = open_artifact(copy).open(1)
    x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    before = run(x)
    for file in copy.iterdir():
        file.write_bytes(b"")
    assert all((a == b).all() for a, b in zip(before, run(x), strict=True))


@pytest.mark.parametrize("format", installed_formats())
def test_files_that_change_between_the_check_and_the_loading_are_not_loaded(
    format: str, exported: Exported, tmp_path: Path
) -> None:
    copy = shutil.copytree(exported(format), tmp_path / "copy")
    artifact = open_artifact(copy)
    file = copy / next(iter(artifact.card.files))
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(
        ArtifactError, match=rf"{file.name} does not match its SHA-256 in artifact.json"
    ):
        artifact.open(1)
    file.unlink()
    with pytest.raises(
        ArtifactError, match=rf"{file.name} cannot be read \(No such file.* copy the artifact again"
    ):
        artifact.open(1)


@pytest.mark.parametrize("format", installed_formats())
def test_inputs_of_another_shape_are_refused(format: str, exported: Exported) -> None:
    run = open_artifact(exported(format)).open(1)
    for shape in WRONG:
        with pytest.raises(
            ArtifactError, match=r"input images of shape .* Expected \(any, 3, 64, 64\), float32"
        ):
            run(np.zeros(shape, np.float32))
    with pytest.raises(ArtifactError, match="float64"):
        run(np.zeros((1, 3, 64, 64)))
    assert run(np.zeros((3, 3, 64, 64), np.float32))[0].shape == (3, 4)


@pytest.mark.parametrize("input", ["images", "pixels"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["one size", "any size"])
def test_openvino_itself_refuses_them(input: str, dynamic: bool, exported: Exported) -> None:
    """OpenVINO's model server reads nothing but the model, so the model must contain its limits."""
    need("openvino")
    import openvino

    asked = ({"input": input} if input == "pixels" else {}) | (
        {"dynamic_size": True} if dynamic else {}
    )
    model = openvino.Core().read_model(str(exported("openvino", **asked) / "model.xml"))
    images = (-1, 3, -1, -1) if dynamic else (-1, 3, 64, 64)
    sizes = (-1, *images[2:], 3) if input == "pixels" else images
    (given,) = model.inputs
    assert [-1 if size.is_dynamic else size.get_length() for size in given.partial_shape] == list(
        sizes
    )
    if dynamic or input == "pixels":
        return
    compiled = openvino.compile_model(model, "CPU")
    for shape in WRONG:
        with pytest.raises(RuntimeError, match="incompatible"):
            compiled(np.zeros(shape, np.float32))
    assert compiled(np.zeros((2, 3, 64, 64), np.float32))[0].shape == (2, 4)


def test_onnx_runtime_itself_refuses_them_and_knows_the_batch_by_name(exported: Exported) -> None:
    need("onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported("onnx") / "model.onnx"))
    assert session.get_inputs()[0].shape == ["batch", 3, 64, 64]
    assert [output.shape for output in session.get_outputs()] == [
        ["batch", 4],
        ["batch", 48],
        ["batch", 2, 2],
    ]
    for shape in WRONG:
        with pytest.raises(Exception, match="Got invalid dimensions for input"):
            session.run(None, {"images": np.zeros(shape, np.float32)})
    anysize = onnxruntime.InferenceSession(str(exported("onnx", dynamic_size=True) / "model.onnx"))
    assert anysize.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert anysize.get_outputs()[0].shape == ["batch", 4]


def test_shapes_of_any_size_keep_what_is_fixed(exported: Exported) -> None:
    card = open_artifact(exported("torch", dynamic_size=True)).card
    assert card.shapes["logits"] == [None, 4] and card.shapes["embedding"] == [None, 48]
    assert card.shapes["explanation"] == [None, None, None]


def test_the_card_says_what_an_onnx_file_needs(exported: Exported) -> None:
    need("onnx")
    import onnx

    artifact = open_artifact(exported("onnx"))
    model = onnx.load(str(artifact.path / "model.onnx"))
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    assert artifact.card.requires["opset"] == str(opset)
    assert artifact.card.requires["ir_version"] == str(model.ir_version)
    if (opset, model.ir_version) == (
        20,
        10,
    ):  # tried: 1.17.3 refuses such a file for its IR version, 1.18.1 runs it
        assert artifact.card.requires["onnxruntime"] == ">=1.18"
    assert open_artifact(exported("torch")).card.requires == {}


def test_an_onnx_model_in_several_files_is_read_whole(exported: Exported, tmp_path: Path) -> None:
    """PyTorch writes models above 1.5 GiB in this form."""
    need("onnx")
    import onnx

    copy = shutil.copytree(exported("onnx"), tmp_path / "copy")
    x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    expected = open_artifact(copy).open(1)(x)
    model = onnx.load(str(copy / "model.onnx"))
    onnx.save_model(
        model,
        str(copy / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=256,
    )
    card = json.loads((copy / "artifact.json").read_text())
    names = ("model.onnx", "model.onnx.data")
    card["files"] = {name: hashlib.sha256((copy / name).read_bytes()).hexdigest() for name in names}
    (copy / "artifact.json").write_text(json.dumps(card))
    run = open_artifact(copy).open(1)
    for file in copy.iterdir():
        file.write_bytes(b"")
    for a, b in zip(expected, run(x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"readme.txt": "0" * 64}}, "files does not name model.onnx, the model"),
        ({"class_names": ["ash", "birch"]}, "class_names has 2 names for the 4 columns of logits"),
        ({"outputs": ["logits"]}, "outputs are not those of a classifier of images"),
        ({"shapes": {"images": [None, 3, 64, 64]}}, "shapes does not name embedding"),
        ({"input": "pixels"}, "outputs are not those of a classifier of pixels"),
        ({"shapes": SHAPES | {"logits": [None]}}, "shapes.logits has 1 axes, expected 2"),
        ({"shapes": SHAPES | {"logits": []}}, "shapes.logits has 0 axes, expected 2"),
        ({"shapes": SHAPES | {"images": [None, 3]}}, "shapes.images has 2 axes, expected 4"),
        ({"temperature": 1e-300}, "temperature: Input should be greater than or equal to 0.001"),
    ],
)
def test_a_card_that_contradicts_itself_is_one_line(
    changes: dict[str, Any], message: str, exported: Exported, tmp_path: Path
) -> None:
    need("onnx")
    with pytest.raises(ArtifactError, match=message) as error:
        open_artifact(edited(exported("onnx"), tmp_path / "copy", **changes))
    assert "\n" not in str(error.value)


def test_names_that_the_model_does_not_have_columns_for_are_noticed_when_it_runs(
    exported: Exported, tmp_path: Path
) -> None:
    shapes = open_artifact(exported("torch")).card.shapes | {"logits": [None, 2]}
    copy = edited(exported("torch"), tmp_path / "copy", class_names=CLASSES[:2], shapes=shapes)
    with pytest.raises(
        ArtifactError, match=r"returns logits of shape \(1, 4\), but artifact.json says \(1, 2\)"
    ):
        open_scorer(copy)(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_model_that_cannot_take_what_its_card_says_is_one_line(
    format: str, exported: Exported, tmp_path: Path
) -> None:
    need(format)
    shapes = SHAPES | {"images": [None, 3, 96, 96]}
    copy = edited(exported(format), tmp_path / "copy", shapes=shapes)
    with pytest.raises(
        ArtifactError,
        match=rf"copy: {format} fails on the input images of shape \(1, 3, 96, 96\) \(.*96.*\)",
    ) as error:
        open_artifact(copy).open(1)(np.zeros((1, 3, 96, 96), np.float32))
    assert "\n" not in str(error.value)


def test_a_model_with_more_outputs_than_its_card_names_is_one_line(
    exported: Exported, tmp_path: Path
) -> None:
    copy = edited(exported("torch"), tmp_path / "copy", kind="features", outputs=["embedding"])
    with pytest.raises(ArtifactError, match="returns 3 outputs, but artifact.json names 1"):
        open_artifact(copy).open(1)(np.zeros((1, 3, 64, 64), np.float32))


@pytest.mark.parametrize("format", installed_formats())
def test_a_damaged_model_with_a_right_hash_is_one_line(
    format: str, exported: Exported, tmp_path: Path
) -> None:
    copy = shutil.copytree(exported(format), tmp_path / "copy")
    card = json.loads((copy / "artifact.json").read_text())
    name = next(name for name in card["files"] if not name.endswith(".bin"))
    content = (copy / name).read_bytes()[: len((copy / name).read_bytes()) // 2]
    (copy / name).write_bytes(content)
    card["files"][name] = hashlib.sha256(content).hexdigest()
    (copy / "artifact.json").write_text(json.dumps(card))
    with pytest.raises(
        ArtifactError, match=f"{format} cannot load it .* Export the model again"
    ) as error:
        open_artifact(copy).open(1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("input", ["images", "pixels"])
def test_validate_measures_the_probabilities_that_the_artifact_returns(
    input: str, exported: Exported, pictures: Path, tmp_path: Path
) -> None:
    """A calibrated artifact's loss is that of its calibrated probabilities, whatever goes in."""
    artifact = exported("torch", input=input, calibrate=True)
    temperature = open_artifact(artifact).card.temperature
    assert abs(temperature - 1) > 0.05
    scorer = open_scorer(artifact)
    images = torch.stack(
        [torch.from_numpy(photograph(i, 64, 64)).permute(2, 0, 1) for i in range(4)]
    )
    returned = torch.from_numpy(scorer(images).probs)
    torch.testing.assert_close(scorer.logits(images).softmax(-1), returned, atol=1e-6, rtol=1e-5)
    plain = torch.from_numpy(open_scorer(exported("torch"))(images).probs)
    assert (returned - plain).abs().max() > 1e-3
    evaluation = validate(artifact, data_dir=str(pictures), workers=0, device="cpu")
    files = [file for name in CLASSES for file in sorted((pictures / "val" / name).iterdir())]
    from convnextv2 import Predictor

    found = Predictor(artifact)([str(file) for file in files], top_k=4)
    probs = torch.tensor([[dict_of(one)[name] for name in CLASSES] for one in found])
    targets = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    assert evaluation.loss == pytest.approx(
        float(nn.functional.nll_loss(probs.log(), targets)), abs=1e-4
    )


def dict_of(found: dict[str, Any]) -> dict[str, float]:
    return {entry["class"]: entry["prob"] for entry in found["predictions"]}


def test_a_signal_is_handled_after_an_artifact_was_replaced(exported: Exported) -> None:
    """OpenVINO moves the stack of the signal handlers, and may leave them without one."""
    need("openvino")
    program = """
import os, signal, sys
from convnextv2.deploy.artifact import open_artifact
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
old = open_artifact(sys.argv[1]).open(1)
new = open_artifact(sys.argv[1]).open(1)
del old, new
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = run_program("-c", program, exported("openvino"))
    assert done[:2] == (0, "handled\n"), done
