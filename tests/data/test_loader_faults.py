"""Loaders when something breaks in the middle of an epoch."""

import json
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from convnextv2.data import loader as loader_module
from convnextv2.data.batch import Batch
from convnextv2.data.cache import DecodedCache
from convnextv2.data.folders import image_folder
from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import (
    EvaluationLoader,
    TrainingLoader,
    build_training_loader,
    idle_knobs,
)
from convnextv2.data.sampler import EpochSampler
from convnextv2.data.source import Source
from convnextv2.data.storage import StorageWait
from convnextv2.data.transforms import EvalTransform, TrainTransform
from convnextv2.distributed import Place
from convnextv2.errors import DataError, StorageError
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe

CPU = Place(torch.device("cpu"))


@pytest.fixture(autouse=True)
def _quick_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks for dead processes every five seconds; here more often."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of twelve images of noise each."""
    for i in range(24):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return tmp_path / "data"


def training(source: Source, workers: int, **options) -> TrainingLoader:
    sampler = EpochSampler(len(source), 3, seed=3)
    return TrainingLoader(source, TrainTransform((16, 16)), sampler, workers=workers, **options)


def assert_same(batches: list[Batch], expected: list[Batch]) -> None:
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(batch, other, strict=True))


def kill_worker(loader: TrainingLoader | EvaluationLoader) -> None:
    os.kill(loader._reader.workers._iterator._workers[-1].pid, signal.SIGKILL)


@pytest.mark.parametrize("has_cache", [False, True])
def test_a_killed_worker_changes_no_batch(folder: Path, has_cache: bool, capfd) -> None:
    source = image_folder(folder)
    expected = [list(training(source, 0).batches(epoch)) for epoch in (0, 1)]
    cache = DecodedCache(len(source), 1) if has_cache else None
    loader = training(source, 2, cache=cache)
    found = []
    for batch in loader.batches(0):
        found.append(batch)
        if len(found) == 3:
            kill_worker(loader)
    kill_worker(loader)  # idle between two epochs
    assert_same(found, expected[0])
    assert_same(list(loader.batches(1, first_batch=2)), expected[1][2:])
    assert loader.workers_replaced == 2
    assert capfd.readouterr().err.count("was ended by SIGKILL") == 2


def test_a_worker_killed_during_an_evaluation_changes_no_batch(folder: Path, capfd) -> None:
    source, transform = image_folder(folder), EvalTransform(Preprocessing((16, 16)))
    expected = list(EvaluationLoader(source, transform, batch_size=3))
    loader = EvaluationLoader(source, transform, batch_size=3, workers=2)
    found = []
    for batch in loader:
        found.append(batch)
        if len(found) in (1, 4):
            kill_worker(loader)
    assert_same(found, expected)
    assert capfd.readouterr().err.count("was ended by SIGKILL") == loader.workers_replaced > 0


def test_a_worker_that_dies_with_the_lock_of_the_cache_blocks_nobody(folder: Path) -> None:
    source = image_folder(folder)
    expected = list(training(source, 0).batches(0))
    cache = DecodedCache(len(source), 1)
    loader = training(source, 2, cache=cache)
    batches = loader.batches(0)
    found = [next(batches)]
    cache._lock.acquire()  # as if by the worker that is killed now
    kill_worker(loader)
    assert_same([*found, *batches], expected)


def test_a_part_of_the_cache_that_was_not_finished_is_lost_and_spoils_nothing() -> None:
    cache = DecodedCache(3, 1)
    images = [torch.full((3, 10, 10), value, dtype=torch.uint8) for value in range(3)]
    cache.put(0, images[0])
    places = cache._places
    cache._places = None  # it ends after the pixels, before their place is noted
    with pytest.raises(TypeError):
        cache.put(1, images[1])
    cache._places = places
    cache.renew_lock()
    cache.put(2, images[2])
    assert cache.get(1) is None
    assert torch.equal(cache.get(0), images[0]) and torch.equal(cache.get(2), images[2])
    cache.put(1, images[1])
    assert torch.equal(cache.get(1), images[1])


class Deadly(Source):
    """A source that ends whatever process decodes one of its images, but for the main one."""

    def picture(self, index: int, *how):
        if self.names[index].endswith("07.png") and os.getpid() != MAIN:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().picture(index, *how)


MAIN = os.getpid()


