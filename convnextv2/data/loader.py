"""Loader: batches of prepared pixels, the same ones from this process or from workers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from convnextv2.console import say
from convnextv2.data.batch import Batch, Collate
from convnextv2.data.cache import DecodedCache, affordable
from convnextv2.data.chance import stream
from convnextv2.data.decode import Picture
from convnextv2.data.dense.source import Sample
from convnextv2.data.draws import power_of
from convnextv2.data.left_out import BadImages, LeftOut, Quarantine
from convnextv2.data.reader import Images, Reader
from convnextv2.data.sampler import EpochSampler, ExactBatches, Position
from convnextv2.data.source import Source, Targets
from convnextv2.data.storage import Patience
from convnextv2.data.transforms import EvalTransform, build_eval_transform, build_train_transform
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
        """What the preparation does."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the result, if they are fixed."""


class TrainingLoader:
    """A rank's training batches.

    They do not depend on the number of workers, or on where in an epoch one starts.

    Attributes:
        source: The images.
        sampler: The order.
        patience: Waits for images that are out of reach.
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
        patience: Patience | None = None,
        pin_memory: bool = False,
        cache: DecodedCache | None = None,
        whole: bool = False,
    ) -> None:
        """Start nothing yet.

        Args:
            source: The images.
            transform: See `Augmentation`. The generator follows from the sampler's seed and the
                position.
            sampler: Which images are in which batch.
            channels: See `open_picture`.
            value_range: See `open_picture`.
            collate: Joins the targets of annotated images.
            workers: Processes that prepare batches; 0 for this one.
            bad_images: What becomes of images that cannot be read, see `LeftOut`.
            quarantine: The run's list of them.
            patience: How long to wait for images that are out of reach; default `storage.WAIT_S`.
            pin_memory: Whether batches come in memory that a GPU reads from.
            cache: The cache of decoded images.
            whole: Whether images are decoded whole before the transform, as they are for the cache.
                The result then does not depend on whether there is a cache and what fits into it.
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
            patience or Patience(), persistent=True, pin_memory=pin_memory,
            collate=collate,
        )  # fmt: skip
        self.patience = self._reader.patience

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self.sampler)

    @property
    def skipped(self) -> dict[str, str]:
        """Images left out by now: name -> why."""
        return self._reader.left_out.reasons

    @property
    def workers_replaced(self) -> int:
        """How many worker processes died."""
        return self._reader.workers.replaced

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Prepare the epoch's batches from number first_batch on.

        There is one for each batch of the sampler. If none of its images can be read, it has 0
        images, so that batches can be counted.

        Args:
            epoch: The epoch.
            first_batch: How many batches of it are done.

        Raises:
            StorageError: Images are out of reach for too long.
            DataError: An image is bad and `bad_images` is "fail", or workers die again and again.
        """

        def rest(done: int) -> Iterator[list[Position]]:
            self.sampler.set_epoch(epoch, first_batch + done)
            return iter(self.sampler)

        return self._reader.read(rest)

    def end(self) -> None:
        """End the worker processes, which stay between epochs; `batches` starts new ones."""
        self._reader.workers.end()


class EvaluationLoader:
    """Batches of a rank's share of the images, each image exactly once over all ranks, in order.

    There is no batch without images.

    Attributes:
        source: The images.
        patience: Waits for images that are out of reach.
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
        patience: Patience | None = None,
        pin_memory: bool = False,
    ) -> None:
        """Start nothing yet. The arguments are those of `TrainingLoader`."""
        self.source = source
        self._batches = ExactBatches(len(source), batch_size, rank, world_size)
        images = Images(
            source, channels, transform.preprocessing.value_range, partial(_prepare, transform)
        )
        self._reader = Reader(
            images, (channels, *transform.image_size), min(workers, len(self._batches)),
            LeftOut(source, bad_images, "evaluation", quarantine), patience or Patience(),
            persistent=False, pin_memory=pin_memory,
            collate=collate,
        )  # fmt: skip
        self.patience = self._reader.patience

    def __len__(self) -> int:
        """Batches, the last one perhaps shorter."""
        return len(self._batches)

    @property
    def skipped(self) -> dict[str, str]:
        """Images left out by now: name -> why."""
        return self._reader.left_out.reasons

    def skipped_anywhere(self, place: Place) -> tuple[str, ...]:
        """Return the names of the images left out by now on any rank, which all call this."""
        return tuple(sorted(set().union(*place.gather(sorted(self.skipped)))))

    @property
    def workers_replaced(self) -> int:
        """How many worker processes died."""
        return self._reader.workers.replaced

    def __iter__(self) -> Iterator[Batch]:
        batches = self._reader.read(self._batches.rest)
        return (batch for batch in batches if len(batch.indices))


def build_sampler(
    recipe: Recipe, length: int, place: Place, targets: Targets | None = None
) -> EpochSampler:
    """Build the order in which this rank takes its training images, as the recipe says.

    Args:
        recipe: Says how images are drawn, and how many are in a batch.
        length: The number of images.
        place: This rank.
        targets: The class of each image. Without them every image is used once; the number of
            batches is the same.

    Raises:
        RecipeError: Classes are to be drawn by their frequency, but an image has several.
    """
    power = power_of(recipe.sampling)
    if power != 1 and targets is not None and targets.ndim != 1:
        raise RecipeError(
            f"sampling = {recipe.sampling}: draws images by their class, and these have several "
            "each. Leave sampling out."
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
    """Build the training batches of this rank, as the recipe says.

    Args:
        recipe: Says which batches there are, and how images are prepared.
        source: The images.
        place: This rank.
        quarantine: The run's list of bad images.
        transform: Prepares the images; None for the recipe's `TrainTransform`.
        collate: Joins the targets of annotated images.
    """
    sampler = build_sampler(recipe, len(source), place, source.targets)
    workers, note = resolve_workers(recipe.workers, place.local_world_size)
    # Each worker has PREFETCH batches on the way, and the loop holds one.
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
        patience=Patience(recipe.data_wait_s),
        pin_memory=place.device.type == "cuda",
        cache=DecodedCache(len(source), cache_mb) if cache_mb else None,
        # This holds even if nothing fits, so that a recipe gives the same pixels on every machine.
        whole=recipe.cache_mb > 0,
    )


def idle_knobs(recipe: Recipe, source: Source) -> str:
    """Return a line that names the knobs which do nothing for images in memory, or ""."""
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
    patience: Patience | None = None,
    *,
    transform: Preparation | None = None,
    collate: Collate | None = None,
    batch_size: int | None = None,
) -> EvaluationLoader:
    """Build the evaluation batches of this rank, as the recipe says.

    Whoever builds it tells what it left out (`skipped`).

    Args:
        recipe: Says how images are prepared.
        source: The images.
        place: This rank.
        quarantine: The run's list of bad images.
        patience: The patience of the run's training, if that waits here.
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
        patience=patience or Patience(recipe.data_wait_s),
        pin_memory=place.device.type == "cuda",
    )


def build_prediction_loader(
    recipe: Recipe, source: Source, transform: EvalTransform
) -> EvaluationLoader:
    """Build the batches of a verb that applies a model to images in one process.

    Args:
        recipe: Says how many images are in a batch, and what becomes of bad ones.
        source: The images.
        transform: Prepares the images as the model wants them.
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
    return transform(image, *annotation, stream(seed, "image", *position))


def _prepare(
    transform: Preparation,
    image: Tensor | Picture,
    position: Position,
    *annotation: Any,
) -> Tensor | Sample:
    pixels = image.decode() if isinstance(image, Picture) else image
    return transform(pixels, *annotation)
