"""Any number of labels for each image, from the table to the answers of all that answers."""

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from json_answers import read_answer
from patches import COLOURS, draw_patches, patch_table
from runs import draw, metrics, weights

from convnextv2 import export, predict, validate
from convnextv2.cli import main
from convnextv2.data.decode import decode
from convnextv2.data.loader import Batch
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.deploy.artifact import open_artifact
from convnextv2.distributed import Place
from convnextv2.errors import CheckpointError, RecipeError
from convnextv2.evaluation.multi_label import score_labels
from convnextv2.inference.predictor import Predictor
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import open_run
from convnextv2.tasks.multi_label.goal import MultiLabel, balanced_weights, several_labels
from convnextv2.tasks.supervised.task import Supervised
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.opened import open_weights

SETTINGS = (
    "--model custom --depths 1,1,1,1 --dims 16,24,32,48 --image_size 32 --stem_stride 2 "
    "--batch_size 12 --workers 0 --precision float32 --device cpu --tensorboard False "
    "--scale 0.9,1 --lr 0.002 --warmup_epochs 1 --head_init_scale 0.1"
).split()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patch_table(tmp_path_factory.mktemp("patches"), 240)


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    options = ["--data_dir", str(table), "--out", str(out), "--epochs", "4"]
    assert main(["train", *options, *SETTINGS]) == 0
    return out


