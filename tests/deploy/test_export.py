"""Artifacts compute what the model computes, or are not kept."""

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trees import CLASSES, PREPROCESSING, network, photograph, save

from convnextv2 import export
from convnextv2.deploy.artifact import Artifact, open_artifact
from convnextv2.deploy.certificate import agreement, certify, check_int8
from convnextv2.deploy.export import Evidence, Form, ModelFacts, export_artifact
from convnextv2.deploy.formats import ARTIFACT_FORMATS, check_format, installed_formats, read_files
from convnextv2.deploy.graph import Graph
from convnextv2.deploy.quantise import calibration_images
from convnextv2.deploy.unusual_images import resized_by
from convnextv2.errors import ArtifactError, DataError, DeviceError, RecipeError, RunError
from convnextv2.evaluation.calibration import fit_temperature
from convnextv2.evaluation.prior import image_shares
from convnextv2.model.convnext import ConvNeXtV2

Exported = Callable[..., Path]
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}  # of the largest logit

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


def pixels(count: int, size: int = 64) -> Tensor:
    return torch.stack(
        [torch.from_numpy(photograph(500 + i, size, size)).permute(2, 0, 1) for i in range(count)]
    )


def normalised(images: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(PREPROCESSING[key], dtype=torch.float64)[:, None, None]
        for key in ("mean", "std")
    )
    return (images.double() / 255 - mean) / std


