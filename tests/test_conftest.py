"""The environment in which the tests themselves run."""

import os

import torch


def test_workers_do_not_have_more_threads_than_there_are_cores() -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = int(os.environ["OMP_NUM_THREADS"])
    assert torch.get_num_threads() == threads
    assert workers * threads <= max(workers, len(os.sched_getaffinity(0)))
