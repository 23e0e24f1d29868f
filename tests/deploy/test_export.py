"""An artifact computes the same as the model, in every format and form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from trees import in_float64, network, normalised, photographs, save

from convnextv2 import export
from convnextv2.deploy.artifact import open_artifact
from convnextv2.deploy.formats import ARTIFACT_FORMATS, installed_formats
from convnextv2.deploy.graph import Graph
from convnextv2.deploy.unusual_images import resized_by
from convnextv2.errors import ArtifactError, DeviceError, RecipeError, RunError

Exported = Callable[..., Path]
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}  # of the largest logit

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


@pytest.mark.parametrize(
    ("format", "precision"),
    [(name, "float32") for name in installed_formats()]
    + [
        (name, half)
        for name in installed_formats()
        if name != "aoti"
        for half in ("float16", "bfloat16")
    ],
)
def test_an_artifact_computes_what_the_model_computes_for_any_batch(
    format: str, precision: str, exported: Exported
) -> None:
    try:
        path = exported(format, precision=precision)
    except DeviceError as error:  # this processor's, never of float32
        assert precision != "float32" and f"precision = {precision}" in str(error)
        return
    run = open_artifact(path).open(1)
    for count in (1, 3, 8):
        images = photographs(count)
        expected, _ = in_float64(images)
        logits = run(normalised(images).float().numpy())[0]
        assert logits.dtype == np.float32
        assert np.abs(logits - expected.numpy()).max() < TOLERANCE[precision] * expected.abs().max()


@pytest.mark.parametrize(
    "format", [name for name in ("torch", "openvino") if name in installed_formats()]
)
def test_pixels_go_in_and_probabilities_come_out(format: str, exported: Exported) -> None:
    artifact = open_artifact(exported(format, input="pixels"))
    images = photographs(3)
    probs, embedding, explanation = artifact.open(1)(
        images.permute(0, 2, 3, 1).contiguous().numpy()
    )
    expected, _ = in_float64(images)
    assert artifact.card.outputs == ["probs", "embedding", "explanation"]
    assert np.abs(probs - expected.softmax(-1).numpy()).max() < 1e-5
    assert embedding.shape == (3, 48) and explanation.shape == (3, 2, 2)


@pytest.mark.parametrize("format", [name for name in installed_formats() if name != "aoti"])
def test_any_multiple_of_the_stride_is_taken_where_asked_for(
    format: str, exported: Exported
) -> None:
    artifact = open_artifact(exported(format, dynamic_size=True))
    images = resized_by(photographs(2), 32)
    assert images.shape == (2, 3, 96, 128)
    expected, _ = in_float64(images)
    logits = artifact.open(1)(normalised(images).float().numpy())[0]
    assert np.abs(logits - expected.numpy()).max() < 1e-4 * expected.abs().max()
    assert artifact.card.shapes["images"] == [None, 3, None, None]
    assert artifact.certificate["other_size"]["images"] == 4


@pytest.mark.parametrize("format", [name for name in ("onnx",) if name in installed_formats()])
def test_features_and_backbones_are_those_of_the_model(format: str, exported: Exported) -> None:
    images = photographs(2)
    x = normalised(images).float().numpy()
    _, pooled = in_float64(images)
    (embedding,) = open_artifact(exported(format, outputs="features")).open(1)(x)
    assert np.abs(embedding - pooled.numpy()).max() < 1e-4 * pooled.abs().max()
    stages = open_artifact(exported(format, outputs="backbone")).open(1)(x)
    with torch.no_grad():
        expected = network().double().features(normalised(images))
    assert [stage.shape for stage in stages] == [
        (2, 16, 16, 16),
        (2, 24, 8, 8),
        (2, 32, 4, 4),
        (2, 48, 2, 2),
    ]
    assert all(
        np.abs(a - b.numpy()).max() < 1e-4 * b.abs().max()
        for a, b in zip(stages, expected, strict=True)
    )


def test_the_explanation_says_what_each_position_adds_to_the_logit() -> None:
    """CAM is the gradient of the winning logit by the encoder's map, times the map.

    This holds for a model that is linear behind the map. The deviation in the final norm is held
    constant, so the comparison divides by it.
    """
    model = network().double()
    images = normalised(photographs(2))
    with torch.no_grad():
        logits, _, explanation = Graph(model, "classifier")(images)
        encoded = model.encode(images)
        pooled = encoded.mean((1, 2))
        deviation = pooled.var(-1, unbiased=False, keepdim=True).add(model.norm.eps).sqrt()
        for n, best in enumerate(logits.argmax(-1)):
            # The logit, minus what biases give, by the definition of layer norm and linear layer.
            row = model.head.weight[best]
            constant = model.head.bias[best] + row @ model.norm.bias
            direct = row @ (model.norm.weight * (pooled[n] - pooled[n].mean()) / deviation[n])
            assert abs(float(explanation[n].mean()) - float(direct)) < 1e-4
            assert abs(float(logits[n, best]) - float(direct + constant)) < 1e-4


def test_an_encoder_without_head_is_exported_as_features_only(
    pictures: Path, tmp_path: Path
) -> None:
    model = network(num_classes=0)
    path = save(model, tmp_path / "w", kind="encoder", class_names=[])
    with pytest.raises(
        ArtifactError,
        match="outputs = classifier: the model has no head. Use outputs features or backbone",
    ):
        export(
            path, format="torch", data_dir=str(pictures), out=tmp_path / "a", workers=0, seconds=0
        )
    with pytest.raises(ArtifactError, match="int8: is judged by the predicted classes"):
        export(
            path,
            format="onnx",
            precision="int8",
            outputs="features",
            data_dir=str(pictures),
            out=tmp_path / "a",
            workers=0,
        )
    artifact = open_artifact(
        export(
            path,
            format="torch",
            outputs="features",
            data_dir=str(pictures),
            out=tmp_path / "a",
            workers=0,
            seconds=0,
        )
    )
    assert artifact.card.kind == "features" and artifact.card.outputs == ["embedding"]


def test_an_artifact_applies_the_temperature_that_was_fitted(exported: Exported) -> None:
    plain = open_artifact(exported("torch", input="pixels"))
    fitted = open_artifact(exported("torch", input="pixels", calibrate=True))
    assert plain.card.temperature == 1 != fitted.card.temperature
    x = photographs(3).permute(0, 2, 3, 1).contiguous().numpy()
    logits, _ = in_float64(photographs(3))
    assert (
        np.abs(fitted.open(1)(x)[0] - (logits / fitted.card.temperature).softmax(-1).numpy()).max()
        < 1e-5
    )


def test_what_a_format_cannot_do_is_refused_in_one_line(
    weights: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        DeviceError, match="format torch does not have it. It has float32, float16, bfloat16"
    ):
        export(
            weights,
            format="torch",
            precision="int8",
            data_dir=str(pictures),
            out=tmp_path / "x",
            workers=0,
            seconds=0,
        )
    with pytest.raises(RecipeError) as error:
        export(weights, format="tflite", precision="float8", outputs="x", images="many")
    _, *lines = str(error.value).splitlines()
    assert [line.split()[0] for line in lines] == ["format", "precision", "outputs", "images"]
    assert not (tmp_path / "x").exists()


def test_an_export_replaces_nothing_but_artifacts_and_these_only_if_asked(
    weights: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "here"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="exists already"):
        export(weights, format="torch", data_dir=str(pictures), out=out)
    with pytest.raises(RunError, match="is not an artifact"):
        export(weights, format="torch", data_dir=str(pictures), out=out, overwrite=True)
    assert (out / "thesis.txt").exists()


def test_every_format_says_which_file_it_is() -> None:
    assert {chosen.file for chosen in ARTIFACT_FORMATS.values()} == {
        "model.pt2",
        "model.onnx",
        "model.xml",
    }
