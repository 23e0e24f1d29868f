"""The figures of the comparisons with other libraries' trainings, and the files they keep."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchmetrics.segmentation import MeanIoU

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    names = ("studies", "dense_scores", "dense_sets", "equal_time")
    found = {}
    for name in names:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    yield found
    for name in names:
        del sys.modules[name]


def test_classes_of_pixels_are_measured_as_torchmetrics_does(
    scripts: dict[str, ModuleType],
) -> None:
    rng = np.random.default_rng(0)
    true = [rng.integers(0, 5, (7, 9), np.uint8) for _ in range(3)]
    found = [np.where(rng.random((7, 9)) < 0.6, each, 4).astype(np.uint8) for each in true]
    metric = MeanIoU(num_classes=5, per_class=True, input_format="index")
    joined = [torch.from_numpy(np.stack(each)).long().reshape(1, -1) for each in (found, true)]
    oracle = metric(*joined)
    scores = scripts["dense_scores"].pixels(zip(true, found, strict=True), classes=5)
    assert scores["miou"] == pytest.approx(float(oracle.mean()), abs=1e-6)
    right = np.mean([(a == b).mean() for a, b in zip(true, found, strict=True)])
    assert scores["accuracy"] == pytest.approx(right)
    assert scores["miou_frequent"] == 0  # three images


def test_classes_that_are_only_predicted_count_in_one_mean_alone(
    scripts: dict[str, ModuleType],
) -> None:
    true = np.array([[0, 0, 1, 255]], np.uint8)
    found = np.array([[0, 2, 1, 0]], np.uint8)
    scores = scripts["dense_scores"].pixels([(true, found)], classes=4)
    assert scores["miou"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert scores["miou_present"] == pytest.approx((0.5 + 1) / 2)
    assert scores["accuracy"] == pytest.approx(2 / 3)


def test_objects_are_measured_by_their_overlap(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    truth = {
        "images": [{"id": 7, "file_name": "a.png", "width": 20, "height": 20}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10], "area": 100,
             "iscrowd": 0}
        ],
        "categories": [{"id": 3, "name": "cell"}],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))

    def measure(box: list[float]) -> dict[str, float]:
        result = {"image_id": 7, "category_id": 3, "bbox": box, "score": 0.9}
        scores: dict[str, float] = scripts["dense_scores"].objects(
            tmp_path / "truth.json", [result], masks=False
        )
        return scores

    assert measure([0, 0, 10, 10])["ap"] == pytest.approx(1)
    # An IoU of 0.72 passes 5 of the 10 thresholds from 0.5 on.
    assert measure([0, 0, 10, 7.2])["ap"] == pytest.approx(0.5)
    nothing = scripts["dense_scores"].objects(tmp_path / "truth.json", [], masks=False)
    assert nothing == {"ap": 0, "ap50": 0, "ap75": 0}


def test_what_chooses_is_no_test_image(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    for split, count in (("train", 20), ("val", 4)):
        for folder, suffix in (("images", "jpg"), ("annotations", "png")):
            (tmp_path / "data" / folder / split).mkdir(parents=True)
            for i in range(count):
                path = tmp_path / "data" / folder / split / f"{split}{i:02}.{suffix}"
                Image.new("L", (4, 4)).save(path)
    (tmp_path / "data" / "classes.csv").write_text("id,name\n0,none\n1,coat\n")
    sets = scripts["dense_sets"]
    out = sets.lay_out("clothing_parsing", tmp_path / "data", tmp_path / "out", None)

    def stems(part: str, split: str) -> set[str]:
        return {path.stem for path in sets.images_of(out / part, split, "pixels")}

    assert stems("full", "test") == {f"val{i:02}" for i in range(4)}
    assert stems("tuning", "val") == {"train05", "train15"}
    assert stems("tuning", "train") == stems("full", "train") - {"train05", "train15"}
    assert len(stems("full", "train")) == 20
    assert {path.stem for path in (out / "full/photographs").iterdir()} == stems("full", "train")


def test_the_learning_rate_rises_and_ends_at_nothing(scripts: dict[str, ModuleType]) -> None:
    cosine = scripts["equal_time"].cosine
    assert cosine(0) == pytest.approx(0.01)
    assert cosine(0.05) == pytest.approx(1)
    assert cosine(0.525) == pytest.approx(0.5)
    assert cosine(1) == pytest.approx(0) == cosine(1.2)


def test_a_loop_ends_with_its_time_and_leaves_the_average(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = scripts["equal_time"]
    clock = iter(range(100))
    monkeypatch.setattr(module.time, "process_time", lambda: float(next(clock)))
    model = nn.Linear(1, 1)
    start = float(model.weight.detach())
    weights: list[float] = []

    def loss_of(batch: float) -> torch.Tensor:
        weights.append(float(model.weight.detach()))
        return (model(torch.tensor([[batch]])) ** 2).sum()

    spent = module.train_theirs(
        model, iter([1.0] * 50), loss_of, seconds=5.0, lr=0.1, batches_per_epoch=2
    )
    # The clock is read once before the loop, and once before each step.
    assert (spent.steps, spent.epochs, spent.diverged) == (4, 2.0, False)
    assert float(model.weight.detach()) != start
    assert min(weights) - 0.1 < float(model.weight.detach()) < max(weights)


def test_finished_runs_are_kept_and_not_mistaken(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "job = json.loads((folder / 'job.json').read_text())\n"
        "if job['n'] < 0: sys.exit('n is negative')\n"
        "seen = folder.parent / 'seen'\n"
        "seen.write_text(seen.read_text() + str(job['n']) if seen.exists() else str(job['n']))\n"
        "(folder / 'result.json').write_text(json.dumps({'twice': 2 * job['n']}))\n"
    )
    jobs = scripts["equal_time"].Jobs(script, 1)
    wanted: dict[Path, Any] = {tmp_path / "a": {"n": 1}, tmp_path / "b": {"n": -1}}
    with pytest.raises(SystemExit, match=r"b: failed \(n is negative\)"):
        jobs.run(wanted)
    wanted[tmp_path / "b"] = {"n": 2}
    assert jobs.run(wanted) == {tmp_path / "a": {"twice": 2}, tmp_path / "b": {"twice": 4}}
    assert (tmp_path / "seen").read_text() == "12"
    with pytest.raises(SystemExit, match="a: was finished with other settings"):
        jobs.run({tmp_path / "a": {"n": 3}})


def test_the_best_rate_is_trained_and_a_single_one_is_not_tried(
    scripts: dict[str, ModuleType],
) -> None:
    ran: list[str] = []

    class OneArm:
        def pretraining(self, *_: object) -> None:
            return None

        def training(
            self, name: str, arm: str, seed: int, rate: float, *, final: bool
        ) -> tuple[Path, dict[str, Any]]:
            which = f"final-{rate}-{seed}" if final else f"try-{rate}"
            return Path(which), {"score": rate * (rate < 3)}

        def score(self, _: str) -> str:
            return "ap"

    class Recorded:
        def run(self, jobs: dict[Path, dict[str, Any]]) -> dict[Path, Any]:
            ran.extend(map(str, jobs))
            return {folder: {"scores": {"ap": job["score"]}} for folder, job in jobs.items()}

    compare = scripts["equal_time"].compare
    found = compare(OneArm(), Recorded(), arms={"a": ["x"]}, rates=[1.0, 2.0, 3.0], seeds=2)
    assert ran == ["try-1.0", "try-2.0", "try-3.0", "final-2.0-0", "final-2.0-1"]
    assert found["a"]["x"]["lr"] == 2.0
    assert found["a"]["x"]["tried"] == {"1": 1.0, "2": 2.0, "3": 0.0}
    ran.clear()
    found = compare(OneArm(), Recorded(), arms={"a": ["x"]}, rates=[3.0], seeds=2)
    assert ran == ["final-3.0-0", "final-3.0-1"]
    assert found["a"]["x"]["lr"] == 3.0 and found["a"]["x"]["tried"] == {}
