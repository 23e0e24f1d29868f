"""This package against its peers on one machine: docs/benchmarks.md.

    python benchmarks/peers.py PHOTOS OUT [--only fcmae,train,...] [--seconds 30] [--device cuda]

PHOTOS: any folder of photographs, from which the loaders' files are made. Each group of contestants runs in its own process and
takes turns there; each memory figure comes from a process of its own and counts what was taken after the imports. Groups that are
in OUT already are kept, so the script may be stopped and started again. `python benchmarks/peers_report.py OUT` writes
benchmarks-tables.md and the plots. A compiled model is traced anew wherever the choice of kernels changes: so a group with
compiled contestants has one choice. Needs timm and transformers; with onnxruntime and openvino installed, these too are measured.
On an accelerator: steps and inference only, in four times the batch, all contestants in PyTorch.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from make_photographs import make
from masked_dense import MaskedDense, check
from torch import Tensor, nn

from convnextv2.device import choose_precision
from convnextv2.evaluation.timing import ratio, take_turns
from convnextv2.inference.backends import build_backend
from convnextv2.kernels import choice
from convnextv2.machine import peak_memory
from convnextv2.model.convnext import create_model
from convnextv2.model.fcmae import FCMAE, draw_masks

Work = Callable[[], object]
BATCH = {"atto": 32, "tiny": 16}
SIZE = 224
RATIO = 0.6
DEVICE = torch.device("cpu")  # --device
EAGER_FCMAE = (
    "masked-dense",
    "masked-dense, our kernels",
    "visible tiles, PyTorch's kernels",
    "visible tiles (default)",
)
TRAIN = ("timm", "timm, compiled", "convnextv2 (default)", "convnextv2, compiled")
EAGER_TRAIN = ("timm", "convnextv2, PyTorch's kernels", "convnextv2 (default)")
MEMORY_OF = {
    "masked-dense",
    "visible tiles (default)",
    "timm",
    "timm, compiled",
    "convnextv2 (default)",
}


def precisions() -> list[torch.dtype]:
    """float32, and bfloat16 where the device computes with it."""
    native_dtype = choose_precision("auto", DEVICE)
    return [torch.float32] + [torch.bfloat16] * (native_dtype == torch.bfloat16)


def choose(kernels: str) -> None:
    """Our kernels: "native" or "plain"; with "", for models that are not ours, whatever they were."""
    if kernels:
        choice.choose(kernels if DEVICE.type == "cpu" else "plain")  # type: ignore[arg-type]


def step(model: nn.Module, loss_of: Callable[[], Tensor], dtype: torch.dtype, kernels: str) -> Work:
    """A whole step: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def work() -> None:
        choose(kernels)
        with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


