import os
import sys
import threading

import pytest
import torch

from convnextv2.checkpoint import Checkpoint
from convnextv2.training.saver import Saver
from convnextv2.weights.description import Description


def checkpoint(weights: dict[str, torch.Tensor]) -> Checkpoint:
    return Checkpoint(Description("encoder", "custom", {}), weights, {}, {}, {})


def test_what_is_written_is_what_was_there_when_it_was_saved() -> None:
    go_on, written = threading.Event(), []

    def write(saved: Checkpoint) -> None:
        assert go_on.wait(10)
        written.append({name: tensor.clone() for name, tensor in saved.weights.items()})

    weights = {"a": torch.zeros(3), "b": torch.ones(2, dtype=torch.int64)}
    saver = Saver(write, in_background=True)
    saver.save(checkpoint(weights))
    weights["a"] += 5  # the next step
    assert not written
    go_on.set()
    saver.save(checkpoint(weights))
    saver.wait()
    assert [saved["a"].tolist() for saved in written] == [[0, 0, 0], [5, 5, 5]]
    assert written[0]["b"].dtype == torch.int64


def test_a_save_that_fails_is_raised_where_training_looks() -> None:
    def full(saved: Checkpoint) -> None:
        raise OSError(28, "No space left on device")

    saver = Saver(full, in_background=True)
    saver.save(checkpoint({}))
    with pytest.raises(OSError, match="No space"):
        saver.wait()
    saver.save(checkpoint({}))
    while saver._thread is not None and saver._thread.is_alive():
        pass
    with pytest.raises(OSError, match="No space"):
        saver.raise_failure()
    saver.raise_failure()  # once
    with pytest.raises(OSError, match="No space"):
        saver.save(checkpoint({}), wait=True)


def test_a_save_that_waits_needs_no_copy() -> None:
    weights = {"a": torch.zeros(3)}
    seen = []
    saver = Saver(lambda saved: seen.append(saved.weights["a"]), in_background=False)
    saver.save(checkpoint(weights))
    assert seen[0] is weights["a"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_no_other_program_can_hold_up_a_save_that_training_waits_for() -> None:
    seen = []
    saver = Saver(
        lambda checkpoint: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())),
        in_background=True,
    )
    saver.save(checkpoint({}))
    saver.wait()
    assert seen == [os.getpriority(os.PRIO_PROCESS, 0)]
