import gc
import os

import pytest
import torch

pytest_plugins = ["artifacts"]

# The tests import a million objects, of which none is garbage. Looking through them took a quarter
# of the time in which tests are collected, and a tenth of that in which they run.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


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
