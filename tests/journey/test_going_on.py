"""Runs that are to go on although something changed or broke meanwhile."""

import shutil
from pathlib import Path

import pytest
import torch
from processes import Program, finish_ranks, run_ranks
from resumed import FIXED, equal, train
from runs import SMALL, draw, metrics, weights

from convnextv2.cli import main


@pytest.fixture
def begun(photos: Path, tmp_path: Path) -> Path:
    """A run of three epochs of which two are done, with a checkpoint of each."""
    out = tmp_path / "begun"
    assert train(photos, out) == 0
    for folder in (out / "checkpoints").glob("epoch-00003-*"):
        shutil.rmtree(folder)
    return out


@pytest.mark.parametrize(
    "name", ["model.safetensors", "average.safetensors", "optimizer.safetensors", "progress.json"]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    name: str, photos: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    newest = sorted((out / "checkpoints").iterdir())[-1]
    data = bytearray((newest / name).read_bytes())
    data[len(data) // 2] ^= 4
    (newest / name).write_bytes(data)
    capsys.readouterr()
    assert train(photos, out, "--resume", "auto") == 0
    printed = capsys.readouterr().out
    assert f"{newest / name}: has changed" in printed or f"{newest / name}: cannot" in printed
    assert "the one before it is used" in printed and "(epoch 2, batch 0)" in printed
    assert equal(out, straight) and metrics(out)[-1]["step"] == metrics(straight)[-1]["step"]
    assert (out / "checkpoints" / f"{newest.name}.damaged").is_dir()


def test_the_command_that_began_a_run_goes_on_with_it_where_weights_told_the_model(
    photos: Path, straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = [*SMALL[8:], "--init", str(straight), "--lr", "0.01"]  # without model, depths, dims
    command = ["train", "--data_dir", str(photos), "--out", str(out), *options]
    assert main([*command, "--epochs", "1"]) == 0
    assert main([*command, "--epochs", "2", "--resume"]) == 0
    assert [record["epoch"] for record in metrics(out) if record["kind"] == "epoch"] == [1, 2]


def test_another_recipe_or_other_images_are_refused_and_nothing_is_touched(
    photos: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    assert train(photos, begun, "--resume", "--seed", "9", "--mixup", "0.5") == 2
    error = capsys.readouterr().err
    assert "seed: 42 before, 9 from here on" in error and "--resume_allow seed,mixup" in error
    more = tmp_path / "more"
    shutil.copytree(photos, more)
    draw(more / "train" / "red" / "new.png", 0, 77)
    assert train(more, begun, "--resume") == 2
    images = len(list((photos / "train").rglob("*.jpg")))
    assert f"training images: {images} before, {images + 1} from here on" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before
    assert train(more, begun, "--resume", "--resume_allow", "images") == 0
    assert "  training images:" in capsys.readouterr().out


def test_a_recipe_of_the_run_that_was_edited_is_compared_with_that_of_the_checkpoint(
    photos: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = begun / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("\nlr: 0.01\n", "\nlr: 0.02\n"))
    edited = recipe.read_text()
    command = ["train", "--out", str(begun), "--resume"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "lr: 0.01 before, 0.02 from here on" in error and recipe.read_text() == edited
    assert (
        "Undo the changes to the recipe.yaml of the run, or allow it: --resume_allow lr." in error
    )
    assert main([*command, "--resume_allow", "lr"]) == 0
    assert "  lr: 0.01 before, 0.02 from here on" in capsys.readouterr().out
    assert main(command) == 0  # the checkpoint has that rate now


def test_labels_that_changed_in_a_table_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = tmp_path / "table.csv", tmp_path / "run"
    rows = [(path, path.parts[-2], path.parts[-3]) for path in sorted(photos.rglob("*.jpg"))]
    others = [label for _, label, _ in rows[1:] + rows[:1]]  # the same classes
    lines = [
        f"{path},{label},{other},{split}"
        for (path, label, split), other in zip(rows, others, strict=True)
    ]
    table.write_text("\n".join(["path,label,other,split", *lines]))
    assert train(table, out, epochs=1) == 0
    assert train(table, out, "--resume", "--columns", "label=other", epochs=2) == 2
    assert "the labels of the" in capsys.readouterr().err
    table.write_text("\n".join(["path,other,label,split", *lines]))
    assert train(table, out, "--resume", epochs=2) == 2
    assert train(table, out, "--resume", "--resume_allow", "images", epochs=2) == 0


def test_an_epoch_takes_the_images_that_were_added(
    photos: Path, begun: Path, tmp_path: Path
) -> None:
    steps = metrics(begun)[-1]["step"] // 3
    more = tmp_path / "more"
    shutil.copytree(photos, more)
    for number in range(4):  # a batch more
        draw(more / "train" / "red" / f"new{number}.png", 0, number)
    assert train(more, begun, "--resume", "--resume_allow", "images") == 0
    assert metrics(begun)[-1]["step"] == 3 * (steps + 1)


def test_a_data_set_that_moved_and_more_epochs_may_go_on(
    photos: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "moved")
    assert train(tmp_path / "moved", begun, "--resume", epochs=4) == 0
    printed = capsys.readouterr().out
    assert "epochs: 3 before, 4 from here on" in printed
    assert "The schedule is that of 4 epochs from here on" in printed


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from convnextv2.cli import main
from convnextv2.weights.safetensors import read_tensors
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("async_save", ["True", "False"])
def test_a_disk_that_is_full_costs_one_line_and_no_checkpoint(
    async_save: str, photos: Path, straight: Path, begun: Path
) -> None:
    out = begun
    options = ["--data_dir", str(photos), "--out", str(out), *FIXED]
    kept = {path: path.read_bytes() for path in (out / "checkpoints").rglob("*") if path.is_file()}
    command = ["train", *options, "3", "--resume", "auto", "--async_save", async_save]
    [(code, _, errors)] = finish_ranks([Program("-c", LIMITED, 20000, *command)])
    assert code == 2, errors
    (line,) = errors.splitlines()
    assert "File too large. Free some space" in line
    assert {path: path.read_bytes() for path in kept} == kept
    assert not list((out / "checkpoints").rglob("*.safetensors.tmp"))
    assert main(command) == 0
    assert equal(out, straight)


@pytest.mark.parametrize(
    ("below", "told"), [("file/run", "Not a directory"), ("x" * 300, "File name too long")]
)
def test_a_path_that_cannot_be_is_one_line(
    below: str, told: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert train(photos, tmp_path / below) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line and "Choose another path." in line


def test_another_arithmetic_is_allowed_by_name_and_its_scaler_starts_anew(
    photos: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = ["--resume", "--precision", "float16"]
    assert train(photos, begun, *half) == 2
    assert "precision: float32 before, float16 from here on" in capsys.readouterr().err
    assert train(photos, begun, *half, "--resume_allow", "precision") == 0
    assert "loss scale of float16 starts again" in capsys.readouterr().out
    assert all(tensor.isfinite().all() for tensor in weights(begun).values())


def test_a_checkpoint_of_mindcv_inside_of_a_run_leaves_its_network_alone(
    photos: Path, tmp_path: Path
) -> None:
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    options = ["--mindcv_files", "True", "--keep_checkpoints", "3"]  # gelu is exact, as our default
    assert train(photos, straight, *options) == 0
    shutil.copytree(straight, halted)
    (ckpt,) = halted.glob("custom-2_*.ckpt")
    assert train(photos, halted, *options, "--ckpt_path", str(ckpt)) == 0
    assert "gelu: exact" in (halted / "recipe.yaml").read_text()
    assert equal(halted, straight)


def test_another_number_of_ranks_keeps_the_images_of_a_step(photos: Path, tmp_path: Path) -> None:
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    command = ["train", "--data_dir", str(photos), *FIXED, "2", "--resume", "auto", "--out"]
    run_ranks(2, *command, straight, "--save_every_steps", "2", "--keep_policy", "all")
    shutil.copytree(straight, halted)
    for folder in sorted((halted / "checkpoints").iterdir())[1:]:
        shutil.rmtree(folder)  # it was killed in the middle of the first epoch
    printed = run_ranks(1, *command, halted)
    assert "1 rank in place of 2: batch_size 4 and accumulate 2 keep 8 images in a step." in printed
    assert "at step 2 (epoch 0, batch 4)" in printed
    one, other = weights(halted), weights(straight)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)
    steps = [record["step"] for record in metrics(straight) if record["kind"] == "train"]
    assert [record["step"] for record in metrics(halted) if record["kind"] == "train"] == steps


def test_copies_of_checkpoints_and_a_damaged_log_are_no_trouble(
    photos: Path, begun: Path, straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = sorted((begun / "checkpoints").iterdir())[-1]
    copy = newest.with_name(newest.name + " copy")
    shutil.copytree(newest, copy)
    (newest.parent / "epoch-00009-step-00000099").touch()  # a file
    log = (begun / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    log[1] = b"\xff\xfe" + log[1][2:]
    log[2] = b"[1, 2]\n"
    (begun / "metrics.jsonl").write_bytes(b"".join(log) + b'{"kind": "tr')
    assert train(photos, begun, "--resume") == 0
    assert "metrics.jsonl: leaving out 2 lines that cannot be read." in capsys.readouterr().out
    assert copy.is_dir() and equal(begun, straight)


def test_a_class_that_came_is_told_as_such(
    photos: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "more"
    shutil.copytree(photos, more)
    draw(more / "train" / "white" / "0.png", 0, 77)
    draw(more / "val" / "white" / "0.png", 0, 78)
    assert train(more, begun, "--resume") == 2
    assert "was trained on 3 classes, but the data have 4" in capsys.readouterr().err


def test_a_run_that_is_done_says_so_and_writes_a_report_only_if_it_is_missing(
    photos: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(straight, out)  # keeps the times
    names = ("report.html", "metrics.jsonl")
    before = [(out / name).stat().st_mtime_ns for name in names]
    capsys.readouterr()
    assert train(photos, out, "--resume", "auto") == 0
    assert f"{out} is done (3 epochs)." in capsys.readouterr().out
    assert [(out / name).stat().st_mtime_ns for name in names] == before
    (out / "report.html").unlink()
    assert train(photos, out, "--resume", "auto") == 0
    assert (out / "report.html").is_file() and "is done" not in capsys.readouterr().out
    assert train(photos, out, "--resume", "auto", epochs=4) == 0  # more epochs: it is not done
    assert metrics(out)[-1]["epoch"] == 4


def test_what_a_kill_in_the_middle_of_writing_weights_left_is_deleted(
    photos: Path, begun: Path
) -> None:
    for folder in ("last", "best"):  # as safetensors calls the file that it renames at the end
        (begun / folder / ".tmpA1b2C3").write_bytes(b"half")
    assert train(photos, begun, "--resume") == 0
    assert not list(begun.glob("*/.tmp*"))
