from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import SMALL
from scenes import save, scene
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

import convnextv2
from convnextv2.auditing.descriptor import describe
from convnextv2.auditing.labels import NAMED, doubt, judge
from convnextv2.cli import main
from convnextv2.inference.embedder import Embedder, open_embedder
from convnextv2.verbs import audit


def drawn(n: int, classes: int, wrong: float, seed: int = 0):
    """Logits whose softmax is the truth, labels of which some are wrong, and which ones."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 3, (n, classes))
    truth = np.array([chance.choice(classes, p=row) for row in softmax(logits, 1)])
    is_wrong = chance.random(n) < wrong
    labels = np.where(is_wrong, (truth + chance.integers(1, classes, n)) % classes, truth)
    return torch.from_numpy(logits).float(), torch.from_numpy(labels), is_wrong


def test_the_share_of_wrong_labels_is_the_most_likely_one() -> None:
    logits, labels, is_wrong = drawn(20_000, 6, 0.08)
    found = doubt(logits, labels)
    probs = softmax(logits.double().numpy() / found.temperature, 1)
    own = probs[np.arange(len(labels)), labels]

    def surprise(share: float) -> float:
        return -np.log((1 - share) * own + share * (1 - own) / 5).mean()

    best = minimize_scalar(surprise, bounds=(0, 0.5), method="bounded", options={"xatol": 1e-9})
    assert found.share == pytest.approx(best.x, abs=1e-5)
    assert found.share == pytest.approx(is_wrong.mean(), abs=0.01)
    assert found.temperature == pytest.approx(1, rel=0.2)
    for low, high in ((0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):  # it means what it says
        some = (found.wrong.numpy() >= low) & (found.wrong.numpy() < high)
        assert is_wrong[some].mean() == pytest.approx(float(found.wrong[some].mean()), abs=0.06)
    named = found.wrong >= NAMED
    assert not (found.suggested == labels).any()
    assert is_wrong[named.numpy()].mean() > 0.7


def test_labels_are_judged_by_classifiers_that_did_not_see_them() -> None:
    chance = np.random.default_rng(1)
    labels = torch.from_numpy(np.repeat([0, 1, 2], 30))
    features = torch.from_numpy(chance.normal(0, 1, (90, 8))).float()
    features[torch.arange(90), labels] += 3
    found = judge(features, labels, 3)
    assert found.accuracy > 0.9
    # An image of which nothing but its own label is learned must not be recognised.
    alone = torch.cat([features, torch.eye(90) * 50], 1)
    assert judge(alone, torch.from_numpy(chance.integers(0, 3, 90)), 3).accuracy < 0.6
    standard = (features - features.mean(0)) / features.std(0, correction=0)
    theirs = LogisticRegression(C=1 / (found.l2 * 90), max_iter=1000).fit(standard, labels)
    assert (theirs.predict(standard) == found.logits.argmax(1).numpy()).mean() > 0.9


def test_the_descriptor_tells_colours_and_textures_apart_and_repeats_itself() -> None:
    chance = np.random.default_rng(2)
    small = chance.integers(0, 40, (60, 64, 64, 3)).astype(np.uint8)
    small[:20, :, :, 0] += 150
    small[20:40, ::4] += 150
    labels = torch.arange(3).repeat_interleave(20)
    features = describe(small)
    assert torch.equal(features, describe(small)) and torch.isfinite(features).all()
    assert judge(features, labels, 3).accuracy == 1


def test_wrong_labels_are_named_and_handled_as_asked(tmp_path: Path) -> None:
    root, chance = tmp_path / "data", np.random.default_rng(3)
    for k, name in enumerate(("red", "green", "blue")):
        for i in range(16):
            pixels = np.array(scene(100 * k + i)) // 3
            pixels[..., k] += np.uint8(chance.integers(110, 150))
            picture = Image.fromarray(pixels)
            save(picture, root / ("train" if i < 12 else "val") / name / f"{i}.png")
    (root / "train/red/3.png").rename(root / "train/blue/wrong.png")
    (root / "val/red/13.png").rename(root / "val/green/wrong.png")
    left = {}
    for choice in ("drop", "keep", "change"):
        report = convnextv2.audit(root, out=tmp_path / choice, wrong_labels=choice)
        named = {
            (f.split, f.label, f.suggested) for f in report.findings if f.kind == "wrong_label"
        }
        assert named == {("train", "blue", "red"), ("val", "green", "red")}
        rows = (tmp_path / choice / "manifest.csv").read_text().splitlines()
        left[choice] = [row.split(",")[1] for row in rows if "train/blue/wrong" in row]
        assert any("val/green/wrong" in row for row in rows)  # figures stay comparable
    assert left == {"drop": [], "keep": ["blue"], "change": ["red"]}


def test_the_better_of_an_encoder_and_the_descriptor_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(2):
        for i in range(12):
            pixels = np.array(scene(50 * k + i)) // 3
            pixels[..., k] += 150
            save(Image.fromarray(pixels), tmp_path / "data" / "ab"[k] / f"{i}.png")
    (tmp_path / "data/a/0.png").rename(tmp_path / "data/b/wrong.png")
    data, out = str(tmp_path / "data"), str(tmp_path / "pre")
    options = ["--data_dir", data, "--out", out, *SMALL, "--epochs", "1", "--decoder_dim", "8"]
    assert main(["pretrain", *options]) == 0
    report = convnextv2.audit(data, init=out, out=tmp_path / "audit", device="cpu")
    assert report.label_note.startswith(f"Judged by features of {out}")
    assert "(by a quick descriptor of small copies, 96%)" in report.label_note  # of 24, one wrong
    assert [Path(f.path).name for f in report.findings if f.kind == "wrong_label"] == ["wrong.png"]

    # An encoder that tells nothing apart, as one may that learned other images, is not believed.
    def open_blind(*args: object, **options: object) -> Embedder:
        blind = np.zeros((1, 8), np.float32)
        return replace(open_embedder(out), run=lambda pixels: blind.repeat(len(pixels), 0))

    monkeypatch.setattr(audit, "open_embedder", open_blind)
    report = convnextv2.audit(data, init=out, out=tmp_path / "blind", device="cpu")
    assert report.label_note.startswith("Judged by a quick descriptor of small copies")
    assert f"(by features of {out}" in report.label_note
    assert [Path(f.path).name for f in report.findings if f.kind == "wrong_label"] == ["wrong.png"]


def test_labels_that_nothing_explains_are_not_judged(tmp_path: Path) -> None:
    for i in range(30):
        save(scene(i), tmp_path / "data" / "ab"[i % 2] / f"{i}.png")
    report = convnextv2.audit(tmp_path / "data", out=tmp_path / "out")
    assert report.findings == [] and "a better encoder" in report.label_note


def test_few_images_are_not_judged(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b")):
        for i in range(3):
            save(scene(10 * k + i), tmp_path / "data" / name / f"{i}.png")
    report = convnextv2.audit(tmp_path / "data", out=tmp_path / "out")
    assert report.findings == [] and "not judged" in report.label_note
