"""What supervised training and pre-training share: from a model and a loss to a finished run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from convnextv2.checkpoint import Checkpoint, rewrite_progress
from convnextv2.data.loader import Batch, TrainingLoader
from convnextv2.data.notices import left_out_line
from convnextv2.data.source import Source
from convnextv2.distributed import Place, choose_precision, say
from convnextv2.errors import DataError, RecipeError, TrainingError
from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.recipe.channels import channel_mistakes, is_colour
from convnextv2.recipe.knobs import Recipe, with_inferred
from convnextv2.recipe.values import show
from convnextv2.run import Run, find_weights
from convnextv2.training import mindcv_files
from convnextv2.training.bad_step import save_bad_step
from convnextv2.training.elastic import GradientTree, check_micro_batches, fix_threads, start_alike
from convnextv2.training.ema import WeightAverage
from convnextv2.training.head import HEAD, start_head
from convnextv2.training.health import LossWatch, check_weights
from convnextv2.training.loop import BadStep, Pace, fit
from convnextv2.training.memory import out_of_memory, out_of_memory_text
from convnextv2.training.optim import build_optimizer
from convnextv2.training.restore import Learner, continue_mindcv, resume_run
from convnextv2.training.resume import conditions
from convnextv2.training.saver import Saver
from convnextv2.training.schedule import build_schedule, scaled_lr
from convnextv2.training.state import Progress, optimizer_tensors
from convnextv2.weights.files import Description, write_text
from convnextv2.weights.load import load_encoder, open_weights


def train_model(
    recipe: Recipe,
    run: Run,
    place: Place,
    model: nn.Module,
    description: Description,
    loader: TrainingLoader,
    loss_fn: Callable[[nn.Module, Batch, torch.Generator], Tensor],
    *,
    depths: Sequence[int] = (),
    evaluate: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Train a model as the recipe says, and leave best/ and last/ in the run.

    Args:
        recipe: A run that resumes goes on from its last checkpoint.
        run: The run folder.
        place: This rank.
        model: What learns.
        description: Of its weights, for the files.
        loader: The training batches of this rank.
        loss_fn: (model, batch, CPU generator) to a scalar.
        depths: Blocks in each stage of the encoder, for layer decay.
        evaluate: Returns figures of the model as it is; its "top1" decides what is best. None without
            validation.

    Raises:
        DataError: There are too few images for one batch.
    """
    assert isinstance(recipe.batch_size, int)  # see `resolve_batch`
    if len(loader) == 0 and recipe.elastic:
        ranks = place.world_size
        raise DataError(
            f"elastic = True: a step takes accumulate x batch_size x ranks = {recipe.accumulate} x {recipe.batch_size} x {ranks} "
            f"images, and there are {len(loader.source)} for training. Use a smaller accumulate or batch_size."
        )
    if len(loader) == 0:
        raise DataError(
            f"batch_size = {recipe.batch_size}: larger than this rank's share of the {len(loader.source)} training images. Use "
            "a smaller one, or drop_last: False."
        )
    if recipe.elastic:
        check_micro_batches(recipe.accumulate, place.world_size)
        if line := fix_threads(place.device):
            say(line)
    dtype = choose_precision(recipe.precision, place.device)
    pace = build_pace(recipe, len(loader), dtype)
    global_batch = recipe.batch_size * recipe.accumulate * place.world_size
    lr, min_lr = scaled_lr(recipe, global_batch)
    for line in announcements(recipe, global_batch, lr, dtype, place):
        say(line)

    model.to(place.device)
    optimizer = build_optimizer(recipe, model, depths)
    average = WeightAverage(model, recipe.ema_decay, recipe.ema_form) if recipe.ema else None
    scaler = build_scaler(recipe, dtype, place.device)
    state = Learner(model, optimizer, average, scaler)
    asked = recipe.batch_size, recipe.accumulate
    here = conditions(recipe, place, loader.source, dtype, pace.steps_per_epoch, asked)
    progress = Progress()
    if recipe.resume:
        progress, pace, here = resume_run(recipe, run, place, state, description, pace, here)
        say(
            f"Resuming {run.path} at step {progress.step} (epoch {progress.epoch}, batch {progress.batch})."
        )
    elif recipe.init and (recipe.resume_init or recipe.resume_opt):
        progress = continue_mindcv(recipe, run, state, pace, place)
    progress.conditions = asdict(here)
    if place.is_main:
        run.save_recipe(recipe)
        run.prune(recipe.keep_checkpoints, recipe.keep_policy)  # a kill may have come before it
        run.sweep()
    lr_at = build_schedule(recipe, peak=lr, floor=min_lr, steps_per_epoch=pace.steps_per_epoch)
    if recipe.compile:
        model.compile(dynamic=False)
    if recipe.elastic:
        start_alike(model)
    tree = GradientTree(model, recipe.accumulate, place) if recipe.elastic else None
    trained = model if recipe.elastic else _data_parallel(model, place)

    records = run.metrics()
    writer = None
    if recipe.tensorboard and place.is_main:
        # TensorBoard drops the events from this step on. Those of the step itself that stay are
        # added again.
        writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=progress.step)
        for record in records:
            if record["step"] == progress.step:
                add_scalars(writer, record)
    watch = LossWatch(
        1.0 if description.kind == "fcmae" and recipe.norm_target else None,
        [record["loss"] for record in records if record["kind"] == "train"],
    )

    def log(record: dict[str, Any]) -> None:
        saver.look()
        if place.is_main:
            run.log(record)
            if recipe.mindcv_files and record["kind"] == "epoch":
                write_text(run.path / "result.log", mindcv_files.result_log(run.metrics()))
        if writer:
            add_scalars(writer, record)

    def described(figures: dict[str, Any]) -> Description:
        return replace(
            description, training={"step": progress.step, "epoch": progress.epoch, **figures}
        )

    told: set[str] = set()  # images that were left out, at the end of an epoch

    def write(checkpoint: Checkpoint) -> None:
        run.save_checkpoint(checkpoint)
        if checkpoint.progress[
            "batch"
        ]:  # at the end of an epoch, what to keep follows from its evaluation
            run.prune(recipe.keep_checkpoints, recipe.keep_policy)

    def save(wait: bool) -> None:
        if not place.is_main:
            return
        weights = model.state_dict()
        check_weights(weights, progress.step)
        progress.scaler = scaler.state_dict()
        tensors = optimizer_tensors(optimizer, model)
        averaged = average.tensors if average else {}
        checkpoint = Checkpoint(described({}), weights, averaged, tensors, asdict(progress))
        saver.save(checkpoint, wait=wait)

    def close() -> None:
        _tell_skipped(set(loader.skipped) - told, place)
        told.update(loader.skipped)
        saver.wait()
        folder = run.checkpoint_of(progress.epoch, progress.step)
        if not place.is_main or folder is None:
            return
        if recipe.mindcv_files and depths:
            write_mindcv_files()
        rewrite_progress(folder, asdict(progress))
        run.prune(recipe.keep_checkpoints, recipe.keep_policy)

    def keep(bad: BadStep) -> str:
        path = save_bad_step(run.path, bad, loader.source.names, progress.epoch, place.rank)
        names = [loader.source.names[i] for batch in bad.batches for i in batch.indices.tolist()]
        return f"{path} ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"

    def write_mindcv_files() -> None:
        path = run.path / mindcv_files.checkpoint_name(recipe.model, progress.epoch, len(loader))
        mindcv_files.write_training_checkpoint(
            path, model.state_dict(), depths=depths, average=average.tensors if average else {},
            optimizer=optimizer_tensors(optimizer, model), step=progress.step,
            updates=progress.step + progress.average_ahead, betas=recipe.betas or (0.9, 0.999),
            lrs=[lr_at(step) for step in range(pace.epochs * pace.steps_per_epoch)],
        )  # fmt: skip
        mindcv_files.copy_as_optim(path, recipe.model)
        validated = [
            record for record in run.metrics() if record["kind"] == "epoch" and "top1" in record
        ]
        mindcv_files.prune(
            run.path, recipe.model, progress.epoch, keep=recipe.keep_checkpoints, policy=recipe.keep_policy,
            top1={record["epoch"]: record["top1"] for record in validated},
        )  # fmt: skip

    def evaluate_and_keep_best() -> dict[str, float]:
        assert evaluate is not None
        figures = evaluate()
        progress.score = figures["top1"]
        if progress.best is None or figures["top1"] > progress.best:
            progress.best = figures["top1"]
            if place.is_main:
                # Inside the evaluation the model itself holds the weights to use.
                run.save_best(model.state_dict(), described(figures))
                if recipe.mindcv_files and depths:
                    path = run.path / f"{recipe.model}_best.ckpt"
                    mindcv_files.write_plain_checkpoint(path, model.state_dict(), depths)
        return figures

    saver = Saver(write, in_background=recipe.async_save)
    # With other ranks than at the start, an epoch may have a batch or two more; it keeps its steps.
    batches = islice_batches(loader, pace.batches_per_epoch)
    try:
        fit(
            trained,
            batches,
            loss_fn,
            pace=pace,
            optimizer=optimizer,
            lr_at=lr_at,
            average=average,
            scaler=scaler,
            progress=progress,
            place=place,
            log=log,
            evaluate=evaluate_and_keep_best if evaluate else None,
            save=save,
            close=close,
            size=lambda batch: len(batch.indices),
            keep=keep,
            watch=watch,
            also_stops=loader.patience,
            tree=tree,
        )
        saver.wait()
    except BaseException as error:
        with suppress(OSError):
            saver.wait()
        _tell_skipped(set(loader.skipped) - told)
        if not out_of_memory(error):
            raise
        size, accumulate = pace.batch_size, pace.accumulate
        text = out_of_memory_text(
            error, batch_size=size, accumulate=accumulate, device=place.device
        )
        raise TrainingError(text) from error
    finally:
        if writer:
            writer.close()
    if average is not None:
        for name, parameter in model.named_parameters():
            parameter.data.copy_(average.tensors[name])


