import json
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from shards import CLASSES, folder_of, picture, tars_of, write_tar

from convnextv2.data.shards import files as files_module
from convnextv2.data.shards.images import ShardImages
from convnextv2.data.sources import find_sources, validation_source
from convnextv2.errors import DataError, StorageError
from convnextv2.recipe.read import read_recipe
from convnextv2.training.conditions import _labels_sha256, _names_sha256


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(tmp_path / "cache"))


def recipe(**knobs):
    return read_recipe(knobs)[0]


def same(one, other):
    """Check that two sources have the same images, classes and pixels in the same order."""
    assert len(one) == len(other)
    assert one.class_names == other.class_names
    assert np.array_equal(one.targets, other.targets)
    assert all((one.pixels(i) == other.pixels(i)).all() for i in range(len(one)))


def test_shards_are_the_folder_that_was_packed(tmp_path):
    folder = folder_of(tmp_path / "folder")
    for split in ("train", "val"):
        tars_of(folder / split, tmp_path / "tars", prefix=split)
    (tmp_path / "tars" / "classes.txt").write_text("\n".join(CLASSES))
    for ours, theirs in zip(
        find_sources(recipe(data_dir=str(tmp_path / "tars")), labelled=True),
        find_sources(recipe(data_dir=str(folder)), labelled=True),
        strict=True,
    ):
        same(ours, theirs)
        # A run may go on with either.
        assert _names_sha256(ours.names) == _names_sha256(theirs.names)
        assert _labels_sha256(ours) == _labels_sha256(theirs)
    measured = validation_source(recipe(data_dir=str(tmp_path / "tars")), CLASSES)
    same(measured, theirs)


def test_the_same_images_are_held_out_as_of_the_folder(tmp_path):
    folder = folder_of(tmp_path / "folder", 9, splits=())
    tars_of(folder, tmp_path / "tars", prefix="images")
    (tmp_path / "tars" / "classes.txt").write_text("\n".join(CLASSES))
    settings = dict(val_fraction=0.3, seed=4)
    ours = find_sources(recipe(data_dir=str(tmp_path / "tars"), **settings), labelled=True)
    theirs = find_sources(recipe(data_dir=str(folder), **settings), labelled=True)
    for one, other in zip(ours, theirs, strict=True):
        same(one, other)
        assert _names_sha256(one.names) == _names_sha256(other.names)
    measured = validation_source(recipe(data_dir=str(tmp_path / "tars"), **settings), CLASSES)
    same(measured, theirs[1])


def test_a_part_of_the_samples_is_that_of_the_folder(tmp_path):
    folder = folder_of(tmp_path / "folder")
    tars_of(folder / "train", tmp_path / "tars", prefix="images")
    options = dict(num_samples=5, val_while_train=False)
    ours = find_sources(recipe(data_dir=str(tmp_path / "tars"), **options), labelled=False)[0]
    theirs = find_sources(recipe(data_dir=str(folder), **options), labelled=False)[0]
    assert [name.rpartition(".tar/")[2] for name in ours.names] == [
        "/".join(name.split("/")[-2:]) for name in theirs.names
    ]


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_are_read(tmp_path, tar_format):
    long = "ash/" + "x" * 300
    path = write_tar(
        tmp_path / "a.tar",
        [(f"{long}.png", picture(1)), ("birch/höhe.png", picture(2)), ("birch/b.PNG", picture(3))],
        format=tar_format,
    )
    source = find_sources(recipe(data_dir=str(path), val_while_train=False), labelled=True)[0]
    assert source.class_names == ("ash", "birch") and source.targets.tolist() == [0, 1, 1]
    assert source.names[0] == f"{path}/{long}.png"
    assert [source.names.read(i) for i in range(3)] == [picture(1), picture(2), picture(3)]


def samples(path, *labels, ending="cls"):
    files = []
    for i, label in enumerate(labels):
        files += [(f"{i:04d}.png", picture(i))]
        files += [(f"{i:04d}.{ending}", label.encode())] if label is not None else []
    return write_tar(path, files)


def labelled(path, **knobs):
    options = {"val_while_train": False, "data_dir": str(path)} | knobs
    return find_sources(recipe(**options), labelled=True)[0]


