"""A segmentor is trained, goes on, is measured, started from other weights, and used."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from maps import CLASSES, draw_maps, scene
from PIL import Image
from processes import run_alone, run_ranks
from runs import SMALL, draw, metrics, weights

import convnextv2
from convnextv2.checkpoint import read_progress
from convnextv2.cli import main
from convnextv2.errors import ConvNeXtV2Error
from convnextv2.evaluation.segmentation import count_pixels
from convnextv2.find import find_weights
from convnextv2.inference.dense import open_pixel_classifier
from convnextv2.model.upernet import Segmentor
from convnextv2.weights.restore import load_model

TASK = [
    *(SMALL + "--task segmentation --head_channels 16 --lr 0.01 --seed 3".split()),
    *"--scale_jitter 0.8,1.25 --max_class_share 1".split(),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_maps(tmp_path_factory.mktemp("maps"), train=12, val=4)


def train(data: Path, out: Path, *more: str) -> Path:
    assert main(["train", "--data_dir", str(data), "--out", str(out), *TASK, *more]) == 0
    return out


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learns to tell the rectangles."""
    out = tmp_path_factory.mktemp("runs") / "maps"
    return train(data, out, *"--epochs 8 --batch_size 2 --lr 0.003 --val_every_epochs 4".split())


def test_it_learns_and_its_report_shows_it(trained: Path) -> None:
    evals = [record for record in metrics(trained) if record["kind"] == "eval"]
    assert len(evals) == 2
    assert max(record["miou"] for record in evals) > 0.33  # background alone: 0.26
    conditions = read_progress(sorted((trained / "checkpoints").iterdir())[-1])["conditions"]
    assert conditions["validation"]["images"] == 4  # a resumed run compares them
    page = (trained / "report.html").read_text()
    for part in ("mean IoU", "Confusions", "Worst images", *CLASSES, "Validation mean IoU"):
        assert part in page


def test_its_weights_describe_themselves(trained: Path) -> None:
    model, description = load_model(trained / "best" / "model.safetensors")
    assert isinstance(model, Segmentor) and description.kind == "segmentation"
    assert description.class_names == list(CLASSES)
    assert description.arguments["num_classes"] == 3
    assert description.head == {"channels": 16, "norm": "batch", "auxiliary": True}
    assert all(tensor.is_floating_point() for tensor in model.state_dict().values())