def in_float64(images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and pooled features by the model's own forward pass."""
    model = network().double()
    with torch.no_grad():
        return model(normalised(images)), model.norm(model.encode(normalised(images)).mean((1, 2)))


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
        images = pixels(count)
        expected, _ = in_float64(images)
        logits = run(normalised(images).float().numpy())[0]
        assert logits.dtype == np.float32
        assert np.abs(logits - expected.numpy()).max() < TOLERANCE[precision] * expected.abs().max()


@pytest.mark.parametrize(
    "format", [name for name in ("torch", "openvino") if name in installed_formats()]
)
def test_pixels_go_in_and_probabilities_come_out(format: str, exported: Exported) -> None:
    artifact = open_artifact(exported(format, input="pixels"))
    images = pixels(3)
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
    images = resized_by(pixels(2), 32)
    assert images.shape == (2, 3, 96, 128)
    expected, _ = in_float64(images)
    logits = artifact.open(1)(normalised(images).float().numpy())[0]
    assert np.abs(logits - expected.numpy()).max() < 1e-4 * expected.abs().max()
    assert artifact.card.shapes["images"] == [None, 3, None, None]
    assert artifact.certificate["other_size"]["images"] == 4


@pytest.mark.parametrize("format", [name for name in ("onnx",) if name in installed_formats()])
def test_features_and_backbones_are_those_of_the_model(format: str, exported: Exported) -> None:
    images = pixels(2)
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
    images = normalised(pixels(2))
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


class NaiveGRN(nn.Module):
    """As the official code writes it: the norm in the activations' own arithmetic."""

    def __init__(self, gamma: Tensor, beta: Tensor) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(gamma.clone()), nn.Parameter(beta.clone())

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + self.beta + x


def hot(scale: float = 3e4) -> ConvNeXtV2:
    """What goes through the first GRN exceeds 65504, float16's largest number.

    It does so over all positions together, but at none of them alone.
    """
    model = network(scale=0.02)
    with torch.no_grad():
        model.stages[0][0].pwconv1.weight *= scale
    return model


def at_its_word(path: Path, images: np.ndarray) -> np.ndarray:
    """Compute the first output of an ONNX file, each operator in the arithmetic that it states.

    ONNX's reference evaluator does so except for layer norm, whose `stash_type` it ignores.
    """
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class LayerNormalization(OpRun):
        def _run(self, x, scale, bias, axis=-1, epsilon=1e-5, stash_type=1):
            wide = x.astype({1: np.float32, 10: np.float16}[stash_type])
            centred = wide - wide.mean(axis, keepdims=True)
            normed = centred / np.sqrt((centred**2).mean(axis, keepdims=True) + epsilon)
            return (normed.astype(x.dtype) * scale + bias,)

    return ReferenceEvaluator(str(path), new_ops=[LayerNormalization]).run(
        None, {"images": images}
    )[0]


def reduced_in(path: Path) -> set[str]:
    """The arithmetic of an ONNX file's sums, means and norms."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)
    }
    return {
        onnx.TensorProto.DataType.Name(kinds[node.input[0]])
        for node in graph.node
        if node.op_type.startswith("Reduce")
    }


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_activations_that_overflow_a_naive_grn_in_float16_do_not_overflow_ours(
    format: str, tmp_path: Path
) -> None:
    """Another runner shows what a file asks for.

    ONNX Runtime would not, because it computes naive norms in float32 on CPUs too.
    """
    if format not in installed_formats():
        pytest.skip(f"{format} is not installed")
    images = pixels(4, 128)
    x = normalised(images).float()
    with torch.no_grad():
        expected = hot().double()(x.double()).numpy()
    chosen = check_format(format, "float16")
    found: dict[str, list[np.ndarray]] = {}
    for name in ("ours", "naive"):
        model = hot()
        if name == "naive":
            grn = model.stages[0][0].grn
            model.stages[0][0].grn = NaiveGRN(grn.gamma.data, grn.beta.data)
        path = tmp_path / name / chosen.file
        path.parent.mkdir()
        chosen.write(Graph(model, "classifier").eval(), x[:1], path, "float16", False)
        found[name] = [chosen.open(read_files(path.parent), "float16", 1)(x.numpy())[0]]
        if format == "onnx":
            found[name].append(at_its_word(path, x.numpy()))
            assert (name == "ours") == (reduced_in(path) == {"FLOAT"})
    assert not np.isfinite(found["naive"][-1]).all()  # so the case is one
    for ours in found["ours"]:
        assert np.abs(ours - expected).max() < 1e-2 * np.abs(expected).max()


def test_a_model_that_overflows_all_the_same_is_not_exported(tmp_path: Path) -> None:
    model = hot(1e8)
    images = pixels(4)
    with pytest.raises(ArtifactError, match="precision = float16.*NaN or infinity.*Use float32"):
        export_artifact(
            model, Form("torch", "float16"), tmp_path / "a", Evidence(images, None, "made", 4, 0.1),
            ModelFacts(PREPROCESSING, CLASSES, "custom", {}, ""),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_the_certificate_holds_what_was_measured(exported: Exported) -> None:
    artifact = open_artifact(exported("torch"))
    found = artifact.certificate
    assert found["real"]["images"] == found["accuracy"]["images"] == 24
    assert (
        found["adversarial"]["images"] == 19
    )  # eleven patterns and eight images moved against the model
    assert 0 <= found["real"]["mean_difference"] <= found["real"]["max_difference"] < 1e-4
    assert found["real"]["top1_agreement"] == 1
    assert set(found["real"]["others"]) == {"embedding", "explanation"}
    assert found["accuracy"]["pytorch_top1"] == found["accuracy"]["artifact_top1"]
    assert found["speed"]["pytorch_images_per_second"] > 0
    assert "validation images of" in found["images_from"]


def test_accuracy_is_that_of_the_validation_folder(exported: Exported, pictures: Path) -> None:
    from convnextv2 import validate

    artifact = open_artifact(exported("torch"))
    top1 = validate(artifact.path, data_dir=str(pictures), workers=0).top1
    assert artifact.certificate["accuracy"]["pytorch_top1"] == pytest.approx(top1)


def test_agreement_is_by_definition() -> None:
    expected, found = (
        torch.tensor([[1.0, -4.0], [2.0, 3.0]]),
        torch.tensor([[1.5, -4.0], [2.0, 2.0]]),
    )
    assert agreement(expected, found) == {
        "images": 2,
        "max_difference": 1.0,
        "mean_difference": 0.375,
        "scale": 2.5,
    }


def test_int8_is_kept_only_when_accurate_and_faster() -> None:
    def certificate(agrees: float, lost: float, ratio: float) -> dict:
        accuracy = {"pytorch_top1": 0.9, "artifact_top1": 0.9 - lost}
        return {
            "real": {"top1_agreement": agrees, "images": 100},
            "accuracy": accuracy,
            "speed": {"ratio": ratio},
        }

    check_int8(certificate(0.99, 0.005, 2.1), 2.0)
    one_of_100 = certificate(0.99, 0.0, 2.1) | {
        "accuracy": {"pytorch_top1": 0.63, "artifact_top1": 0.62}
    }
    assert 0.63 - 0.62 > 0.01  # in floats, and still no more than the one point allowed
    check_int8(one_of_100, 2.0)
    for bad, why in (
        (certificate(0.9, 0.0, 3.0), "agrees with the model on 90.0%"),
        (certificate(0.99, 0.02, 3.0), "top-1 falls by 2.0 points"),
        (certificate(1.0, 0.0, 1.9), "no faster than float32 here"),
    ):
        with pytest.raises(ArtifactError, match=why):
            check_int8(bad, 2.0)


@pytest.mark.parametrize(
    "format", [name for name in ("onnx", "openvino") if name in installed_formats()]
)
def test_int8_weights_are_int8_and_their_logits_near(
    format: str, exported: Exported, tmp_path: Path
) -> None:
    from convnextv2.deploy.quantise import quantise

    images = pixels(16)
    chosen = check_format(format, "int8")
    path = tmp_path / chosen.file
    x = normalised(images).float()
    for name in open_artifact(exported(format)).card.files:
        shutil.copy(exported(format) / name, tmp_path)
    before = sum(file.stat().st_size for file in tmp_path.iterdir())
    quantise(format, path, "images", x.numpy())
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 0.8 * before
    logits = chosen.open(read_files(path.parent), "int8", 1)(x.numpy())[0]
    expected, _ = in_float64(images)
    difference = np.abs(logits - expected.numpy()).max() / expected.abs().max()
    assert 1e-5 < difference < 0.2


def test_what_a_format_cannot_do_is_one_line(weights: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError, match="format torch has none of that kind. It has float32, float16, bfloat16"
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


def test_what_is_there_is_kept_unless_told_otherwise(
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


def test_a_changed_artifact_is_refused(exported: Exported, tmp_path: Path) -> None:
    copy = shutil.copytree(exported("torch"), tmp_path / "copy")
    model = copy / "model.pt2"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    for use in (Artifact.check, lambda artifact: artifact.open(1)):
        with pytest.raises(ArtifactError, match="differs from what artifact.json says"):
            use(open_artifact(copy))
    model.unlink()
    with pytest.raises(ArtifactError, match="model.pt2 is missing"):
        open_artifact(copy)
    for text in ("{}", "[1, 2]", "\xff", '{"artifact": 7}'):
        (copy / "artifact.json").write_text(text, encoding="latin-1")
        with pytest.raises(ArtifactError, match="Export the model again"):
            open_artifact(copy)


class Payload:
    """Pickled, it is a call."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("member", ["sample inputs", "a constant"])
def test_pickled_objects_in_an_artifact_of_pytorch_are_not_run(
    member: str, exported: Exported, tmp_path: Path
) -> None:
    copy = shutil.copytree(exported("torch"), tmp_path / "copy")
    trace, model = tmp_path / "trace", copy / "model.pt2"
    evil = pickle.dumps(Payload(trace))
    pickle.loads(evil)
    assert trace.exists()  # so the payload works
    trace.unlink()
    with zipfile.ZipFile(model) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    top = next(iter(content)).partition("/")[0]
    if member == "a constant":
        config = next(name for name in content if name.endswith("constants_config.json"))
        constant = {
            "path_name": "opaque_obj_0",
            "is_param": False,
            "use_pickle": True,
            "tensor_meta": None,
        }
        content[config] = json.dumps({"config": {"x": constant}}).encode()
        content[f"{top}/data/constants/opaque_obj_0"] = evil
    else:
        buffer = io.BytesIO()
        torch.save(Payload(trace), buffer)
        content[f"{top}/data/sample_inputs/model.pt"] = buffer.getvalue()
    with zipfile.ZipFile(model, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    card = json.loads((copy / "artifact.json").read_text())
    card["files"]["model.pt2"] = hashlib.sha256(model.read_bytes()).hexdigest()
    (copy / "artifact.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="holds pickled objects"):
        open_artifact(copy).open(1)
    assert not trace.exists()


def test_a_card_cannot_name_files_outside_its_folder(exported: Exported, tmp_path: Path) -> None:
    copy = shutil.copytree(exported("torch"), tmp_path / "copy")
    card = json.loads((copy / "artifact.json").read_text())
    (tmp_path / "secret").write_text("x")
    card["files"]["../secret"] = "0" * 64
    (copy / "artifact.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="secret is missing"):
        open_artifact(copy)


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
    with pytest.raises(ArtifactError, match="int8: is judged by the classes that it finds"):
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


def test_calibration_finds_the_temperature_that_the_labels_were_drawn_with() -> None:
    """And no temperature on a fine grid has a smaller loss."""
    draw = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(4000, 5, generator=draw, dtype=torch.float64)
    targets = torch.multinomial(true.softmax(-1), 1, generator=draw)[:, 0]
    fitted = fit_temperature(3 * true, targets)
    assert 2.8 < fitted < 3.2
    grid = {
        t: float(nn.functional.cross_entropy(3 * true / t, targets)) for t in np.arange(2, 4, 0.01)
    }
    assert abs(min(grid, key=grid.get) - fitted) < 0.011


def test_an_image_of_weight_3_calibrates_like_three_images() -> None:
    draw = torch.Generator().manual_seed(1)
    logits = 4 * torch.randn(300, 3, generator=draw, dtype=torch.float64)
    targets = torch.multinomial((logits / 2).softmax(-1), 1, generator=draw)[:, 0]
    # Probabilities for equal frequencies: the classes of 100, 50 and 20 images count alike.
    balance = {"class_counts": [100, 50, 20], "prior": "balanced", "done": ""}
    known = torch.tensor([0] * 6 + [1] * 3 + [2] * 2)
    shares = image_shares(balance, known.numpy())
    np.testing.assert_allclose(shares * 18, [1] * 6 + [2] * 3 + [3] * 2)
    assert image_shares(balance | {"prior": "natural"}, known.numpy()) is None
    weights = torch.tensor([1.0, 2.0, 3.0])[targets]
    repeated = torch.arange(300).repeat_interleave(weights.long())
    expected = fit_temperature(logits[repeated], targets[repeated])
    assert fit_temperature(logits, targets, weights) == expected != fit_temperature(logits, targets)


def test_the_fitted_temperature_is_the_artifacts(exported: Exported) -> None:
    plain = open_artifact(exported("torch", input="pixels"))
    fitted = open_artifact(exported("torch", input="pixels", calibrate=True))
    assert plain.card.temperature == 1 != fitted.card.temperature
    x = pixels(3).permute(0, 2, 3, 1).contiguous().numpy()
    logits, _ = in_float64(pixels(3))
    assert (
        np.abs(fitted.open(1)(x)[0] - (logits / fitted.card.temperature).softmax(-1).numpy()).max()
        < 1e-5
    )


@pytest.mark.parametrize("layout", ["triton", "ovms"])
def test_a_model_repository_gets_a_new_version_each_time(
    layout: str, exported: Exported, tmp_path: Path
) -> None:
    if "onnx" not in installed_formats():
        pytest.skip("onnx is not installed")
    (tmp_path / "trees" / "²").mkdir(parents=True)  # no version, though str.isdigit says so
    for version in ("1", "2"):
        made = export(exported("onnx"), layout=layout, out=tmp_path, name="trees")
        assert made == tmp_path / "trees" / version
        assert open_artifact(made).card.class_names == CLASSES
    config = tmp_path / "trees" / "config.pbtxt"
    assert config.is_file() == (layout == "triton")
    if layout == "triton":
        text = config.read_text()
        assert (
            'backend: "onnxruntime"' in text
            and '{ name: "images", data_type: TYPE_FP32, dims: [ 3, 64, 64 ] }' in text
        )
        assert '{ name: "logits", data_type: TYPE_FP32, dims: [ 4 ] }' in text
    with pytest.raises(ArtifactError, match="runs formats onnx and openvino, not torch"):
        export(exported("torch"), layout=layout, out=tmp_path)


def test_a_model_repository_leaves_the_runs_artifacts_alone(
    exported: Exported, weights: Path, pictures: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(weights.parent, tmp_path / "run")) / weights.name
    options = {"data_dir": str(pictures), "workers": 0, "seconds": 0}
    kept = tmp_path / "run" / "model-openvino-float32"
    shutil.copytree(exported("openvino"), kept)
    with pytest.raises(RunError, match="model-openvino-float32: exists already"):
        export(source, format="openvino", **options)  # so it lies where an export would put it
    before = (kept / "artifact.json").stat().st_mtime_ns
    with pytest.raises(ArtifactError, match="name = 'a b'"):
        export(
            source,
            format="openvino",
            layout="triton",
            out=tmp_path / "repository",
            name="a b",
            **options,
        )
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file. Expected a folder"):
        export(source, format="openvino", layout="triton", out=tmp_path / "file", **options)
    made = export(
        source, format="openvino", layout="triton", out=tmp_path / "repository", **options
    )
    assert made == tmp_path / "repository" / "model" / "1"
    assert (kept / "artifact.json").stat().st_mtime_ns == before
    assert sorted(path.name for path in (tmp_path / "repository").iterdir()) == ["model"]


def test_int8_is_measured_on_images_that_did_not_calibrate_it() -> None:
    calibrates = calibration_images(100)
    assert int(calibrates.sum()) == 50
    assert int(calibration_images(5000).sum()) == 128
    assert calibrates.nonzero().diff(dim=0).max() <= 3  # evenly spread
    with pytest.raises(
        DataError, match="99 images to calibrate and to measure on. Give at least 100"
    ):
        calibration_images(99)


def test_a_half_precision_that_changes_classes_is_refused(weights: Path, pictures: Path) -> None:
    class Half(Graph):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            logits, *others = super().forward(x)
            return (logits.flip(-1) * 1e-3 + logits.mean(-1, keepdim=True), *others)

    model = network()
    with torch.no_grad():
        model.head.weight *= 1e-4  # so that the classes are near each other
        model.head.bias.copy_(torch.tensor([100.0, 100.0001, 100.0002, 100.0003]))
    reference, other = Graph(model, "classifier").eval(), Half(model, "classifier").eval()

    def run(x: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in other(torch.from_numpy(x))]

    with pytest.raises(
        ArtifactError, match="by .* of its range|agrees with the model on the class"
    ):
        certify(
            reference,
            run,
            "bfloat16",
            pixels(8),
            None,
            normalise=lambda x: normalised(x).float(),
            batch_size=8,
            seconds=0,
        )


def test_every_format_says_which_file_it_is() -> None:
    assert {chosen.file for chosen in ARTIFACT_FORMATS.values()} == {
        "model.pt2",
        "model.onnx",
        "model.xml",
    }
