import os

import pytest
import torch

pytest_plugins = ["artifacts"]

workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# The variable also reaches the processes that tests start. With more threads than cores, the suite
# would take twice the time.
torch.set_num_threads(
    int(
        os.environ.setdefault(
            "OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers))
        )
    )
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
