import os
from pathlib import Path

import pytest

from convnextv2.data.listing import Walk, visible_folders
from convnextv2.data.path_list import PathListBuilder
from convnextv2.errors import DataError

SUFFIXES = frozenset((".jpg", ".png"))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(root: Path, walk: Walk | None = None, **options) -> list[str]:
    builder = PathListBuilder()
    count = (walk or Walk(SUFFIXES)).add_images(root, builder, **options)
    paths = list(builder.build())
    assert count == len(paths)
    return [os.path.relpath(path, root) for path in paths]


def test_the_order_is_that_of_the_whole_paths_as_text(tmp_path: Path) -> None:
    names = ["a.jpg", "a/1.jpg", "a/b/2.png", "a b/3.jpg", "a-b.jpg", "a0.JPG", "Z.jpg", "é/x.jpg"]
    touch(tmp_path, *names)
    assert listed(tmp_path) == sorted(names)


def test_what_is_passed_over_is_counted_by_ending(tmp_path: Path) -> None:
    touch(
        tmp_path, "1.jpg", "2.HEIC", "a/3.heic", "IMG_0004", "notes.txt", "Thumbs.db", ".hidden.jpg"
    )
    walk = Walk(SUFFIXES)
    assert listed(tmp_path, walk) == ["1.jpg"]
    assert walk.passed_over == {".heic": 2, "": 1}
    (line,) = walk.notes(tmp_path)
    assert line == (
        f"{tmp_path}: skipped 3 files that are not read as images (.heic 2, without an "
        "ending 1); save HEIC as JPEG."
    )


def test_folders_of_the_system_are_passed_over_and_said(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "cat/1.jpg",
        "__MACOSX/cat/._1.jpg",
        "__MACOSX/cat/1.jpg",
        "cat/@eaDir/1.jpg",
        ".git/1.jpg",
    )
    walk = Walk(SUFFIXES)
    assert listed(tmp_path, walk) == ["cat/1.jpg"]
    assert walk.notes(tmp_path) == (
        f"{tmp_path}: skipped folders of the system (@eaDir, __MACOSX).",
    )
    assert visible_folders(tmp_path) == ({"cat": tmp_path / "cat"}, {"__MACOSX"})


def test_links_that_go_round_in_circles_end(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, "cat/1.jpg", "cat/deep/2.jpg")
    (root / "cat" / "again").symlink_to(".")
    (root / "cat" / "deep" / "up").symlink_to("../..")
    (root / "cat" / "self").symlink_to("self")
    walk = Walk(SUFFIXES)
    assert listed(root / "cat", walk) == ["1.jpg", "deep/2.jpg"]
    assert sorted(walk.repeated) == [f"{root}/cat/again", f"{root}/cat/deep/up"]
    assert walk.broken_links == [f"{root}/cat/self"]
    repeated = [line for line in walk.notes(root) if "is listed already" in line]
    assert len(repeated) == 1 and "2 paths" in repeated[0] and "cat/again" in repeated[0]