def test_validate_measures_the_best_weights_as_training_did(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = max(record["miou"] for record in metrics(trained) if record["kind"] == "eval")
    found = convnextv2.validate(str(trained), workers=0)
    assert found.miou == pytest.approx(best, abs=1e-6)
    # the same by hand, image by image
    pixel_classifier = open_pixel_classifier(trained, device="cpu", precision="float32")
    counts = torch.zeros(3, 3, dtype=torch.int64)
    for i in range(4):
        pixels, labels = scene(1000 + i, (60 + 2 * (i % 3), 80 + 3 * (i % 2)))
        photo = np.array(Image.open(data / "images" / "val" / f"{i}.jpg"))
        predicted = pixel_classifier(torch.from_numpy(photo).permute(2, 0, 1))
        counts += count_pixels(torch.from_numpy(labels.astype(np.int16)), predicted, 3)
    assert found.confusion.tolist() == counts.tolist()

    capsys.readouterr()
    assert main(["validate", str(trained), "--workers", "0", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["miou"] == pytest.approx(best, abs=1e-6)
    assert [each["name"] for each in answer["classes"]] == list(CLASSES)
    several = convnextv2.validate(
        str(trained), workers=0, test_scales=(0.75, 1.0), test_flip=True, slide=True
    )
    assert 0 < several.miou <= 1 and several.miou != found.miou


def test_weights_without_their_run_are_measured_on_data(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copy(trained / "best" / "model.safetensors", tmp_path)
    found = convnextv2.validate(
        str(tmp_path / "model.safetensors"), data_dir=str(data), workers=0, precision="float32"
    )
    assert found.confusion.tolist() == convnextv2.validate(str(trained)).confusion.tolist()


def test_predict_writes_overlays_and_indices(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = tmp_path / "grey.png"
    Image.fromarray(scene(7)[0][..., 0]).save(grey)
    out = tmp_path / "found"
    images = [str(data / "images" / "val"), str(grey)]
    assert main(["predict", str(trained), *images, "--out", str(out), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 5
    pixel_classifier = open_pixel_classifier(trained, device="cpu")
    for answer in answers[:4]:
        index, photo, overlay = (
            np.array(Image.open(answer[name])) for name in ("index", "image", "overlay")
        )
        assert index.shape == photo.shape[:2] == (answer["height"], answer["width"])
        pixels = torch.from_numpy(photo).permute(2, 0, 1)
        assert index.tolist() == pixel_classifier(pixels).tolist()
        shares = {CLASSES[k]: float((index == k).mean()) for k in range(3) if (index == k).any()}
        assert {each["class"]: each["share"] for each in answer["classes"]} == pytest.approx(shares)
        assert overlay.shape == photo.shape
    assert (out / "classes.csv").read_text().splitlines()[1:] == ["0,background", "1,red", "2,blue"]


def halt(straight: Path, halted: Path, step: int) -> None:
    """Copy a run without the checkpoints after a step."""
    shutil.copytree(straight, halted)
    for folder in (halted / "checkpoints").iterdir():
        if not folder.name.endswith(f"step-{step:08d}"):
            shutil.rmtree(folder)


def assert_equal(straight: Path, halted: Path) -> None:
    """Compare the weights and the losses of two runs."""
    expected, found = weights(straight), weights(halted)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [each["loss"] for each in metrics(straight) if each["kind"] == "train"] == [
        each["loss"] for each in metrics(halted) if each["kind"] == "train"
    ]


STEPS = (
    "--epochs 2 --log_every_steps 1 --keep_checkpoints 9 --save_every_steps 1 --ema "
    "--ema_decay 0.9 --drop_path_rate 0.2 --photometric 0.5 --val_while_train False"
).split()


def test_a_run_goes_on_exactly_in_the_middle_of_an_epoch(data: Path, tmp_path: Path) -> None:
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    command = ["train", "--data_dir", data, *TASK, *STEPS, "--out"]
    run_alone(*command, straight)
    halt(straight, halted, 4)
    run_alone(*command, halted, "--resume")
    assert_equal(straight, halted)


def test_two_ranks_go_on_exactly_in_the_middle_of_an_epoch(data: Path, tmp_path: Path) -> None:
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    command = ["train", "--data_dir", data, *TASK, *STEPS, "--batch_size", 2, "--out"]
    run_ranks(2, *command, straight)
    halt(straight, halted, 4)
    run_ranks(2, *command, halted, "--resume")
    assert_equal(straight, halted)


def test_two_ranks_measure_every_image_once(trained: Path) -> None:
    answer = json.loads(run_ranks(2, "validate", trained, "--workers", 0, "--json"))
    alone = convnextv2.validate(str(trained), workers=0)
    assert answer["images"] == 4
    found = [each["iou"] for each in answer["classes"]]
    assert found == [each["iou"] for each in alone.to_dict()["classes"]]


def best(run: Path) -> dict[str, torch.Tensor]:
    """The weights that a run is started from."""
    return load_model(find_weights(run))[0].state_dict()


def photos(root: Path) -> Path:
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(4):
            draw(root / "train" / name / f"{i}.jpg", colour, 10 * colour + i)
    return root


def test_it_starts_from_a_classifier_an_fcmae_run_and_a_segmentor(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = ["--data_dir", str(photos(tmp_path / "photos")), *SMALL, "--epochs", "1"]
    classifier, masked = tmp_path / "classifier", tmp_path / "masked"
    assert main(["train", *images, "--val_while_train", "False", "--out", str(classifier)]) == 0
    assert main(["pretrain", *images, "--decoder_dim", "8", "--out", str(masked)]) == 0
    own = len(load_model(trained / "best" / "model.safetensors")[0].state_dict())
    encoder = sum(name.startswith("encoder.") for name in weights(masked))
    for start, loaded in ((classifier, encoder), (masked, encoder), (trained, own)):
        capsys.readouterr()
        out = tmp_path / f"from-{start.name}"
        train(data, out, "--init", str(start), "--epochs", "1", "--lr", "0", "--min_lr", "0")
        printed = capsys.readouterr().out
        assert f"{loaded} tensors loaded, 0 adapted" in printed
        assert f"{own - loaded} new." in printed
        name = "pyramid.encoder.stages.2.0.pwconv1.weight"
        theirs = best(start)
        inside = next(key for key in theirs if name.endswith(key.removeprefix("encoder.")))
        assert torch.equal(weights(out)[name], theirs[inside])


def test_of_a_segmentor_of_other_classes_the_rows_with_the_same_names_are_taken(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw_maps(tmp_path / "data")
    (data / "classes.csv").write_text("id,name\n0,background\n1,red\n2,navy\n3,blue\n")
    train(
        data,
        tmp_path / "run",
        "--init",
        str(trained),
        "--epochs",
        "1",
        "--lr",
        "0",
        "--min_lr",
        "0",
    )
    assert "rows of 3 of 4 classes, by name" in capsys.readouterr().out
    name = "decode_head.conv_seg.weight"
    old, new = best(trained)[name], weights(tmp_path / "run")[name]
    assert torch.equal(new[[0, 1, 3]], old)


def test_a_classifier_starts_from_a_segmentor(trained: Path, tmp_path: Path) -> None:
    images = ["--data_dir", str(photos(tmp_path / "photos")), *SMALL, "--epochs", "1"]
    out = tmp_path / "run"
    more = ["--val_while_train", "False", "--init", str(trained), "--lr", "0", "--min_lr", "0"]
    assert main(["train", *images, *more, "--out", str(out)]) == 0
    name = "stages.2.0.pwconv1.weight"
    assert torch.equal(weights(out)[name], best(trained)[f"pyramid.encoder.{name}"])


def test_a_last_batch_of_one_image_is_learned_from(data: Path, tmp_path: Path) -> None:
    """12 images in batches of 11; 32 px pool to one position."""
    more = "--batch_size 11 --drop_last False --image_size 32 --epochs 1 --log_every_steps 1"
    run = train(data, tmp_path / "run", *more.split())
    losses = [each["loss"] for each in metrics(run) if each["kind"] == "train"]
    assert len(losses) == 2 and all(np.isfinite(losses))


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("--mixup 0.8", "task = segmentation: mixup is for classification only"),
        ("--teacher x --loss bce", "loss, teacher are for classification only"),
        ("--color_jitter 0.4", "photometric in place of color_jitter"),
        ("--elastic", "head_norm = group"),
        ("--test_scales 0", "test_scales"),
        ("--scale_jitter 2,1", "scale_jitter"),
        ("--image_size 16", "image_size = 16"),
        ("--ignore_values 0,1,2", "all are ignored"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    data: Path, tmp_path: Path, more: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data_dir", str(data), "--out", str(tmp_path / "run"), *TASK]
    assert main([*command, *more.split()]) == 2
    assert re.search(what, capsys.readouterr().err)


def test_verbs_for_classifiers_refuse_a_segmentor_in_a_line(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(data / "images" / "val" / "0.jpg")
    for command in (
        ["reconstruct", str(trained), image, "--out", str(tmp_path / "a.png")],
        ["infer", "--image_path", image, "--ckpt_path", str(trained)],
    ):
        assert main(command) == 2, command
        printed = capsys.readouterr().err
        assert "segment" in printed and "Traceback" not in printed, (command, printed)


def test_a_classifier_is_not_measured_as_a_segmentor(trained: Path, data: Path) -> None:
    with pytest.raises(ConvNeXtV2Error, match="is for segmentation. Leave task out"):
        convnextv2.validate(str(trained), task="classification")


def test_its_encoder_embeds_images_and_goes_to_other_libraries(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    image = str(data / "images" / "val" / "0.jpg")
    assert main(["embed", str(trained), image, "--out", str(tmp_path / "a.npy")]) == 0
    assert np.load(tmp_path / "a.npy").shape == (1, 32)
    out = tmp_path / "official.pth"
    assert main(["convert", str(trained), "--to", "official", "--out", str(out)]) == 0
    model, description = load_model(out)
    assert description.kind == "encoder"
    name = "stages.2.0.pwconv1.weight"
    own = load_model(trained / "best" / "model.safetensors")[0].state_dict()
    assert torch.equal(model.state_dict()[name], own[f"pyramid.encoder.{name}"])


def test_inspect_says_what_it_is(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(trained)]) == 0
    assert "a class for each pixel, 3 classes" in capsys.readouterr().out


def test_plan_measures_its_steps(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--data_dir", str(data), *TASK, "--epochs", "5", "--probe_seconds", "1"]
    assert main(command) == 0
    assert "5 epochs, 15 steps" in capsys.readouterr().out
