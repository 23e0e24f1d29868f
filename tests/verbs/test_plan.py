import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from json_answers import read_answer
from maps import draw_maps
from runs import SMALL, draw

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import ConvNeXtV2Error
from convnextv2.verbs import first_steps, plan
from convnextv2.verbs.first_steps import measure_throughput


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(16):
            draw(root / "train" / name / f"{i}.jpg", colour, 10 * colour + i, (40, 40))
        draw(root / "val" / name / "0.jpg", colour, 100 + colour, (40, 40))
    return root


def test_a_cluster_is_planned_from_a_known_throughput_and_a_link(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", "train", *SMALL, "--data_dir", str(photos), "--epochs", "100", "--json"]
    known = ["--images_per_second", "2", "--ranks", "4", "--link_gbit", "0.001"]
    assert main([*command, *known]) == 0
    found = read_answer("plan", capsys.readouterr().out)
    # 48 images in steps of 4 at 2 images/s.
    assert found["steps"] == 1200 and found["hours"] == pytest.approx(1200 * 2 / 3600)
    assert not found.keys() & {"memory_gib", "disk_gib", "data_wait"}
    cluster = found["cluster"]
    assert cluster["ranks"] == 4 and cluster["global_batch"] == 16 and cluster["steps"] == 300
    megabytes = 1.5 * 4 * cluster["parameters"] / 1e6
    assert cluster["mbytes_per_step"] == pytest.approx(megabytes)
    assert cluster["communication_s"] == pytest.approx(8 * megabytes, rel=0.01)
    assert cluster["most_hours"] == pytest.approx(
        300 * (2 + cluster["communication_s"]) / 3600, rel=0.01
    )
    assert cluster["least_hours"] < cluster["most_hours"]
    assert 0 <= cluster["least_share"] < cluster["most_share"] < 1

    assert main([*command, *known, "--shard", "--global_batch", "32"]) == 0
    sharded = read_answer("plan", capsys.readouterr().out)["cluster"]
    assert sharded["global_batch"] == 32 and sharded["steps"] == 200
    # Two batches in a step. Weights of blocks are sent twice, others once, gradients once.
    assert 2 < sharded["mbytes_per_step"] / megabytes < 3


@pytest.mark.parametrize("verb", ["pretrain", "train"])
def test_every_parameter_that_is_trained_is_exchanged(
    verb: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--decoder_dim", "16"] if verb == "pretrain" else ["--freeze", "stages1"]
    command = ["plan", verb, *SMALL, "--data_dir", str(photos), *own]
    assert main([*command, "--images_per_second", "2", "--ranks", "2", "--json"]) == 0
    planned = read_answer("plan", capsys.readouterr().out)["cluster"]["parameters"]
    blocks = [dim * (49 + 1 + 2 + 4 * dim + 4 + 8 + 4 * dim + 1) for dim in (8, 16, 24, 32)]
    downs = [2 * a + 4 * a * b + b for a, b in ((8, 16), (16, 24), (24, 32))]
    stem = 3 * 16 * 8 + 8 + 2 * 8
    if verb == "train":
        assert planned == sum(blocks[1:]) + sum(downs) + 2 * 32 + 33 * 3
    else:
        decoder = 32 * 16 + 16 + 16 + 16 * (49 + 1 + 2 + 64 + 4 + 8 + 64 + 1) + 17 * 32 * 32 * 3
        assert planned == stem + sum(blocks) + sum(downs) + decoder


def test_a_throughput_without_a_batch_size_is_refused(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", "train", *SMALL, "--data_dir", str(photos), "--batch_size", "auto"]
    assert main([*command, "--images_per_second", "2"]) == 2
    assert "Give batch_size." in capsys.readouterr().err
    command = [*command[:-2], "--global_batch", "10", "--images_per_second", "2", "--ranks", "4"]
    assert main(command) == 2
    assert "expected a multiple of batch_size x ranks" in capsys.readouterr().err
    command = [*command[:-6], "--batch_size", "4", "--images_per_second", "2", "--ranks", "99"]
    assert main(command) == 2
    assert "takes 396 images, and there are 48" in capsys.readouterr().err


def test_plan_measures_the_recipe_itself(capsys: pytest.CaptureFixture[str]) -> None:
    small = {"epochs": 3, "num_samples": 512, "workers": 0, "device": "cpu"}
    small |= {"batch_size": "auto", "global_batch": 128}
    figures = convnextv2.plan(config="demo_pretrain", probe_seconds=1, json=True, **small)
    assert figures["verb"] == "pretrain" and figures["steps"] == 3 * (512 // 128)
    assert (
        figures["images_per_second"] > 0 and figures["memory_gib"] > 0.1 and figures["disk_gib"] > 0
    )
    told = capsys.readouterr()
    assert "3 epochs, 12 steps" in told.err and read_answer("plan", told.out) == figures


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        (0.9 / 3600, "less than a second"),
        (1 / 3600, "0:00:01"),
        (1.5, "1:30:00"),
        (48, "2 days, 0:00:00"),
        (60, "2.5 days"),
    ],
)
def test_a_duration_is_said_in_its_own_size(hours: float, said: str) -> None:
    assert plan._duration(hours) == said


def test_the_throughput_is_of_all_images_over_all_time_after_what_was_prefetched() -> None:
    """Batches of 8 come four at a time: three steps of 0.1 s after one that waits for 3.7 s."""
    burst = [{"images_per_second": 8 / 3.7, "data_wait": 0.99}] + [
        {"images_per_second": 80.0, "data_wait": 0.0}
    ] * 3
    ready = [{"images_per_second": 1.0, "data_wait": 0.5}] + [
        {"images_per_second": 80.0, "data_wait": 0.0}
    ] * 8
    records = [record | {"step": step} for step, record in enumerate(ready + burst * 5, 1)]
    sizes = {"batch_size": 8, "accumulate": 1, "batches_per_epoch": 10**6, "prefetched": 8}
    found = measure_throughput(records, **sizes)
    assert found.measured == 20
    assert found.images_per_second == pytest.approx(8.0)
    assert found.seconds_per_step == pytest.approx(1.0)
    assert found.data_wait == pytest.approx(0.99 * 3.7 / 4)
    assert measure_throughput(records[:2], **sizes).measured == 1


def test_the_throughput_knows_the_short_step_at_an_epochs_end() -> None:
    records = [{"step": step, "images_per_second": 10.0, "data_wait": 0.0} for step in range(1, 6)]
    found = measure_throughput(
        records, batch_size=10, accumulate=2, batches_per_epoch=3, prefetched=0
    )
    # Steps 2 and 4 are of one batch.
    assert found.images_per_second == pytest.approx(10.0)
    assert found.seconds_per_step == pytest.approx(1.5)


def test_plan_passes_on_what_the_run_would_say(tmp_path: Path) -> None:
    with pytest.raises(
        ConvNeXtV2Error,
        match=r"^data_dir = .*nowhere: no such folder",
    ):
        convnextv2.plan("train", config="small_data", data_dir=tmp_path / "nowhere")


def test_plan_passes_on_every_line_of_what_the_run_would_say(tmp_path: Path) -> None:
    root = draw_maps(tmp_path / "maps", train=3, val=1)
    (root / "annotations" / "train" / "1.png").unlink()
    with pytest.raises(ConvNeXtV2Error) as caught:
        convnextv2.plan("train", data_dir=root, task="segmentation", image_size=32)
    first, missing, remedy = str(caught.value).splitlines()
    assert first == "1 of 3 images with label maps cannot be used:"
    assert "1.jpg" in missing and remedy.startswith("Repair or remove these files")


PLANS = """
import subprocess, sys
from pathlib import Path
from typing import Any
from convnextv2.verbs import first_steps
class Named(subprocess.Popen):
    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        print(self.pid, flush=True)
first_steps.subprocess.Popen = Named
data, out = sys.argv[1:]
knobs = {"data_dir": data, "epochs": 1000000, "image_size": 64, "batch_size": 2, "workers": 0}
first_steps.run_first_steps("train", None, knobs, Path(out), seconds=600, prefetched=0)
"""


def test_the_run_that_plan_began_ends_when_plan_is_killed(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", PLANS, str(photos), str(folder / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        pid = process.stdout.readline()
        process.kill()
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    ended = not folder.exists()
    if not ended:
        os.kill(int(pid), signal.SIGKILL)
    assert ended


def test_an_interrupted_plan_does_not_wait_for_the_run_that_it_began(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def interrupt(out: Path) -> None:
        raise KeyboardInterrupt

    popen = subprocess.Popen

    def start_sleeper(command: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        started.append(popen([sys.executable, "-c", "import time; time.sleep(90)"], **settings))
        return started[-1]

    monkeypatch.setattr(first_steps.subprocess, "Popen", start_sleeper)
    monkeypatch.setattr(first_steps, "_records", interrupt)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        first_steps.run_first_steps("train", None, {}, tmp_path / "run", seconds=1, prefetched=0)
    assert time.monotonic() - began < 30
    assert started[0].returncode != 0