@pytest.mark.parametrize("bad_images", ["fail", "skip"])
def test_an_image_that_ends_every_worker_is_named(folder: Path, bad_images: str) -> None:
    source = image_folder(folder)
    deadly = Deadly(source.names, source.targets, source.class_names)
    with pytest.raises(
        DataError, match=r"ended 3 times.*SIGSEGV.*preparing these images: \S+/b/07\.png\. "
    ):
        list(training(deadly, 2, bad_images=bad_images).batches(0))
    loader = EvaluationLoader(
        deadly,
        EvalTransform(Preprocessing((16, 16))),
        batch_size=4,
        workers=2,
        bad_images=bad_images,
    )
    with pytest.raises(DataError, match="07.png"):
        list(loader)


def read_list(run: Path) -> dict[str, tuple[str, str]]:
    lines = (run / "quarantine.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["name"] for record in records}) == len(records)
    return {Path(each["name"]).name: (each["reason"], each["used"]) for each in records}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_in_quarantine_is_not_read_again(folder: Path, tmp_path: Path, workers) -> None:
    source = image_folder(folder)
    whole = (folder / "a" / "04.png").read_bytes()
    for name in ("a/04.png", "b/09.png"):
        (folder / name).write_bytes(b"")
    skipping = training(source, workers, bad_images="skip")
    expected = [list(skipping.batches(epoch)) for epoch in (0, 1)]
    loader = training(source, workers, bad_images="quarantine", quarantine=Quarantine(tmp_path))
    assert_same(list(loader.batches(0)), expected[0])
    reason = ("is empty. Expected an image.", "training")
    assert read_list(tmp_path) == {"04.png": reason, "09.png": reason}
    # It can be read again, and the run does not change because of that, nor does its continuation.
    (folder / "a" / "04.png").write_bytes(whole)
    assert_same(list(loader.batches(1)), expected[1])
    assert loader.skipped == skipping.skipped
    later = training(source, workers, bad_images="quarantine", quarantine=Quarantine(tmp_path))
    assert_same(list(later.batches(1, first_batch=2)), expected[1][2:])
    evaluation = EvaluationLoader(
        source, EvalTransform(Preprocessing((16, 16))), batch_size=5, workers=workers,
        bad_images="quarantine", quarantine=Quarantine(tmp_path),
    )  # fmt: skip
    indices = torch.cat([batch.indices for batch in evaluation]).tolist()
    left = [i for i in range(24) if Path(source.names[i]).name not in ("04.png", "09.png")]
    assert indices == left and set(evaluation.skipped) == set(skipping.skipped)
    assert len(read_list(tmp_path)) == 2


def test_what_another_rank_put_on_the_list_is_left_out_from_the_next_epoch_on(
    folder: Path, tmp_path: Path
) -> None:
    source = image_folder(folder)
    loader = training(source, 0, bad_images="quarantine", quarantine=Quarantine(tmp_path))
    assert sum(len(batch.indices) for batch in loader.batches(0)) == 24
    Quarantine(tmp_path).add(source.names[5], "is empty.", "training")
    batches = list(loader.batches(1))
    assert 5 not in torch.cat([batch.indices for batch in batches]) and len(batches) == 8
    assert loader.skipped == {source.names[5]: "is empty."}


def test_a_batch_on_its_way_loses_what_came_on_the_list_meanwhile(
    folder: Path, tmp_path: Path
) -> None:
    """Copies of an image follow each other; the second one can be read."""
    source = image_folder(folder)
    quarantine = Quarantine(tmp_path)
    sampler = EpochSampler(24, 3, seed=3, repeats=4)
    loader = TrainingLoader(
        source, TrainTransform((16, 16)), sampler, workers=1, bad_images="quarantine",
        quarantine=quarantine,
    )  # fmt: skip
    whole = list(
        TrainingLoader(source, TrainTransform((16, 16)), EpochSampler(24, 3, seed=3, repeats=4))
        .batches(0)
    )  # fmt: skip
    batches = loader.batches(0)
    next(batches)
    time.sleep(0.5)  # the next two are ready
    listed = int(whole[1].indices[0])
    quarantine.add(source.names[listed], "is empty.", "training")
    batch = next(batches)
    good = whole[1].indices != listed
    assert 0 < good.sum() < 3 and torch.equal(batch.indices, whole[1].indices[good])
    assert torch.equal(batch.pixels, whole[1].pixels[good])
    assert batch.pixels.permute(0, 2, 3, 1).is_contiguous()  # as all batches are


@pytest.mark.parametrize(("workers", "bad_images"), [(0, "skip"), (1, "quarantine"), (2, "fail")])
def test_a_folder_that_is_away_for_a_while_is_waited_for(
    folder: Path, tmp_path: Path, workers: int, bad_images: str
) -> None:
    source = image_folder(folder)
    expected = list(training(source, 0).batches(0))
    said: list[str] = []
    storage_wait = StorageWait(30, say=said.append)
    quarantine = Quarantine(tmp_path)
    loader = training(
        source, workers, bad_images=bad_images, quarantine=quarantine, storage_wait=storage_wait
    )
    found = []
    for batch in loader.batches(0):
        found.append(batch)
        if len(found) == 2:
            folder.rename(tmp_path / "away")
            threading.Timer(2, (tmp_path / "away").rename, [folder]).start()
    assert_same(found, expected)
    assert not loader.skipped and not (tmp_path / "quarantine.jsonl").exists()
    assert storage_wait.waits == 1 and 1.5 < storage_wait.waited_s < 15
    assert len(said) == 2
    assert said[0].endswith(
        "is out of reach (No such file or directory). Waiting for it, at most 30 s (data_wait_s)."
    )
    assert said[1].startswith("The images can be read again after ")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_stays_away_ends_the_run_whatever_bad_images_says(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    source = image_folder(folder)
    folder.rename(tmp_path / "away")
    now = [0.0]
    storage_wait = StorageWait(
        60, say=lambda line: None, clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )  # fmt: skip
    loader = EvaluationLoader(
        source, EvalTransform(Preprocessing((16, 16))), batch_size=4, workers=workers,
        bad_images="skip", storage_wait=storage_wait,
    )  # fmt: skip
    with pytest.raises(StorageError, match=r"waited for 60 s.*--resume"):
        list(loader)
    assert now[0] == 60 and not loader.skipped


@pytest.fixture
def _small_files() -> Iterator[None]:
    """No file may be longer than 100 kB, nor shared memory, as where /dev/shm is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("_small_files")
def test_a_full_shared_memory_is_told_and_no_image_is_blamed(folder: Path) -> None:
    said: list[str] = []
    storage_wait = StorageWait(2, say=said.append)
    loader = TrainingLoader(
        image_folder(folder), TrainTransform((128, 128)), EpochSampler(24, 3, seed=3), workers=1,
        bad_images="skip", storage_wait=storage_wait,
    )  # fmt: skip
    with pytest.raises(StorageError, match=r"/dev/shm has no room for a batch of 0\.1 MB"):
        list(loader.batches(0))
    assert not loader.skipped and len(said) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_that_does_not_fit_changes_no_pixel(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JPEGs large enough to be decoded at a reduced scale where no cache is asked for."""
    (tmp_path / "a").mkdir()
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "a" / f"{i}.jpg", quality=80)
    source = image_folder(tmp_path)
    recipe = Recipe(image_size=32, batch_size=3, workers=workers, cache_mb=20)
    expected = list(build_training_loader(recipe, source, CPU).batches(0))
    monkeypatch.setattr(loader_module, "affordable", lambda mb, **needs: (0, "none is used"))
    loader = build_training_loader(recipe, source, CPU)
    assert loader._reader.images.cache is None
    assert_same(list(loader.batches(0)), expected)
    without = list(
        build_training_loader(recipe.model_copy(update={"cache_mb": 0}), source, CPU).batches(0)
    )
    assert not torch.equal(without[0].pixels, expected[0].pixels)


def test_knobs_that_do_nothing_for_images_in_memory_are_named(capsys) -> None:
    in_memory = Source(["0", "1"], arrays=np.zeros((2, 8, 8), np.uint8))
    recipe = Recipe(
        dataset="bundled", cache_mb=100, bad_images="skip", image_size=8, batch_size=2, workers=0
    )
    loader = build_training_loader(recipe, in_memory, CPU)
    assert loader._reader.images.cache is None
    assert capsys.readouterr().out == (
        "No effect here: cache_mb, bad_images (bundled is in memory already).\n"
    )
    assert idle_knobs(Recipe(dataset="bundled"), in_memory) == ""
    assert idle_knobs(recipe, Source(["a.jpg"])) == ""
