"""validate --coverage, and what predict and Predictor then say."""

import csv
import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from json_answers import read_answer
from PIL import Image
from ranks import in_ranks
from trees import CLASSES, network, photograph, save

from convnextv2 import Predictor, export, predict, validate
from convnextv2.cli import main
from convnextv2.deploy.artifact import open_artifact
from convnextv2.deploy.formats import installed_formats
from convnextv2.distributed import Place
from convnextv2.errors import (
    ArtifactError,
    CheckpointError,
    DataError,
    DeviceError,
    RecipeError,
)
from convnextv2.evaluation.metrics import ClassifierEvaluation
from convnextv2.evaluation.unknown import fingerprints, load_unknown, save_unknown
from convnextv2.find import open_run_weights
from convnextv2.recipe.read import read_recipe
from convnextv2.tasks.classification.coverage import measure_coverage
from convnextv2.tasks.classification.measure import evaluate_classifier

HOW = {"workers": 0, "batch_size": 16}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled photographs: 12 of each class, of which none is equal to another."""
    root = tmp_path_factory.mktemp("many")
    for number, name in enumerate(CLASSES):
        (root / "val" / name).mkdir(parents=True)
        for i in range(12):
            picture = Image.fromarray(photograph(1000 + 50 * number + i))
            picture.save(root / "val" / name / f"{i}.png")
    return root


def save_own(folder: Path) -> Path:
    balance = {"class_counts": [4, 3, 2, 1], "prior": "natural", "done": ""}
    return save(network(), folder, balance=balance)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return save_own(tmp_path / "own")


@pytest.fixture(scope="module")
def covered(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A function that exports with a coverage of 80 %. Each artifact is made once."""

    @functools.cache
    def make(format: str, input: str) -> Path:
        root = tmp_path_factory.mktemp("covered")
        return export(
            save_own(root / "own"), format=format, input=input, data_dir=many, coverage=0.8,
            calibrate=True, out=root / "artifact", seconds=0, workers=0, batch_size=4,
        )  # fmt: skip

    return make


def test_half_of_the_images_fit_and_the_others_test(own: Path, many: Path) -> None:
    plain = validate(own, data_dir=many, **HOW)
    evaluation = validate(own, data_dir=many, coverage=0.8, **HOW)
    assert isinstance(evaluation, ClassifierEvaluation) and isinstance(plain, ClassifierEvaluation)
    found = evaluation.unknown
    assert found is not None and (found.images, found.fitted_images, found.asked) == (24, 24, 0.8)
    assert evaluation.top1 == plain.top1 and plain.unknown is None
    assert "unknown" not in plain.to_dict()
    # By the definition, from what predict says of every image.
    unknown = load_unknown(own.with_name("unknown.safetensors"))
    predictor, covered, sizes = Predictor(own), [], []
    for path in sorted(many.glob("val/*/*.png")):
        [(_, scores)] = predictor.scores(path)
        mark = unknown.seen(
            fingerprints(
                predictor.scorer.transform(
                    torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
                )[None]
            )
        )
        if not mark[0]:
            covered.append(scores.possible[0, CLASSES.index(path.parent.name)])
            sizes.append(scores.possible[0].sum())
    assert len(covered) == 24
    assert found.covered == np.mean(covered) and found.mean_possible == np.mean(sizes)


def test_a_second_call_tests_what_was_fitted(own: Path, many: Path) -> None:
    first = validate(own, data_dir=many, coverage=0.8, **HOW).unknown
    before = own.with_name("unknown.safetensors").read_bytes()
    assert validate(own, data_dir=many, coverage=0.8, **HOW).unknown == first
    assert own.with_name("unknown.safetensors").read_bytes() == before
    assert validate(own, data_dir=many, coverage=0.5, **HOW).unknown.asked == 0.5


