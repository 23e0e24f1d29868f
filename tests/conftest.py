import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests import their slow references by name

torch.set_num_threads(
    int(
        os.environ.get(
            "OMP_NUM_THREADS", max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
        )
    )
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
