"""Loaders, which yield batches of prepared pixels, from this process or from worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from convnextv2.console import say
from convnextv2.data.batch import Batch, Collate
from convnextv2.data.build_transforms import build_eval_transform, build_train_transform
from convnextv2.data.cache import DecodedCache, affordable
from convnextv2.data.class_sampling import power_of
from convnextv2.data.decode import Picture
from convnextv2.data.dense.source import Sample
from convnextv2.data.left_out import BadImages, LeftOut, Quarantine
from convnextv2.data.randomness import generator_for
from convnextv2.data.reader import Images, Reader
from convnextv2.data.sampler import EpochSampler, ExactBatches, Position
from convnextv2.data.source import Source, Targets
from convnextv2.data.storage import StorageWait
from convnextv2.data.transforms import EvalTransform
from convnextv2.data.workers import PREFETCH, resolve_workers
from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe


class Augmentation(Protocol):
    """Prepares training images, as `data.transforms.TrainTransform` does.

    It maps (pixels, CPU generator) to uint8 (C, H, W) of one size, or to (versions, C, H, W). For
    an `AnnotatedSource`, it maps (pixels, annotation, CPU generator) to a `Sample`.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Tensor | Sample:
        """Prepare one image."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the result."""


class Preparation(Protocol):
    """Prepares images for evaluation, as `data.transforms.EvalTransform` does.

    It maps pixels to uint8 (C, H, W). For an `AnnotatedSource`, it maps (pixels, annotation) to a
    `Sample`. The images of a batch have one size, so if sizes differ, a batch is one image.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Tensor | Sample:
        """Prepare one image."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The sizes, the crop and the normalisation of the preprocessing."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the result, if they are fixed."""


class TrainingLoader:
    """The training batches of a rank.

    A batch does not depend on the number of workers, or on the batch at which iteration starts.

    Attributes:
        source: The images.
        sampler: The sampler, which decides which images are in which batch.
        storage_wait: Waits for images that are out of reach.
    """

    def __init__(
        self,
        source: Source,
        transform: Augmentation,
        sampler: EpochSampler,
        *,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
        collate: Collate | None = None,
        workers: int = 0,
        bad_images: BadImages = "fail",
        quarantine: Quarantine | None = None,
        storage_wait: StorageWait | None = None,
        pin_memory: bool = False,
        cache: DecodedCache | None = None,
        whole: bool = False,
    ) -> None:
        """Create the loader. Worker processes are started by `batches`.

        Args:
            source: The images.
            transform: See `Augmentation`. Its generator depends on the sampler's seed and the
                position of the image.
            sampler: Decides which images are in which batch.
            channels: See `open_picture`.
            value_range: See `open_picture`.
            collate: Joins the targets of annotated images.
            workers: The number of worker processes; 0 to prepare batches in this process.
            bad_images: How images that cannot be read are handled; see `LeftOut`.
            quarantine: The run's list of images that cannot be read.
            storage_wait: Waits for images that are out of reach; by default up to `storage.WAIT_S`.
            pin_memory: Whether batches are copied to pinned memory, from which a GPU copies faster.
            cache: The cache of decoded images.
            whole: Whether images are decoded in full before the transform, as the cache requires.
                The pixels then do not depend on the existence or the size of a cache.
        """
        self.source, self.sampler = source, sampler
        images = Images(
            source,
            channels,
            value_range,
            partial(_augment, transform, sampler.seed),
            cache,
            whole=whole or cache is not None,
        )
        self._reader = Reader(
            images, (channels, *transform.image_size), workers,
            LeftOut(source, bad_images, "training", quarantine),
            storage_wait or StorageWait(), persistent=True, pin_memory=pin_memory,
            collate=collate,
        )  # fmt: skip
        self.storage_wait = self._reader.storage_wait

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""
        return len(self.sampler)

    @property
    def skipped(self) -> dict[str, str]:
        """The images that were left out so far: name -> reason."""
        return self._reader.left_out.reasons

    @property
    def workers_replaced(self) -> int:
        """The number of worker processes that died and were replaced."""
        return self._reader.workers.replaced

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        There is one batch for each batch of the sampler. If none of its images can be read, the
        batch is empty, so that the number of batches stays the same.

        Args:
            epoch: The epoch, from 0.
            first_batch: The number of the first batch. Earlier ones are skipped without being read.

        Raises:
            StorageError: Images were out of reach for too long.
            DataError: An image cannot be read and `bad_images` is "fail", or workers die
                repeatedly.
        """

        def rest(done: int) -> Iterator[list[Position]]:
            self.sampler.set_epoch(epoch, first_batch + done)
            return iter(self.sampler)

        return self._reader.read(rest)

    def end(self) -> None:
        """End the worker processes, which are otherwise kept between epochs."""
        self._reader.workers.end()


