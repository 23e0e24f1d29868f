"""Other loggers get the records, go on with their runs, and never stop ours."""

import json
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from runs import SMALL, draw, metrics

from convnextv2.cli import main
from convnextv2.errors import RecipeError
from convnextv2.recipe.read import read_recipe
from convnextv2.training import loggers

FAKES = {
    "wandb": """
        def init(**given):
            _write("init", {name: str(value) for name, value in given.items() if name != "config"})
            if "broken" in given["config"]["out"]:
                raise SystemExit("no server\\nmore")
            return _Run()

        class _Run:
            def define_metric(self, name, **more): pass
            def log(self, figures): _write("log", figures)
            def finish(self): _write("finish", {})
        """,
    "trackio": """
        def init(**given):
            _write("init", {name: str(value) for name, value in given.items() if name != "config"})
            return _Run()

        class _Run:
            def log(self, figures, step):
                if step > 2: raise RuntimeError("the disk is full")
                _write("log", {**figures, "step": step})
            def finish(self): _write("finish", {})
        """,
    "mlflow": """
        import sys, types
        entities = types.ModuleType("mlflow.entities")
        entities.Metric = lambda key, value, timestamp, step: (key, value, step)
        entities.Param = lambda key, value: (key, value)
        sys.modules["mlflow.entities"] = entities

        class _Info:
            run_id, experiment_id = "run-7", "3"
            @property
            def info(self): return self

        class MlflowClient:
            def get_experiment_by_name(self, name): return None
            def create_experiment(self, name): return "3"
            def create_run(self, number, run_name):
                _write("init", {"experiment": number, "name": run_name})
                return _Info()
            def update_run(self, key, status): _write("resume", {"run": key, "status": status})
            def log_batch(self, key, metrics=(), params=()):
                assert len(params) <= 100
                for name, value, step in metrics:
                    _write("log", {name: value, "step": step, "run": key})
            def set_terminated(self, key): _write("finish", {"run": key})
        """,
}
RECORDER = """
import json, pathlib
def _write(kind, content):
    with open(pathlib.Path(__file__).with_suffix(".jsonl"), "a") as file:
        file.write(json.dumps({"call": kind, **content}) + "\\n")
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules of their own on sys.path, which write what they are called with."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, text in FAKES.items():
        (folder / f"{name}.py").write_text(RECORDER + textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delitem(sys.modules, "mlflow.entities", raising=False)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("HOME", str(tmp_path))  # without a .netrc
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("loggers") / "photos"
    for colour, name in enumerate(("red", "green")):
        for i in range(8):
            draw(root / "train" / name / f"{i}.png", colour, 10 * colour + i)
        draw(root / "val" / name / "0.png", colour, 100 + colour)
    return root


def calls(fakes: Path, name: str) -> list[dict]:
    path = fakes / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def train(photos: Path, out: Path, *more: str) -> int:
    return main(["train", "--data_dir", str(photos), "--out", str(out), *SMALL, *more])


def figures(run: Path, kind: str, name: str) -> list[tuple[int, float]]:
    return [
        (record["step"], record[name])
        for record in metrics(run)
        if record["kind"] == kind and name in record
    ]


def test_records_arrive_and_a_resumed_run_goes_on_in_the_same_run(
    photos: Path, tmp_path: Path, fakes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(photos, run, "--epochs", "1", "--loggers", "wandb,mlflow") == 0
    told = capsys.readouterr().out
    assert "Logger wandb: no key for it is known, so it works offline. Later: wandb sync " in told
    losses = figures(run, "train", "loss")
    assert len(losses) >= 2
    for name in ("wandb", "mlflow"):
        found = [
            (call["step"], call["train/loss"])
            for call in calls(fakes, name)
            if call["call"] == "log" and "train/loss" in call
        ]
        assert found == losses
        assert calls(fakes, name)[-1]["call"] == "finish"
    assert calls(fakes, "wandb")[0]["mode"] == "offline"
    assert calls(fakes, "mlflow")[0] == {"call": "init", "experiment": "3", "name": "run"}
    assert not calls(fakes, "trackio") and "trackio" not in sys.modules
    before = len(calls(fakes, "mlflow"))
    assert train(photos, run, "--epochs", "2", "--loggers", "wandb,mlflow", "--resume") == 0
    first, second = [call for call in calls(fakes, "wandb") if call["call"] == "init"]
    assert first["id"] == second["id"] and second["resume"] == "allow"
    assert calls(fakes, "mlflow")[before] == {
        "call": "resume",
        "run": "run-7",
        "status": "RUNNING",
    }
    assert {call["run"] for call in calls(fakes, "mlflow") if call["call"] == "log"} == {"run-7"}


def test_a_logger_that_fails_is_off_and_the_run_goes_on(
    photos: Path, tmp_path: Path, fakes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, plain = tmp_path / "broken", tmp_path / "plain"
    (fakes / "mlflow.py").unlink()
    every = ("--epochs", "1", "--log_every_steps", "1")
    assert train(photos, run, *every, "--loggers", "wandb,trackio,mlflow") == 0
    told = capsys.readouterr().out
    assert "Logger wandb is off: no server. The run continues.\n" in told
    assert "Logger trackio is off: the disk is full. The run continues.\n" in told
    assert "Logger mlflow is off: mlflow is not installed. Install it with: pip install" in told
    found = [call["step"] for call in calls(fakes, "trackio") if call["call"] == "log"]
    assert max(found) == 2
    assert train(photos, plain, *every) == 0
    weights = "last/model.safetensors"
    assert figures(run, "train", "loss") == figures(plain, "train", "loss")
    assert not (plain / "loggers").exists() and (run / weights).is_file()


def test_a_logger_that_hangs_does_not_hold_up_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = threading.Event()

    def hang(about: loggers.RunInfo) -> loggers.Sink:
        release.wait(30)
        return loggers.Sink("key", lambda figures, step: None, lambda: None)

    monkeypatch.setitem(loggers._OPEN, "wandb", hang)
    monkeypatch.setattr(loggers, "_LONGEST_OPEN_S", 0.05)
    monkeypatch.setattr(loggers, "_LONGEST_CLOSE_S", 0.05)
    held = loggers.Loggers(["wandb"], tmp_path, {})
    held.log({"kind": "train", "step": 1, "epoch": 0, "loss": 1.0})
    held.close()
    assert "Logger wandb: did not end within 0.05 s." in capsys.readouterr().out
    release.set()
    held._channels[0].thread.join(10)


def test_an_unknown_logger_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match="loggers = tensorboard: expected some of wandb, mlflow"):
        read_recipe({"loggers": "wandb,tensorboard"})


def test_figures_are_named_by_their_kind() -> None:
    record = {"kind": "epoch", "step": 4, "epoch": 1, "top1": 0.5, "note": "x"}
    assert loggers.scalars(record) == {"epoch/top1": 0.5}
