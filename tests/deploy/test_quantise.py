"""int8: what is quantised, on which images, and when the result is kept."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from trees import in_float64, normalised, photographs

from convnextv2.deploy.artifact import open_artifact
from convnextv2.deploy.certificate import check_int8
from convnextv2.deploy.formats import check_format, installed_formats, read_files
from convnextv2.deploy.quantise import calibration_images
from convnextv2.errors import ArtifactError, DataError

Exported = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


@pytest.mark.parametrize(
    "format", [name for name in ("onnx", "openvino") if name in installed_formats()]
)
def test_int8_weights_are_int8_and_their_logits_near(
    format: str, exported: Exported, tmp_path: Path
) -> None:
    from convnextv2.deploy.quantise import quantise

    images = photographs(16)
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


def test_int8_is_measured_on_images_that_did_not_calibrate_it() -> None:
    calibrates = calibration_images(100)
    assert int(calibrates.sum()) == 50
    assert int(calibration_images(5000).sum()) == 128
    assert calibrates.nonzero().diff(dim=0).max() <= 3  # evenly spread
    with pytest.raises(
        DataError, match="99 images to calibrate and to measure on. Give at least 100"
    ):
        calibration_images(99)


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