def test_any_number_of_ranks_fits_and_tests_the_same(own: Path, many: Path, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    for path in sorted(many.glob("val/*/*.png"))[5:]:  # 43 images, which no number divides
        (tmp_path / "some" / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "some" / path.parent.name)
    recipe, _ = read_recipe(
        {"data_dir": str(tmp_path / "some"), "batch_size": 1, "workers": 0, "device": "cpu",
         "precision": "float32", "image_size": 64}
    )  # fmt: skip
    opened = open_run_weights(own)
    source = evaluate_classifier(opened, recipe, Place(torch.device("cpu"))).source
    alone = measure_coverage(opened, source, recipe, Place(torch.device("cpu")), 0.8)
    stored = own.with_name("unknown.safetensors")
    expected = load_unknown(stored)
    assert alone.images + alone.fitted_images == 43
    for ranks in (1, 2, 3, 5):
        stored.unlink()
        found = in_ranks(ranks, lambda place: measure_coverage(opened, source, recipe, place, 0.8))
        assert found == [alone] * ranks
        written = load_unknown(stored)
        assert written.about == expected.about
        np.testing.assert_array_equal(written.fitted, expected.fitted)
        for name in ("centre", "known_precision", "part_precision", "usual", "spread"):
            one, other = (getattr(each.foreign, name) for each in (written, expected))
            np.testing.assert_array_equal(one, other)


def test_predictions_name_possible_classes_and_foreign_images(
    own: Path, many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = many / "val" / "ash" / "0.png"
    assert "possible" not in predict(own, images=[image])[0]
    validate(own, data_dir=many, coverage=0.8, **HOW)
    white = tmp_path / "white.png"
    Image.fromarray(np.full((70, 70, 3), 255, np.uint8)).save(white)
    # A limit between the two, as random weights do not find white more foreign than noise.
    stored = own.with_name("unknown.safetensors")
    unknown = load_unknown(stored)
    near, far = (
        float(scores.foreignness[0]) * unknown.about.farthest
        for _, scores in Predictor(own, batch_size=1).scores([image, white])
    )
    assert min(near, far) + max(near, far) > 0
    if near > far:
        image, white, near, far = white, image, far, near
    about = unknown.about.model_copy(update={"farthest": (near + far) / 2})
    save_unknown(stored, replace(unknown, about=about))
    capsys.readouterr()
    assert main(["predict", str(own), str(image), str(white), "--json"]) == 0
    known, foreign = (
        read_answer("predict", line)[0] for line in capsys.readouterr().out.splitlines()
    )
    [scores] = [scores for _, scores in Predictor(own).scores(image)]
    least = about.least_probability
    by_prob = sorted(zip(scores.probs[0], CLASSES, strict=True), reverse=True)
    assert known["possible"] == [name for prob, name in by_prob if prob >= least]
    assert foreign["foreign"] and not known["foreign"]
    assert foreign["foreignness"] == pytest.approx(2 * far / (near + far), rel=1e-5)
    assert known["foreignness"] == pytest.approx(2 * near / (near + far), rel=1e-5)
    assert Predictor(own)(white)[0]["foreign"]
    assert main(["predict", str(own), str(white), "--out", str(tmp_path / "p.csv")]) == 0
    told = capsys.readouterr().out
    assert "possible: " in told and "foreign: " in told
    [row] = csv.DictReader((tmp_path / "p.csv").read_text().splitlines())
    assert row["possible"] == "|".join(foreign["possible"]) and row["foreign"] == "True"
    assert float(row["foreignness"]) == pytest.approx(foreign["foreignness"])


def test_what_was_fitted_for_other_weights_is_not_used(
    own: Path, many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate(own, data_dir=many, coverage=0.8, **HOW)
    other = save(network(seed=1), tmp_path / "other")
    shutil.copy(own.with_name("unknown.safetensors"), other.parent)
    image = many / "val" / "ash" / "0.png"
    assert "possible" not in predict(other, images=[image])[0]
    assert "was fitted for other weights" in capsys.readouterr().err
    assert "possible" not in predict(own, images=[image], prior=0.0)[0]
    assert "was fitted for prior trained" in capsys.readouterr().err
    assert validate(other, data_dir=many, coverage=0.8, **HOW).unknown is not None  # fits anew
    assert "possible" in predict(other, images=[image])[0]
    own.with_name("unknown.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="Delete it"):
        predict(own, images=[image])


def test_mistakes_are_one_line(
    own: Path, many: Path, pictures: Path, exported, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="coverage = 0.99: needs at least 198 .* there are 48"):
        validate(own, data_dir=many, coverage=0.99, **HOW)
    with pytest.raises(RecipeError, match="prepare them in another way"):
        validate(own, data_dir=many, coverage=0.8, image_size=96, **HOW)
    with pytest.raises(RecipeError, match="Leave prior out"):
        validate(own, data_dir=many, coverage=0.8, prior=1.0, **HOW)
    with pytest.raises(RecipeError, match="coverage"):
        validate(own, data_dir=many, coverage=1.0, **HOW)
    several = save(network(), tmp_path / "several", kind="multi_label")
    with pytest.raises(RecipeError, match="of kind multi_label"):
        validate(several, data_dir=many, coverage=0.8, **HOW)
    with pytest.raises(ArtifactError, match="was exported without a coverage"):
        validate(exported("torch"), data_dir=many, coverage=0.8, **HOW)
    assert not own.with_name("unknown.safetensors").exists()


def test_the_answer_as_json(own: Path, many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["validate", own, "--data_dir", many, "--workers", 0, "--coverage", 0.8, "--json"]
    assert main([*map(str, arguments)]) == 0
    told = capsys.readouterr()
    found = read_answer("validate", told.out)["unknown"]
    assert found["asked"] == 0.8 and found["images"] == 24
    assert "the right class is among the possible ones" in told.err
    page = Path(json.loads(told.out)["report"]).read_text()
    assert "asked: 80" in page


FORMS = [
    (format, input)
    for format, input in (("torch", "pixels"), ("onnx", "images"))
    if format in installed_formats()
]


@pytest.mark.filterwarnings("ignore")  # exporters warn of themselves
@pytest.mark.parametrize(("format", "input"), FORMS)
def test_an_artifact_carries_what_it_computes_itself(
    format: str, input: str, covered: Callable[[str, str], Path], many: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(covered(format, input), tmp_path / "artifact")
    predictor, right = Predictor(path), []
    for image in sorted(many.glob("val/*/*.png")):
        [(_, scores)] = predictor.scores(image)
        right.append(float(scores.probs[0, CLASSES.index(image.parent.name)]))
    about = open_artifact(path).unknown().about
    assert (about.images, about.coverage) == (48, 0.8)
    rank = 40  # ceil(49 * 0.8)
    assert about.least_probability == pytest.approx(sorted(right, reverse=True)[rank - 1], rel=1e-5)
    assert set(predictor(image)[0]) >= {"possible", "foreign", "foreignness"}
    with pytest.raises(DataError, match="was fitted on all of these images"):
        validate(path, data_dir=many, coverage=0.8, **HOW)
    with pytest.raises(ArtifactError, match="a coverage of 0.8. Ask for that"):
        validate(path, data_dir=many, coverage=0.9, **HOW)
    new = tmp_path / "new"
    for number, name in enumerate(CLASSES[:2]):
        (new / name).mkdir(parents=True)
        for i in range(3):
            picture = Image.fromarray(photograph(7000 + 50 * number + i))
            picture.save(new / name / f"{i}.png")
    shutil.copy(image, new / CLASSES[1])  # one that it was fitted on
    found = validate(path, data_dir=new, coverage=0.8, **HOW).unknown
    assert (found.images, found.fitted_images) == (6, 48)


@pytest.mark.filterwarnings("ignore")
def test_a_changed_fit_is_refused(covered: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(covered("torch", "pixels"), tmp_path / "a")
    fit = path / "unknown.safetensors"
    fit.write_bytes(fit.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="unknown.safetensors does not match its SHA-256"):
        Predictor(path)
    fit.unlink()
    with pytest.raises(ArtifactError, match=rf"{path}: unknown.safetensors cannot be read"):
        Predictor(path)
    with pytest.raises(RecipeError, match="which is not changed"):
        export(path, layout="triton", coverage=0.8, out=tmp_path / "repository")


def test_what_export_cannot_do_is_said_before_images_are_read(
    own: Path, many: Path, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match="format torch does not have it"):
        export(own, format="torch", precision="int8", data_dir=tmp_path / "nowhere", coverage=0.9)
    with pytest.raises(DataError, match="needs at least 9 labelled images, and there are 5"):
        export(
            own,
            format="torch",
            data_dir=many,
            coverage=0.9,
            images=5,
            workers=0,
            out=tmp_path / "x",
        )
    with pytest.raises(DataError, match="needs labelled validation images"):
        export(own, format="torch", coverage=0.9, workers=0, images=16, out=tmp_path / "x")
    with pytest.raises(DataError, match="calibrate = True: needs labelled validation images"):
        export(own, format="torch", calibrate=True, workers=0, images=16, out=tmp_path / "x")
    with pytest.raises(RecipeError, match="or use outputs classifier"):
        export(own, format="torch", outputs="features", coverage=0.9)
    assert not (tmp_path / "x").exists()
