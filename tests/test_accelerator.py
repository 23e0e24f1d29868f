"""The verbs and the numbers on a GPU; without one these tests are left out."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convnextv2.cli import main
from convnextv2.kernels import choice
from convnextv2.model.convnext import create_model
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.training import loop
from convnextv2.training.progress import Display
from convnextv2.training.window import Window
from convnextv2.weights.safetensors import read_tensors

pytestmark = pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator")

SMALL = (
    "--model custom --depths 1,1,2,1 --dims 16,32,48,64 --image_size 64 --batch_size 8 --workers 2 "
    "--log_every_steps 2"
).split()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for split, many in (("train", 16), ("val", 4)):
        for colour, name in enumerate(("red", "green", "blue")):
            (root / split / name).mkdir(parents=True)
            for i in range(many):
                pixels = np.random.default_rng(1000 * many + 100 * colour + i).integers(
                    0, 80, (70, 80, 3)
                )
                pixels[..., colour] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.jpg")
    return root


def randomise(model: nn.Module) -> nn.Module:
    """Make every parameter random; GRN starts at zero, which would hide its effect."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().cpu() - expected.detach()).norm() / expected.detach().norm())


def test_classifier_in_float64_equals_the_processors() -> None:
    model = randomise(create_model("convnextv2_atto", num_classes=10)).double()
    images = torch.randn(4, 3, 96, 64, dtype=torch.float64)
    expected = model(images)
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    device = torch.accelerator.current_accelerator()
    model = model.to(device)
    model.zero_grad()
    found = model(images.to(device))
    found.square().sum().backward()
    assert relative(found, expected) < 1e-10
    assert max(map(relative, (p.grad for p in model.parameters()), gradients)) < 1e-9


def test_fcmae_in_float64_equals_the_processors() -> None:
    model = randomise(
        FCMAE(create_model("convnextv2_atto", num_classes=None), decoder_dim=64)
    ).double()
    images = torch.randn(4, 3, 96, 128, dtype=torch.float64)
    masks = draw_masks(4, (3, 4), 0.6, torch.Generator().manual_seed(0))
    expected = model(images, *masks)
    expected.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    device = torch.accelerator.current_accelerator()
    model = model.to(device)
    model.zero_grad()
    found = model(images.to(device), *(mask.to(device) for mask in masks))
    found.backward()
    assert relative(found, expected) < 1e-10
    assert max(map(relative, (p.grad for p in model.parameters()), gradients)) < 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there are kernels for CUDA only")
def test_with_our_kernels_fcmae_learns_what_it_does_in_float64() -> None:
    device = torch.accelerator.current_accelerator()
    assert choice.choose("auto", device) == "native"
    model = randomise(FCMAE(create_model("convnextv2_atto", num_classes=None), decoder_dim=64))
    images = torch.randn(4, 3, 96, 128)
    masks = draw_masks(4, (3, 4), 0.6, torch.Generator().manual_seed(0))
    exact = copy.deepcopy(model).double()
    loss = exact(images.double(), *masks)
    loss.backward()
    expected = [loss, *(parameter.grad for parameter in exact.parameters())]
    model, images = model.to(device), images.to(device)
    masks = tuple(mask.to(device) for mask in masks)

    def step(dtype: torch.dtype) -> list[Tensor]:
        model.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(images, *masks)
        loss.backward()
        return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    matmul = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        found = step(torch.float32)
        assert max(map(relative, found, expected)) < 1e-4
        half = step(torch.bfloat16)
        assert all(gradient.isfinite().all() for gradient in half)
        assert relative(half[0], loss) < 1e-2
    finally:
        torch.set_float32_matmul_precision(matmul)


def read(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning"
)  # out of torch.compile, in PyTorch 2.11
@pytest.mark.parametrize(
    "options",
    [[], ["--precision", "float16"], ["--compile", "True"]],
    ids=["auto", "float16", "compiled"],
)
def test_from_photographs_to_predictions(
    options: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pre, run = str(tmp_path / "pre"), str(tmp_path / "run")
    data = ["--data_dir", str(photos)]
    assert (
        main(
            [
                "pretrain",
                *data,
                "--out",
                pre,
                "--epochs",
                "2",
                "--decoder_dim",
                "16",
                *SMALL,
                *options,
            ]
        )
        == 0
    )
    train = [
        "train",
        *data,
        "--out",
        run,
        "--init",
        pre,
        "--epochs",
        "12",
        "--lr",
        "0.01",
        "--ema",
        "--ema_decay",
        "0.9",
    ]
    assert main([*train, *SMALL, *options]) == 0
    assert (
        max(record["top1"] for record in read(tmp_path / "run") if record["kind"] == "eval") == 1.0
    )
    assert main(["validate", run, *data]) == 0
    capsys.readouterr()
    assert main(["predict", run, str(photos / "val" / "red" / "0.jpg"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["class"] == "red"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch watches CUDA only")
@pytest.mark.parametrize("verb", ["pretrain", "train"])
@pytest.mark.parametrize("kernels", ["auto", "plain"])
def test_a_step_never_waits_for_the_device(
    verb: str, kernels: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the copy of the batch to the update of the average, except for lines of the log."""
    watched: list[int] = []

    def watching(backward: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            watched.append(1)
            if len(watched) > 2:  # the first steps compile, and fill what is kept from then on
                torch.cuda.set_sync_debug_mode("error")
            return backward(*arguments)

        return run

    def relaxing(function: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **named: object) -> object:
            torch.cuda.set_sync_debug_mode("default")
            return function(*arguments, **named)

        return run

    monkeypatch.setattr(loop, "backward", watching(loop.backward))
    monkeypatch.setattr(Window, "losses_are_finite", relaxing(Window.losses_are_finite))
    monkeypatch.setattr(Display, "advance", relaxing(Display.advance))
    command = [verb, "--data_dir", str(photos), "--out", str(tmp_path / "run"), "--epochs", "2"]
    more = (
        "--workers 0 --precision bfloat16 --clip_norm 1 --drop_path_rate 0.1 --log_every_steps 100"
    )
    own = (
        "--decoder_dim 16"
        if verb == "pretrain"
        else ("--ema --mixup 0.3 --cutmix 1 --erase_prob 0.5 --val_while_train False")
    )
    options = [*SMALL[:-4], *more.split(), *own.split(), "--kernels", kernels]
    try:
        assert main([*command, *options]) == 0
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(watched) == 12


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(photos: Path, tmp_path: Path) -> None:
    """Equal up to rounding, since sums on an accelerator have no fixed order."""
    command = [
        "train",
        "--data_dir",
        str(photos),
        "--epochs",
        "3",
        "--mixup",
        "0.3",
        "--precision",
        "float32",
        *SMALL,
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*command, "--out", str(whole)]) == 0
    assert main([*command, "--out", str(broken), "--keep_checkpoints", "9"]) == 0
    shutil.rmtree(max((broken / "checkpoints").iterdir()))
    shutil.rmtree(broken / "last")
    assert main(["train", "--out", str(broken), "--resume"]) == 0
    ends = [read_tensors(run / "last" / "model.safetensors")[0] for run in (whole, broken)]
    assert max(relative(ends[1][name], ends[0][name]) for name in ends[0]) < 1e-2
    assert [r["step"] for r in read(whole)] == [r["step"] for r in read(broken)]