def test_an_image_that_links_reach_again_is_listed_once(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    touch(root, "cat/1.jpg")
    touch(elsewhere, "2.jpg", "folder/3.jpg")
    (root / "cat" / "same.jpg").symlink_to("1.jpg")
    (root / "cat" / "a.jpg").symlink_to(elsewhere / "2.jpg")
    (root / "cat" / "b.jpg").symlink_to(elsewhere / "2.jpg")
    (root / "cat" / "c").symlink_to(elsewhere / "folder")
    (root / "cat" / "d").symlink_to(elsewhere / "folder")
    (root / "cat" / "gone.jpg").symlink_to(elsewhere / "gone.jpg")
    (root / "cat" / "lost").symlink_to(elsewhere / "lost")
    walk = Walk(SUFFIXES)
    images = listed(root / "cat", walk)
    assert images == ["1.jpg", "a.jpg", "c/3.jpg"]
    assert len(walk.repeated) == 3
    assert sorted(walk.broken_links) == [f"{root}/cat/gone.jpg", f"{root}/cat/lost"]


def test_an_image_in_two_classes_is_said(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "9.jpg"
    touch(tmp_path, "data/cat/1.jpg", "data/dog/2.jpg", "elsewhere/9.jpg")
    root = tmp_path / "data"
    (root / "dog" / "3.jpg").symlink_to("../cat/1.jpg")
    (root / "cat" / "4.jpg").symlink_to(elsewhere)
    (root / "dog" / "4.jpg").symlink_to(elsewhere)
    walk = Walk(SUFFIXES)
    assert len(listed(root / "cat", walk)) + len(listed(root / "dog", walk)) == 5
    assert walk.notes(root) == (
        f"{root}: 2 images in two classes by links ({root}/dog/3.jpg, {root}/dog/4.jpg).",
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "2.jpg")
    assert listed(tmp_path) == ["1.jpg"]


def test_a_folder_in_two_classes_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg")
    (tmp_path / "kitty").symlink_to("cat")
    walk = Walk(SUFFIXES)
    assert listed(tmp_path / "cat", walk) == listed(tmp_path / "kitty", walk) == ["1.jpg"]
    (line,) = walk.notes(tmp_path)
    assert line.startswith(f"{tmp_path}/kitty: holds images of {tmp_path}/cat by a link")


def test_links_to_what_is_left_alone_are_images(tmp_path: Path) -> None:
    touch(tmp_path, "test/1.jpg", "cat/2.jpg")
    (tmp_path / "cat" / "3.jpg").symlink_to("../test/1.jpg")
    assert listed(tmp_path, left_alone=["test"]) == ["cat/2.jpg", "cat/3.jpg"]


def test_a_folder_may_be_left_alone_at_the_top_only(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "test/2.jpg", "cat/test/3.jpg")
    assert listed(tmp_path, left_alone=["test"]) == ["1.jpg", "cat/test/3.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg")
    (tmp_path / "cat").chmod(0)
    with pytest.raises(DataError, match=r"cat/?: cannot be read \(Permission denied\)"):
        listed(tmp_path)
    (tmp_path / "cat").chmod(0o755)


def test_a_path_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        listed(tmp_path / ("a" * 5000))


def test_very_deep_trees_are_listed(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1200):  # deeper than Python may recurse
        deep = deep / "d"
        os.mkdir(deep)
    touch(deep, "1.jpg")
    try:
        assert listed(tmp_path) == ["d/" * 1200 + "1.jpg"]
    finally:  # which pytest's own cleaning up could not
        (deep / "1.jpg").unlink()
        for _ in range(1200):
            deep.rmdir()
            deep = deep.parent


def test_images_named_like_label_maps_of_others_in_their_folder_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a_mask.png", "b/c.jpg", "b/c_MASK_2.png", "b/a_mask.png")
    touch(tmp_path, "gas_mask.jpg", "left_l.jpg", "left.jpg")
    walk = Walk(SUFFIXES)
    assert len(listed(tmp_path, walk)) == 8
    assert walk.label_maps == [f"{tmp_path}/a_mask.png", f"{tmp_path}/b/c_MASK_2.png"]
    assert walk.notes(tmp_path) == ()
    assert walk.label_map_note(tmp_path) == (
        f"{tmp_path}: judging by the names, 2 images may be label maps of images beside them "
        f"({tmp_path}/a_mask.png, {tmp_path}/b/c_MASK_2.png). All are used as images. Move label "
        "maps elsewhere.",
    )


def test_nothing_is_said_of_label_maps_without_their_images(tmp_path: Path) -> None:
    touch(tmp_path, "a_mask.png", "b/a.jpg")
    walk = Walk(SUFFIXES)
    listed(tmp_path, walk)
    assert walk.label_map_note(tmp_path) == ()
