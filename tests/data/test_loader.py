import signal
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from convnextv2.data.auto_augment import build_policy
from convnextv2.data.loader import (
    EvaluationLoader,
    TrainingLoader,
    build_evaluation_loader,
    build_training_loader,
)
from convnextv2.data.randomness import generator_for
from convnextv2.data.sampler import EpochSampler
from convnextv2.data.transforms import EvalTransform, TrainTransform
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.kernels import choice
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe

CPU = Place(torch.device("cpu"))


@dataclass(frozen=True)
class Noise:
    """A source of `length` noisy images, some of which cannot be read."""

    length: int = 23
    bad: tuple[int, ...] = ()
    labelled: bool = True
    arrays = None

    def __len__(self):
        return self.length

    @property
    def names(self):
        return tuple(f"{i}.jpg" for i in range(self.length))

    @property
    def targets(self):
        return np.arange(self.length) % 4 if self.labelled else None

    def picture(self, i, channels, value_range=None):
        if i in self.bad:
            raise DataError(f"{self.names[i]}: the file is truncated.")
        return torch.randint(
            0, 256, (channels, 40 + i, 50), dtype=torch.uint8, generator=generator_for("noise", i)
        )


def training(source, workers=0, batch_size=4, drop_last=True, **options):
    transform = TrainTransform(
        (24, 32), augment=build_policy("randaug-m9-mstd0.5-inc1", fill=(124, 116, 104))
    )
    sampler = EpochSampler(len(source), batch_size, seed=3, repeats=2, drop_last=drop_last)
    return TrainingLoader(source, transform, sampler, workers=workers, **options)


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(batch, other, strict=True))


def test_the_number_of_workers_changes_nothing():
    alone = training(Noise())
    expected = [list(alone.batches(epoch)) for epoch in (0, 1)]
    assert not torch.equal(expected[0][0].pixels, expected[1][0].pixels)
    for workers in (1, 2):
        loader = training(Noise(), workers)
        for epoch in (0, 1):
            assert_same(list(loader.batches(epoch)), expected[epoch])


def test_batches_have_the_documented_form():
    loader = training(Noise(), drop_last=False)
    batches = list(loader.batches(0))
    assert len(batches) == len(loader) == 6
    assert [tuple(batch.pixels.shape) for batch in batches] == [(4, 3, 24, 32)] * 5 + [
        (3, 3, 24, 32)
    ]
    assert all(
        batch.pixels.dtype == torch.uint8
        and batch.targets.dtype == batch.indices.dtype == torch.int64
        for batch in batches
    )
    assert all(torch.equal(batch.targets, batch.indices % 4) for batch in batches)
    assert (next(training(Noise(labelled=False)).batches(0)).targets == -1).all()


