from pathlib import Path

import pytest
from maps import draw_maps
from runs import SMALL
from shapes import write_coco

from convnextv2.cli import main


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_images_smaller_than_the_total_stride_are_refused(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    if task == "detection":
        write_coco(data, train=1, val=1)
    else:
        draw_maps(data, train=1, val=1)
    words = ["--task", task, "--data_dir", str(data), "--out", str(tmp_path / "run")]
    assert main(["train", *SMALL, *words, "--image_size", "16"]) == 2
    assert "image_size = 16: the network needs at least 32 px a side" in capsys.readouterr().err
