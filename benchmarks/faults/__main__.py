"""Measure what a run loses by kills, signals and faults, and what saving costs.

The figures stand in docs/how-to/runs.md.

    python benchmarks/faults operations     a kill before, in and after every file operation
    python benchmarks/faults moments        kills at random moments
    python benchmarks/faults signals        what launchers and users send; a rank that ends or hangs
    python benchmarks/faults saving         the cost of saving while training goes on
    python benchmarks/faults soak           a fault a minute

Each study keeps what it found in OUT, one JSON line for each case, and goes on from there when it
is started again; delete OUT after a change of the code. It ends with a table, and with exit code 1
if a run did not end as one that nobody disturbed. It needs psutil.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported


def main() -> None:
    """Run a study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("faults"), help="[faults]")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn [0]")
    studies = parser.add_subparsers(dest="study", required=True)

    one = studies.add_parser("operations")
    one.add_argument("--only", default="", help="configurations whose name has this in it")
    one.add_argument("--at", default="", help="points whose operation and path match this regex")
    one.add_argument("--every", type=int, default=1, help="take only every Nth point [1]")
    one.add_argument(
        "--twice", type=int, default=0, help="number of pairs of kills in addition [0]"
    )
    one.add_argument("--jobs", type=int, default=2, help="at a time [2]")

    one = studies.add_parser("moments")
    one.add_argument("--kills", type=int, default=25, help="in each configuration [25]")
    one.add_argument("--only", default="", help="configurations whose name has this in it")
    one.add_argument("--epochs", type=int, default=200, help="of a run [200]")
    one.add_argument("--within", type=float, default=15, help="seconds after a start [15]")

    one = studies.add_parser("signals")
    one.add_argument("--only", default="", help="cases whose name has this in it")
    one.add_argument("--patience", type=float, default=120, help="seconds to wait for an end [120]")

    one = studies.add_parser("saving")
    one.add_argument("--model", default="convnextv2_atto")
    one.add_argument("--minutes", type=float, default=3, help="of a round [3]")
    one.add_argument("--every", type=float, default=1, help="minutes from save to save [1]")
    one.add_argument("--pairs", type=int, default=3)
    one.add_argument("--batch", type=int, default=16)
    one.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))

    one = studies.add_parser("soak")
    one.add_argument("--minutes", type=float, default=30)
    one.add_argument("--every", type=float, default=60, help="seconds from fault to fault [60]")

    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    ended_well = import_module(arguments.study).study(arguments)
    sys.exit(0 if ended_well else 1)


if __name__ == "__main__":
    main()