def build_pace(recipe: Recipe, batches_per_epoch: int, dtype: torch.dtype) -> Pace:
    """How long the loop runs and what it does how often, as the recipe says."""
    minutes = recipe.save_every_minutes
    assert isinstance(recipe.batch_size, int), "resolve_batch has seen to that"
    return Pace(
        epochs=recipe.epochs,
        batches_per_epoch=batches_per_epoch,
        batch_size=recipe.batch_size,
        accumulate=recipe.accumulate,
        clip_norm=recipe.clip_norm,
        log_every_steps=recipe.log_every_steps,
        val_every_epochs=recipe.val_every_epochs,
        save_every_epochs=recipe.save_every_epochs,
        save_every_steps=recipe.save_every_steps,
        save_every_s=None if minutes is None else 60 * minutes,
        skip_bad=recipe.bad_steps == "skip",
        seed=recipe.seed,
        autocast=dtype,
    )


def islice_batches(
    loader: TrainingLoader, batches_per_epoch: int
) -> Callable[[int, int], Iterable[Batch]]:
    """The loader's batches, at most so many of an epoch."""
    if batches_per_epoch >= len(loader):
        return loader.batches
    return lambda epoch, first: islice(loader.batches(epoch, first), batches_per_epoch - first)


def _tell_skipped(skipped: Collection[str], place: Place | None = None) -> None:
    """Say which images were left out: on all ranks, or without a place on this one."""
    names = set(skipped) if place is None else set().union(*place.gather(sorted(skipped)))
    if names:
        say(f"{left_out_line(names, 'training image')}.")


