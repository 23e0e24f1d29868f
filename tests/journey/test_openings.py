"""A weights file is read once and hashed once by whatever uses it."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pytest
from runs import SMALL

from convnextv2.cli import main
from convnextv2.server.served import open_served
from convnextv2.server.spec import Spec
from convnextv2.verbs import session
from convnextv2.weights import safetensors

Counts = tuple[Counter[Path], Counter[Path]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Count the readings of each file's tensors, and the hashings of each file."""
    read, hashed = Counter[Path](), Counter[Path]()
    safe_open, file_digest = safetensors.safe_open, hashlib.file_digest

    def counting_open(path, *args, **options):
        read[Path(path).resolve()] += 1
        return safe_open(path, *args, **options)

    def counting_digest(file, digest):
        hashed[Path(file.name).resolve()] += 1
        return file_digest(file, digest)

    monkeypatch.setattr(safetensors, "safe_open", counting_open)
    monkeypatch.setattr(hashlib, "file_digest", counting_digest)
    return read, hashed


def weights_of(run: Path, counts: Counter[Path]) -> dict[str, int]:
    """Return the counts of best/ and last/ of a run."""
    return {
        str(path.relative_to(run.resolve())): count
        for path, count in counts.items()
        if path.parent.parent == run.resolve() and path.parent.name in ("best", "last")
    }


def test_training_from_a_run_opens_its_weights_once(
    photos: Path, pretrained: Path, tmp_path: Path, counted: Counts
) -> None:
    out = tmp_path / "run"
    command = ["train", "--data_dir", str(photos), "--out", str(out), "--init", str(pretrained)]
    assert main([*command, "--epochs", "1", *SMALL]) == 0
    for counts in counted:
        assert weights_of(pretrained, counts) == {"last/model.safetensors": 1}
        assert weights_of(out, counts) == {"best/model.safetensors": 1}  # for the report


def test_validating_a_run_opens_its_weights_once(
    trained: Path, pretrained: Path, counted: Counts
) -> None:
    assert main(["validate", str(trained)]) == 0
    for counts in counted:
        assert weights_of(trained, counts) == {"best/model.safetensors": 1}
        # The report shows what the run was started from.
        assert weights_of(pretrained, counts) == {"last/model.safetensors": 1}


@pytest.mark.parametrize("verb", ["validate", "predict"])
def test_using_an_artifact_reads_and_hashes_its_model_once(
    verb: str, photos: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "artifact"
    assert (
        main(["export", str(trained), "--format", "torch", "--out", str(made), "--seconds", "0.1"])
        == 0
    )
    model = made / "model.pt2"
    read, hashed = [], []
    read_bytes, sha256, file_digest = Path.read_bytes, hashlib.sha256, hashlib.file_digest

    def counting_read(path):
        read.append(path.name)
        return read_bytes(path)

    def counting_sha256(content=b"", **options):
        hashed.append(len(content))
        return sha256(content, **options)

    def counting_digest(file, digest):
        hashed.append(Path(file.name).stat().st_size)
        return file_digest(file, digest)

    monkeypatch.setattr(Path, "read_bytes", counting_read)
    monkeypatch.setattr(hashlib, "sha256", counting_sha256)
    monkeypatch.setattr(hashlib, "file_digest", counting_digest)
    images = ["--data_dir", str(photos)] if verb == "validate" else [str(photos / "val")]
    assert main([verb, str(made), *images]) == 0
    assert read.count(model.name) == 1 and hashed.count(model.stat().st_size) == 1


def test_a_server_opens_the_weights_of_each_model_once(
    trained: Path, pretrained: Path, counted: Counts
) -> None:
    for run, part in ((trained, "best"), (pretrained, "last")):
        how = {"device": "cpu", "precision": "float32", "max_pixels": 10_000}
        open_served(Spec("m", "1", run), "1", **how)
        for counts in counted:
            assert weights_of(run, counts) == {f"{part}/model.safetensors": 1}


@pytest.mark.parametrize("verb", ["predict", "infer", "reconstruct", "export", "inspect"])
def test_using_a_run_opens_its_weights_once(
    verb: str, photos: Path, trained: Path, pretrained: Path, tmp_path: Path, counted: Counts
) -> None:
    image = str(photos / "val" / "red" / "0.png")
    best = str(trained / "best" / "model.safetensors")
    command = {
        "predict": [str(trained), image],
        "infer": ["--image_path", image, "--ckpt_path", best],
        "reconstruct": [str(pretrained), image, "--out", str(tmp_path / "made.png")],
        "export": [
            str(trained),
            "--format",
            "torch",
            "--out",
            str(tmp_path / "made"),
            "--seconds",
            "0.1",
        ],
        "inspect": [str(trained)],
    }[verb]
    assert main([verb, *command]) == 0
    run, part = (pretrained, "last") if verb == "reconstruct" else (trained, "best")
    for counts in counted:
        assert weights_of(run, counts) == {f"{part}/model.safetensors": 1}


def test_the_run_to_start_from_is_never_overwritten(
    photos: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(pretrained, tmp_path / "run")
    (tmp_path / "link").symlink_to(run)
    for init in (run, tmp_path / "link", run / "last"):
        command = ["train", "--data_dir", str(photos), "--out", str(run), "--init", str(init)]
        assert main([*command, "--overwrite", "--epochs", "1", *SMALL]) == 2
        assert "would delete the weights to start from" in capsys.readouterr().err
    assert (run / "last" / "model.safetensors").exists() and list((run / "checkpoints").iterdir())


def test_a_report_does_without_initial_weights_that_are_gone_or_others(
    photos: Path,
    pretrained: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(pretrained, tmp_path / "pre")
    command = ["train", "--data_dir", str(photos), "--init", str(run), "--epochs", "1", *SMALL]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert "Pre-training loss" in (tmp_path / "run" / "report.html").read_text()

    (run / "last" / "model.safetensors").write_text("garbage")
    assert main(["validate", str(tmp_path / "run")]) == 0
    assert "No pre-training in the report" in capsys.readouterr().out
    assert "Pre-training loss" not in (tmp_path / "run" / "report.html").read_text()


def test_a_report_shows_no_run_that_took_the_place_of_the_initial_weights(
    photos: Path, pretrained: Path, trained: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    run = shutil.copytree(pretrained, tmp_path / "pre")
    train_task = session.train_task

    def train_and_replace(*arguments) -> None:
        train_task(*arguments)
        shutil.rmtree(run)
        shutil.copytree(trained, run)

    monkeypatch.setattr(session, "train_task", train_and_replace)
    command = ["train", "--data_dir", str(photos), "--init", str(run), "--epochs", "1", *SMALL]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert "has changed since the run started" in capsys.readouterr().out
    assert "Pre-training loss" not in (tmp_path / "run" / "report.html").read_text()
