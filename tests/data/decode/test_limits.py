"""The limit of pixels holds for what a decoder allocates, in memory and in time."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from convnextv2.data.decode import open_picture
from convnextv2.errors import DataError, ImageSizeError

SMALL = 300 * 300


def tiff_of(tags: dict[int, int], data: bytes) -> bytes:
    """A grey TIFF of 8 bits whose one strip or tile follows its directory."""
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 339: 1, **tags}
    begin = 8 + 2 + 12 * len(tags) + 4
    place = {273: begin, 324: begin, 279: len(data), 325: len(data)}
    lines = [
        struct.pack("<HHII", tag, 4, 1, place.get(tag, number))
        for tag, number in sorted(tags.items())
    ]
    directory = struct.pack("<H", len(lines)) + b"".join(lines) + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + data


def tiled(side: int) -> bytes:
    """An image of 16 x 16 px with one large tile."""
    packer = zlib.compressobj(1)
    rows = bytes(side)
    data = b"".join(packer.compress(rows) for _ in range(side)) + packer.flush()
    return tiff_of({322: side, 323: side, 324: 0, 325: 0}, data)


def avif_of(side: int, stated: int, **options: object) -> bytes:
    """An AVIF file whose boxes state another size than its frames have."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "avif", speed=10, **options)
    data = file.getvalue()
    assert struct.pack(">II", side, side) in data
    data = data.replace(struct.pack(">II", side, side), struct.pack(">II", stated, stated))
    data = data.replace(struct.pack(">HH", side, side), struct.pack(">HH", stated, stated))
    return data.replace(
        struct.pack(">II", side << 16, side << 16), struct.pack(">II", stated << 16, stated << 16)
    )


@pytest.mark.parametrize("pages", [False, True], ids=["still", "moving"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_frames_of_an_avif_count(mode: str, pages: bool) -> None:
    images = [Image.new(mode, (512, 512), colour) for colour in ("red", "blue")]
    options = {"save_all": True, "append_images": images[1:]} if pages else {}
    data = avif_of(512, 16, **options)
    with pytest.raises(
        ImageSizeError,
        match=r"^x: states 16 x 16 px, but its frames of 512 x 512 px are more than "
        rf"max_image_pixels = {SMALL}\.$",
    ):
        open_picture(data, name="x", max_pixels=SMALL)
    assert open_picture(data, name="x", max_pixels=512 * 512).held_pixels == 512 * 512


def test_tiles_of_a_tiff_count() -> None:
    with pytest.raises(
        ImageSizeError,
        match=r"^x: states 16 x 16 px, but its tiles of 512 x 512 px are more than "
        rf"max_image_pixels = {SMALL}\.$",
    ):
        open_picture(tiled(512), name="x", max_pixels=SMALL)
    picture = open_picture(tiled(512), name="x", max_pixels=512 * 512)
    assert picture.held_pixels == 512 * 512 and picture.decode().shape == (3, 16, 16)


def test_a_size_that_is_stated_twice_counts_as_the_larger() -> None:
    tags = {256: 16, 257: 16, 273: 0, 278: 16, 279: 0}
    data = tiff_of(tags, zlib.compress(bytes(256)))
    assert open_picture(data, name="x", max_pixels=SMALL).decode().shape == (3, 16, 16)
    again = data.replace(struct.pack("<HHII", 339, 4, 1, 1), struct.pack("<HHII", 256, 4, 1, 70000))
    with pytest.raises(ImageSizeError, match="70000 x 16 px"):
        open_picture(again, name="x", max_pixels=SMALL)


def test_very_many_strips_and_scans_are_refused() -> None:
    data = tiff_of({273: 0, 278: 1, 279: 0}, b"")
    many = data.replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 273, 4, 300_000))
    with pytest.raises(DataError, match="more than 262144 strips or tiles"):
        open_picture(many, name="x", max_pixels=SMALL)
    scans = tiff_of({259: 7, 273: 0, 278: 16, 279: 0}, b"\xff\xda" * 17)
    with pytest.raises(DataError, match="more than 16 scans"):
        open_picture(scans, name="x", max_pixels=SMALL)


def test_canvas_and_frames_of_a_gif_count() -> None:
    file = io.BytesIO()
    Image.new("P", (20, 10)).save(file, "gif")
    data = bytearray(file.getvalue())
    at = data.index(b",")  # of the first frame, which says how large it is
    struct.pack_into("<HH", data, at + 5, 60_000, 60_000)
    with pytest.raises(ImageSizeError, match="but its frame of 60000 x 60000 px"):
        open_picture(bytes(data), name="x", max_pixels=SMALL)
    data[:10] = b"GIF89a" + struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(ImageSizeError, match="60000 x 60000 px are more"):
        open_picture(bytes(data), name="x", max_pixels=SMALL)


