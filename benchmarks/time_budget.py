"""Measure whether `--time` ends on time, and how good its choice of the image size is.

    python benchmarks/time_budget.py OUT SET [SET ...] --minutes 5 [--jobs 2] [KNOBS]

SET is an image folder with train/ and val/. For each set, the recipe `small_data` runs for the
given minutes with `image_size: auto`, and with six settings made by hand, which cost the same:
three image sizes, each with two learning rates. With --only auto, the settings made by hand are
left out. A run has one thread; --jobs of them run side by side. Top-1 is that of the averaged
weights after the last epoch, on the validation images. OUT gets the runs and the figures
(time_budget.json). Finished runs are kept. KNOBS go to every run.
"""

import argparse
import json
import os
import time
from pathlib import Path

from studies import final_top1, plain, run, run_all

from convnextv2.run import Run

SIZES, RATES = ("64", "96", "128"), ("1e-3", "2e-3")
SETTINGS = {"auto": ("--image_size", "auto")} | {
    f"{size} px, lr {rate}": ("--image_size", size, "--lr", rate)
    for size in SIZES
    for rate in RATES
}


def main() -> None:
    """Train all settings, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--only", choices=list(SETTINGS), help="one setting")
    arguments, knobs = parser.parse_known_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    minutes = arguments.minutes
    names = [arguments.only] if arguments.only else list(SETTINGS)

    def folder(data: Path, name: str) -> Path:
        return arguments.out / f"{data.name}-{minutes:g}m-{plain(name)}"

    def train(job: tuple[str, Path]) -> None:
        name, data = job
        out = folder(data, name)
        began = time.monotonic()
        common = ("--config", "small_data", "--data_dir", str(data), "--workers", "0")
        run(out, "train", *common, "--time", f"{minutes}m", *SETTINGS[name], *knobs)
        taken = out / "minutes.json"
        if not taken.exists():
            taken.write_text(json.dumps((time.monotonic() - began) / 60))

    run_all(train, [(name, data) for name in names for data in arguments.sets], arguments.jobs)
    found = [
        {
            "set": data.name,
            "setting": name,
            "image_size": Run(folder(data, name)).recipe.image_size,
            "epochs": Run(folder(data, name)).metrics()[-1]["epoch"],
            "minutes": json.loads((folder(data, name) / "minutes.json").read_text()),
            "top1": final_top1(folder(data, name)),
        }
        for data in arguments.sets
        for name in names
    ]
    (arguments.out / f"time_budget-{minutes:g}.json").write_text(json.dumps(found, indent=2) + "\n")
    print("| set | setting | px | epochs | minutes | top-1, % |\n|---|---|--:|--:|--:|--:|")
    for row in found:
        print(
            f"| {row['set']} | {row['setting']} | {row['image_size']} | {row['epochs']} "
            f"| {row['minutes']:.2f} | {100 * row['top1']:.1f} |"
        )


if __name__ == "__main__":
    main()
