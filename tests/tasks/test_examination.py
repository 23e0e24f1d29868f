"""Examinations of a pre-training run: they see what they say, and change nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from model.reference import randomise
from runs import SMALL, draw, metrics, weights

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import RecipeError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.tasks.masked.examination import gradient_norms
from convnextv2.training.health import feature_warnings

EXAMINED = ["--health_every_epochs", "2", "--probe_every_epochs", "2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(8):
            draw(root / "train" / name / f"{i}.jpg", colour, 10 * colour + i)
        for i in range(3):
            draw(root / "val" / name / f"{i}.png", colour, 100 + 10 * colour + i)
    return root


def command(photos: Path, out: Path, *more: str) -> list[str]:
    fixed = ["pretrain", "--data_dir", str(photos), "--out", str(out), "--decoder_dim", "16"]
    return [*fixed, "--epochs", "3", *SMALL, *more]


@pytest.fixture(scope="module")
def examined(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "examined"
    assert main(command(photos, out, *EXAMINED, "--keep_checkpoints", "9")) == 0
    return out


def of_kind(run: Path, kind: str) -> list[dict]:
    return [record for record in metrics(run) if record["kind"] == kind]


def test_a_run_learns_the_same_bit_for_bit_with_and_without(
    photos: Path, examined: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    assert main(command(photos, plain)) == 0
    ours, theirs = weights(examined), weights(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    losses = [[r["loss"] for r in of_kind(run, "train")] for run in (examined, plain)]
    assert losses[0] == losses[1]
    assert not of_kind(plain, "health") and not of_kind(plain, "probe")


def test_the_first_and_the_last_epoch_are_examined_and_each_that_is_due(examined: Path) -> None:
    for kind in ("health", "probe"):
        assert [(r["epoch"], r["step"]) for r in of_kind(examined, kind)] == [
            (0, 0),
            (2, 12),
            (3, 18),
        ]
    first, *_, last = of_kind(examined, "health")
    assert first["layers"] == ["1.1", "2.1", "3.1", "4.1"]
    assert first["grn_gamma"] == [0.0] * 4 and min(last["grn_gamma"]) > 0
    assert first["images"] == 24
    json.dumps([first, last], allow_nan=False)


def test_a_resumed_run_has_the_same_weights_and_records(
    photos: Path, examined: Path, tmp_path: Path
) -> None:
    for epoch in (1, 2):
        out = tmp_path / f"from-{epoch}"
        shutil.copytree(examined, out)
        for folder in (out / "checkpoints").iterdir():
            if int(folder.name.split("-")[1]) > epoch:
                shutil.rmtree(folder)
        (out / "report.html").unlink()
        assert main(command(photos, out, *EXAMINED, "--keep_checkpoints", "9", "--resume")) == 0
        ours, theirs = weights(out), weights(examined)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        for kind in ("health", "probe"):
            assert of_kind(out, kind) == of_kind(examined, kind)


def test_the_last_probe_says_what_the_verb_says(photos: Path, examined: Path) -> None:
    said = convnextv2.probe(examined, data_dir=photos, precision="float32", device="cpu")
    last = of_kind(examined, "probe")[-1]
    for name in ("knn", "linear", "commonest", "training_images", "validation_images", "l2"):
        assert last[name] == getattr(said, name)


def test_other_labelled_images_can_be_named(photos: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for i, path in enumerate(sorted(photos.glob("train/*/*.jpg"))):
        shutil.copy(path, bare / f"{i}.jpg")
    asked = ["--probe_every_epochs", "1"]
    named = [*asked, "--probe_dir", str(photos), "--epochs", "1"]
    assert main([*command(bare, tmp_path / "run"), *named]) == 0
    assert [r["training_images"] for r in of_kind(tmp_path / "run", "probe")] == [24, 24]


def test_probes_without_labels_are_refused_before_the_first_step(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for i, path in enumerate(sorted(photos.glob("train/*/*.jpg"))):
        shutil.copy(path, bare / f"{i}.jpg")
    assert main(command(bare, tmp_path / "run", "--probe_every_epochs", "1")) == 2
    said = capsys.readouterr().err
    assert "probe_every_epochs needs labelled images" in said and "probe_dir" in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_an_unreadable_image_ends_a_run_only_as_the_recipe_says(
    photos: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (data / "val" / "red" / "0.png").write_bytes(b"no image")
    (data / "train" / "red" / "0.jpg").write_bytes(b"no image")
    run = [*EXAMINED, "--epochs", "1"]
    assert main([*command(data, tmp_path / "fails"), *run]) == 2
    for policy in ("skip", "quarantine"):
        out = tmp_path / policy
        assert main([*command(data, out), *run, "--bad_images", policy]) == 0
        assert of_kind(out, "health")[-1]["images"] == 23
        assert of_kind(out, "probe")[-1]["validation_images"] == 8


def test_gradient_norms_are_those_of_the_loss() -> None:
    encoder = ConvNeXtV2((1, 2, 1, 1), (4, 8, 12, 16), num_classes=None)
    model = randomise(FCMAE(encoder, decoder_dim=8).double()).eval()
    images = torch.randn(5, 3, 64, 64, dtype=torch.float64)
    blocks, rest = gradient_norms(model, images, 0.5, seed=3)
    assert all(parameter.grad is None for parameter in model.parameters())
    from convnextv2.data.randomness import generator_for

    visible, masked = draw_masks(5, (2, 2), 0.5, generator_for(3, "health"))
    model(images, visible, masked).backward()
    named = {name: parameter.grad for name, parameter in model.named_parameters()}

    def norm(*prefixes: str) -> float:
        chosen = [grad.flatten() for name, grad in named.items() if name.startswith(prefixes)]
        return float(torch.cat(chosen).norm())

    assert blocks["2.2"] == pytest.approx(norm("encoder.stages.1.1."))
    assert blocks["4.1"] == pytest.approx(norm("encoder.stages.3.0."))
    assert rest["stem"] == pytest.approx(norm("encoder.downsample_layers."))
    assert rest["decoder"] == pytest.approx(norm("mask_token", "proj.", "decoder.", "pred."))
    assert rest["all"] == pytest.approx(norm(""))


HEALTHY = {
    "layers": ["1.1", "2.1"],
    "diversity": [0.4, 0.45],
    "dead": [0.0, 0.1],
    "saturated": [0.0, 0.0],
}


def test_warnings_name_the_layers_that_collapse() -> None:
    assert feature_warnings(HEALTHY, None) == []
    (line,) = feature_warnings(HEALTHY | {"diversity": [0.4, 0.05]}, HEALTHY)
    assert line.startswith("the channels of layers 2.1 have become similar (diversity below 0.1")
    # A layer that never was diverse has not collapsed.
    low = HEALTHY | {"diversity": [0.4, 0.06]}
    assert feature_warnings(HEALTHY | {"diversity": [0.4, 0.05]}, low) == []
    (line,) = feature_warnings(HEALTHY | {"dead": [0.6, 0.1]}, HEALTHY)
    assert "layers 1.1 are hardly ever active (dead)" in line
    (line,) = feature_warnings(HEALTHY | {"saturated": [0.6, 0.7]}, HEALTHY)
    assert "layers 1.1, 2.1 are the same everywhere (saturated)" in line
    (line,) = feature_warnings(HEALTHY | {"diversity": [None, 0.4]}, HEALTHY)
    assert "layers 1.1 are all 0 or not finite" in line


def test_pictures_of_several_labels_are_no_probe(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"train/red/{i}.jpg,1,0" for i in range(8)] + [
        f"train/blue/{i}.jpg,1,1" for i in range(8)
    ]
    table.write_text("image,a,b\n" + "\n".join(rows) + "\n")
    for path in photos.glob("train/*/*.jpg"):
        (tmp_path / path.relative_to(photos)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(photos))
    options = [*command(photos, tmp_path / "run"), "--probe_every_epochs", "1", "--probe_dir"]
    assert main([*options, str(table), "--labels", "multi"]) == 2


@pytest.mark.parametrize("name", ["health_every_epochs", "probe_every_epochs"])
def test_a_sharded_model_is_not_examined(name: str) -> None:
    with pytest.raises(RecipeError, match=f"shard = True: {name} needs the whole model"):
        convnextv2.pretrain(data_dir="photos", shard=True, batch_size=8, **{name: 1})