class EvaluationLoader:
    """The evaluation batches of a rank. Over all ranks, each image occurs exactly once, in order.

    Empty batches are left out.

    Attributes:
        source: The images.
        storage_wait: Waits for images that are out of reach.
    """

    def __init__(
        self,
        source: Source,
        transform: Preparation,
        *,
        batch_size: int,
        channels: int = 3,
        collate: Collate | None = None,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        bad_images: BadImages = "fail",
        quarantine: Quarantine | None = None,
        storage_wait: StorageWait | None = None,
        pin_memory: bool = False,
    ) -> None:
        """Create the loader. The arguments are those of `TrainingLoader`."""
        self.source = source
        self._batches = ExactBatches(len(source), batch_size, rank, world_size)
        images = Images(
            source, channels, transform.preprocessing.value_range, partial(_prepare, transform)
        )
        self._reader = Reader(
            images, (channels, *transform.image_size), min(workers, len(self._batches)),
            LeftOut(source, bad_images, "evaluation", quarantine), storage_wait or StorageWait(),
            persistent=False, pin_memory=pin_memory,
            collate=collate,
        )  # fmt: skip
        self.storage_wait = self._reader.storage_wait

    def __len__(self) -> int:
        """Return the number of batches. The last one may be shorter."""
        return len(self._batches)

    @property
    def skipped(self) -> dict[str, str]:
        """The images that were left out so far: name -> reason."""
        return self._reader.left_out.reasons

    def skipped_anywhere(self, place: Place) -> tuple[str, ...]:
        """Return the names of the images that any rank left out. All ranks must call this."""
        return tuple(sorted(set().union(*place.gather(sorted(self.skipped)))))

    @property
    def workers_replaced(self) -> int:
        """The number of worker processes that died and were replaced."""
        return self._reader.workers.replaced

    def __iter__(self) -> Iterator[Batch]:
        batches = self._reader.read(self._batches.rest)
        return (batch for batch in batches if len(batch.indices))


def build_sampler(
    recipe: Recipe, length: int, place: Place, targets: Targets | None = None
) -> EpochSampler:
    """Build the recipe's sampler for the training images of this rank.

    Args:
        recipe: States how images are drawn, and how many are in a batch.
        length: The number of images.
        place: This rank.
        targets: The class of each image. Without them, each image is used once in an epoch. The
            number of batches is the same.

    Raises:
        RecipeError: The recipe draws images by class, but images may have several classes.
    """
    power = power_of(recipe.sampling)
    if power != 1 and targets is not None and targets.ndim != 1:
        raise RecipeError(
            f"sampling = {recipe.sampling}: draws images by their class, but these have several "
            "classes each. Leave sampling out."
        )
    return EpochSampler(
        length,
        recipe.images_per_batch(),
        seed=recipe.seed,
        rank=place.rank,
        world_size=place.world_size,
        shuffle=recipe.shuffle,
        repeats=recipe.aug_repeats,
        drop_last=recipe.drop_last,
        micro_batches=recipe.accumulate * place.world_size if recipe.elastic else 0,
        targets=targets if power != 1 else None,
        power=power,
    )


