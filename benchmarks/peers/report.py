"""Write docs/benchmarks-tables.md and the plots of docs/benchmarks.md from what was measured.

python benchmarks/peers/report.py OUT [--docs docs]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

TEAL, GREY = "#0b6478", "#9a8f80"


def read(out: Path) -> dict[str, dict[str, Any]]:
    """Read the figures of each group, by the name of the group."""
    names = [
        path
        for path in sorted(out.glob("*.json"))
        if path.name not in ("machine.json", "ranks.json")
    ]
    return {path.stem.replace("_", " "): json.loads(path.read_text()) for path in names}


def table(found: dict[str, Any]) -> list[str]:
    """Write the table of a group. Ratios are to its first contestant, in the same rounds."""
    has_memory = "memory_mib" in found
    lines = [
        f"| | images/s | spread | ratio (quartiles) |{' memory, MiB |' * has_memory}",
        f"|---|---|---|---|{'---|' * has_memory}",
    ]
    for name, rate in found["rates"].items():
        low, middle, high = found["ratios"][name]
        cells = [
            name,
            f"{rate:.1f}",
            f"± {found['spreads'][name]:.1%}",
            f"{middle:.2f} ({low:.2f} to {high:.2f})",
        ]
        cells += [str(found.get("memory_mib", {}).get(name, ""))] * has_memory
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def plot_curves(groups: dict[str, dict[str, Any]], path: Path) -> bool:
    """Draw pace and memory against mask ratio, image size and batch, ours and masked-dense.

    Returns:
        Whether all of it was measured, so that the curves are drawn.
    """
    standard = {
        found["precision"]: found
        for found in groups.values()
        if (found["work"], found["model"]) == ("fcmae", "atto")
    }
    if not standard:
        return False
    precision = "bfloat16" if "bfloat16" in standard else "float32"
    # Axis -> (work, place of the standard case). At another batch, the sizes have no such place.
    curves = {
        "mask ratio": ("fcmae-ratio", 0.6),
        "image size, px": ("fcmae-size", None),
        "batch": ("fcmae-batch", 32),
    }
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
    for column, (title, (work, middle)) in enumerate(curves.items()):
        points = {
            found["x"]: found
            for found in groups.values()
            if (found["work"], found["precision"]) == (work, precision)
        }
        if not points:
            return False
        if middle:
            points[middle] = standard[precision]
        xs = sorted(points)
        for contestant, colour in (("visible tiles (default)", TEAL), ("masked-dense", GREY)):
            for row, key in enumerate(("rates", "memory_mib")):
                axes[row, column].plot(
                    xs,
                    [points[x][key][contestant] for x in xs],
                    "o-",
                    color=colour,
                    label=contestant,
                )
        for row, unit in enumerate(("images/s", "MiB")):
            at = axes[row, column]
            at.set(xlabel=title, ylabel=unit, ylim=(0, None))
            at.spines[["top", "right"]].set_visible(False)
            at.grid(alpha=0.25)
    axes[0, 0].legend(frameon=False)
    figure.suptitle(f"FCMAE step of atto, {precision}: pace above, peak memory below")
    figure.savefig(path, dpi=100)
    return True


def plot_bars(groups: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the contestants of each group as bars, ours in colour."""
    works = (
        "best-fcmae",
        "fcmae",
        "compiled-fcmae",
        "compiled-fcmae-native",
        "train",
        "eager-train",
        "inference",
        "loader",
    )
    shown = [name for name, found in groups.items() if found["work"] in works]
    columns = 2
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(12, 1.9 * rows), layout="constrained", squeeze=False
    )
    for at in axes.flat[len(shown) :]:
        at.set_visible(False)
    for at, name in zip(axes.flat, shown, strict=False):
        rates = groups[name]["rates"]
        ours = [not contestant.startswith(("timm", "masked-dense")) for contestant in rates]
        at.barh(list(rates), list(rates.values()), color=[TEAL if own else GREY for own in ours])
        at.invert_yaxis()
        at.set_title(f"{name}, images/s", fontsize=9, loc="left")
        at.tick_params(labelsize=8)
        at.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Write the page and the plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    groups, docs = read(arguments.out), arguments.docs
    machine = json.loads((arguments.out / "machine.json").read_text())
    versions = ", ".join(
        f"{name} {version}" for name, version in machine.items() if name != "processor"
    )
    threads = {found["threads"] for found in groups.values()}
    lines = [
        "# Measured tables",
        "",
        f"{machine['processor']}; {', '.join(map(str, sorted(threads)))} threads; {versions}.",
        "Written by `benchmarks/peers/report.py`.",
    ]
    plot_bars(groups, docs / "images" / "benchmarks.png")
    lines += ["", "![All groups as bars](images/benchmarks.png)"]
    if plot_curves(groups, docs / "images" / "benchmarks-curves.png"):
        lines += ["", "![Pace against mask ratio and image size](images/benchmarks-curves.png)"]
    for name, found in groups.items():
        lines += ["", f"## {name}", "", *table(found)]
    if (arguments.out / "ranks.json").exists():
        found = json.loads((arguments.out / "ranks.json").read_text())
        lines += [
            "",
            "## ranks, FCMAE step of atto, batch 32",
            "",
            "| | images/s of each run |",
            "|---|---|",
        ]
        lines += [
            f"| {name} | {', '.join(f'{rate:.1f}' for rate in rates)} |"
            for name, rates in found["rates"].items()
        ]
        lines += [
            "",
            f"Ratio of runs side by side: median {found['median']:.2f}, least to greatest "
            f"{found['ratios'][0]:.2f} to {found['ratios'][-1]:.2f}.",
        ]
    (docs / "benchmarks-tables.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
