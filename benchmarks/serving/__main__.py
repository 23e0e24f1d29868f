"""Measure the server under load; the figures stand in docs/how-to/deploy.md.

    python benchmarks/serving load ARTIFACT PHOTO     pace and latency, beside LitServe
    python benchmarks/serving dense ARTIFACT PHOTO    pace and latency of a segmentor or detector
    python benchmarks/serving lose ARTIFACT PHOTO     requests lost at SIGTERM or a reload
    python benchmarks/serving abuse ARTIFACT PHOTO    ten thousand bad requests
    python benchmarks/serving look RUN PHOTO OUT      pictures of the page, in OUT

Each ends with what it claims and whether that held, and with exit code 1 if something did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path


def main() -> None:
    """Read the command line, and run one of the five."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    works = parser.add_subparsers(dest="work", required=True)
    for work in ("load", "dense", "lose", "abuse", "look"):
        one = works.add_parser(work)
        one.add_argument("run" if work == "look" else "artifact")
        one.add_argument("photo", type=Path)
        if work in ("load", "dense"):
            one.add_argument("--seconds", type=float, default=10, help="of each load [10]")
            if work == "dense":
                one.add_argument("--query", default="", help="what is asked for, as in a URL")
        elif work == "look":
            one.add_argument("out", type=Path)
        else:
            one.add_argument("--requests", type=int, default=10_000, help="[10,000]")
    arguments = parser.parse_args()

    # Each of them imports what it alone needs.
    if arguments.work == "load":
        from load import load

        found = load(arguments.artifact, arguments.photo, arguments.seconds)
    elif arguments.work == "dense":
        from dense import dense

        found = dense(arguments.artifact, arguments.photo, arguments.query, arguments.seconds)
    elif arguments.work == "lose":
        from lose import lose_some

        photo = arguments.photo.read_bytes()
        found = asyncio.run(lose_some(arguments.artifact, photo, arguments.requests))
    elif arguments.work == "abuse":
        from abuse import abuse

        photo = arguments.photo.read_bytes()
        found = asyncio.run(abuse(arguments.artifact, photo, arguments.requests))
    else:
        from look import look

        found = look(arguments.run, arguments.photo, arguments.out)
    print(json.dumps(found, indent=2))
    if not all(found.get("claims", {}).values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
