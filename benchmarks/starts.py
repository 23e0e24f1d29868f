"""Measure what different starts are worth on a few thousand photographs.

    python benchmarks/starts.py DATA OUT --other OTHER --init FCMAE [--jobs 2] [KNOBS]

DATA and OTHER are image folders with train/ and val/, of different images. FCMAE is a pre-training
on the training images of DATA. The network learns DATA from these starts, with three seeds each:

- random weights, by the recipe `small_data`;
- a ConvNeXt of the first version, by `finetune`, with GRN trained, and with GRN frozen at zero;
- FCMAE's encoder, by `small_data` and by `finetune`.

The first version is timm's convnext_atto, which learns OTHER from random weights, in timm's own
network and in a loop of its own. Its file is then opened here: the logits of the validation images
of OTHER are compared in float64. The averaged weights after the last epoch are measured on the
validation images of DATA, which decide nothing. OUT gets the runs and the figures (starts.json).
Finished runs are kept. KNOBS go to every run on DATA.
"""

import json
from pathlib import Path

import numpy as np
import timm
import torch
from studies import (
    SEEDS,
    argument_parser,
    interval,
    mean_and_range,
    plain,
    right_images,
    run,
    run_all,
)
from timm.data import create_transform
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from convnextv2.weights.build import build_model
from convnextv2.weights.opened import open_weights

IMAGE_SIZE, BATCH, EPOCHS, RATE = 64, 64, 25, 2e-3
STARTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "random weights": ("small_data", "", ()),
    "timm's V1, GRN frozen": ("finetune", "timm", ("--freeze_grn", "true")),
    "timm's V1": ("finetune", "timm", ()),
    "FCMAE, small_data": ("small_data", "fcmae", ()),
    "FCMAE": ("finetune", "fcmae", ()),
}
"""The recipe, the weights and the knobs of each start."""
PAIRS = (
    ("timm's V1", "random weights"),
    ("timm's V1", "timm's V1, GRN frozen"),
    ("FCMAE", "random weights"),
    ("FCMAE", "FCMAE, small_data"),
)
"""The pairs of starts that are compared image by image."""


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


def main() -> None:
    """Train all of it, and write the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("--other", type=Path, required=True, help="what timm's network learns")
    parser.add_argument("--init", required=True, help="a run of FCMAE on the images of DATA")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    arguments, knobs = parser.parse_known_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    path, trained = out / "convnext_atto.pth", out / "timm.json"
    if not trained.exists():
        trained.write_text(json.dumps({"top1": train_with_timm(arguments.other, path)}))
    weights = {"": "", "timm": str(path), "fcmae": arguments.init}

    def folder(start: str, seed: int) -> Path:
        return out / f"{plain(start)}-{seed}"

    def train(job: tuple[str, int]) -> None:
        start, seed = job
        recipe, init, settings = STARTS[start]
        common = ("--data_dir", str(arguments.data), "--workers", "0", "--seed", str(seed))
        begin = ("--config", recipe, "--init", weights[init])
        run(folder(start, seed), "train", *begin, *settings, *common, *knobs)

    run_all(train, [(start, seed) for seed in SEEDS for start in STARTS], arguments.jobs)
    worst, largest = difference(arguments.other, path)
    right = {
        start: np.stack([right_images(folder(start, seed)) for seed in SEEDS]).astype(float)
        for start in STARTS
    }
    figures = {
        "timm's top-1 on the other images": json.loads(trained.read_text())["top1"],
        "largest difference of logits": worst,
        "largest logit": largest,
        "top-1": {start: found.mean(1).tolist() for start, found in right.items()},
        "gains": [
            {
                "of": better,
                "over": other,
                "mean": (right[better] - right[other]).mean(),
                "interval": interval((right[better] - right[other]).mean(0)),
            }
            for better, other in PAIRS
        ],
    }
    (out / "starts.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    print("| start | top-1, % |\n|---|--:|")
    for start, top1 in figures["top-1"].items():
        print(f"| {start} | {mean_and_range(top1)} |")


if __name__ == "__main__":
    main()