def build_training_loader(
    recipe: Recipe,
    source: Source,
    place: Place,
    quarantine: Quarantine | None = None,
    *,
    transform: Augmentation | None = None,
    collate: Collate | None = None,
) -> TrainingLoader:
    """Build the recipe's loader for the training batches of this rank.

    Args:
        recipe: States how batches are formed, and how images are prepared.
        source: The images.
        place: This rank.
        quarantine: The run's list of images that cannot be read.
        transform: Prepares the images; None for the recipe's `TrainTransform`.
        collate: Joins the targets of annotated images.
    """
    sampler = build_sampler(recipe, len(source), place, source.targets)
    workers, note = resolve_workers(recipe.workers, place.local_world_size)
    # Each worker prepares PREFETCH batches in advance, and the training loop holds one.
    height, width = recipe.height_and_width()
    batch = (
        recipe.images_per_batch() * max(1, recipe.aug_splits) * recipe.in_channels * height * width
    )
    batches = (workers * PREFETCH + 1) * batch if workers else 0
    cache_mb, more = (0, "")
    if recipe.cache_mb and source.arrays is None:
        cache_mb, more = affordable(recipe.cache_mb, batches=batches, ranks=place.local_world_size)
    for line in filter(None, (note, more, idle_knobs(recipe, source))):
        say(line)
    return TrainingLoader(
        source,
        build_train_transform(recipe) if transform is None else transform,
        sampler,
        channels=recipe.in_channels,
        value_range=recipe.value_range,
        collate=collate,
        workers=workers,
        bad_images=recipe.bad_images,
        quarantine=quarantine,
        storage_wait=StorageWait(recipe.data_wait_s),
        pin_memory=place.device.type == "cuda",
        cache=DecodedCache(len(source), cache_mb) if cache_mb else None,
        # Set even if no cache fits, so that a recipe gives the same pixels on every machine.
        whole=recipe.cache_mb > 0,
    )


def idle_knobs(recipe: Recipe, source: Source) -> str:
    """Return a message about knobs that have no effect on images in memory; "" without any."""
    if source.arrays is None:
        return ""
    names = ("cache_mb", "bad_images", "data_wait_s", "max_image_pixels", "value_range")
    idle = [name for name in names if getattr(recipe, name) != Recipe.model_fields[name].default]
    where = f"{recipe.dataset} is" if recipe.dataset else "the images are"
    return f"No effect here: {', '.join(idle)} ({where} in memory already)." if idle else ""


def build_evaluation_loader(
    recipe: Recipe,
    source: Source,
    place: Place,
    quarantine: Quarantine | None = None,
    storage_wait: StorageWait | None = None,
    *,
    transform: Preparation | None = None,
    collate: Collate | None = None,
    batch_size: int | None = None,
) -> EvaluationLoader:
    """Build the recipe's loader for the evaluation batches of this rank.

    The caller must report the images that were left out (`skipped`).

    Args:
        recipe: States how images are prepared.
        source: The images.
        place: This rank.
        quarantine: The run's list of images that cannot be read.
        storage_wait: That of the run's training loader, if the wait is part of the training.
        transform: Prepares the images; None for the recipe's `EvalTransform`.
        collate: Joins the targets of annotated images.
        batch_size: Number of images in a batch; None for that of the recipe.
    """
    return EvaluationLoader(
        source,
        build_eval_transform(recipe) if transform is None else transform,
        batch_size=batch_size or recipe.images_per_batch(),
        channels=recipe.in_channels,
        collate=collate,
        workers=resolve_workers(recipe.workers, place.local_world_size)[0],
        rank=place.rank,
        world_size=place.world_size,
        bad_images=recipe.bad_images,
        quarantine=quarantine,
        storage_wait=storage_wait or StorageWait(recipe.data_wait_s),
        pin_memory=place.device.type == "cuda",
    )


def build_prediction_loader(
    recipe: Recipe, source: Source, transform: EvalTransform
) -> EvaluationLoader:
    """Build the loader of a verb that applies a model to images in one process.

    Args:
        recipe: States how many images are in a batch, and what is done with images that cannot be
            read.
        source: The images.
        transform: Prepares the images as the model needs them.
    """
    batch_size = recipe.images_per_batch()
    return EvaluationLoader(
        source,
        transform,
        batch_size=batch_size,
        channels=transform.preprocessing.channels,
        # Workers take longer to start than a handful of images takes to decode.
        workers=resolve_workers(recipe.workers)[0] if len(source) > 2 * batch_size else 0,
        bad_images=recipe.bad_images,
    )


def _augment(
    transform: Augmentation,
    seed: int,
    image: Tensor | Picture,
    position: Position,
    *annotation: Any,
) -> Tensor | Sample:
    return transform(image, *annotation, generator_for(seed, "image", *position))


def _prepare(
    transform: Preparation,
    image: Tensor | Picture,
    position: Position,
    *annotation: Any,
) -> Tensor | Sample:
    pixels = image.decode() if isinstance(image, Picture) else image
    return transform(pixels, *annotation)
