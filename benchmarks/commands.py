"""Time each command on a folder of labelled images: docs/benchmarks.md.

    python benchmarks/commands.py DATA OUT [--image_size 128]

DATA is an image folder with train/ and val/. Each command is a process of its own, from start to
end; one epoch each of pre-training and training makes the run that the others use. OUT gets what
the commands write, their output in *.log, and the figures (commands.json). A command that fails
ends the script. Run it on a machine that does nothing else.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path


def commands(data: Path, out: Path, image_size: int) -> dict[str, list[str]]:
    """Return the commands by title, in an order in which each finds what it needs."""
    pre, run, other = str(out / "pre"), str(out / "run"), str(out / "other")
    once = [
        *("--data_dir", str(data), "--epochs", "1", "--warmup_epochs", "0"),
        *("--image_size", str(image_size)),
    ]
    photograph = str(next((data / "val").glob("*/*")))
    return {
        "statistics": ["statistics", str(data)],
        "audit": ["audit", str(data), "--out", str(out / "audit")],
        "pack_data": ["pack_data", str(data), str(out / "shards"), "--labelled"],
        "plan": ["plan", "--config", "small_data", *once[:2]],
        "pretrain, one epoch": ["pretrain", "--config", "fcmae_small_data", *once, "--out", pre],
        "train, one epoch": [
            *("train", "--config", "small_data", *once, "--init", pre, "--out", run),
        ],
        "train, one epoch again": ["train", "--config", "small_data", *once, "--out", other],
        "validate": ["validate", run],
        "predict, all images": ["predict", run, str(data), "--out", str(out / "predictions.csv")],
        "predict, one image": ["predict", run, photograph],
        "embed, all images": ["embed", run, str(data), "--out", str(out / "embeddings.npy")],
        "probe": ["probe", pre, "--data_dir", str(data)],
        "explain, the validation images": ["explain", run, "--out", str(out / "explained.html")],
        "explain, one image": ["explain", run, photograph, "--out", str(out / "one.html")],
        "compare, two runs": ["compare", run, other, "--out", str(out / "compared.html")],
        "reconstruct, 16 images": [
            *("reconstruct", pre, str(data / "val"), "--out", str(out / "reconstructed.png")),
        ],
        "inspect": ["inspect", run],
        "convert": ["convert", run, "--to", "timm", "--out", str(out / "timm.safetensors")],
        "export, ONNX": ["export", run, "--out", str(out / "artifact")],
    }


def measure(arguments: list[str], log: Path) -> dict[str, float]:
    """Run a command, and return its seconds by the clock and of the processors."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with open(log, "w") as file:
        subprocess.run(
            [sys.executable, "-m", "convnextv2", *arguments],
            check=True,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return {"seconds": time.perf_counter() - began, "processor": processor}


def main() -> None:
    """Run all commands, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--image_size", type=int, default=128)
    arguments = parser.parse_args()
    data, out = arguments.data.resolve(), arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    print("| command | seconds | seconds of the processors |\n|---|--:|--:|")
    for title, command in commands(data, out, arguments.image_size).items():
        name = title.replace(",", "").replace(" ", "-")
        found[title] = measure(command, out / f"{name}.log")
        figures = found[title]
        print(f"| {title} | {figures['seconds']:.1f} | {figures['processor']:.1f} |", flush=True)
        (out / "commands.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
