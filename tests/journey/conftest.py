"""Runs that the journeys share, on a generated folder of images."""

from pathlib import Path

import pytest
from resumed import train
from runs import SMALL, draw

from convnextv2.cli import main


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ and val/ of three colours."""
    root = tmp_path_factory.mktemp("photos")
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(8):
            draw(root / "train" / name / f"{i}.jpg", colour, 10 * colour + i)
        for i in range(3):
            draw(root / "val" / name / f"{i}.png", colour, 100 + 10 * colour + i)
    return root


@pytest.fixture(scope="session")
def pretrained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training run of two epochs."""
    out = tmp_path_factory.mktemp("runs") / "pre"
    assert (
        main(
            [
                "pretrain",
                "--data_dir",
                str(photos),
                "--out",
                str(out),
                "--epochs",
                "2",
                "--decoder_dim",
                "16",
                *SMALL,
            ]
        )
        == 0
    )
    return out


@pytest.fixture(scope="session")
def trained(photos: Path, pretrained: Path) -> Path:
    """A run that starts from the pre-trained weights and learns the colours."""
    out = pretrained.parent / "train"
    options = [
        "--epochs",
        "12",
        "--lr",
        "0.01",
        "--ema",
        "--ema_decay",
        "0.9",
        "--scale",
        "0.5,1",
        "--init",
        str(pretrained),
    ]
    assert main(["train", "--data_dir", str(photos), "--out", str(out), *options, *SMALL]) == 0
    return out


@pytest.fixture(scope="session")
def like_mindcv(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs with MindCV's keys, started as its users would."""
    root = tmp_path_factory.mktemp("mindcv")
    yaml = root / "mine.yaml"
    yaml.write_text(
        "mode: 0\ndistribute: False\nval_while_train: True\nbatch_size: 4\nimage_resize: 64\n"
        "opt: adamw\nlr: 0.01\nscheduler: cosine_decay\nwarmup_epochs: 1\ndecay_epochs: 3\n"
        "epoch_size: 4\nema: True\nkeep_checkpoint_max: 2\n"
        "model: custom\ndepths: [1, 1, 1, 1]\ndims: [8, 16, 24, 32]\n"
    )
    out = root / "ckpt"
    command = [
        "train",
        "--config",
        str(yaml),
        "--data-dir",
        str(photos),
        "--ckpt-save-dir",
        str(out),
        "--num_parallel_workers",
        "0",
    ]
    assert main([*command, "--device_target", "CPU"]) == 0
    return out


@pytest.fixture(scope="session")
def straight(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs that was never interrupted, with a checkpoint of each."""
    out = tmp_path_factory.mktemp("going_on") / "straight"
    assert train(photos, out, "--keep_checkpoints", "3") == 0
    return out
