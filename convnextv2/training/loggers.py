"""Loggers of other projects: Weights & Biases, MLflow and trackio.

They get the same records as `metrics.jsonl`. Each works in a thread of its own, so that a slow or
dead server never holds up a step. If a logger fails, one line reports the reason, the logger is
switched off, and training continues. A run that is resumed continues the same run of the logger.
Their packages are imported only if they are used.
"""

from __future__ import annotations

import json
import netrc
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any, NamedTuple

from convnextv2.console import say
from convnextv2.errors import MissingPackageError
from convnextv2.files import write_json
from convnextv2.text import plain

FOLDER = "loggers"
"""The folder in the run that names the runs of the loggers, and that holds W&B's files."""

_LONGEST_OPEN_S = 30.0
_LONGEST_CLOSE_S = 60.0
_PROJECT = "convnextv2"


class RunInfo(NamedTuple):
    """The run, as a logger needs to know it at its start.

    Attributes:
        folder: Where the logger may write.
        name: The displayed name of the run.
        config: The recipe, as JSON types.
        key: The name that the logger gave this run at its first start; empty at the first start.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    key: str


class Sink(NamedTuple):
    """An open run of a logger.

    Attributes:
        key: The name that the logger gives this run.
        log: Takes figures by name, and the step.
        close: Ends the run.
        note: A message to the user; "" for none.
    """

    key: str
    log: Callable[[Mapping[str, float], int], object]
    close: Callable[[], object]
    note: str = ""


class Loggers:
    """The loggers of a run.

    Args:
        names: Some of `recipe.pairs.LOGGERS`.
        run: The run folder.
        config: The recipe, as JSON types.
    """

    def __init__(self, names: Sequence[str], run: Path, config: Mapping[str, Any]) -> None:
        self._channels = [_Channel(name, run, config) for name in names]
        # Workers are forked next, which is safest while no other thread starts anything.
        deadline = time.monotonic() + _LONGEST_OPEN_S
        for channel in self._channels:
            channel.is_settled.wait(max(0.0, deadline - time.monotonic()))

    def log(self, record: Mapping[str, Any]) -> None:
        """Pass a record of metrics.jsonl to the loggers. This does not wait for them."""
        for channel in self._channels:
            channel.queue.put((scalars(record), record["step"]))

    def close(self) -> None:
        """Wait until everything is logged, for at most a minute."""
        deadline = time.monotonic() + _LONGEST_CLOSE_S
        for channel in self._channels:
            channel.queue.put(None)
        for channel in self._channels:
            channel.thread.join(max(0.0, deadline - time.monotonic()))
            if channel.thread.is_alive():
                say(
                    f"Logger {channel.name}: did not end within {_LONGEST_CLOSE_S:g} s. What it "
                    "has not sent is lost; metrics.jsonl has everything."
                )


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a record by name, such as train/loss."""
    return {
        f"{record['kind']}/{name}": value
        for name, value in record.items()
        if isinstance(value, int | float) and name not in ("step", "epoch")
    }


class _Channel:
    """One logger with its thread."""

    def __init__(self, name: str, run: Path, config: Mapping[str, Any]) -> None:
        self.name, self._run, self._config = name, run, config
        self.queue: Queue[tuple[Mapping[str, float], int] | None] = Queue()
        self.is_settled = Event()  # set when the logger is open or off
        self.thread = Thread(target=self._work, name=f"logger-{name}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            sink = self._open()
            self.is_settled.set()
            while (record := self.queue.get()) is not None:
                sink.log(*record)
            sink.close()
        except BaseException as error:  # loggers also raise SystemExit and KeyboardInterrupt
            why = (str(error).strip().splitlines() or [""])[0]
            if isinstance(error, ModuleNotFoundError) and error.name == self.name:
                why = str(MissingPackageError(self.name, "loggers"))
            say(
                f"Logger {self.name} is off: {plain(why) or type(error).__name__}. The run "
                "continues."
            )
        finally:
            self.is_settled.set()

    def _open(self) -> Sink:
        folder = self._run / FOLDER
        folder.mkdir(exist_ok=True)
        kept = folder / f"{self.name}.json"
        key = str(json.loads(kept.read_text())["run"]) if kept.is_file() else ""
        name = self._run.resolve().name
        sink = _OPEN[self.name](RunInfo(folder, name, self._config, key))
        if sink.key != key:
            write_json(kept, {"run": sink.key})
        if sink.note:
            say(f"Logger {self.name}: {sink.note}")
        return sink


def _wandb(info: RunInfo) -> Sink:
    import wandb

    key = info.key or uuid.uuid4().hex[:12]
    is_offline = "WANDB_MODE" not in os.environ and not _knows_wandb()
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        name=info.name,
        id=key,
        resume="allow",
        dir=str(info.folder),
        config=dict(info.config),
        # Without a key, it would ask for one on the terminal.
        **({"mode": "offline"} if is_offline else {}),
    )
    # W&B's own steps can only increase, but a resumed run repeats the steps since its checkpoint.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    note = f"no key for it is known, so it works offline. Later: wandb sync {info.folder}/wandb/*"
    return Sink(
        key,
        lambda figures, step: run.log({**figures, "step": step}),
        run.finish,
        note * is_offline,
    )


def _knows_wandb() -> bool:
    """Return whether a key for W&B is in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2]
    try:
        return netrc.netrc().authenticators(host.strip("/")) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _mlflow(info: RunInfo) -> Sink:
    import mlflow
    from mlflow.entities import Metric, Param

    client = mlflow.MlflowClient()
    key = info.key
    if key:
        client.update_run(key, status="RUNNING")
    else:
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = client.get_experiment_by_name(title)
        number = experiment.experiment_id if experiment else client.create_experiment(title)
        key = client.create_run(number, run_name=info.name).info.run_id
        parameters = [Param(name, str(value)[:500]) for name, value in info.config.items()]
        for start in range(0, len(parameters), 100):  # a batch takes no more
            client.log_batch(key, params=parameters[start : start + 100])

    def log(figures: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        client.log_batch(key, [Metric(name, value, now, step) for name, value in figures.items()])

    return Sink(key, log, lambda: client.set_terminated(key))


def _trackio(info: RunInfo) -> Sink:
    import trackio

    key = info.key or f"{info.name}-{uuid.uuid4().hex[:6]}"  # its runs are known by their names
    run = trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
        name=key,
        config=dict(info.config),
        resume="allow",
    )
    return Sink(key, lambda figures, step: run.log(dict(figures), step=step), run.finish)


_OPEN: dict[str, Callable[[RunInfo], Sink]] = {
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