def test_classes_come_from_every_usual_file(tmp_path):
    assert labelled(samples(tmp_path / "a.tar", "1", "0\n", "10")).targets.tolist() == [1, 0, 10]
    words = labelled(samples(tmp_path / "b.tar", "oak", "ash", ending="txt"))
    assert words.class_names == ("ash", "oak") and words.targets.tolist() == [1, 0]
    fields = [json.dumps({"label": 1, "kind": "x"}), json.dumps({"label": 0, "kind": "y"})]
    path = samples(tmp_path / "c.tar", *fields, ending="json")
    assert labelled(path).targets.tolist() == [1, 0]
    assert labelled(path, columns="label=kind").class_names == ("x", "y")
    assert labelled(samples(tmp_path / "d.tar", "1", "0", ending="json")).targets.tolist() == [1, 0]


def test_patterns_lists_and_folders_of_splits_name_shards(tmp_path):
    for i in range(12):
        samples(tmp_path / f"s-{i:02d}.tar", str(i % 2))
    by_pattern = labelled(tmp_path / "s-{03..10}.tar")
    assert [name.split("/")[-2] for name in by_pattern.names] == [
        f"s-{i:02d}.tar" for i in range(3, 11)
    ]
    listed = labelled(f"{tmp_path}/s-01.tar::{tmp_path}/s-{{00,05}}.tar")
    assert listed.targets.tolist() == [1, 0, 1]
    for split in ("train", "val"):
        samples(tmp_path / "splits" / split / "0.tar", "0", "1")
    training, validation = find_sources(recipe(data_dir=str(tmp_path / "splits")), labelled=True)
    assert len(training) == len(validation) == 2
    assert training.notes[0].endswith("1 shard for training, 1 for validation.")


def test_a_folder_of_classes_with_a_tar_beside_them_is_a_folder(tmp_path):
    folder = folder_of(tmp_path / "folder", splits=())
    samples(folder / "backup.tar", "0")
    assert labelled(folder).class_names == CLASSES