def add_scalars(writer: SummaryWriter, record: Mapping[str, Any]) -> None:
    """Write the figures of a record as TensorBoard events."""
    for name, value in record.items():
        if isinstance(value, int | float) and name not in ("step", "epoch"):
            writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])


def build_scaler(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """Build the scaler that keeps gradients above the smallest float16; it is idle otherwise."""
    return torch.amp.GradScaler(
        device.type, init_scale=recipe.loss_scale, enabled=dtype == torch.float16
    )


def build_network(recipe: Recipe, num_classes: int | None) -> ConvNeXtV2:
    """The recipe's network with random weights; num_classes None for a bare encoder."""
    if recipe.model == "custom":
        assert recipe.depths and recipe.dims, "the recipe checks that"
        depths, dims = recipe.depths, recipe.dims
    elif recipe.model in SIZES:
        depths, dims = SIZES[recipe.model]
    else:
        raise RecipeError(
            f"model = {recipe.model!r}: expected one of {', '.join(SIZES)}, or custom with depths and dims."
        )
    return ConvNeXtV2(
        depths,
        dims,
        in_channels=recipe.in_channels,
        num_classes=num_classes,
        stem_stride=recipe.stem_stride,
        drop_path_rate=recipe.drop_path_rate,
        head_init_scale=recipe.head_init_scale,
        gelu=recipe.gelu,
        grn_scope=recipe.grn_scope,
        norm_eps=recipe.norm_eps,
        grad_checkpoint=recipe.grad_checkpoint,
    )


def load_init(
    recipe: Recipe, model: ConvNeXtV2, run: Run, classes: Sequence[str] = (), named: int = 0
) -> dict[str, Any]:
    """Put the weights that `init` names into a model, and print what became of each.

    A resumed run has its own weights.

    Args:
        recipe: Names the weights.
        model: The model to start.
        run: The run, which may be resumed.
        classes: Names of the model's rows; empty without a head.
        named: How many of them are classes of the data.

    Returns:
        The provenance of what is trained from the weights: their licence holds for it too.
    """
    if recipe.resume:
        return run.provenance()
    if not recipe.init:
        return {}
    weights = open_weights(find_weights(recipe.init))
    for line in weights.lines():
        say(line)
    theirs = weights.description.arguments
    for name in ("gelu", "norm_eps", "grn_scope"):
        if theirs[name] != model.arguments[name]:
            say(
                f"  {name} = {model.arguments[name]}, these weights were made with {theirs[name]}: the features will differ."
            )
    tensors, left_out = weights.tensors, weights.left_out
    is_continued = recipe.resume_init or recipe.resume_opt  # then the classes are the same
    if model.head is not None and HEAD[0] in tensors and not is_continued:
        head, lines = start_head(model.head, weights, classes, recipe.class_order, named=named)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in HEAD} | head
        if not head:
            rows, own = len(weights.tensors[HEAD[0]]), model.num_classes
            why = "a head of other classes"
            why = f"a head of {rows} classes, the model has {own}" if rows != own else why
            left_out = [*left_out, *((name, why) for name in HEAD)]
        for line in lines:
            say(line)
    report = load_encoder(model, tensors, source=weights.origin.path)
    for line in replace(report, left_out=report.left_out + left_out).lines():
        say(line)
    return {"init": weights.provenance(), "notice": weights.origin.notice}


