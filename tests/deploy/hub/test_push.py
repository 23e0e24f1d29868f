"""push: transformers and timm read what is pushed, and the Hub gets it through interruptions."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import yaml
from hub_server import Hub, serving
from json_answers import read_answer
from PIL import Image
from transformers import pipeline
from trees import CLASSES, network, photograph, save

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import CheckpointError, ConvNeXtV2Error, RecipeError, ServerError
from convnextv2.find import find_weights
from convnextv2.weights import hub as our_hub

# huggingface_hub hands bytes to httpx in a way that httpx calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")
ORIGIN = {"format": "timm", "sha256": "0" * 64}


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub of our own, whose address, token and cache hold for this process."""
    with serving() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        constants = huggingface_hub.constants
        # The client reads these from the environment when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = f"{found.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(our_hub, "_WAITS_S", (0.0, 0.0, 0.0, 0.0))
        huggingface_hub.utils.disable_progress_bars()
        yield found


def written(weights: Path, out: Path, **options: object) -> Path:
    convnextv2.push(weights, "me/trees", dry_run=True, out=out, **{"onnx": "off"} | options)
    return out


def head_of(card: str) -> dict:
    """The metadata of a card, by YAML's own parser."""
    start, head, _ = card.split("---\n", 2)
    assert not start
    return yaml.safe_load(head)


def test_pipeline_of_transformers_gives_the_probabilities_of_predict(
    weights: Path, tmp_path: Path
) -> None:
    folder = written(weights, tmp_path / "hub")
    # Square ones: transformers rounds the offset of a crop down, timm and this package to even.
    images = [str(tmp_path / f"{seed}.png") for seed in range(6)]
    for seed, path in enumerate(images):
        Image.fromarray(photograph(seed, 100, 100)).save(path)
    ours = convnextv2.predict(weights, images, top_k=4, precision="float32")
    theirs = pipeline("image-classification", model=str(folder))(images, top_k=4)
    for one, other in zip(ours, theirs, strict=True):
        named = {found["label"]: found["score"] for found in other}
        assert named.keys() == set(CLASSES)
        for found in one["predictions"]:
            assert named[found["class"]] == pytest.approx(found["prob"], abs=1e-3)


