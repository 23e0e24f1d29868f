"""Tells which ranks of a job still run, so that an error names the one that is missing.

When a rank ends, the others see a broken connection. When it hangs, they see a time-out. Neither
says which rank it was. Each rank therefore keeps incrementing a counter in the store through which
the ranks found each other. A rank that fails writes the reason into the store, and one that finds
another missing writes which one it is. The others read it between two increments. They may still be
waiting for that rank in an operation: gloo wakes them only when its process ends, and if that is
rank 0, the store ends with it.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from convnextv2.errors import GO_ON_LATER, ConvNeXtV2Error, LostRankError
from convnextv2.files import mistake_of

_BEAT_S = 2.0
_LISTEN_S = 3 * _BEAT_S
"""Seconds to watch the other ranks. A rank whose counter does not rise meanwhile is silent."""
_LAST_WORDS_S = _LISTEN_S + _BEAT_S
"""The longest time that rank 0 waits for the others to read why the job failed, in seconds."""
_FAILED = "failed"
"""The key in the store that is set by the first rank to fail or to find another missing."""
_BROKEN = re.compile(
    r"gloo|nccl|hccl|process ?group|connection (closed|reset|refused)|broken pipe|timed out|"
    r"socket|TCPStore|DistStore",
    re.IGNORECASE,
)


class _Beat(NamedTuple):
    """The last heartbeat of a rank: the state of its counter, and its training step."""

    counted: int
    step: int


class _Failure(NamedTuple):
    """Why the job failed, as all other ranks report it, and their exit code."""

    text: str
    exit_code: int

    def as_error(self) -> LostRankError:
        error = LostRankError(self.text)
        error.exit_code = self.exit_code
        return error


class RollCall:
    """One rank's part of the roll call: a heartbeat thread, and a check of the other ranks.

    Args:
        rank: The number of this rank.
        world_size: The number of ranks.
        name: A prefix of the keys in the store that no other training or attempt uses.

    Attributes:
        step: The training step of this rank; the caller keeps it up to date.
    """

    def __init__(self, rank: int, world_size: int, name: str) -> None:
        self.rank, self.world_size = rank, world_size
        self.step = 0
        self._count = 0
        self._failure: _Failure | None = None
        self._ended = threading.Event()
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=30),
        )
        self._store = PrefixStore(f"convnextv2/{name}", store)
        self._store.set_timeout(timedelta(seconds=5))
        self._beat()
        self._thread = threading.Thread(target=self._run, name="roll call", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Stop the heartbeat."""
        self._ended.set()
        self._thread.join()

    def fail(self, reason: BaseException) -> None:
        """Stop the heartbeat, and tell the other ranks the reason.

        Args:
            reason: The error that ended this rank. What `explain` returned is passed on as it is.
        """
        self.leave()
        if self._failure is not None:  # the store may be gone
            return
        text, code = str(reason) or type(reason).__name__, 1
        if isinstance(reason, ConvNeXtV2Error):
            code = reason.exit_code
        elif isinstance(reason, OSError) and (mistake := mistake_of(reason)):
            text, code = mistake, ConvNeXtV2Error.exit_code
        elif isinstance(reason, KeyboardInterrupt):  # stopped as asked
            code = GO_ON_LATER
        if not isinstance(reason, LostRankError):
            text = f"rank {self.rank} failed: {text}"
        with suppress(RuntimeError):
            self._store.compare_set(_FAILED, "", json.dumps(_Failure(text, code)))
            self._store.set(f"knows/{self.rank}", "")

    def wait_for_readers(self) -> None:
        """On rank 0, wait until all ranks know why the job failed, but only for some seconds.

        The process of rank 0 may hold the store in which the others read it, so it must not end
        earlier. The other ranks do not wait.
        """
        if self.rank != 0:
            return
        with suppress(RuntimeError):
            deadline = time.monotonic() + _LAST_WORDS_S
            everyone = [f"knows/{rank}" for rank in range(self.world_size)]
            while time.monotonic() < deadline and not self._store.check(everyone):
                time.sleep(0.1)

    def explain(self, error: BaseException) -> LostRankError | None:
        """Find out which rank is missing, if an error is of the kind that a missing rank causes.

        If no rank has left a reason, this takes a few seconds, during which the others are watched.

        Args:
            error: The error that the work with the other ranks raised.

        Returns:
            The error to raise in its place; None if it is of another kind.
        """
        if not isinstance(error, RuntimeError) or not _BROKEN.search(str(error)):
            return None
        try:
            return self._missing()
        except RuntimeError:  # the store is gone
            if self._failure is not None:
                return self._failure.as_error()
            return LostRankError(
                "rank 0 ended, or does not answer: its own message says why. The same command with "
                "--resume continues from the last checkpoint."
            )

    def _missing(self) -> LostRankError:
        """Watch the other ranks, and say which one failed, is silent or lags behind."""
        if self._failure is not None:
            return self._failure.as_error()
        before = self._beats()
        deadline = time.monotonic() + _LISTEN_S
        while time.monotonic() < deadline:
            if (failure := self._read_failure()) is not None:
                return failure.as_error()
            time.sleep(0.1)
        now = self._beats()
        silent = [rank for rank in now if rank != self.rank and now[rank] == before.get(rank)]
        remedy = "The same command with --resume continues from the last checkpoint."
        if silent:
            return LostRankError(
                f"{_ranks(silent)} ended, or {_plural(silent, 'does', 'do')} not answer (killed, "
                f"stopped, or its machine is down). {remedy}"
            )
        steps = {rank: beat.step for rank, beat in now.items()}
        late = [rank for rank, step in steps.items() if step < max(steps.values())]
        if late:
            return LostRankError(
                f"{_ranks(late)} {_plural(late, 'hangs', 'hang')} at step {steps[late[0]]}, where "
                f"the others wait at step {max(steps.values())}. {remedy}"
            )
        return LostRankError(
            f"the ranks lost their connections, though all of them still run. {remedy}"
        )

    def _beats(self) -> dict[int, _Beat]:
        return {
            rank: _Beat(*json.loads(self._store.get(f"beat/{rank}")))
            for rank in range(self.world_size)
        }

    def _read_failure(self) -> _Failure | None:
        """Return why the job failed, and tell rank 0 that this rank knows it."""
        if self._failure is None and self._store.check([_FAILED]):
            self._failure = _Failure(*json.loads(self._store.get(_FAILED)))
            self._store.set(f"knows/{self.rank}", "")
        return self._failure

    def _run(self) -> None:
        while self._failure is None and not self._ended.wait(_BEAT_S):
            with suppress(RuntimeError):
                self._beat()
                self._read_failure()

    def _beat(self) -> None:
        self._count += 1
        self._store.set(f"beat/{self.rank}", json.dumps([self._count, self.step]))


def _ranks(ranks: list[int]) -> str:
    few = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
    return f"rank{_plural(ranks, '', 's')} {few}"


def _plural(items: list[int], one: str, many: str) -> str:
    return one if len(items) == 1 else many
