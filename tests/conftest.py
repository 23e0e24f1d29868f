import gc
import os

import pytest
import torch

pytest_plugins = ["artifacts", "browsers"]

# The tests import a million objects, of which none is garbage. Looking through them took a quarter
# of the time in which tests are collected, and a tenth of that in which they run.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


# With more threads than cores, the suite would take twice the time. The number also reaches the
# processes that tests start. What starts the workers reads this file too, and they inherit its
# number, which is for one process.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if "PYTEST_XDIST_WORKER" in os.environ and os.environ.pop("THREADS_OF_ONE_PROCESS", ""):
    del os.environ["OMP_NUM_THREADS"]
if "OMP_NUM_THREADS" not in os.environ:
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // workers))
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["THREADS_OF_ONE_PROCESS"] = "yes"
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
