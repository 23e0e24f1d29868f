"""The list of images that a run leaves out."""

import json
import multiprocessing
from pathlib import Path

import pytest

from convnextv2.data.left_out import LeftOut, Quarantine
from convnextv2.data.source import Source
from convnextv2.errors import DataError, MissingPackageError, RunError


def records(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def test_each_image_is_on_the_list_once_and_the_next_start_knows_it(tmp_path: Path) -> None:
    first, second = Quarantine(tmp_path), Quarantine(tmp_path)
    assert not (tmp_path / "quarantine.jsonl").exists()
    first.add("a\udcff\n.jpg", "is empty.", "training")
    second.add("a\udcff\n.jpg", "is empty.", "training")  # another rank
    second.add("b.jpg", "is cut short.", "evaluation")
    second.add("b.jpg", "is gone.", "training")
    assert records(tmp_path) == [
        {"name": "a\udcff\n.jpg", "reason": "is empty.", "used": "training"},
        {"name": "b.jpg", "reason": "is cut short.", "used": "evaluation"},
    ]
    expected = {"a\udcff\n.jpg": "is empty.", "b.jpg": "is cut short."}
    assert Quarantine(tmp_path).reasons == second.reasons == expected
    assert "b.jpg" not in first.reasons
    first.refresh()
    assert first.reasons == expected


def _add_many(folder: Path, rank: int) -> None:
    quarantine = Quarantine(folder)
    for i in range(200):
        quarantine.add(f"{rank}/{i}.jpg", "is empty. " * 30, "training")


def test_ranks_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_add_many, args=(tmp_path, rank)) for rank in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    names = [record["name"] for record in records(tmp_path)]
    assert sorted(names) == sorted(f"{rank}/{i}.jpg" for rank in range(4) for i in range(200))


def test_a_line_that_a_kill_cut_short_spoils_no_other(tmp_path: Path) -> None:
    Quarantine(tmp_path).add("a.jpg", "is empty.", "training")
    path = tmp_path / "quarantine.jsonl"
    path.write_bytes(path.read_bytes() + b'{"name": "b.jp')
    Quarantine(tmp_path).add("c.jpg", "is empty.", "training")
    assert set(Quarantine(tmp_path).reasons) == {"a.jpg", "c.jpg"}


def test_a_list_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "quarantine.jsonl").mkdir()
    with pytest.raises(RunError, match=r"quarantine.jsonl: cannot be read \(Is a directory\)"):
        Quarantine(tmp_path)
    with pytest.raises(RunError, match=r"cannot be written \(No such file or directory\).*a.jpg"):
        Quarantine(tmp_path / "nowhere").add("a.jpg", "is empty.", "training")


def test_bad_images_fail_or_are_left_out_with_their_reasons(tmp_path: Path) -> None:
    source = Source(["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(
        DataError, match="^b.jpg: is empty. Repair or replace the file, or set bad_images"
    ):
        LeftOut(source, "fail", "training").judge({1: "b.jpg: is empty."})
    skipping = LeftOut(source, "skip", "training", Quarantine(tmp_path))
    skipping.judge({1: "b.jpg: is empty."})
    assert skipping.reasons == {"b.jpg": "is empty."} and not list(tmp_path.iterdir())
    alone = LeftOut(source, "quarantine", "evaluation")  # no run, no list
    alone.judge({1: "b.jpg: is empty."})
    assert alone.reasons == {"b.jpg": "is empty."} and not alone.is_listed(1)
    listing = LeftOut(source, "quarantine", "evaluation", Quarantine(tmp_path))
    listing.judge({1: "b.jpg: is empty."})
    assert records(tmp_path) == [{"name": "b.jpg", "reason": "is empty.", "used": "evaluation"}]
    assert [listing.is_listed(index) for index in range(3)] == [False, True, False]
    with pytest.raises(MissingPackageError):
        listing.judge({0: MissingPackageError("tifffile", "bands")})
