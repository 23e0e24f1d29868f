"""Open files one after another, and print the most memory and the time that each took."""

import json
import sys
import time
from pathlib import Path

import torch

from convnextv2.errors import CheckpointError
from convnextv2.weights.opened import open_weights


def memory(kind: str) -> int:
    """VmRSS (now) or VmHWM (at most) of this process, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{kind}:"))


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, start = memory("VmRSS"), time.process_time()
        try:
            open_weights(Path(name))
            said = ""
        except CheckpointError as error:
            said = str(error)
        seconds = time.process_time() - start
        print(
            json.dumps(
                {"path": name, "said": said, "grown": memory("VmHWM") - before, "seconds": seconds}
            )
        )


if __name__ == "__main__":
    main(sys.argv[1:])