def fcmae(
    size: str,
    dtype: torch.dtype,
    *,
    batch: int,
    image_size: int = SIZE,
    mask_ratio: float = RATIO,
    only: Sequence[str] = (),
) -> dict[str, Work]:
    """Steps of masked pre-training. only: these contestants, or all."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, image_size, image_size).to(
        DEVICE, memory_format=torch.channels_last
    )
    grid = (image_size // 32, image_size // 32)
    masks = tuple(
        mask.to(DEVICE)
        for mask in draw_masks(batch, grid, mask_ratio, torch.Generator().manual_seed(0))
    )
    works: dict[str, Work] = {}
    for name, dense, compiled, kernels in (
        ("masked-dense", True, False, "plain"),
        ("masked-dense, compiled", True, True, "plain"),
        ("masked-dense, our kernels", True, False, "native"),
        ("visible tiles, PyTorch's kernels", False, False, "plain"),
        ("visible tiles, PyTorch's kernels, compiled", False, True, "plain"),
        ("visible tiles, compiled", False, True, "native"),
        ("visible tiles (default)", False, False, "native"),
    ):
        if only and name not in only:
            continue
        if DEVICE.type != "cpu" and "kernels" in name:
            continue  # the native kernels are for the processor: elsewhere this is the same as another contestant
        model = FCMAE(create_model(f"convnextv2_{size}", num_classes=None)).to(DEVICE)
        choice.choose("plain")
        assert check(model, images[:2], *(mask[:2] for mask in masks)) < 1e-4
        used: nn.Module = MaskedDense(model) if dense else model
        called = torch.compile(used, dynamic=False) if compiled else used
        works[name] = step(used, partial(called, images, *masks), dtype, kernels)
    return works


def best_fcmae(size: str, *, batch: int) -> dict[str, Work]:
    """What a user gains over masked-dense code as it comes: eager, in float32."""
    best = precisions()[-1]
    works = fcmae(size, torch.float32, batch=batch, only=("masked-dense",))
    [ours] = fcmae(size, best, batch=batch, only=("visible tiles (default)",)).values()
    return works | {f"visible tiles (default), {str(best).removeprefix('torch.')}": ours}


def validity(size: str, *, batch: int) -> dict[str, Work]:
    """Whether the masked-dense encoder is honestly fast: forward and backward, beside timm's supervised step."""
    encoder = MaskedDense(FCMAE(create_model(f"convnextv2_{size}", num_classes=None))).to(DEVICE)
    images = torch.randn(batch, 3, SIZE, SIZE).to(DEVICE, memory_format=torch.channels_last)
    visible, _ = draw_masks(
        batch, (SIZE // 32, SIZE // 32), RATIO, torch.Generator().manual_seed(0)
    )
    visible = visible.to(DEVICE)

    def work() -> None:
        choice.choose("plain")
        encoder.encoded(images, visible).sum().backward()  # type: ignore[no-untyped-call]
        encoder.zero_grad()

    return supervised(size, torch.float32, batch=batch, only=("timm",)) | {
        "masked-dense encoder, forward and backward": work
    }


def supervised(
    size: str, dtype: torch.dtype, *, batch: int, only: Sequence[str] = ()
) -> dict[str, Work]:
    """Steps of supervised training. only: these contestants, or all."""
    import timm

    torch.manual_seed(0)
    images = torch.randn(batch, 3, SIZE, SIZE).to(DEVICE, memory_format=torch.channels_last)
    targets = torch.randint(1000, (batch,)).to(DEVICE)
    works: dict[str, Work] = {}
    for name, build, compiled, kernels in (
        ("timm", timm.create_model, False, ""),
        ("timm, compiled", timm.create_model, True, ""),
        ("convnextv2, PyTorch's kernels", create_model, False, "plain"),
        ("convnextv2 (default)", create_model, False, "native"),
        ("convnextv2, compiled", create_model, True, "native"),
    ):
        if only and name not in only:
            continue
        if DEVICE.type != "cpu" and "kernels" in name:
            continue
        model = build(f"convnextv2_{size}").to(DEVICE).to(memory_format=torch.channels_last).train()
        called = torch.compile(model, dynamic=False) if compiled else model

        def loss_of(called: Callable[[Tensor], Tensor] = called) -> Tensor:
            return nn.functional.cross_entropy(called(images).float(), targets)

        works[name] = step(model, loss_of, dtype, kernels)
    return works


def inference(size: str, dtype: torch.dtype, *, batch: int) -> dict[str, Work]:
    """Logits of a batch."""
    import timm

    torch.manual_seed(0)
    images = torch.randn(batch, 3, SIZE, SIZE)
    nhwc = images.to(DEVICE, memory_format=torch.channels_last)
    works: dict[str, Work] = {}

    def logits(model: Callable[[Tensor], Tensor], kernels: str) -> Work:
        def work() -> None:
            choose(kernels)
            with (
                torch.inference_mode(),
                torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32),
            ):
                model(nhwc)

        return work

    theirs = (
        timm.create_model(f"convnextv2_{size}")
        .eval()
        .to(DEVICE)
        .to(memory_format=torch.channels_last)
    )
    ours = create_model(f"convnextv2_{size}").eval().to(DEVICE)
    works["timm"] = logits(theirs, "")
    works["timm, compiled"] = logits(torch.compile(theirs, dynamic=False), "")
    works["convnextv2 (default)"] = logits(ours, "native")
    works["convnextv2, compiled"] = logits(torch.compile(ours, dynamic=False), "native")
    if DEVICE.type != "cpu":
        return works
    engine = build_backend("aoti", ours, images, dtype)  # as `export --format aoti` writes it
    works["convnextv2, ahead of time"] = lambda: engine(images)
    works["timm, ahead of time, frozen"] = ahead_work(
        copy.deepcopy(theirs).to(dtype), nhwc.to(dtype)
    )
    plain_theirs = timm.create_model(f"convnextv2_{size}").eval()
    if (
        dtype == torch.float32
        and importlib.util.find_spec("onnxruntime")
        and importlib.util.find_spec("onnxscript")
    ):
        works["timm in ONNX Runtime"] = onnx_work(plain_theirs, images)
    if importlib.util.find_spec("openvino"):
        choice.choose("plain")
        works["timm in OpenVINO"] = openvino_work(plain_theirs, images, dtype)
        works["convnextv2 in OpenVINO"] = openvino_work(ours, images, dtype)
    return works