@pytest.fixture(scope="module")
def artifact(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artifacts") / "onnx"
    return export(run, out=out, workers=0, batch_size=4, seconds=0.1)


def test_a_model_learns_its_labels_and_keeps_thresholds(run: Path) -> None:
    evaluations = [record for record in metrics(run) if record["kind"] == "eval"]
    assert max(record["map"] for record in evaluations) > 0.95
    assert min(record["loss"] for record in evaluations) < 0.5
    best = open_weights(run / "best" / "model.safetensors").description
    assert best.kind == "multi_label" and best.class_names == sorted(COLOURS)
    assert len(best.thresholds) == 3 and all(0 < limit < 1 for limit in best.thresholds)
    recipe = open_run(run).recipe
    assert (recipe.labels, recipe.loss) == ("multi", "bce")
    page = (run / "report.html").read_text()
    assert "Labels together" in page and "mean average precision" in page
    assert "Confusion" not in page and "Calibration" not in page and "top-1" not in page


def test_validate_gives_the_figures_of_the_run_and_of_its_artifact(
    run: Path, artifact: Path, table: Path
) -> None:
    found = validate(run, device="cpu", workers=0)
    best = open_weights(run / "best" / "model.safetensors").description.training
    assert found.map_macro == pytest.approx(best["map"], abs=1e-12)
    assert found.fitted.f1_macro == pytest.approx(best["f1_macro"], abs=1e-12)
    other = validate(artifact, data_dir=str(table), workers=0)
    assert other.map_macro == pytest.approx(found.map_macro, abs=1e-9)
    assert other.fitted.counts.tolist() == found.fitted.counts.tolist()
    assert other.loss == pytest.approx(found.loss, abs=1e-5)


def test_everything_that_answers_gives_the_same_labels(
    run: Path, artifact: Path, tmp_path: Path
) -> None:
    expected = [["red", "blue"], [], ["green"]]
    files = []
    for i, labels in enumerate(expected):
        draw_patches(tmp_path / f"{i}.png", labels, 900 + i)
        files.append(tmp_path / f"{i}.png")
    found = predict(run, files, device="cpu", precision="float32")
    assert [{label["name"] for label in image["labels"]} for image in found] == [
        set(labels) for labels in expected
    ]
    thresholds = open_weights(run / "best" / "model.safetensors").description.thresholds
    limits = dict(zip(sorted(COLOURS), thresholds, strict=True))
    for image in found:
        assert list(image["scores"]) == sorted(COLOURS)
        assert image["labels"] == sorted(
            (
                {"name": name, "score": score, "threshold": limits[name]}
                for name, score in image["scores"].items()
                if score >= limits[name]
            ),
            key=lambda label: -label["score"],
        )
    assert Predictor(run, device="cpu", precision="float32")(files) == found
    options = {"workers": 0, "batch_size": 4, "seconds": 0.1}
    pixels = export(run, format="torch", out=tmp_path / "p", input="pixels", **options)
    for source in (artifact, pixels):
        for other, image in zip(predict(source, files), found, strict=True):
            assert [one["name"] for one in other["labels"]] == [
                one["name"] for one in image["labels"]
            ]
            assert other["scores"] == pytest.approx(image["scores"], abs=1e-5)


def test_answers_in_json_are_as_declared(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_patches(tmp_path / "0.png", ["red", "blue"], 900)
    capsys.readouterr()
    assert main(["predict", str(run), str(tmp_path / "0.png"), "--json", "--device", "cpu"]) == 0
    (found,) = read_answer("predict with several labels", capsys.readouterr().out)
    assert {label["name"] for label in found["labels"]} == {"red", "blue"}
    assert main(["validate", str(run), "--json", "--device", "cpu"]) == 0
    measured = read_answer("validate with several labels", capsys.readouterr().out)
    assert measured["class_names"] == sorted(COLOURS) and measured["map_macro"] > 0.9


def test_the_text_of_predict_names_labels_or_says_that_there_is_none(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_patches(tmp_path / "a.png", ["green"], 7)
    draw_patches(tmp_path / "b.png", [], 8)
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert main(["predict", str(run), *files, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == files[0] and "green  (threshold " in lines[1]
    assert lines[2:] == [files[1], "  no label"]
    assert main(["predict", str(run), files[0], "--device", "cpu", "--top_k", "1"]) == 0
    assert "No effect here: top_k" in capsys.readouterr().err
    assert main(["predict", str(run), files[0], "--device", "cpu", "--threshold", "0.9"]) == 0
    assert "No effect here: threshold (each label has its own)." in capsys.readouterr().err
    assert main(["infer", "--image_path", files[0], "--ckpt_path", str(run)]) == 0
    assert set(eval(capsys.readouterr().out)) == {"green"}


def test_the_certificate_compares_probabilities_and_labels(artifact: Path, run: Path) -> None:
    opened = open_artifact(artifact)
    best = open_weights(run / "best" / "model.safetensors").description
    assert opened.card.kind == "multi_label" and opened.card.thresholds == best.thresholds
    assert opened.card.outputs == ["logits", "embedding", "explanation"]
    real = opened.certificate["real"]
    assert real["labels_agreement"] == 1 and real["same_labels"] == 1
    assert 0 < real["probs"]["max_difference"] < 1e-5 and real["probs"]["scale"] == 1
    assert "top1_agreement" not in real and "accuracy" not in opened.certificate
    labels = opened.certificate["labels"]
    assert labels["pytorch_f1_micro"] == labels["artifact_f1_micro"] == best.training["f1_micro"]


def test_calibration_changes_probabilities_but_no_label(
    run: Path, table: Path, tmp_path: Path
) -> None:
    options = {"workers": 0, "batch_size": 4, "seconds": 0.1, "calibrate": True}
    made = export(run, format="torch", out=tmp_path / "calibrated", **options)
    assert open_artifact(made).card.temperature != 1
    plain, calibrated = (
        validate(source, data_dir=str(table), workers=0, **more)
        for source, more in ((run, {"device": "cpu"}), (made, {}))
    )
    assert calibrated.fitted.counts.tolist() == plain.fitted.counts.tolist()
    assert calibrated.loss < plain.loss


def test_a_run_goes_on_exactly_where_it_was_stopped(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = ["--epochs", "3", "--loss", "asl_multi_label", "--mixup", "0.4", "--cutmix", "0.4"]
    options = ["--data_dir", str(table), *SETTINGS, *extra]
    assert main(["train", *options, "--out", str(tmp_path / "straight")]) == 0
    seen: list[Batch] = []
    loss = Supervised.loss

    def stopped(self, model, batch, generator):
        seen.append(batch)
        if len(seen) == 20:  # of fifteen in an epoch
            signal.raise_signal(signal.SIGTERM)
        return loss(self, model, batch, generator)

    monkeypatch.setattr(Supervised, "loss", stopped)
    halted = ["--out", str(tmp_path / "halted")]
    assert main(["train", *options, *halted]) != 0
    monkeypatch.setattr(Supervised, "loss", loss)
    assert main(["train", *options, *halted, "--resume"]) == 0
    straight, resumed = tmp_path / "straight", tmp_path / "halted"
    for name, tensor in weights(straight).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    for part in ("best", "last"):
        one, other = (
            json.loads((r / part / "model.json").read_text()) for r in (straight, resumed)
        )
        assert one == other
    assert json.loads((straight / "best" / "model.json").read_text())["thresholds"]
    assert "thresholds" not in json.loads((straight / "last" / "model.json").read_text())


@dataclass(frozen=True)
class Half(Place):
    """One of two ranks that run one after the other: sums add what the first one had."""

    heard: list[torch.Tensor] = field(default_factory=list)

    def sum(self, counts: torch.Tensor) -> torch.Tensor:
        if self.rank == 1:
            self.heard.append(counts)
            return counts
        return counts + self.heard.pop(0)


@pytest.mark.parametrize("images", [7, 8])
def test_two_ranks_give_the_scores_of_one_bit_for_bit(images: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 5, generator=generator)
    targets = torch.randint(-1, 2, (images, 3), generator=generator)
    head = torch.randn(5, 3, generator=generator)

    def batches(indices: list[int]) -> list[Batch]:
        return [Batch(pixels[[i]], targets[[i]], torch.tensor([i])) for i in indices]

    def score(indices: list[int], place: Place | None = None):
        return score_labels(
            lambda x: x @ head,
            batches(indices),
            images=images,
            num_classes=3,
            to_images=lambda x: x,
            place=place,
        )

    everything = list(range(images))
    alone = score(everything)
    heard: list[torch.Tensor] = []
    score(everything[1::2], Half(torch.device("cpu"), 1, 2, heard=heard))
    together = score(everything[::2], Half(torch.device("cpu"), 0, 2, heard=heard))
    for name in ("indices", "logits", "targets"):
        assert np.array_equal(getattr(alone, name), getattr(together, name)), name
    assert alone.thresholds() == together.thresholds()
    assert alone.evaluation().to_dict() == together.evaluation().to_dict()


@pytest.mark.parametrize("pos_weight", ["none", "balanced"])
def test_a_new_head_starts_with_the_frequencies_of_the_labels(
    pos_weight: str, tmp_path: Path
) -> None:
    """From zeros, a head needs hundreds of steps before it learns anything else."""
    targets = np.array([[1, 0, -1], [0, 0, 1], [1, 0, 0], [1, 0, 0]], np.int8)
    source = Source([""] * 4, targets, ("hat", "coat", "sock"))
    recipe = Recipe(loss="bce", pos_weight=pos_weight)
    start = MultiLabel().initial_bias(recipe, source)
    odds = {"none": [4 / 2, 1 / 5, 2 / 3], "balanced": [4 / 2 / 3, 1 / 5, 2 / 3 * 2]}[pos_weight]
    torch.testing.assert_close(start, torch.tensor(odds).log())


def test_weights_of_positives_are_capped() -> None:
    targets = np.array([[1, 0, 0, -1]] + 40 * [[0, 1, 0, 0]] + [[1, 1, 0, 1]], np.int8)
    assert balanced_weights(targets).tolist() == pytest.approx([10, 1 / 41, 1, 10])


def test_losses_of_exclusive_classes_are_refused_or_replaced() -> None:
    assert several_labels(Recipe(loss="ce")).loss == "bce"
    assert several_labels(Recipe(loss="asl_multi_label")).loss == "asl_multi_label"
    with pytest.raises(RecipeError, match="loss = asl_single_label: is for exclusive"):
        several_labels(Recipe(loss="asl_single_label"))
    with pytest.raises(RecipeError, match="sampling = balanced: is for one class"):
        several_labels(Recipe(sampling="balanced"))
    with pytest.raises(RecipeError, match="best_by = macro_f1: is for one class"):
        several_labels(Recipe(best_by="macro_f1"))


def test_the_kind_of_the_weights_decides_how_a_table_is_read(
    run: Path, table: Path, tmp_path: Path
) -> None:
    # Each of these images has one label, which says nothing of the model.
    rows = ["path,labels", "0.png,red", "1.png,green", "2.png,red"]
    (table.parent / "single.csv").write_text("\n".join(rows))
    found = validate(run, data_dir=str(table.parent / "single.csv"), workers=0, device="cpu")
    assert found.images == 3 and found.support.tolist() == [0, 1, 2] and found.absent == 1
    with pytest.raises(CheckpointError, match="labels = single: .* any number of labels"):
        validate(run, labels="single", workers=0)


def test_transformers_gives_the_same_probabilities_and_back(run: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    opened = open_weights(run / "best" / "model.safetensors")
    convert_weights(opened, "transformers", tmp_path / "hf", allow_drift=True)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    back = open_weights(tmp_path / "hf")
    assert back.description.kind == "multi_label" and not back.notes
    assert back.description.class_names == sorted(COLOURS)
    draw_patches(tmp_path / "a.png", ["red", "green"], 5)
    (ours,) = predict(tmp_path / "hf", [tmp_path / "a.png"], device="cpu", precision="float32")
    model = transformers.ConvNextV2ForImageClassification.from_pretrained(tmp_path / "hf")
    scorer = Predictor(tmp_path / "hf", device="cpu", precision="float32").scorer
    photo = (tmp_path / "a.png").read_bytes()
    pixels = scorer.transform(decode(photo, name="a.png", max_pixels=10_000))
    mean, std = (torch.tensor(config_of(tmp_path, name)) for name in ("image_mean", "image_std"))
    images = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        theirs = model(images[None]).logits.sigmoid()[0]
    assert list(ours["scores"].values()) == pytest.approx(theirs.tolist(), abs=1e-5)
    assert {label["threshold"] for label in ours["labels"]} <= {0.5}


def config_of(folder: Path, name: str) -> list[float]:
    return json.loads((folder / "hf" / "preprocessor_config.json").read_text())[name]


def test_starting_from_several_labels_keeps_the_rows_of_known_classes(
    run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "next"
    options = ["--data_dir", str(table), "--out", str(out), *SETTINGS, "--epochs", "1"]
    assert main(["train", *options, "--init", str(run), "--pos_weight", "balanced"]) == 0
    said = capsys.readouterr().out
    assert "Head: rows of 3 classes" in said and "(pos_weight)" in said
    assert find_sources(open_run(out).recipe, labelled=True)[0].is_multi_label
    evaluations = [record for record in metrics(out) if record["kind"] == "eval"]
    assert evaluations[0]["map"] > 0.9


def test_a_run_does_not_go_on_with_another_kind_of_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(8):
        draw(tmp_path / f"{i}.png", i % 3, i)
    table = tmp_path / "one.csv"
    table.write_text("path,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(8)))
    options = ["--data_dir", str(table), "--out", str(tmp_path / "run"), *SETTINGS]
    options += ["--batch_size", "2", "--epochs", "1"]
    assert main(["train", *options]) == 0
    table.write_text("path,label\n" + "".join(f"{i}.png,{('a|b', 'b')[i % 2]}\n" for i in range(8)))
    allowed = ["--epochs", "2", "--resume", "--labels", "multi"]
    assert main(["train", *options, *allowed]) == 2
    told = capsys.readouterr().err
    assert "belongs to a run for one class for each image, and this one would be for any" in told