def test_timm_reads_the_folder_with_equal_probabilities(
    weights: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(weights, tmp_path / "hub", to="timm", onnx="auto")
    assert "No ONNX files for transformers.js: " in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    assert "num_classes" not in config["model_args"] and config["label_names"] == CLASSES
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    images = sorted((pictures / "val").rglob("[01].jpg"))
    for ours in convnextv2.predict(weights, images, top_k=4, precision="float32"):
        with Image.open(ours["image"]) as image, torch.inference_mode():
            theirs = model(prepare(image.convert("RGB"))[None]).softmax(-1)[0]
        for found in ours["predictions"]:
            assert float(theirs[CLASSES.index(found["class"])]) == pytest.approx(
                found["prob"], abs=0.01
            )


def test_onnx_files_have_the_names_that_transformers_js_looks_for(
    weights: Path, tmp_path: Path
) -> None:
    import onnxruntime

    folder = written(weights, tmp_path / "hub", onnx="on")
    images = torch.randn(3, 3, 64, 64)
    wanted = network()(images).softmax(-1).detach().numpy()
    for name, most in (("model.onnx", 1e-5), ("model_quantized.onnx", 0.05)):
        session = onnxruntime.InferenceSession(folder / "onnx" / name)
        assert [given.name for given in session.get_inputs()] == ["pixel_values"]
        assert [made.name for made in session.get_outputs()] == ["logits"]
        (logits,) = session.run(None, {"pixel_values": images.numpy()})
        probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        assert np.abs(probs - wanted).max() < most
    small, whole = (
        (folder / "onnx" / name).stat().st_size for name in ("model_quantized.onnx", "model.onnx")
    )
    assert small < 0.7 * whole
    head = head_of((folder / "README.md").read_text())
    assert "transformers.js" in head["tags"]


def test_card_has_licence_figures_and_origin(tmp_path: Path) -> None:
    provenance = {"init": {**ORIGIN, "licence": "cc-by-nc-4.0", "notice": "No commercial use."}}
    names = ['so: "called"', "a_b*c", "- x", "<b>"]
    weights = save(
        network(),
        tmp_path / "w",
        class_names=names,
        training={"epoch": 3, "step": 30, "top1": 0.875, "macro_f1": 0.8, "top5": None},
        provenance={**provenance, "notice": "No commercial use."},
    )
    folder = written(weights, tmp_path / "hub", about="Sorts *trees*.")
    card = (folder / "README.md").read_text()
    head = head_of(card)
    assert head["license"] == "cc-by-nc-4.0" and head["pipeline_tag"] == "image-classification"
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert [(one["type"], one["value"]) for one in result["metrics"]] == [
        ("accuracy", 0.875),
        ("f1", 0.8),
    ]
    assert result["dataset"]["split"] == "validation" and model["name"] == "trees"
    (evaluated, *_) = huggingface_hub.ModelCard(card).data.eval_results
    assert evaluated.metric_value == 0.875
    assert "No commercial use." in card and "Sorts *trees*." in card and ORIGIN["sha256"] in card
    assert r"a\_b\*c" in card and r"\<b\>" in card and "<b>" not in card
    config = json.loads((folder / "config.json").read_text())
    assert list(config["id2label"].values()) == names


def test_a_licence_that_forbids_cannot_be_replaced(tmp_path: Path, weights: Path) -> None:
    provenance = {"init": {**ORIGIN, "licence": "cc-by-nc-4.0", "notice": "n"}, "notice": "n"}
    bound = save(network(), tmp_path / "w", provenance=provenance)
    with pytest.raises(RecipeError, match="license = mit: .* are under cc-by-nc-4.0"):
        written(bound, tmp_path / "hub", license="mit")
    free = save(network(), tmp_path / "v", provenance={"init": {**ORIGIN, "licence": "apache-2.0"}})
    for options, licence in (({}, "apache-2.0"), ({"license": "mit"}, "mit")):
        folder = written(free, tmp_path / f"hub-{licence}", **options)
        assert head_of((folder / "README.md").read_text())["license"] == licence
    dino = save(
        network(),
        tmp_path / "d",
        provenance={"init": {**ORIGIN, "licence": "dinov3-license"}, "notice": "Pass it on."},
    )
    with pytest.raises(RecipeError, match="are under dinov3-license, which applies to it too"):
        written(dino, tmp_path / "hub", license="mit")
    head = head_of((written(dino, tmp_path / "dino") / "README.md").read_text())
    assert (head["license"], head["license_name"]) == ("other", "dinov3-license")
    folder = written(weights, tmp_path / "none")
    assert "license" not in head_of((folder / "README.md").read_text())
    meta = save(network(), tmp_path / "u", provenance={"notice": our_notice(), **ORIGIN})
    folder = written(meta, tmp_path / "meta")
    assert head_of((folder / "README.md").read_text())["license"] == "cc-by-nc-4.0"


def our_notice() -> str:
    from convnextv2.weights.notices import NOTICE

    return NOTICE


def test_a_push_through_failures_can_be_downloaded_again(
    weights: Path,
    pictures: Path,
    remote: Hub,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    remote.fail = [
        ("POST /api/repos/create", 503),
        ("POST /api/repos/create", "cut"),
        ("/commit/main", 503),
        ("/commit/main", "cut"),
    ]
    licensed = ["--onnx", "off", "--license", "apache-2.0", "--json"]
    assert main(["push", str(weights), "me/trees", *licensed]) == 0
    told = read_answer("push", capsys.readouterr().out)
    assert told["url"] == f"{remote.address}/me/trees" and not remote.fail
    files = remote.repositories["me/trees"]
    assert (
        sorted(files)
        == told["files"]
        == [
            "README.md",
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        ]
    )
    assert remote.is_private("me/trees")
    assert "Bearer hf_secret" in remote.tokens
    remote.fail = [("resolve", 503), ("GET /me/trees/resolve", "cut"), ("GET /api/models", 502)]
    image = pictures / "val" / "ash" / "0.jpg"
    (theirs,) = convnextv2.predict("me/trees", image, top_k=4, precision="float32")
    assert not remote.fail
    # Nothing is claimed of weights that came from nowhere else.
    notice = convnextv2.inspect("me/trees").origin.notice
    assert notice == "its model card says apache-2.0."
    (ours,) = convnextv2.predict(weights, image, top_k=4, precision="float32")
    assert [one["class"] for one in theirs["predictions"]] == [
        one["class"] for one in ours["predictions"]
    ]
    for one, other in zip(theirs["predictions"], ours["predictions"], strict=True):
        assert one["prob"] == pytest.approx(other["prob"], abs=1e-6)


def test_a_push_that_was_interrupted_goes_on_and_replaces_what_is_stale(
    weights: Path, remote: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    remote.fail = [("/commit/main", 503)] * 5
    assert main(["push", str(weights), "me/trees", "--onnx", "off"]) == 2
    told = capsys.readouterr().err
    assert "me/trees: cannot be uploaded (" in told and "Start the same command again" in told
    assert remote.repositories["me/trees"] == {}
    with pytest.raises(CheckpointError, match="has no weights"):
        find_weights("me/trees")
    remote.repositories["me/trees"] = {"onnx/model.onnx": b"old", "notes.txt": b"mine"}
    before = len(remote.objects)
    assert main(["push", str(weights), "me/trees", "--onnx", "off", "--to", "timm"]) == 0
    assert sorted(remote.repositories["me/trees"]) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]
    assert len(remote.objects) == before + 1  # timm's tensors are others


def test_the_folder_is_kept_only_after_a_push_that_succeeded(
    weights: Path, remote: Hub, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "kept"
    remote.fail = [("/commit/main", 500)] * 5
    with pytest.raises(ServerError):
        convnextv2.push(weights, "me/trees", onnx="off", out=out)
    assert not (tmp_path / "new").exists()
    convnextv2.push(weights, "me/trees", onnx="off", out=out)
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    assert kept == remote.repositories["me/trees"]
    with pytest.raises(RecipeError, match="exists already"):
        convnextv2.push(weights, "me/trees", onnx="off", out=out)


def test_a_repository_can_be_public_and_a_branch_can_be_named(weights: Path, remote: Hub) -> None:
    convnextv2.push(weights, "me/trees", onnx="off", public=True, revision="v2")
    assert not remote.is_private("me/trees") and remote.branches == ["v2"]
    assert any("/commit/v2" in line for line in remote.asked)


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "does not accept the token .* hf auth login"), (403, "may not write there")],
)
def test_a_refusal_is_one_line(weights: Path, remote: Hub, status: int, message: str) -> None:
    remote.fail = [("POST /api/repos/create", status)]
    with pytest.raises(ServerError, match=message):
        convnextv2.push(weights, "me/trees", onnx="off")
    assert len([line for line in remote.asked if "create" in line]) == 1  # it would not help