@pytest.mark.parametrize("kind", ["VP8X", "VP8L", "VP8 "])
def test_the_canvas_of_a_webp_counts_before_it_is_allocated(kind: str) -> None:
    side = 16_384 if kind == "VP8X" else 16_383
    if kind == "VP8X":
        head = bytes([16, 0, 0, 0]) + 2 * (side - 1).to_bytes(3, "little")
    elif kind == "VP8L":
        head = b"\x2f" + ((side - 1) | (side - 1) << 14).to_bytes(4, "little") + bytes(9)
    else:
        head = b"\x10\0\0\x9d\x01\x2a" + 2 * side.to_bytes(2, "little") + bytes(9)
    body = b"WEBP" + kind.encode() + struct.pack("<I", len(head)) + head
    data = b"RIFF" + struct.pack("<I", len(body)) + body
    with pytest.raises(ImageSizeError, match=f"{side} x {side} px are more"):
        open_picture(data, name="x", max_pixels=SMALL)


def jpeg2000(encoded, image: Image.Image, **options: object) -> bytearray:
    return bytearray(encoded(image, "jpeg2000", **options))


@pytest.mark.parametrize("boxed", [False, True], ids=["j2k", "jp2"])
def test_tables_of_a_jpeg_2000_are_bounded(boxed: bool, photograph, encoded) -> None:
    image = photograph.resize((520, 520))
    options = {"no_jp2": not boxed}
    size = {"name": "x", "max_pixels": 520 * 520}
    plain = jpeg2000(encoded, image, **options)
    assert open_picture(bytes(plain), **size).decode().shape == (3, 520, 520)
    for usual in ({"tile_size": (128, 128)}, {"codeblock_size": (32, 32)}, {"num_resolutions": 3}):
        data = bytes(jpeg2000(encoded, image, **options, **usual))
        assert open_picture(data, **size).decode().shape == (3, 520, 520)
    siz, cod = plain.index(b"\xff\x51"), plain.index(b"\xff\x52")
    for at, number, message in (
        (siz + 22, struct.pack(">II", 1, 1), "270400 tiles are too many"),
        (siz + 38, struct.pack(">H", 500), "500 components are more than 4"),
        (cod + 10, b"\0\0", "code blocks of 4 x 4 px are too many"),
        (siz + 6, struct.pack(">II", 60_000, 60_000), "60000 x 60000 px are more"),
    ):
        hostile = bytearray(plain)
        hostile[at : at + len(number)] = number
        with pytest.raises(DataError, match=message):
            open_picture(bytes(hostile), **size)


def test_small_precincts_of_a_jpeg_2000_are_refused(photograph, encoded) -> None:
    image = photograph.resize((520, 520))
    data = jpeg2000(encoded, image, precinct_size=(128, 128), no_jp2=True)
    size = {"name": "x", "max_pixels": 520 * 520}
    assert open_picture(bytes(data), **size).decode().shape == (3, 520, 520)
    cod = data.index(b"\xff\x52")
    data[cod + 14 : cod + 2 + data[cod + 3]] = b"\0" * (data[cod + 3] - 12)
    with pytest.raises(DataError, match="code blocks of 1 x 1 px are too many"):
        open_picture(bytes(data), **size)


def test_what_is_decoded_in_python_is_bounded(encoded) -> None:
    text = b"P2 3000 2000 255\n" + b"1 " * 10
    with pytest.raises(DataError, match="6000000 px in text or run lengths"):
        open_picture(text, name="x", max_pixels=10**8)
    bmp = bytearray(encoded(Image.new("P", (3000, 2000)), "bmp"))
    struct.pack_into("<I", bmp, 30, 1)
    with pytest.raises(DataError, match="6000000 px in text or run lengths"):
        open_picture(bytes(bmp), name="x", max_pixels=10**8)


CHILD = """
import re, sys
from pathlib import Path
from convnextv2.data.decode import decode
from convnextv2.errors import DataError

def memory(key):
    return int(re.search(rf"{key}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

for path in sys.argv[2:]:
    data = Path(path).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    try:
        decode(data, name="x", max_pixels=int(sys.argv[1]))
        said = "read"
    except DataError as error:
        said = str(error)
    print(memory("VmHWM") - before, said)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory"
)
def test_memory_is_bounded_by_the_limit(tmp_path: Path, encoded) -> None:
    """32 bytes for each pixel of the limit, whatever a file of a few kB asks for."""
    budget = 1_000_000
    honest = Image.effect_noise((1000, 1000), 60).convert("RGB")
    files = {
        "tile": tiled(8192),
        "frame": avif_of(2048, 16),
        "wide.png": encoded(honest, "png"),
        "wide.webp": encoded(honest, "webp"),
        "wide.avif": encoded(honest, "avif", speed=10),
        "wide.jp2": encoded(honest, "jpeg2000", codeblock_size=(16, 16)),
        "wide.jpg": encoded(honest, "jpeg", progressive=True)[:-2],
        "wide.tif": encoded(honest, "tiff", compression="tiff_lzw"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    warm = [str(tmp_path / "warm.png")]
    Image.new("RGB", (8, 8)).save(warm[0])
    paths = warm + [str(tmp_path / name) for name in files]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(budget), *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = dict(zip(files, child.stdout.splitlines()[1:], strict=True))
    for name, line in lines.items():
        taken, said = line.split(" ", 1)
        fits = said == "read" if name.startswith("wide") else "more than max_image_pixels" in said
        assert fits, line
        assert int(taken) < 32 * budget + 3 * len(files[name]) + (4 << 20), (name, line)
