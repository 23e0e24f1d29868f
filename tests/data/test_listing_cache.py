import os
import time

import numpy as np
import pytest
from shards import CLASSES, folder_of

from convnextv2.data import folders, listing_cache
from convnextv2.data.listing import Walk


@pytest.fixture(autouse=True)
def _keep_all(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(listing_cache, "MIN_IMAGES", 1)


@pytest.fixture
def walks(monkeypatch):
    """Record the folders that are listed, one entry for each listing."""
    made = []
    add_images = Walk.add_images

    def counted(self, *arguments, **options):
        made.append(arguments[0])
        return add_images(self, *arguments, **options)

    monkeypatch.setattr(Walk, "add_images", counted)
    return made


def settle(folder):
    """Let all folders look as if they had changed a minute ago, one after the other."""
    for i, place in enumerate((folder, *folder.rglob("*"))):
        if place.is_dir():
            os.utime(place, (time.time() - 60 - i, time.time() - 60 - i))


@pytest.fixture
def folder(tmp_path):
    root = folder_of(tmp_path / "folder", splits=())
    (root / "ash" / "deeper").mkdir()
    (root / "ash" / "deeper" / "ö.png").write_bytes(b"")
    (root / "ash" / "lost.heic").write_bytes(b"")
    settle(root)
    return root


def same(one, other):
    assert list(one.names) == list(other.names) and one.class_names == other.class_names
    assert set(one.notes) <= set(other.notes)
    assert (one.targets is None) == (other.targets is None)
    if one.targets is not None:
        assert np.array_equal(one.targets, other.targets)


@pytest.mark.parametrize("listed", [folders.image_folder, folders.unlabelled])
def test_a_kept_listing_is_the_listing(folder, walks, listed):
    first = listed(folder)
    count = len(walks)
    again = listed(folder)
    assert len(walks) == count and count > 0
    same(first, again)
    assert again.names[3:5].folders == first.names[3:5].folders
    same(first.subset([5, 0, 12]), again.subset([5, 0, 12]))
    assert any("heic" in note for note in again.notes)
    assert again.notes[-1].endswith("is used, since none of its folders has changed.")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "birch" / "new.png").write_bytes(b""),
        lambda root: (root / "birch" / "0.png").unlink(),
        lambda root: (root / "ash" / "deeper" / "ö.png").rename(root / "ash" / "deeper" / "o.png"),
        lambda root: (root / "cedar").rename(root / "dogwood"),
        lambda root: folder_of(root.parent / "more", splits=()).rename(root / "elm"),
    ],
)
def test_what_comes_goes_or_is_renamed_is_seen(folder, change):
    before = folders.image_folder(folder)
    change(folder)
    after = folders.image_folder(folder)
    assert list(after.names) != list(before.names)
    settle(folder)
    same(after, folders.image_folder(folder))


def test_other_questions_have_listings_of_their_own(folder):
    every = folders.image_folder(folder)
    some = folders.image_folder(folder, left_alone=["cedar"])
    turned = folders.image_folder(folder, CLASSES[::-1])
    assert len(some) < len(every) and turned.class_names == CLASSES[::-1]
    for source, options in (
        (every, {}),
        (some, {"left_alone": ["cedar"]}),
        (turned, {"class_names": CLASSES[::-1]}),
    ):
        same(source, folders.image_folder(folder, **options))


def test_links_fresh_folders_and_damage_are_listed_anew(folder, walks, tmp_path):
    (folder / "ash" / "fresh.png").write_bytes(b"")
    folders.image_folder(folder)
    count = len(walks)
    folders.image_folder(folder)
    assert len(walks) == 2 * count  # it changed just now
    settle(folder)
    folders.image_folder(folder)
    for file in (tmp_path / "cache" / "listings").iterdir():
        file.write_bytes(file.read_bytes()[:-80])
    folders.image_folder(folder)
    assert len(walks) == 4 * count
    for place in (folder, *folder.rglob("*")):
        if place.is_dir():
            os.utime(place, (0, 0))  # as object stores are mounted
    folders.image_folder(folder)
    folders.image_folder(folder)
    assert len(walks) == 6 * count
    (folder / "ash" / "link.png").symlink_to(tmp_path / "nowhere.png")
    settle(folder)
    folders.image_folder(folder)
    folders.image_folder(folder)
    assert len(walks) == 8 * count


def test_small_sets_leave_nothing_behind(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(listing_cache, "MIN_IMAGES", 100)
    folders.image_folder(folder)
    assert not list((tmp_path / "cache").rglob("*.listing"))