def test_mistakes_are_told_before_the_work(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: Hub
) -> None:
    for name in ("trees", "a/b/c", "me/tr ees", "me/.."):
        with pytest.raises(RecipeError, match="expected OWNER/NAME"):
            convnextv2.push("no-such-run", name)
    with pytest.raises(RecipeError, match="Say where with --out"):
        convnextv2.push("no-such-run", "me/trees", dry_run=True)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ServerError, match="there is no token .*HF_TOKEN"):
        convnextv2.push("no-such-run", "me/trees")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ServerError, match="HF_HUB_OFFLINE is set, so nothing is uploaded"):
        convnextv2.push("no-such-run", "me/trees")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConvNeXtV2Error, match="huggingface_hub is not installed"):
        convnextv2.push("no-such-run", "me/trees")
    assert not remote.asked
    with pytest.raises(RecipeError, match="onnx = on: transformers.js reads repositories for"):
        written(weights, tmp_path / "x", to="timm", onnx="on")


def test_an_encoder_is_pushed_without_classes(tmp_path: Path) -> None:
    encoder = network(num_classes=0)
    path = save(encoder, tmp_path / "w", kind="encoder", class_names=[])
    folder = written(path, tmp_path / "hub", onnx="auto")
    card = (folder / "README.md").read_text()
    assert head_of(card)["pipeline_tag"] == "image-feature-extraction"
    assert "turns images into features" in card and "AutoModel" in card


def test_base_model_is_found_through_the_runs_between(tmp_path: Path, weights: Path) -> None:
    for name, init in (("first", "timm/some.weights"), ("second", str(tmp_path / "first"))):
        (tmp_path / name / "best").mkdir(parents=True)
        (tmp_path / name / "recipe.yaml").write_text(f"init: {init}\ndata_dir: /secret/shoes\n")
        shutil.copy(weights, tmp_path / name / "best" / "model.safetensors")
    folder = written(tmp_path / "second", tmp_path / "hub")
    head = head_of((folder / "README.md").read_text())
    assert head["base_model"] == "timm/some.weights"
    assert head["base_model_relation"] == "finetune"
    text = (folder / "README.md").read_text()
    assert "/secret" not in text and not re.search(r"\b" + re.escape(os.getcwd()), text)
