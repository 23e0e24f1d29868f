from pathlib import Path

import pytest
from json_answers import read_answer
from runs import SMALL, draw

from convnextv2.cli import main


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(16):
            draw(root / "train" / name / f"{i}.jpg", colour, 10 * colour + i, (40, 40))
        draw(root / "val" / name / "0.jpg", colour, 100 + colour, (40, 40))
    return root


def test_a_cluster_is_planned_from_a_known_pace_and_a_link(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", "train", *SMALL, "--data_dir", str(photos), "--epochs", "100", "--json"]
    known = ["--images_per_second", "2", "--ranks", "4", "--link_gbit", "0.001"]
    assert main([*command, *known]) == 0
    found = read_answer("plan", capsys.readouterr().out)
    # 48 images in steps of 4 at 2 images/s.
    assert found["steps"] == 1200 and found["hours"] == pytest.approx(1200 * 2 / 3600)
    assert not found.keys() & {"memory_gib", "disk_gib", "data_wait"}
    cluster = found["cluster"]
    assert cluster["ranks"] == 4 and cluster["global_batch"] == 16 and cluster["steps"] == 300
    megabytes = 1.5 * 4 * cluster["parameters"] / 1e6
    assert cluster["mbytes_per_step"] == pytest.approx(megabytes)
    assert cluster["communication_s"] == pytest.approx(8 * megabytes, rel=0.01)
    assert cluster["most_hours"] == pytest.approx(
        300 * (2 + cluster["communication_s"]) / 3600, rel=0.01
    )
    assert cluster["least_hours"] < cluster["most_hours"]
    assert 0 <= cluster["least_share"] < cluster["most_share"] < 1

    assert main([*command, *known, "--shard", "--global_batch", "32"]) == 0
    sharded = read_answer("plan", capsys.readouterr().out)["cluster"]
    assert sharded["global_batch"] == 32 and sharded["steps"] == 200
    # Two batches in a step. Weights of blocks are sent twice, others once, gradients once.
    assert 2 < sharded["mbytes_per_step"] / megabytes < 3


@pytest.mark.parametrize("verb", ["pretrain", "train"])
def test_every_parameter_that_is_trained_is_exchanged(
    verb: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--decoder_dim", "16"] if verb == "pretrain" else ["--freeze", "stages1"]
    command = ["plan", verb, *SMALL, "--data_dir", str(photos), *own]
    assert main([*command, "--images_per_second", "2", "--ranks", "2", "--json"]) == 0
    planned = read_answer("plan", capsys.readouterr().out)["cluster"]["parameters"]
    blocks = [dim * (49 + 1 + 2 + 4 * dim + 4 + 8 + 4 * dim + 1) for dim in (8, 16, 24, 32)]
    downs = [2 * a + 4 * a * b + b for a, b in ((8, 16), (16, 24), (24, 32))]
    stem = 3 * 16 * 8 + 8 + 2 * 8
    if verb == "train":
        assert planned == sum(blocks[1:]) + sum(downs) + 2 * 32 + 33 * 3
    else:
        decoder = 32 * 16 + 16 + 16 + 16 * (49 + 1 + 2 + 64 + 4 + 8 + 64 + 1) + 17 * 32 * 32 * 3
        assert planned == stem + sum(blocks) + sum(downs) + decoder


def test_a_pace_without_a_batch_size_is_refused(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", "train", *SMALL, "--data_dir", str(photos), "--batch_size", "auto"]
    assert main([*command, "--images_per_second", "2"]) == 2
    assert "Give batch_size." in capsys.readouterr().err
    command = [*command[:-2], "--global_batch", "10", "--images_per_second", "2", "--ranks", "4"]
    assert main(command) == 2
    assert "expected a multiple of batch_size x ranks" in capsys.readouterr().err
    command = [*command[:-6], "--batch_size", "4", "--images_per_second", "2", "--ranks", "99"]
    assert main(command) == 2
    assert "takes 396 images, and there are 48" in capsys.readouterr().err