_INFERRED = (
    *("model", "depths", "dims", "stem_stride", "gelu", "norm_eps", "in_channels"),
    *("value_range", "mean", "std"),
)


def infer_from_run(recipe: Recipe, path: Path) -> Recipe:
    """The recipe of a run that goes on, with what its own weights told it when it was started.

    Args:
        recipe: As the command says; what it sets stays.
        path: The run folder.
    """
    if not (path / "recipe.yaml").is_file():  # MindCV's
        return recipe
    own = Run(path).recipe
    names = [name for name in _INFERRED if name not in recipe.model_fields_set]
    return with_inferred(recipe, {name: getattr(own, name) for name in names})


def infer_from_init(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Add to a recipe what its initial weights tell, where nobody set it.

    These are size, channels, stem, form of GELU and epsilon. For images with other channels or a range
    of values, the statistics that belong to them are taken over too.

    Args:
        recipe: Names the weights.

    Returns:
        The recipe, and a line that says what was added.

    Raises:
        RecipeError: Something does not go with the number of channels.
    """
    if not recipe.init or recipe.resume:
        return recipe, []
    description = open_weights(find_weights(recipe.init)).description
    arguments = description.arguments
    told: dict[str, Any] = {"model": description.model}
    if description.model == "custom":
        told |= {"depths": tuple(arguments["depths"]), "dims": tuple(arguments["dims"])}
    told |= {name: arguments[name] for name in ("stem_stride", "gelu", "norm_eps")}
    told["in_channels"] = arguments["in_channels"]
    told |= _statistics(recipe, description.preprocessing)
    new = {
        name: value
        for name, value in told.items()
        if name not in recipe.model_fields_set and value != getattr(recipe, name)
    }
    if not new.keys() & {"model"}:
        new = {name: value for name, value in new.items() if name not in ("depths", "dims")}
    recipe = with_inferred(recipe, new)
    if mistakes := channel_mistakes(recipe):
        raise RecipeError("\n".join(mistakes))
    if not new:
        return recipe, []
    return recipe, [
        f"From init: {', '.join(f'{name} {show(value)}' for name, value in new.items())}."
    ]


def _statistics(recipe: Recipe, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics of images that are no photographs, as the weights state them.

    Args:
        recipe: Its own numbers win. A mean of its own does not go with a deviation of others.
        preprocessing: Of the weights' description.

    Returns:
        Values of value_range, mean and std, as far as they belong to the recipe's images.
    """
    found: dict[str, Any] = {}
    if not preprocessing or not (
        preprocessing.get("value_range") or not is_colour(preprocessing["channels"])
    ):
        return found  # for photographs it is ImageNet's, whatever the weights were made with
    if preprocessing.get("value_range"):
        found["value_range"] = tuple(preprocessing["value_range"])
    same = (
        "in_channels" not in recipe.model_fields_set
        or recipe.in_channels == preprocessing["channels"]
    )
    if same and not recipe.model_fields_set & {"mean", "std"}:
        found |= {name: tuple(preprocessing[name]) for name in ("mean", "std")}
    return found


def say_notes(*sources: Source | None) -> None:
    """Print once what is worth knowing about the data."""
    for source in sources:
        for note in source.notes if source else ():
            say(note)


def announcements(
    recipe: Recipe, global_batch: int, lr: float, dtype: torch.dtype, place: Place
) -> list[str]:
    """Lines that say what `auto` chose and what a user might not expect."""
    name = str(dtype).removeprefix("torch.")
    lines = [
        f"Device {place.device}, {place.world_size} rank(s), {name}, global batch {global_batch}."
    ]
    if recipe.lr_batch_size and recipe.lr_batch_size != global_batch:
        scaled = recipe.lr * global_batch / recipe.lr_batch_size
        choice = (
            f"{lr:.4g} is used (scale_lr)"
            if recipe.scale_lr
            else f"{lr:.4g} is used; --scale_lr would take {scaled:.4g}"
        )
        lines.append(
            f"lr = {recipe.lr:.4g} is stated for a global batch of {recipe.lr_batch_size}, this run has {global_batch}: {choice}."
        )
    if recipe.warmup_epochs >= recipe.epochs:
        lines.append(
            f"warmup_epochs = {recipe.warmup_epochs:g}: not shorter than the run (epochs = {recipe.epochs}), so lr never "
            "reaches its peak."
        )
    main_epochs, cosines = (
        recipe.epochs - recipe.warmup_epochs,
        (recipe.decay_epochs or 0) * recipe.num_cycles,
    )
    if recipe.schedule == "cosine" and cosines > main_epochs > 0:
        lr_at = build_schedule(
            recipe, peak=lr, floor=scaled_lr(recipe, global_batch)[1], steps_per_epoch=99
        )
        lines.append(
            f"decay_epochs = {recipe.decay_epochs}: the cosine needs {cosines:g} epochs, after the warm-up there are "
            f"{main_epochs:g}: lr ends at {lr_at(99 * recipe.epochs - 1):.3g}, not at min_lr."
        )
    return lines


def _data_parallel(model: nn.Module, place: Place) -> nn.Module:
    """Return the model, wrapped by DistributedDataParallel if there are several ranks."""
    if place.world_size == 1:
        return model
    return nn.parallel.DistributedDataParallel(
        model, device_ids=None if place.device.type == "cpu" else [place.device.index]
    )
