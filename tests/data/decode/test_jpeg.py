"""Files with stray bytes are read, files that are cut are refused, simplejpeg changes nothing."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from convnextv2.data.decode import jpeg as module
from convnextv2.data.decode import open_picture
from convnextv2.errors import DataError


@pytest.fixture(params=[True, False], ids=["simplejpeg", "Pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(module, "_simplejpeg", None)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def scan_header(data: bytes) -> int:
    """Return where the header of the first scan begins."""
    return data.index(b"\xff\xda")


def with_wrong_scan_header(data: bytes) -> bytes:
    end = scan_header(data) + 2 + int.from_bytes(data[scan_header(data) + 2 :][:2], "big")
    assert data[end - 3 : end] == b"\0\x3f\0"
    return data[: end - 2] + b"\0\0" + data[end:]


STRAY = {
    "wrong-scan-header": with_wrong_scan_header,
    "junk-before-the-end": lambda data: data[:-2] + b"\x12\x34\x56" + data[-2:],
    "zeros-before-the-end": lambda data: data[:-2] + bytes(500) + data[-2:],
    "junk-between-segments": lambda data: (
        data[:2] + segment(0xFE, b"text") + b"\x11\x22" + data[2:]
    ),
    "no-end": lambda data: data[:-2],
    "half-an-end": lambda data: data[:-1],
    "no-end-but-zeros": lambda data: data[:-2] + bytes(1000),
    "film-behind": lambda data: data + b"\xff\xda\0\0film" * 500,
}


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("damage", STRAY.values(), ids=STRAY)
def test_stray_bytes_change_no_pixel(damage, channels, photograph, encoded, read) -> None:
    data = encoded(photograph, "jpeg", quality=90)
    opened = Image.open(io.BytesIO(data))
    opened.draft("L" if channels == 1 else "RGB", None)
    expected = np.asarray(opened).reshape(43, 61, channels)
    assert (read(damage(data), channels) == expected).all()


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("stray", [b"", b"\x12\x34"], ids=["intact", "stray"])
def test_a_reduced_picture_is_what_libjpeg_makes_of_it(
    reduction: int, channels: int, orientation: int, stray: bytes, photograph, encoded
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photograph.resize((96, 80))
    data = encoded(image, "jpeg", quality=90, subsampling=2, exif=exif)
    data = data[:-2] + stray + data[-2:]
    opened = Image.open(io.BytesIO(data))
    opened.draft("L" if channels == 1 else "RGB", (96 // reduction, 80 // reduction))
    expected = np.asarray(opened).reshape(80 // reduction, 96 // reduction, channels)
    picture = open_picture(data, name="x", channels=channels, max_pixels=10**6)
    pixels = picture.decode(reduction).permute(1, 2, 0).numpy()
    turned = np.rot90(expected, -1) if orientation == 6 else expected
    assert pixels.shape == turned.shape and (pixels == turned).all()


def test_a_picture_decodes_again_at_another_scale(photograph, encoded) -> None:
    data = encoded(photograph, "jpeg")[:-2]
    picture = open_picture(data, name="x", max_pixels=10**6)
    assert picture.decode(2).shape == (3, 22, 31) and picture.decode().shape == (3, 43, 61)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("restarts", [0, 3])
@pytest.mark.parametrize("rows", [16, 96, 160, 224])
def test_a_cut_file_says_how_much_of_it_is_there(rows, restarts, encoded) -> None:
    """The decoder's oracle: a file of the upper part alone is as long as what is there."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 64, 3)).astype(np.uint8)
    options = {"quality": 90, "subsampling": 0, "restart_marker_blocks": restarts}
    data = encoded(Image.fromarray(noise), "jpeg", **options)
    upper = encoded(Image.fromarray(noise[:rows]), "jpeg", **options)
    begin = scan_header(data)
    kept = data[: begin + len(upper) - scan_header(upper)]
    with pytest.raises(DataError, match=r"^x: is cut short: about \d+ % of its rows are") as error:
        open_picture(kept, name="x", max_pixels=10**6).decode()
    share = int(str(error.value).split("about ")[1].split(" %")[0])
    assert abs(share - 100 * rows / 256) <= 4


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("scan", range(1, 10))
def test_a_progressive_file_cut_between_two_scans_is_cut(scan, photograph, encoded) -> None:
    data = encoded(photograph, "jpeg", progressive=True)
    begins = [at for at in range(len(data)) if data.startswith(b"\xff\xda", at)]
    assert len(begins) == 10
    tables = data.rindex(b"\xff\xc4", 0, begins[scan])
    for end in (begins[scan], tables if tables > begins[scan - 1] else begins[scan]):
        with pytest.raises(DataError, match="is cut short: it ends before the last of its scans"):
            open_picture(data[:end], name="x", max_pixels=10**6).decode()


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("progressive", [False, True])
def test_no_cut_gives_wrong_pixels(progressive, photograph, encoded, read) -> None:
    data = encoded(photograph.resize((40, 32)), "jpeg", quality=60, progressive=progressive)
    whole = read(data)
    outcomes = []
    for end in range(scan_header(data), len(data)):
        try:
            outcomes.append(bool((read(data[:end]) == whole).all()))
        except DataError as error:
            assert "cut short" in str(error) or "truncated" in str(error)
    assert outcomes and all(outcomes)


def test_a_second_half_of_zeros_is_missing(photograph, encoded, read) -> None:
    data = encoded(photograph, "jpeg", quality=90)
    with pytest.raises(DataError, match="is cut short: about"):
        read(data[:-300] + bytes(300))


def bare(frame: int, scans: list[tuple[int, int, int]], side: int) -> bytes:
    """A grey JPEG whose scans are empty."""
    made = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64))
    made += segment(frame, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    made += b"".join(segment(0xDA, b"\1\1\0" + bytes(scan)) for scan in scans)
    return made + b"\xff\xd9"


@pytest.mark.parametrize(("frame", "most"), [(0xC2, 16), (0xCA, 2)], ids=["Huffman", "arithmetic"])
def test_scans_times_pixels_are_bounded(frame: int, most: int) -> None:
    scans = [(0, 0, 1), (1, 63, 1)] + [(0, 0, 0x10)] * (most - 1)
    open_picture(bare(frame, scans[:most], 500), name="x", max_pixels=250_000)
    began = time.perf_counter()
    with pytest.raises(DataError, match=f"more than {most} scans.*for so large an image"):
        open_picture(bare(frame, scans, 500), name="x", max_pixels=250_000)
    open_picture(bare(frame, scans, 200), name="x", max_pixels=250_000)  # smaller: more of them
    assert time.perf_counter() - began < 1


def test_metadata_of_many_kinds_cost_nothing(photograph, encoded, read) -> None:
    data = encoded(photograph, "jpeg", quality=90)
    exif = segment(0xE1, b"Exif\0\0" + b"\xff" * 40)
    mpf = segment(0xE2, b"MPF\0" + b"II*\0\xff\xff\xff\x7f" + b"\1" * 30)
    profile = segment(0xE2, b"ICC_PROFILE\0\1\3" + b"\xff" * 30)
    photoshop = segment(0xED, b"Photoshop 3.0\0008BIM" + b"\xff" * 7)
    for damaged in (exif, mpf, profile, photoshop):
        assert (read(data[:2] + damaged + data[2:]) == read(data)).all()
