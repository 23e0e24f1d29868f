"""The endings follow from the formats, and files that are not read are called what they are."""

import io
import subprocess
import sys

import pytest
from PIL import Image, features

from convnextv2.data.decode import decode
from convnextv2.data.formats import FORMATS, SUFFIXES, sniff
from convnextv2.errors import DataError


def test_endings_are_those_of_all_formats() -> None:
    usual = (
        ".jpg .jpeg .jpe .jfif .pjpeg .pjp .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .ppm "
        ".pgm .pbm .pnm .pfm .avif .avifs .jp2 .j2k .j2c .jpc .jpf .jpx .npy"
    )
    assert set(usual.split()) <= SUFFIXES
    assert not SUFFIXES & {".txt", ".xml", ".json", ".pdf", ".eps", ".ps", ".heic", ".ico", ".mp4"}
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_pillow_writes_is_known_by_its_first_bytes(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, kind)
    assert sniff(file.getvalue()) == kind
    pixels = decode(file.getvalue(), name="x", max_pixels=1000)
    assert pixels.shape == (3, 16, 16) and pixels[0].float().mean() > 230


def test_endings_need_no_pytorch() -> None:
    code = "import sys, convnextv2.data.formats; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_heic_is_called_by_its_name() -> None:
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(DataError, match="^a.heic: is a HEIC image, which is not read. Convert it"):
        decode(data, name="a.heic", max_pixels=1000)
    generic = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(DataError, match="^a.heic: is a HEIC image"):
        decode(generic, name="a.heic", max_pixels=1000)


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "JPEG2000"])
def test_what_pillow_was_built_without_is_said(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    monkeypatch.setattr(features, "check", lambda feature: False)
    with pytest.raises(DataError, match=f"is {kind}, for which.*pip install --upgrade 'pillow>="):
        decode(file.getvalue(), name="x", max_pixels=1000)
