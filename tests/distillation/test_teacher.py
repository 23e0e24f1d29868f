"""A teacher of any kind answers for the student's images as it does for its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from trees import CLASSES, PREPROCESSING, network, photograph, save

from convnextv2.deploy.artifact import open_artifact
from convnextv2.distillation.teacher import Teacher, open_teacher
from convnextv2.errors import RecipeError
from convnextv2.preprocessing import Preprocessing

CPU = torch.device("cpu")
STUDENT = Preprocessing((64, 64), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def opened(source: Path, student: Preprocessing = STUDENT) -> Teacher:
    return open_teacher(str(source), CPU, student)


def pixels(n: int, side: int = 64) -> torch.Tensor:
    """uint8 (N, 3, side, side)."""
    made = np.stack([photograph(i, side, side) for i in range(n)])
    return torch.from_numpy(made).permute(0, 3, 1, 2)


def normalised(images: torch.Tensor, mean: object, std: object) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images.float() / 255 - mean) / std


def test_it_sees_images_in_its_own_statistics(tmp_path: Path) -> None:
    model = network()
    teacher = opened(save(model, tmp_path))
    seen = normalised(pixels(3), STUDENT.mean, STUDENT.std)
    own = normalised(pixels(3), PREPROCESSING["mean"], PREPROCESSING["std"])
    assert torch.allclose(teacher.view(seen, STUDENT), own, atol=1e-5)
    answer = teacher(seen, STUDENT)
    with torch.no_grad():
        assert torch.allclose(answer.logits, model(own), atol=1e-4)
        stage = model.features(own)[-1]
    assert torch.allclose(answer.map.permute(0, 3, 1, 2), stage, atol=1e-4)
    pooled = torch.nn.functional.layer_norm(
        stage.mean((2, 3)), (48,), model.norm.weight, model.norm.bias, 1e-6
    )
    assert torch.allclose(answer.features, pooled.detach(), atol=1e-4)
    assert not answer.logits.requires_grad


def test_it_sees_images_at_its_own_size(tmp_path: Path) -> None:
    large = PREPROCESSING | {"image_size": [96, 96]}
    teacher = opened(save(network(), tmp_path, preprocessing=large))
    student = replace(STUDENT, mean=tuple(large["mean"]), std=tuple(large["std"]))
    seen = torch.randn(2, 3, 64, 64)
    enlarged = torch.nn.functional.interpolate(
        seen, (96, 96), mode="bicubic", align_corners=False, antialias=True
    )
    assert torch.equal(teacher.view(seen, student), enlarged)
    same = torch.randn(2, 3, 96, 96)
    assert teacher.view(same, student) is same


@pytest.mark.parametrize(("format", "input"), [("onnx", {}), ("torch", {"input": "pixels"})])
def test_an_exported_classifier_answers_as_its_weights_do(
    format: str, input: dict[str, str], exported: Callable[..., Path], weights: Path
) -> None:
    images = pixels(3)
    seen = normalised(images, STUDENT.mean, STUDENT.std)
    expected = opened(weights)(seen, STUDENT)
    teacher = opened(exported(format, **input))
    found = teacher(seen, STUDENT)
    assert teacher.class_names == CLASSES and teacher.rows == 4 and not teacher.has_map
    assert torch.allclose(found.logits.softmax(-1), expected.logits.softmax(-1), atol=1e-4)
    assert torch.allclose(found.features, expected.features, atol=1e-3)


def test_an_exported_backbone_answers_with_its_last_map(
    exported: Callable[..., Path], weights: Path
) -> None:
    artifact = exported("onnx", outputs="backbone")
    seen = normalised(pixels(2), STUDENT.mean, STUDENT.std)
    expected, found = opened(weights)(seen, STUDENT), opened(artifact)(seen, STUDENT)
    assert found.logits is None
    assert torch.allclose(found.map, expected.map, atol=1e-4)


def test_it_may_be_a_convnext_of_the_first_version_by_timm(tmp_path: Path) -> None:
    model = timm.create_model("convnext_atto", num_classes=7).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # layer scale starts at 1e-6, which would hide a block
            parameter.add_(0.05 * torch.randn(parameter.shape))
    save_file(model.state_dict(), tmp_path / "atto.safetensors")
    teacher = opened(tmp_path / "atto.safetensors")
    student = teacher.preprocessing
    seen = torch.randn(2, 3, *student.image_size)
    answer = teacher(seen, student)
    with torch.no_grad():
        features = model.forward_features(seen)
        pooled = model.forward_head(features, pre_logits=True)
        assert torch.allclose(answer.logits, model(seen), atol=1e-3)
    assert torch.allclose(answer.features, pooled, atol=1e-3)
    assert torch.allclose(answer.map.permute(0, 3, 1, 2), features, atol=1e-3)
    assert teacher.rows == 7


def with_kind(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let an artifact be of another kind."""
    artifact = open_artifact(folder)
    other = replace(artifact, card=artifact.card.model_copy(update={"kind": kind}))
    monkeypatch.setattr("convnextv2.distillation.teacher.open_model", lambda _: other)
    return folder


def test_an_exported_model_of_several_labels_answers_with_its_features(
    exported: Callable[..., Path], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = normalised(pixels(2), STUDENT.mean, STUDENT.std)
    expected = opened(weights)(seen, STUDENT)
    teacher = opened(with_kind("multi_label", exported("onnx"), monkeypatch))
    found, blank = teacher(seen, STUDENT), teacher(seen.to("meta"), STUDENT)
    assert teacher.rows == 0 and found.logits is None and found.map is None
    assert torch.allclose(found.features, expected.features, atol=1e-3)
    assert blank.logits is None and blank.map is None and blank.features.shape == (2, 48)


@pytest.mark.parametrize("kind", ["segmentation", "detection"])
def test_an_exported_model_without_features_is_refused(
    kind: str, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=f"an artifact for {kind} returns no features"):
        opened(with_kind(kind, exported("onnx"), monkeypatch))


def test_other_channels_are_refused(tmp_path: Path) -> None:
    path = save(network(), tmp_path)
    grey = Preprocessing((64, 64), channels=1, mean=(0.5,), std=(0.2,))
    with pytest.raises(RecipeError, match="its images have 3 channels, expected 1"):
        opened(path, grey)


def test_its_memory_is_estimated_without_computing(
    exported: Callable[..., Path], weights: Path
) -> None:
    artifact = exported("onnx", outputs="backbone")
    blank = torch.zeros(2, 3, 64, 64, device="meta")
    answers = [opened(source)(blank, STUDENT) for source in (weights, artifact)]
    assert [answer.map.shape for answer in answers] == [(2, 2, 2, 48)] * 2
    assert all(answer.features.device.type == "meta" for answer in answers)
