import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image
from trees import network, photograph, save

from convnextv2 import predict
from convnextv2.cli import main
from convnextv2.inference.scorer import open_scorer
from convnextv2.text import counted, plain
from convnextv2.weights.description import Description
from convnextv2.weights.names import name_table
from convnextv2.weights.opened import open_weights
from convnextv2.weights.safetensors import save_weights

FORGED = (
    "ok\x1b[2K\x1b[1A\x1b[31mlicence MIT\nlicence       MIT\r\u2028x\u2029y\x85z\u202etxt\u2066a"
    "\u200bb\ufeffc\x00d\x9be"
)
"""Escapes of terminals, line ends of every kind, marks of direction, invisible characters."""


def test_nothing_that_controls_a_screen_is_left() -> None:
    for code in range(sys.maxunicode + 1):
        letter, kind = chr(code), unicodedata.category(chr(code))
        if kind in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
            assert plain(letter) != letter and plain(letter).isascii()
    assert plain(FORGED).isprintable() and plain("Straße, 猫, é, 😀") == "Straße, 猫, é, 😀"
    assert plain("\udce9") == "\\udce9" and plain(5) == "5"


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own weights whose every text is hostile."""
    folder, model = tmp_path_factory.mktemp("forged"), network()
    path = save(model, folder / "usual")
    usual = open_weights(path).description
    description = Description(
        "classifier",
        FORGED,
        model.arguments,
        class_names=[f"{FORGED}{i}" for i in range(len(usual.class_names))],
        preprocessing=usual.preprocessing,
        training={FORGED: FORGED},
        provenance={
            "notice": FORGED,
            "format": FORGED,
            "sha256": FORGED,
            "licence": FORGED,
            "init": {"format": FORGED},
        },
    )
    save_weights(folder / "weights", model.state_dict(), description)
    return folder / "weights" / "model.safetensors"


def check(captured: pytest.CaptureFixture[str]) -> None:
    shown = "".join(captured.readouterr())
    assert "licence MIT" in shown
    for line in shown.splitlines():
        assert line.isprintable() and not line.startswith("licence       MIT"), line
    assert set(shown) - {"\n"} == {letter for letter in shown if letter.isprintable()}


def test_inspect_convert_and_predict_print_plain_lines(
    forged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(forged)]) == 0
    check(capsys)
    assert main(["convert", str(forged), "--to", "official", "--out", str(tmp_path / "o.pt")]) == 0
    check(capsys)
    Image.fromarray(photograph(0)).save(tmp_path / "a.png")
    predict(forged, [tmp_path / "a.png"], device="cpu", workers=0)
    check(capsys)


def test_export_and_the_artifacts_notes_are_plain_lines(
    forged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "export",
        str(forged),
        "--format",
        "torch",
        "--images",
        "4",
        "--seconds",
        "0",
        "--workers",
        "0",
    ]
    assert main([*argv, "--out", str(tmp_path / "artifact")]) == 0
    check(capsys)
    notes = open_scorer(tmp_path / "artifact", device="cpu", precision="auto").notes
    assert any("licence MIT" in note for note in notes) and all(
        note.isprintable() for note in notes
    )


def test_names_in_checkpoints_of_others_are_plain_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network()
    table = name_table("timm", model.depths)
    tensors = {table[name]: tensor for name, tensor in model.state_dict().items()}
    torch.save({"model": tensors, FORGED: 1}, tmp_path / "x.pth")
    assert main(["inspect", str(tmp_path / "x.pth")]) == 0
    check(capsys)


def test_a_number_of_things_is_written_as_people_do() -> None:
    assert counted(1, "image(s) without a label map") == "1 image without a label map"
    assert counted(2, "image(s)") == "2 images" and counted(0, "class(es)") == "0 classes"
    assert counted(12345, "class(es) of row(s)") == "12,345 classes of rows"