def message(path, **knobs):
    with pytest.raises(DataError) as caught:
        labelled(path, **knobs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_damaged_tars_are_named(tmp_path):
    whole = samples(tmp_path / "whole.tar", "0", "1", "1").read_bytes()
    bad = tmp_path / "bad.tar"
    for cut in (100, 512, 700, 1024, len(whole) // 2, 512 * 7):
        bad.write_bytes(whole[:cut])
        assert str(bad) in message(bad) and "again" in message(bad), cut
    content = whole.rstrip(b"\0")
    bad.write_bytes(content + bytes(-len(content) % 512))
    assert "neither a file nor the end mark" in message(bad)
    second = whole.index(b"0001.png")
    bad.write_bytes(whole[:second] + b"\xff" * 512 + whole[second + 512 :])
    assert "is damaged or cut short at byte" in message(bad)
    bad.write_bytes(b"")
    assert "is empty" in message(bad)
    import gzip

    bad.write_bytes(gzip.compress(whole))
    assert "compressed with gzip" in message(bad)
    bad.write_bytes(b"not a tar" * 1000)
    assert "damaged" in message(bad)
    assert "no such" in message(tmp_path / "none" / "x.tar").lower()


def test_a_cut_at_every_block_is_noticed(tmp_path):
    """A tar file is padded by zeros at its end, which may be missing; everything else may not."""
    path = samples(tmp_path / "a.tar", "0", "1")
    whole = path.read_bytes()
    content = len(whole.rstrip(b"\0"))
    end = content + (-content % 512)
    for cut in range(0, end + 1, 512):
        path.write_bytes(whole[:cut])
        message(path)
    path.write_bytes(whole[: end + 512])
    assert len(labelled(path)) == 2


def test_labels_that_are_no_classes_are_refused(tmp_path):
    assert "different places: 1 from .cls files" in message(
        write_tar(tmp_path / "a.tar", [("a/1.png", b"x"), ("a/1.cls", b"0"), ("a/2.png", b"x")])
    )
    assert "no sample has a class" in message(samples(tmp_path / "b.tar", None, None))
    assert "two files .cls" in message(
        write_tar(tmp_path / "c.tar", [("1.png", b"x"), ("1.cls", b"0"), ("1.cls", b"1")])
    )
    assert "2 images (1.png, 1.jpg)" in message(
        write_tar(tmp_path / "d.tar", [("1.png", b"x"), ("1.jpg", b"x"), ("1.cls", b"0")])
    )
    assert "up to 5,000,000,000" in message(samples(tmp_path / "e.tar", "0", "5000000000"))
    assert "is not UTF-8" in message(
        write_tar(tmp_path / "f.tar", [("1.png", b"x"), ("1.cls", b"\xff")])
    )
    assert "is not JSON" in message(samples(tmp_path / "g.tar", "{", ending="json"))
    assert "--columns label=FIELD" in message(
        samples(tmp_path / "h.tar", '{"label": [1]}', ending="json")
    )
    (tmp_path / "classes.txt").write_text("ash\nbirch\n")
    assert "class number 7, but there are 2 classes" in message(samples(tmp_path / "i.tar", "7"))
    assert "there is no image in 1 shard" in message(
        write_tar(tmp_path / "j.tar", [("a.cls", b"0")])
    )
    assert "a brace is open" in message(f"{tmp_path}/{{00..3.tar")


def test_a_mask_beside_the_image_is_no_second_image(tmp_path):
    path = write_tar(
        tmp_path / "a.tar", [("1.mask.png", b"x"), ("1.png", picture(5)), ("1.cls", b"0")]
    )
    source = labelled(path, num_classes=3)
    assert source.names.read(0) == picture(5)


def test_the_index_is_made_once_and_again_when_a_shard_changes(tmp_path, monkeypatch):
    from convnextv2.data.shards import index_cache

    made = []
    write = index_cache.write_index
    monkeypatch.setattr(index_cache, "write_index", lambda *args: (made.append(1), write(*args)))
    path = samples(tmp_path / "a.tar", "0", "1")
    assert len(labelled(path)) == len(labelled(path)) == 2 and len(made) == 1
    samples(path, "0", "1", "1")
    assert len(labelled(path)) == 3 and len(made) == 2
    for file in (tmp_path / "cache" / "shards").glob("*.index"):
        file.write_bytes(file.read_bytes()[:-100])
    assert len(labelled(path)) == 3 and len(made) == 3


def test_a_shard_that_goes_missing_is_waited_for(tmp_path):
    source = labelled(samples(tmp_path / "a.tar", "0", "1"))
    (tmp_path / "a.tar").rename(tmp_path / "b.tar")
    with pytest.raises(StorageError, match="out of reach"):
        source.pixels(0)
    assert source.is_out_of_reach(0)
    (tmp_path / "b.tar").rename(tmp_path / "a.tar")
    assert not source.is_out_of_reach(0)


def test_a_shard_that_shrinks_is_named(tmp_path):
    path = samples(tmp_path / "a.tar", "0", "1")
    source = labelled(path)
    data = path.read_bytes()
    path.write_bytes(data[:600])
    with pytest.raises(DataError, match="0000.png: its tar file is shorter"):
        source.pixels(0)


def test_few_files_are_open_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "MAX_OPEN", 3)
    for i in range(9):
        samples(tmp_path / f"s-{i}.tar", "0", "1")
    source = labelled(tmp_path)
    assert [source.names.read(i) for i in range(18)] == [picture(i % 2) for i in range(18)]
    assert len(source.names._files._open) == 3


def test_another_process_gets_a_copy_that_reads(tmp_path):
    source = labelled(samples(tmp_path / "a.tar", "0", "1"))
    assert source.names.read(1) == picture(1)
    sent = pickle.dumps(source.names)
    assert len(sent) < 2000
    copy = pickle.loads(sent)
    assert isinstance(copy, ShardImages) and list(copy) == list(source.names)
    assert copy.read(1) == picture(1)
    assert list(copy[1:]) == [source.names[-1]]


def test_a_set_that_was_moved_needs_no_new_index_beside_it(tmp_path):
    from convnextv2.data.shards.files import LocalFiles
    from convnextv2.data.shards.index import write_index
    from convnextv2.data.shards.index_cache import index_beside

    samples(tmp_path / "set" / "s-0.tar", "0", "1")
    files = LocalFiles.of([str(tmp_path / "set" / "s-0.tar")])
    write_index(index_beside(files.shards), files)
    shutil.move(tmp_path / "set", tmp_path / "elsewhere")
    source = labelled(tmp_path / "elsewhere")
    assert source.names.read(0) == picture(0)
    assert source.names[0].startswith(str(tmp_path / "elsewhere"))
    assert not (tmp_path / "cache" / "shards").exists()
