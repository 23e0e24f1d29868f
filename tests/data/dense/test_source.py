"""Annotated images go through the loaders like others: workers, resume, bad files, waiting."""

import numpy as np
import pytest
import torch
from maps import draw_maps

from convnextv2.data.dense.map_sources import find_map_sources
from convnextv2.data.dense.map_transforms import (
    MapEvalTransform,
    MapTrainTransform,
    collate_maps,
)
from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import EvaluationLoader, TrainingLoader
from convnextv2.data.sampler import EpochSampler
from convnextv2.data.storage import StorageWait
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = draw_maps(tmp_path_factory.mktemp("maps"), train=9)
    recipe = Recipe(task="segmentation", data_dir=str(root))
    return find_map_sources(recipe, Place(torch.device("cpu")))[0]


def training(source, workers=0, **options):
    sampler = EpochSampler(len(source), 4, seed=3, drop_last=False)
    return TrainingLoader(
        source, MapTrainTransform((32, 40)), sampler, workers=workers, collate=collate_maps,
        **options,
    )  # fmt: skip


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(batch, other, strict=True))


def test_batches_have_maps_beside_their_pixels(source) -> None:
    batches = list(training(source).batches(0))
    assert [tuple(batch.targets.shape) for batch in batches] == [
        (4, 32, 40),
        (4, 32, 40),
        (1, 32, 40),
    ]
    assert all(batch.targets.dtype == torch.int16 for batch in batches)
    assert all(batch.pixels.is_contiguous(memory_format=torch.channels_last) for batch in batches)


def test_workers_and_a_resume_in_an_epoch_change_nothing(source) -> None:
    expected = list(training(source).batches(1))
    loader = training(source, workers=2)
    assert_same(list(loader.batches(1)), expected)
    assert_same(list(loader.batches(1, first_batch=1)), expected[1:])


def test_evaluation_gives_each_image_once_with_its_whole_map(source) -> None:
    loader = EvaluationLoader(
        source, MapEvalTransform(Preprocessing((32, 32))), batch_size=1, collate=collate_maps
    )
    for i, batch in enumerate(loader):
        assert batch.indices.tolist() == [i]
        assert torch.equal(batch.targets[0], source.annotation(i))
        assert min(batch.pixels.shape[2:]) == 32
    assert i == len(source) - 1


class Damaged:
    """Maps of which one is damaged, or out of reach for the first tries."""

    def __init__(self, maps, index: int) -> None:
        self.maps, self.index = maps, index

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: int):
        if index == self.index:
            raise DataError(f"{self.maps.paths[index]}: is damaged.")
        return self.maps[index]

    def is_out_of_reach(self, index: int) -> bool:
        return False


def damaged(source, index: int):
    from dataclasses import replace

    return replace(source, annotations=Damaged(source.annotations, index))


def test_a_damaged_map_ends_the_run_or_its_image_is_left_out(source, tmp_path) -> None:
    bad = damaged(source, 4)
    with pytest.raises(DataError, match=rf"{source.names[4]}: .*4.png: is damaged"):
        list(training(bad).batches(0))
    loader = training(bad, bad_images="skip")
    seen = np.concatenate([batch.indices for batch in loader.batches(0)])
    assert sorted(seen.tolist()) == [i for i in range(9) if i != 4]
    assert list(loader.skipped) == [source.names[4]]
    for batch in loader.batches(1):
        assert len(batch.targets) == len(batch.pixels) == len(batch.indices)


def test_an_image_that_another_rank_put_on_the_list_leaves_its_map_too(source, tmp_path) -> None:
    quarantine = Quarantine(tmp_path)
    loader = training(source, bad_images="quarantine", quarantine=quarantine)
    batches = loader.batches(0)
    first = next(batches)
    held = loader._reader
    quarantine.add(source.names[int(first.indices[1])], "is damaged", "training")
    shorter = held._without_listed(first)
    keep = [0, 2, 3]
    assert torch.equal(shorter.targets, first.targets[keep])
    assert torch.equal(shorter.pixels, first.pixels[keep])
    batches.close()


def test_a_map_that_is_out_of_reach_is_waited_for(source, tmp_path) -> None:
    from convnextv2.errors import StorageError

    class Away(Damaged):
        tries = 0

        def __getitem__(self, index: int):
            if index == self.index and self.tries < 2:
                self.tries += 1
                raise StorageError("map.png: is out of reach.")
            return self.maps[index]

        def is_out_of_reach(self, index: int) -> bool:
            self.tries += 1
            return self.tries < 2

    from dataclasses import replace

    away = replace(source, annotations=Away(source.annotations, 2))
    said: list[str] = []
    storage_wait = StorageWait(
        60, say=said.append, sleep=lambda seconds: None, clock=iter(range(1000)).__next__
    )
    assert_same(
        list(training(away, storage_wait=storage_wait).batches(0)),
        list(training(source).batches(0)),
    )
    assert len(said) == 2 and "out of reach" in said[0]
