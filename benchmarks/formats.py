"""Export to every format in every precision, for the matrix in docs/how-to/deploy.md.

    python benchmarks/formats.py OUT RUN... [--images N]

Each RUN is exported in each way into OUT. A Markdown table shows what the certificates say, or why
there is none. What is in OUT already is kept. For atto and tiny it takes about half an hour on two
cores, because half precision is slow where it is only emulated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

FORMATS = ("onnx", "openvino", "aoti", "torch")
PRECISIONS = ("float32", "int8", "float16", "bfloat16")
HEAD = """\
| model | format | precision | images: largest (mean) difference | unusual | \
top-1 agrees: real, unusual | top-1: PyTorch, artifact | pace |
|---|---|---|---|---|---|---|---|"""


def export(run: Path, format: str, precision: str, out: Path, images: int) -> str:
    """Export a run in one way, unless that is done, and write its row of the table."""
    row = f"| {run.name} | {format} | {precision} | "
    if not (out / "certificate.json").exists():
        command = [
            sys.executable,
            "-m",
            "convnextv2",
            "export",
            str(run),
            "--format",
            format,
            "--precision",
            precision,
        ]
        command += [
            "--images",
            str(images),
            "--batch_size",
            "16",
            "--seconds",
            "5",
            "--out",
            str(out),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1].removeprefix("convnextv2: error: ")
            return f"{row}{reason} | | | | |"
    found = json.loads((out / "certificate.json").read_text())
    real, adversarial, accuracy, speed = (
        found[name] for name in ("real", "adversarial", "accuracy", "speed")
    )
    return (
        f"{row}{real['images']}: {real['max_difference']:.2g} ({real['mean_difference']:.1g}) | "
        f"{adversarial['max_difference']:.2g} ({adversarial['mean_difference']:.1g}) | "
        f"{real['top1_agreement']:.1%}, {adversarial['top1_agreement']:.0%} | "
        f"{accuracy['pytorch_top1']:.1%}, {accuracy['artifact_top1']:.1%} of "
        f"{accuracy['images']} | {speed['ratio']:.2f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=256)
    arguments = parser.parse_args()
    print(HEAD, flush=True)
    for run in arguments.runs:
        for format in FORMATS:
            for precision in PRECISIONS:
                out = arguments.out / f"{run.name}-{format}-{precision}"
                print(export(run, format, precision, out, arguments.images), flush=True)


if __name__ == "__main__":
    main()
