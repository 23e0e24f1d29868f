"""Shards on a server, for which fsspec's in-memory file system and local files stand."""

import multiprocessing
import pickle

import fsspec
import numpy as np
import pytest
from shards import CLASSES, folder_of, picture, write_tar

import convnextv2
from convnextv2.data.shards import remote as remote_module
from convnextv2.data.sources import find_sources
from convnextv2.errors import DataError, StorageError
from convnextv2.recipe.read import read_recipe


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server():
    """An empty server that counts what is asked of it."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def requests(server, monkeypatch):
    made = []
    fetch = type(server).cat_file

    def counted(self, path, start=None, end=None, **options):
        made.append((path, start, end))
        return fetch(self, path, start, end, **options)

    monkeypatch.setattr(type(server), "cat_file", counted)
    return made


def upload(server, folder, to):
    for path in folder.iterdir():
        server.pipe_file(f"/{to}/{path.name}", path.read_bytes())


def sources(data, **knobs):
    return find_sources(read_recipe({"data_dir": str(data)} | knobs)[0], labelled=True)


@pytest.fixture
def packed(tmp_path, server):
    folder_of(tmp_path / "folder", 4)
    convnextv2.pack_data(tmp_path / "folder", tmp_path / "shards", images_per_shard=5)
    upload(server, tmp_path / "shards", "bucket/set")
    return tmp_path / "shards"


def contents(source):
    return [source.names.read(i) for i in range(len(source))]


def test_a_set_on_a_server_is_the_local_one(packed, requests):
    for address in ("memory://bucket/set", "memory://bucket/set/{train,val}-{000000..000002}.tar"):
        for ours, theirs in zip(sources(address), sources(packed), strict=True):
            assert ours.class_names == theirs.class_names == CLASSES
            assert ours.targets.tolist() == theirs.targets.tolist()
            assert contents(ours) == contents(theirs)
    assert ours.names[0] == "memory://bucket/set/val-000000.tar/ash/0.png"


def test_each_image_is_fetched_once_and_kept(packed, requests, tmp_path):
    training = sources("memory://bucket/set")[0]
    requests.clear()
    first = contents(training)
    assert len(requests) == 12 and all(end - start < 10_000 for _, start, end in requests)
    assert contents(training) == first and len(requests) == 12
    again = sources("memory://bucket/set")[0]
    requests.clear()
    copy = pickle.loads(pickle.dumps(again.names))  # as a worker process gets it
    assert contents(again) == [copy.read(i) for i in range(12)] == first
    assert not [each for each in requests if each[0].endswith(".tar")]
    for file in (tmp_path / "cache" / "remote").glob("*.data"):  # as after a loss of power
        file.write_bytes(bytes(file.stat().st_size))
    assert contents(sources("memory://bucket/set")[0]) == first


def test_the_index_comes_from_the_server_if_it_is_there(packed, server, monkeypatch):
    opened = []
    open_file = type(server).open

    def counted(self, path, *arguments, **options):
        opened.append(path.rpartition("/")[2])
        return open_file(self, path, *arguments, **options)

    monkeypatch.setattr(type(server), "open", counted)
    sources("memory://bucket/set")
    assert opened == []
    server.rm("/bucket/set/train.index")
    server.pipe_file("/bucket/set/train-000000.tar", server.cat("/bucket/set/train-000000.tar"))
    opened.clear()
    sources("memory://bucket/set")
    assert "train-000002.tar" in opened  # its headers are read anew, as one shard was replaced


def test_what_is_kept_is_bounded(tmp_path, server, monkeypatch, requests):
    monkeypatch.setattr(remote_module, "_COUNTED_EVERY", 10_000)
    files = []
    for i in range(60):
        noise = np.random.default_rng(i).bytes(20_000)
        files += [(f"{i:03d}.png", noise), (f"{i:03d}.cls", b"%d" % (i % 2))]
    path = write_tar(tmp_path / "a.tar", files)
    server.pipe_file("/b/a.tar", path.read_bytes())
    source = sources("memory://b/a.tar", val_while_train=False, shard_cache_gb=0.0005)[0]
    requests.clear()
    for _ in range(2):
        assert contents(source) == [data for name, data in files if name.endswith(".png")]
    used = remote_module._used(tmp_path / "cache" / "remote")
    assert 300_000 < used <= 500_000 + 60_000
    assert 80 < len(requests) < 110  # what did not fit is fetched again
    nothing = sources("memory://b/a.tar", val_while_train=False, shard_cache_gb=0)[0]
    requests.clear()
    assert contents(nothing) == contents(nothing) and len(requests) == 120


def test_what_was_kept_of_other_sets_makes_room(tmp_path, server):
    for name in "ab":
        files = [(f"{i}.png", np.random.default_rng(i).bytes(50_000)) for i in range(6)]
        path = write_tar(tmp_path / f"{name}.tar", [*files, ("0.cls", b"0")][:6])
        server.pipe_file(f"/{name}/x.tar", path.read_bytes())
    options = dict(shard_cache_gb=0.0004)
    recipes = [read_recipe({"data_dir": f"memory://{n}/x.tar"} | options)[0] for n in "ab"]
    first = find_sources(recipes[0], labelled=False)[0]
    contents(first)
    kept = set((tmp_path / "cache" / "remote").glob("*.data"))
    second = find_sources(recipes[1], labelled=False)[0]
    contents(second)
    assert not kept & set((tmp_path / "cache" / "remote").glob("*.data"))
    assert len(contents(first)) == 6


def read_all(data, queue):
    queue.put(contents(sources(data)[0]))


def test_processes_share_what_is_kept(packed, tmp_path):
    address = f"file://{packed}"
    expected = contents(sources(packed)[0])
    queue = multiprocessing.get_context("fork").Queue()
    processes = [
        multiprocessing.get_context("fork").Process(target=read_all, args=(address, queue))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [expected, expected]
    for process in processes:
        process.join(60)


def message(data, kind=DataError, **knobs):
    with pytest.raises(kind) as caught:
        sources(data, **knobs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mistakes_and_faults_are_one_line(packed, server, monkeypatch):
    assert "does not exist" in message("memory://bucket/set/none.tar")
    assert "holds no .tar files" in message("memory://bucket/nothing")
    assert "cannot be read" in message("nosuch://bucket/a.tar")
    assert "is on a server, but others are not" in message(
        f"memory://bucket/set/train-000000.tar::{packed}/train-000001.tar", train_split="."
    )
    source = sources("memory://bucket/set")[0]

    def broken(self, *arguments, **options):
        raise RuntimeError("connection reset\nby peer")

    monkeypatch.setattr(type(server), "cat_file", broken)
    with pytest.raises(StorageError, match="train-000000.tar: is out of reach"):
        source.pixels(0)
    assert source.is_out_of_reach(0)
    monkeypatch.undo()


def test_a_set_that_changes_on_the_server_is_read_anew(tmp_path, server):
    one = write_tar(tmp_path / "a.tar", [("0.png", picture(1)), ("0.cls", b"0")])
    two = write_tar(tmp_path / "b.tar", [("0.png", picture(2)), ("0.cls", b"0")])
    options = dict(val_while_train=False, num_classes=2)
    server.pipe_file("/c/a.tar", one.read_bytes())
    assert contents(sources("memory://c/a.tar", **options)[0]) == [picture(1)]
    server.pipe_file("/c/a.tar", two.read_bytes())
    assert contents(sources("memory://c/a.tar", **options)[0]) == [picture(2)]