def ahead_work(model: nn.Module, images: Tensor) -> Work:
    """The model compiled ahead of time with frozen weights, as our artifacts are."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        program = torch.export.export(model, (images,))
        path = f"{folder}/model.pt2"
        torch._inductor.aoti_compile_and_package(
            program, package_path=path, inductor_configs={"freezing": True}
        )
        run = torch._inductor.aoti_load_package(path)
    return lambda: run(images)


def onnx_work(model: nn.Module, images: Tensor) -> Work:
    """The model in ONNX Runtime, on as many threads as PyTorch has."""
    import io

    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(model, (images,), dynamo=True, verbose=False).save(file)  # type: ignore[union-attr]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def openvino_work(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Work:
    """The model in OpenVINO, on as many threads as PyTorch has."""
    import openvino

    hint = "f32" if dtype == torch.float32 else "bf16"
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.compile_model(
        openvino.convert_model(model, example_input=images), "CPU", options
    )
    array = images.numpy()
    return lambda: compiled(array)


def loaders(photos: Path, *, image_size: int = SIZE) -> dict[str, Work]:
    """Passes over 512 files, two workers, batches of 64: RandAugment and erasing in training, resize and crop in evaluation.

    No mstd: where a magnitude reaches 10, timm posterizes to no bit at all, which Pillow refuses from version 13 on.
    """
    from timm.data import ImageDataset, create_loader

    from convnextv2.data.loader import (
        TrainingLoader,
        build_evaluation_loader,
        build_training_loader,
    )
    from convnextv2.data.sources import image_folder
    from convnextv2.data.transforms import build_batch_transform
    from convnextv2.distributed import Place
    from convnextv2.recipe.read import read_recipe

    count, place = 512, Place(torch.device("cpu"))
    common = {"image_size": image_size, "batch_size": 64, "workers": 2, "interpolation": "bicubic"}
    recipe, _ = read_recipe(
        common | {"auto_augment": "rand-m9-inc1", "erase_prob": 0.25, "num_samples": count}
    )
    cached = build_training_loader(
        recipe.model_copy(update={"cache_mb": 2000}),
        image_folder(photos).subset(range(count)),
        place,
    )
    source = image_folder(photos).subset(range(count))
    to_images = build_batch_transform(recipe, 10)
    training, evaluation = (
        build_training_loader(recipe, source, place),
        build_evaluation_loader(recipe, source, place),
    )
    epoch = iter(range(10_000))

    def ours(loader: TrainingLoader) -> None:
        for batch in loader.batches(next(epoch)):
            to_images(batch.pixels, batch.targets, torch.Generator())

    def ours_evaluation() -> None:
        for batch in evaluation:
            to_images.normalise(batch.pixels)

    def timms(is_training: bool) -> Work:
        data = ImageDataset(str(photos))
        data.reader.samples = data.reader.samples[:count]
        extra: dict[str, Any] = {"crop_pct": 0.875}
        if is_training:
            extra = {"auto_augment": "rand-m9-inc1", "re_prob": 0.25, "re_mode": "pixel"}
        loader = create_loader(
            data, (3, image_size, image_size), 64, is_training=is_training, interpolation="bicubic", num_workers=2,
            device=torch.device("cpu"), persistent_workers=is_training, pin_memory=False, **extra,
        )  # fmt: skip
        return lambda: [None for _ in loader]

    return {"timm, training": timms(True), "convnextv2, training": partial(ours, training),
            "convnextv2, training, cache_mb": partial(ours, cached), "timm, evaluation": timms(False),
            "convnextv2, evaluation": ours_evaluation}  # fmt: skip


def groups(photos: Path, large: Path) -> dict[str, tuple[Callable[..., dict[str, Work]], int]]:
    """Name -> (what makes the contestants, images of one repetition)."""
    found: dict[str, tuple[Callable[..., dict[str, Work]], int]] = {}
    times = 1 if DEVICE.type == "cpu" else 4  # an accelerator is fed more
    for size, batch in BATCH.items():
        found[f"validity {size} float32"] = (
            partial(validity, size, batch=batch * times),
            batch * times,
        )
        found[f"best-fcmae {size}"] = (
            partial(best_fcmae, size, batch=batch * times),
            batch * times,
        )
    on_cpu = DEVICE.type == "cpu"  # elsewhere there is one kind of kernels
    compiled = (
        "masked-dense, compiled",
        "visible tiles, PyTorch's kernels, compiled" if on_cpu else "visible tiles, compiled",
    )
    for dtype in precisions():
        name = str(dtype).removeprefix("torch.")
        for size, batch in ((size, batch * times) for size, batch in BATCH.items()):
            fcmae_of, train_of = (
                partial(fcmae, size, dtype, batch=batch),
                partial(supervised, size, dtype, batch=batch),
            )
            found[f"fcmae {size} {name}"] = (partial(fcmae_of, only=EAGER_FCMAE), batch)
            found[f"compiled-fcmae {size} {name}"] = (partial(fcmae_of, only=compiled), batch)
            found[f"train {size} {name}"] = (partial(train_of, only=TRAIN), batch)
            if on_cpu:
                ours = ("visible tiles (default)", "visible tiles, compiled")
                found[f"compiled-fcmae-native {size} {name}"] = (
                    partial(fcmae_of, only=ours),
                    batch,
                )
                found[f"eager-train {size} {name}"] = (partial(train_of, only=EAGER_TRAIN), batch)
            for many in (16, 1):
                found[f"inference {size} {name} batch {many}"] = (
                    partial(inference, size, dtype, batch=many),
                    many,
                )
    dtype = precisions()[-1]
    name = str(dtype).removeprefix("torch.")
    for mask_ratio in (0.25, 0.5, 0.75, 0.9):
        work = partial(fcmae, "atto", dtype, batch=32, mask_ratio=mask_ratio)
        found[f"fcmae-ratio atto {name} {mask_ratio}"] = (work, 32)
    for image_size in (96, 160, 288):
        found[f"fcmae-size atto {name} {image_size}"] = (
            partial(fcmae, "atto", dtype, batch=16, image_size=image_size),
            16,
        )
    for batch in (4, 16, 64):
        found[f"fcmae-batch atto {name} {batch}"] = (
            partial(fcmae, "atto", dtype, batch=batch),
            batch,
        )
    if DEVICE.type != "cpu":
        return found
    found["loader 500x375"] = (partial(loaders, photos), 512)
    found["loader 1500x1125"] = (partial(loaders, large), 512)
    return found


def measure(name: str, photos: Path, large: Path, seconds: float) -> dict[str, Any]:
    """One group, in this process."""
    build, images = groups(photos, large)[name]
    curve = name.startswith("fcmae-")
    works = build(only=("masked-dense", "visible tiles (default)")) if curve else build()
    timings = take_turns(works, seconds=seconds, device=DEVICE)
    first = next(iter(timings))
    return {
        "images": images,
        "threads": torch.get_num_threads(),
        "rates": {key: images / timing.median for key, timing in timings.items()},
        "spreads": {key: timing.spread for key, timing in timings.items()},
        "ratios": {key: ratio(timings[first], timing) for key, timing in timings.items()},
        "seconds": {key: timing.seconds for key, timing in timings.items()},
    }


def memory(name: str, contestant: str, photos: Path, large: Path) -> int:
    """Peak MiB that one contestant takes, weights and optimizer included, in this process: beyond its imports, or allocated on
    the accelerator.
    """
    if name.startswith("train"):
        importlib.import_module("timm")
    if contestant.endswith(
        "compiled"
    ):  # the compiler's own imports are not the contestant's memory
        torch.compile(lambda x: (x * x).sin().sum())(
            torch.randn(8, device=DEVICE, requires_grad=True)
        ).backward()
    before = peak_memory(os.getpid())
    work = groups(photos, large)[name][0](only=(contestant,))[contestant]
    for _ in range(3):
        work()
    if DEVICE.type != "cpu":
        return torch.accelerator.max_memory_allocated() >> 20
    return (peak_memory(os.getpid()) - before) >> 20


def ranks(rounds: int = 5) -> dict[str, Any]:
    """One process with two threads against two gloo ranks of one thread each, taking turns: steps of atto, batch 32."""
    script = str(Path(__file__).with_name("ranks.py"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", script]
    rates: dict[str, list[float]] = {"one process, two threads": [], "two ranks of one thread": []}
    for _ in range(rounds):
        for (_, found), command, threads in zip(
            rates.items(), ([sys.executable, script], torchrun), ("2", "1"), strict=True
        ):
            done = subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": threads},
            )
            found.append(json.loads(done.stdout.splitlines()[-1])["rate"])
    one, two = (torch.tensor(found) for found in rates.values())
    shares = (two / one).sort().values.tolist()
    return {"rates": rates, "ratios": shares, "median": shares[len(shares) // 2]}


def machine() -> dict[str, str]:
    """What the figures belong to."""
    with open("/proc/cpuinfo") as file:
        lines = file.read().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line for line in lines if line.startswith("flags")), "")
    device = (
        {}
        if DEVICE.type == "cpu"
        else {"device": torch.get_device_module(DEVICE).get_device_name()}
    )
    widest = next(
        (name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags), ""
    )
    versions = {}
    for package in (
        "torch",
        "torchvision",
        "timm",
        "transformers",
        "onnxruntime",
        "openvino",
        "pillow",
    ):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": f"{model}, {os.cpu_count()} cores, {widest}",
        **device,
        "python": platform.python_version(),
        **versions,
    }


def main() -> None:
    global DEVICE
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--only", default="", help="groups whose name begins so, separated by commas"
    )
    parser.add_argument(
        "--seconds", type=float, default=30, help="per group, compiling not counted"
    )
    parser.add_argument("--device", type=torch.device, default=DEVICE, help="cpu, cuda, ...")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # how this script calls itself
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    DEVICE = arguments.device
    out: Path = arguments.out
    photos, large = out / "photographs-500", out / "photographs-1500"
    if arguments.memory:
        print(memory(arguments.one, arguments.memory, photos, large))
        return
    if arguments.one:
        print(json.dumps(measure(arguments.one, photos, large, arguments.seconds)))
        return
    out.mkdir(parents=True, exist_ok=True)
    wanted = tuple(arguments.only.split(","))
    if DEVICE.type == "cpu" and any(
        name.startswith(wanted) for name in ("loader 500x375", "loader 1500x1125")
    ):
        make(arguments.photos, photos, 2000, (500, 375))
        make(arguments.photos, large, 512, (1500, 1125))
    (out / "machine.json").write_text(json.dumps(machine(), indent=2) + "\n")
    command = [
        sys.executable,
        __file__,
        str(arguments.photos),
        str(out),
        "--seconds",
        str(arguments.seconds),
        "--device",
        str(DEVICE),
    ]
    for name in groups(photos, large):
        path = out / f"{name.replace(' ', '_')}.json"
        if not name.startswith(wanted):
            continue
        if not path.exists():
            done = subprocess.run(
                [*command, "--one", name], check=True, stdout=subprocess.PIPE, text=True
            )
            path.write_text(done.stdout.splitlines()[-1])
        found = json.loads(path.read_text())
        if name.startswith(("fcmae", "train")) and "memory_mib" not in found:
            found["memory_mib"] = {}
            for contestant in sorted(MEMORY_OF & found["rates"].keys()):
                one = [*command, "--one", name, "--memory", contestant]
                taken = subprocess.run(one, check=True, stdout=subprocess.PIPE, text=True).stdout
                found["memory_mib"][contestant] = int(taken.splitlines()[-1])
        path.write_text(json.dumps(found, indent=2) + "\n")
        print(
            name,
            {key: round(rate, 2) for key, rate in found["rates"].items()},
            found.get("memory_mib", ""),
            flush=True,
        )
    if DEVICE.type == "cpu" and "ranks".startswith(wanted) and not (out / "ranks.json").exists():
        (out / "ranks.json").write_text(json.dumps(ranks(), indent=2) + "\n")
        print((out / "ranks.json").read_text(), flush=True)


if __name__ == "__main__":
    main()
