"""What a ConvNeXt of the first version, trained by timm, is worth as a start.

    python benchmarks/timm_start.py OTHER DATA OUT [--jobs 2] [KNOBS]

OTHER and DATA are image folders with train/ and val/, of different images. timm's convnext_atto
learns OTHER from random weights, in timm's own network and in a loop of its own. Its file is then
opened here: the logits of the validation images of OTHER are compared in float64. The network
learns DATA from three starts: random weights (recipe `small_data`), timm's file, and timm's file
with GRN frozen at zero (recipe `finetune`), with three seeds each. The averaged weights after the
last epoch are measured on the validation images of DATA, which decide nothing. OUT gets the runs
and the figures (timm_start.json). Finished runs are kept. KNOBS go to every run on DATA.
"""

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import timm
import torch
from small_data import SEEDS, bootstrap, correct, final_top1, run
from timm.data import create_transform
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from convnextv2.weights.build import build_model
from convnextv2.weights.opened import open_weights

IMAGE_SIZE, BATCH, EPOCHS, RATE = 64, 64, 25, 2e-3
STARTS = ("random weights", "timm's V1, GRN frozen", "timm's V1, GRN trained")


def transform_of(training: bool) -> nn.Module:
    """Return timm's transform of training or validation images."""
    return create_transform(
        (3, IMAGE_SIZE, IMAGE_SIZE), is_training=training, scale=(0.25, 1.0), crop_pct=1.0
    )


def train_with_timm(other: Path, path: Path) -> float:
    """Train timm's network, write its weights, and return its top-1 on the validation images."""
    torch.manual_seed(0)
    images = ImageFolder(other / "train", transform_of(True))
    loader = DataLoader(images, BATCH, shuffle=True, drop_last=True)
    model = timm.create_model("convnext_atto", num_classes=len(images.classes), drop_path_rate=0.1)
    optimizer = torch.optim.AdamW(
        param_groups_weight_decay(model, 0.05), lr=RATE, betas=(0.9, 0.999)
    )
    schedule = CosineLRScheduler(optimizer, EPOCHS, warmup_t=2, warmup_prefix=True)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    model.train()
    for epoch in range(EPOCHS):
        schedule.step(epoch)
        for pixels, targets in loader:
            loss = loss_of(model(pixels), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"timm, epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", flush=True)
    torch.save(model.state_dict(), path)
    right = [
        (model.eval()(pixels).argmax(1) == targets).double()
        for pixels, targets in DataLoader(ImageFolder(other / "val", transform_of(False)), BATCH)
    ]
    return float(torch.cat(right).mean())


@torch.inference_mode()
def difference(other: Path, path: Path) -> tuple[float, float]:
    """Return the largest difference between both networks' logits, and the largest logit."""
    weights = open_weights(path)
    ours = build_model(weights.description).double().eval()
    ours.load_state_dict(weights.tensors)
    images = ImageFolder(other / "val", transform_of(False))
    theirs = timm.create_model("convnext_atto", num_classes=len(images.classes)).double().eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    worst = largest = 0.0
    for pixels, _ in DataLoader(images, BATCH):
        expected = theirs(pixels.double())
        worst = max(worst, float((ours(pixels.double()) - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    return worst, largest


def settings_of(start: str, path: Path) -> tuple[str, ...]:
    """Return the recipe and the knobs of a start."""
    if start == STARTS[0]:
        return ("--config", "small_data")
    frozen = ("--freeze_grn", "true") if start == STARTS[1] else ()
    return ("--config", "finetune", "--init", str(path), *frozen)


def main() -> None:
    """Train all of it, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    arguments, knobs = parser.parse_known_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    path, told = out / "convnext_atto.pth", out / "timm.json"
    if not told.exists():
        told.write_text(json.dumps({"top1": train_with_timm(arguments.other, path)}))

    def folder(start: str, seed: int) -> Path:
        return out / f"start-{STARTS.index(start)}-{seed}"

    def train(job: tuple[str, int]) -> None:
        start, seed = job
        common = ("--data_dir", str(arguments.data), "--workers", "0", "--seed", str(seed))
        run(folder(start, seed), "train", *settings_of(start, path), *common, *knobs)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(train, [(start, seed) for seed in SEEDS for start in STARTS]))
    worst, largest = difference(arguments.other, path)
    right = {
        start: np.stack([correct(folder(start, seed)) for seed in SEEDS]).astype(float)
        for start in STARTS
    }
    figures = {
        "timm's top-1 on the other images": json.loads(told.read_text())["top1"],
        "largest difference of logits": worst,
        "largest logit": largest,
        "top-1": {s: [final_top1(folder(s, seed)) for seed in SEEDS] for s in STARTS},
        "gain over random weights": {s: (right[s] - right[STARTS[0]]).mean() for s in STARTS[1:]},
        "its interval": {s: bootstrap((right[s] - right[STARTS[0]]).mean(0)) for s in STARTS[1:]},
        "GRN trained against frozen": (right[STARTS[2]] - right[STARTS[1]]).mean(),
        "interval of that": bootstrap((right[STARTS[2]] - right[STARTS[1]]).mean(0)),
    }
    (out / "timm_start.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    print("| start | top-1, % |\n|---|--:|")
    for start, top1 in figures["top-1"].items():
        low, high = 100 * min(top1), 100 * max(top1)
        print(f"| {start} | {100 * statistics.mean(top1):.1f} ({low:.1f}-{high:.1f}) |")


if __name__ == "__main__":
    main()