def test_copies_of_an_image_are_augmented_differently():
    batch = next(training(Noise()).batches(0))
    assert batch.indices[0] == batch.indices[1] and not torch.equal(
        batch.pixels[0], batch.pixels[1]
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_resumes_in_the_middle_also_after_one_that_was_broken_off(workers):
    loader = training(Noise(), workers)
    expected = list(loader.batches(1))
    next(loader.batches(0))
    assert_same(list(loader.batches(1, first_batch=2)), expected[2:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_fails_with_one_line_that_names_it(workers):
    # Not pytest.raises, which keeps the frames: workers that are only ended by garbage collection
    # take ten seconds.
    try:
        list(training(Noise(bad=tuple(range(23))), workers).batches(0))
        message = ""
    except DataError as error:
        message = str(error)
    assert "\n" not in message and message.endswith(
        ".jpg: the file is truncated. Repair or replace the file, or set bad_images = skip. (If "
        "it is removed, a run can be resumed with --resume_allow images.)"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_skipped_images_are_left_out_and_counted(workers):
    loader = training(Noise(bad=(8, 10)), workers, drop_last=False, bad_images="skip")
    for epoch in range(4):
        whole = list(training(Noise(), drop_last=False).batches(epoch))
        for batch, other in zip(loader.batches(epoch), whole, strict=True):
            good = (other.indices != 8) & (other.indices != 10)
            assert torch.equal(batch.indices, other.indices[good]) and torch.equal(
                batch.pixels, other.pixels[good]
            )
    assert loader.skipped == {"8.jpg": "the file is truncated.", "10.jpg": "the file is truncated."}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_of_bad_images_only_comes_empty_so_that_an_epoch_can_be_resumed(workers):
    bad = tuple(range(3, 23))
    loader = training(Noise(bad=bad), workers, batch_size=2, bad_images="skip")
    batches = list(loader.batches(0))
    assert len(batches) == len(loader) == 11
    empty = [batch for batch in batches if not len(batch.indices)]
    assert empty and all(
        batch.pixels.shape == (0, 3, 24, 32) and batch.pixels.dtype == torch.uint8
        for batch in empty
    )
    assert all(
        batch.targets.shape == (0,) and batch.targets.dtype == torch.int64 for batch in empty
    )
    for done in range(11):
        assert_same(list(loader.batches(0, first_batch=done)), batches[done:])


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_sees_each_image_once_in_order_over_all_ranks(workers):
    transform = EvalTransform(Preprocessing((24, 24)))
    seen = []
    for rank in range(2):
        loader = EvaluationLoader(
            Noise(), transform, batch_size=5, workers=workers, rank=rank, world_size=2
        )
        batches = list(loader)
        assert len(batches) == len(loader) == 3
        seen += torch.cat([batch.indices for batch in batches]).tolist()
        first = batches[0]
        assert torch.equal(first.pixels[1], transform(Noise().picture(rank + 2, 3)))
    assert seen == [*range(0, 23, 2), *range(1, 23, 2)]


def test_evaluation_skips_and_counts_or_fails():
    source = Noise(bad=(0, 7))
    loader = EvaluationLoader(
        source, EvalTransform(Preprocessing((24, 24))), batch_size=1, bad_images="skip"
    )
    assert len(list(loader)) == 21 and set(loader.skipped) == {"0.jpg", "7.jpg"}
    with pytest.raises(DataError, match=r"0\.jpg: .*bad_images = skip\.$"):
        list(EvaluationLoader(source, EvalTransform(Preprocessing((24, 24))), batch_size=4))


def test_a_mistake_of_ours_in_a_worker_is_not_taken_for_a_bad_image():
    loader = training(Noise(labelled=False), bad_images="skip")
    loader._reader.images.channels = "three"
    with pytest.raises(TypeError):
        list(loader.batches(0))


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(training(Noise()).batches(0))
    list(EvaluationLoader(Noise(), EvalTransform(Preprocessing((24, 24))), batch_size=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_recipe_decides_what_is_loaded():
    recipe = Recipe(
        image_size=(16, 24),
        in_channels=1,
        batch_size=6,
        workers=0,
        drop_last=False,
        seed=1,
        aug_repeats=3,
    )
    train = build_training_loader(recipe, Noise(), CPU)
    batch = next(train.batches(0))
    assert (
        batch.pixels.shape == (6, 1, 16, 24)
        and len(train) == 4
        and len(batch.indices.unique()) == 2
    )
    evaluation = build_evaluation_loader(recipe, Noise(), Place(torch.device("cpu"), 1, 2))
    assert torch.cat([batch.indices for batch in evaluation]).tolist() == list(range(1, 23, 2))


def test_versions_of_an_image_come_version_by_version():
    augment = build_policy("augmix-m5", fill=(124, 116, 104))
    transform = TrainTransform((24, 32), augment=augment, splits=3)
    loader = TrainingLoader(Noise(), transform, EpochSampler(23, 4, seed=3), workers=0)
    plain = TrainingLoader(
        Noise(), TrainTransform((24, 32)), EpochSampler(23, 4, seed=3), workers=0
    )
    for batch, clean in zip(loader.batches(0), plain.batches(0), strict=True):
        assert batch.pixels.shape == (12, 3, 24, 32)
        assert torch.equal(batch.pixels[:4], clean.pixels)
        assert (
            batch.indices.tolist() == clean.indices.tolist() * 3
            and batch.targets.tolist() == clean.targets.tolist() * 3
        )


def test_the_choice_of_kernels_reaches_workers_that_do_not_inherit_it():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        choice.choose("plain")
        start_worker = training(Noise(), workers=1)._reader.workers._loader.worker_init_fn
        choice.choose("auto")  # as a spawned process begins
        start_worker(0)
        assert choice.chosen() == "plain"
    finally:
        choice.choose("auto")
        for number, handler in handlers.items():  # of this process, which is not a worker
            signal.signal(number, handler)
