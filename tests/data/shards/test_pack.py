import hashlib
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from processes import Program, finish_ranks
from shards import folder_of, picture

import convnextv2
from convnextv2.data.shards import pack as pack_module
from convnextv2.data.sources import find_sources
from convnextv2.errors import ConvNeXtV2Error, DataError, RecipeError, RunError
from convnextv2.recipe.read import read_recipe
from convnextv2.training.conditions import _names_sha256


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(tmp_path / "cache"))


def sources(data, **knobs):
    return find_sources(read_recipe({"data_dir": str(data)} | knobs)[0], labelled=True)


def hashes(folder: Path) -> dict[str, str]:
    """Hash all tar files, and the names of the classes."""
    found = [*folder.glob("*.tar"), *folder.glob("classes.txt")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.mark.parametrize("splits", [("train", "val"), ("train",), ()])
def test_the_shards_are_the_folder(tmp_path, splits):
    folder = folder_of(tmp_path / "folder", 7, splits=splits)
    packed = convnextv2.pack_data(folder, tmp_path / "shards", images_per_shard=4)
    assert packed.images == 21 * max(1, len(splits)) and packed.shards == 6 * max(1, len(splits))
    assert packed.kept == 0 and packed.size == sum(
        path.stat().st_size for path in (tmp_path / "shards").glob("*.tar")
    )
    for ours, theirs in zip(sources(tmp_path / "shards"), sources(folder), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is None:
            continue
        assert ours.class_names == theirs.class_names
        assert ours.targets.tolist() == theirs.targets.tolist()
        assert _names_sha256(ours.names) == _names_sha256(theirs.names)
        assert [ours.names.read(i) for i in range(len(ours))] == [
            Path(name).read_bytes() for name in theirs.names
        ]
    assert not [*(tmp_path / "cache").rglob("*")]  # the index lies beside the shards


def test_packing_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "folder")
    convnextv2.pack_data(folder, tmp_path / "a", images_per_shard=5)
    os.utime(folder / "train" / "ash" / "0.png", (1, 1))
    (folder / "train" / "ash" / "1.png").chmod(0o600)
    convnextv2.pack_data(folder, tmp_path / "b", images_per_shard=5)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") and len(hashes(tmp_path / "a")) == 7


KILLED = """
import os, sys
count = 0
replace = os.replace
def counted(*arguments):
    global count
    count += 1
    if count == int(sys.argv[3]):
        os._exit(137)
    replace(*arguments)
os.replace = counted
import convnextv2
convnextv2.pack_data(sys.argv[1], sys.argv[2], images_per_shard=5)
"""


@pytest.mark.parametrize("point", [1, 4, 6, 10])
def test_packing_that_was_killed_goes_on_and_gives_the_same_bytes(tmp_path, point):
    folder = folder_of(tmp_path / "folder")
    convnextv2.pack_data(folder, tmp_path / "whole", images_per_shard=5)
    killed = Program("-c", KILLED, folder, tmp_path / "killed", point)
    assert finish_ranks([killed])[0][0] == 137
    assert hashes(tmp_path / "killed") != hashes(tmp_path / "whole") or point == 10
    packed = convnextv2.pack_data(folder, tmp_path / "killed", images_per_shard=5)
    assert packed.kept == {1: 0, 4: 1, 6: 3, 10: 6}[point]
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob("*.tmp"))
    assert len(sources(tmp_path / "killed")[0]) == 12


def test_another_packing_is_refused(tmp_path):
    folder = folder_of(tmp_path / "folder")
    out = tmp_path / "shards"
    convnextv2.pack_data(folder, out, images_per_shard=5)
    before = hashes(out)
    with pytest.raises(RunError, match="packed from other images, or with other options"):
        convnextv2.pack_data(folder, out, images_per_shard=6)
    (folder / "train" / "ash" / "new.png").write_bytes(picture(9))
    with pytest.raises(RunError, match="packed from other images"):
        convnextv2.pack_data(folder, out, images_per_shard=5)
    assert hashes(out) == before
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "x.tar").write_bytes(b"")
    with pytest.raises(RunError, match="files that pack_data did not write, such as "):
        convnextv2.pack_data(folder, tmp_path / "theirs")
    with pytest.raises(DataError, match="no such folder"):
        convnextv2.pack_data(tmp_path / "none", out)


def test_names_that_would_share_a_key_get_keys_of_their_own(tmp_path):
    for target, name in enumerate(("a", "b.c")):
        place = tmp_path / "folder" / name
        place.mkdir(parents=True)
        names = ["1.v2.png", "1.v3.png", "1.png", "2.png", "1%2Ev2.png", "höhe.PNG", ".hidden.png"]
        for i, image in enumerate(names):
            (place / image).write_bytes(picture(10 * target + i))
        Image.open(place / "1.png").convert("RGB").save(place / "1.jpg")
    convnextv2.pack_data(tmp_path / "folder", tmp_path / "shards", images_per_shard=3)
    ours = sources(tmp_path / "shards", val_while_train=False)[0]
    theirs = sources(tmp_path / "folder", val_while_train=False)[0]
    assert ours.targets.tolist() == theirs.targets.tolist() and len(ours) == 14
    assert ours.class_names == ("a", "b.c")
    for i in range(14):
        assert ours.names.read(i) == Path(theirs.names[i]).read_bytes()
    members = []
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            members += tar.getnames()
    keys = [name.rpartition("/")[2].partition(".")[0] for name in members]
    assert keys[::2] == keys[1::2]  # each image and its class
    assert len(set(members)) == 28


