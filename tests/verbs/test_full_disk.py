"""On a full disk, verbs say so in one line and leave nothing behind.

A limit on the size of files stands for the disk: a write beyond it fails as on one that is full.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runs import draw
from trees import network, save

from convnextv2.cli import main


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let no file become larger than this many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(network(), tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize(
    ("words", "bytes_"),
    [
        (["convert", "WEIGHTS", "--to", "official", "--out", "OUT/made.pth"], 5000),
        (["convert", "WEIGHTS", "--to", "timm", "--out", "OUT/made"], 5000),
        (["embed", "WEIGHTS", "PHOTOS", "--out", "OUT/made.npy", "--workers", "0"], 64),
        (["embed", "WEIGHTS", "PHOTOS", "--out", "OUT/made.csv", "--workers", "0"], 64),
        (["predict", "WEIGHTS", "PHOTOS", "--out", "OUT/made.json", "--workers", "0"], 64),
    ],
    ids=lambda value: value[-1].rpartition("/")[2] if isinstance(value, list) else "",
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    words: list[str],
    bytes_: int,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    draw(photos / "a.png", 0, 1)
    out.mkdir()
    named = {"WEIGHTS": weights, "PHOTOS": photos}
    command = [str(named.get(word, word)).replace("OUT", str(out)) for word in words]
    with room(bytes_):
        assert main(command) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("convnextv2: error: ") and "File too large" in told and "made" in told
    assert list(out.iterdir()) == []
    assert main(command) == 0  # when there is room again