def test_a_table_and_images_without_labels_are_packed(tmp_path):
    folder = folder_of(tmp_path / "folder", 2, splits=())
    table = tmp_path / "table.csv"
    lines = [f"folder/{c}/{i}.png,{c},{s}" for c in ("ash", "cedar") for i, s in ((0, 0), (1, 1))]
    table.write_text(
        "\n".join(["path,label,split", *lines]).replace(",0", ",train").replace(",1", ",val")
    )
    convnextv2.pack_data(table, tmp_path / "a")
    for ours, theirs in zip(sources(tmp_path / "a"), sources(table), strict=True):
        assert ours.class_names == theirs.class_names == ("ash", "cedar")
        assert ours.targets.tolist() == theirs.targets.tolist()
    convnextv2.pack_data(folder, tmp_path / "b", labelled=False)
    found = find_sources(read_recipe({"data_dir": str(tmp_path / "b")})[0], labelled=False)[0]
    assert len(found) == 6
    with tarfile.open(tmp_path / "b" / "images-000000.tar") as tar:
        assert all(name.endswith(".png") for name in tar.getnames())


def test_shards_can_be_packed_again(tmp_path):
    folder = folder_of(tmp_path / "folder")
    convnextv2.pack_data(folder, tmp_path / "a", images_per_shard=5)
    convnextv2.pack_data(tmp_path / "a", tmp_path / "b", images_per_shard=3)
    convnextv2.pack_data(folder, tmp_path / "c", images_per_shard=3)
    assert hashes(tmp_path / "b") == hashes(tmp_path / "c")


def test_images_with_several_labels_are_refused(tmp_path):
    folder_of(tmp_path / "folder", 1, splits=())
    (tmp_path / "t.csv").write_text(
        "path,hat,shoe\nfolder/ash/0.png,1,0\nfolder/birch/0.png,1,1\nfolder/cedar/0.png,0,1\n"
    )
    with pytest.raises(ConvNeXtV2Error, match="several labels each"):
        convnextv2.pack_data(tmp_path / "t.csv", tmp_path / "out")


def test_webdataset_reads_what_was_packed(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    folder = folder_of(tmp_path / "folder", 3, splits=())
    convnextv2.pack_data(folder, tmp_path / "shards", images_per_shard=100)
    # Its own opener leaves the file for the garbage collector to close.
    with open(tmp_path / "shards" / "images-000000.tar", "rb") as file:
        files = webdataset.tariterators.tar_file_expander([{"url": file.name, "stream": file}])
        found = [
            (sample["png"], int(sample["cls"]))
            for sample in webdataset.tariterators.group_by_keys(files)
        ]
    theirs = sources(folder, val_while_train=False)[0]
    assert found == [
        (Path(name).read_bytes(), target)
        for name, target in zip(theirs.names, theirs.targets.tolist(), strict=True)
    ]


def test_what_webdataset_wrote_is_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "s-%06d.tar"), maxcount=4, verbose=0) as writer:
        for i in range(10):
            writer.write({"__key__": f"{i:05d}", "png": picture(i), "cls": i % 3})
    ours = sources(tmp_path, val_while_train=False)[0]
    assert ours.targets.tolist() == [i % 3 for i in range(10)]
    assert [ours.names.read(i) for i in range(10)] == [picture(i) for i in range(10)]


def test_progress_is_told_for_each_shard(tmp_path):
    folder = folder_of(tmp_path / "folder", splits=())
    source = sources(folder, val_while_train=False)[0]
    told = []
    (tmp_path / "out").mkdir()
    pack_module.pack({"images": source}, tmp_path / "out", 5, lambda *each: told.append(each))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_shards_do_not_go_among_other_files(tmp_path):
    folder = folder_of(tmp_path / "folder", 2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "classes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"did not write, such as classes\.txt"):
        convnextv2.pack_data(folder, tmp_path / "run")
    assert (tmp_path / "run" / "classes.txt").read_text() == "mine"
    assert not list((tmp_path / "run").glob("*.tar"))


@pytest.mark.parametrize("inside", [".", "shards"])
def test_shards_do_not_go_into_the_data(tmp_path, inside):
    folder = folder_of(tmp_path / "folder", 2)
    with pytest.raises(RecipeError, match="lies in the data"):
        convnextv2.pack_data(folder, folder / inside)
    assert not list(folder.rglob("*.tar"))
