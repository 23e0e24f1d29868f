"""Damaged metadata never cost the pixels, and the orientation is read where it can be."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin, TiffTags

from convnextv2.data.decode import open_picture
from convnextv2.errors import DataError

FORMATS = ["jpeg", "png", "webp", "tiff", "avif"]


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + content)
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", right if checksum is None else checksum)
    )


DAMAGED_CHUNKS = {
    "text-of-wrong-sum": chunk(b"tEXt", b"key\0value", 1),
    "long-zTXt": chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(3 << 20))),
    "long-iTXt": chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(bytes(3 << 20))),
    "long-turning-text": chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(3 << 20))
    ),
    "long-profile": chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(3 << 20))),
    "profile-of-unknown-kind": chunk(b"iCCP", b"name\0\7" + b"x" * 9),
    "text-of-unknown-kind": chunk(b"zTXt", b"key\0\7value"),
    "exif-of-wrong-sum": chunk(b"eXIf", b"II*\0" + bytes(20), 1),
    "exif-of-noise": chunk(b"eXIf", b"\xff" * 50),
    "empty-exif": chunk(b"eXIf", b""),
    "short-gamma": chunk(b"gAMA", b"\1"),
    "short-chromaticity": chunk(b"cHRM", b"\1"),
    "short-resolution": chunk(b"pHYs", b"\1"),
    "animation-cut": chunk(b"acTL", b"\1"),
    "frames-out-of-order": chunk(b"acTL", struct.pack(">II", 3, 0))
    + chunk(b"fcTL", struct.pack(">7I2H2B", 7, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0)[:26]),
    "unknown": chunk(b"prIv", b"x", 7),
}


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("damaged", DAMAGED_CHUNKS.values(), ids=DAMAGED_CHUNKS)
def test_what_a_png_holds_beside_its_pixels_may_be_damaged(
    damaged, where, photograph, encoded, read
) -> None:
    data = encoded(photograph, "png")
    at = data.index(b"IDAT") - 4 if where == "before" else data.index(b"IEND") - 4
    pixels = read(data[:at] + damaged + data[at:])
    assert (pixels == np.asarray(photograph)).all()


def test_pixels_of_a_png_still_need_their_chunks(photograph, encoded, read) -> None:
    data = encoded(photograph, "png")
    at = data.index(b"IDAT")
    broken = bytearray(data)
    broken[at + 30] ^= 255
    header = bytearray(data)
    header[29] ^= 255  # its check sum
    for damaged, message in (
        (bytes(broken), "damaged or truncated"),
        (data[: at + 200], "damaged or truncated"),
        (bytes(header), "damaged or truncated PNG file: its header"),
    ):
        with pytest.raises(DataError, match=message):
            read(damaged)


def test_transparency_of_a_png_palette_survives(photograph, encoded, read) -> None:
    palette = photograph.quantize(20)
    data = encoded(palette, "png", transparency=3, icc_profile=b"\1" * 30)
    expected = palette.convert("RGB")
    expected.paste("white", mask=palette.point(lambda index: 255 if index == 3 else 0, "L"))
    assert (read(data) == np.asarray(expected)).all()
    assert (np.asarray(palette) == 3).any()


def test_a_png_of_very_many_chunks_is_refused(photograph, encoded, read) -> None:
    data = encoded(photograph, "png")
    at = data.index(b"IDAT") - 4
    with pytest.raises(DataError, match="more than 200000 chunks"):
        read(data[:at] + chunk(b"prIv", b"") * 200_000 + data[at:])


def turned_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", FORMATS)
def test_the_size_is_that_of_the_pixels(kind, orientation, photograph, encoded) -> None:
    data = encoded(photograph, kind, exif=turned_exif(orientation), quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    picture = open_picture(data, name="x", max_pixels=10**6)
    pixels = picture.decode().permute(1, 2, 0).numpy()
    assert (picture.height, picture.width) == expected.shape[:2] == pixels.shape[:2]
    assert expected.shape[:2] == ((61, 43) if orientation > 4 else (43, 61))
    assert (pixels == expected).all()


def test_orientation_behind_the_pixels_of_a_png_counts(photograph, encoded, read) -> None:
    data, exif = encoded(photograph, "png"), turned_exif(6).tobytes().removeprefix(b"Exif\0\0")
    at = data.index(b"IEND") - 4
    turned = data[:at] + chunk(b"eXIf", exif) + data[at:]
    assert (read(turned) == np.rot90(np.asarray(photograph), -1)).all()


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
    b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_orientation_that_only_xmp_states_counts(kind, photograph, encoded) -> None:
    if kind == "png":
        plain = encoded(photograph, "png")
        at = plain.index(b"IDAT") - 4
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        data = plain[:at] + text + plain[at:]
    else:
        data = encoded(photograph, "tiff", tiffinfo={700: XMP})
    picture = open_picture(data, name="x", max_pixels=10**6)
    assert (picture.height, picture.width) == (61, 43)
    pixels = picture.decode().permute(1, 2, 0).numpy()
    assert (pixels == np.rot90(np.asarray(photograph), -1)).all()


NOISE = {
    "noise": b"Exif\0\0" + np.random.default_rng(0).bytes(60),
    "wrong-offset": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "endless": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    "text-for-orientation": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\4\0\0\0abc\0\0\0\0\0",
    "orientation-of-99": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x63\0\0\0\0\0\0\0",
    "empty": b"Exif\0\0",
}


@pytest.mark.parametrize("exif", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_exif_that_cannot_be_read_turns_nothing(kind, exif, photograph, encoded) -> None:
    options = {"lossless": True} if kind == "webp" else {}
    expected = np.asarray(
        Image.open(io.BytesIO(encoded(photograph, kind, **options))).convert("RGB")
    )
    picture = open_picture(
        encoded(photograph, kind, exif=exif, **options), name="x", max_pixels=10**6
    )
    assert (picture.height, picture.width) == (43, 61)
    assert (picture.decode().permute(1, 2, 0).numpy() == expected).all()


def test_damaged_exif_of_an_avif_turns_nothing(photograph, encoded, read) -> None:
    exif = turned_exif(1)
    exif[0x010F] = "a camera"
    data, whole = encoded(photograph, "avif", exif=exif, quality=100), exif.tobytes()
    at = data.index(whole[6:])
    for damage in (b"\xff" * 14, b"XX*\0", whole[6:10] + b"\xff\xff\xff\x7f"):
        damaged = data[:at] + damage + data[at + len(damage) :]
        assert damaged != data and (read(damaged) == read(data)).all()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_damaged_exif_of_a_tiff_turns_nothing(compression, photograph, encoded, read) -> None:
    # In place of a private tag of a whole number, a pointer to EXIF that lies nowhere.
    for tag in (0x8769, 0x8825):
        for offset in (3, 60, 2000, 0xFFFFFFF0):
            info = TiffImagePlugin.ImageFileDirectory_v2()
            info[0x0112], info[64_000], info.tagtype[64_000] = 6, offset, TiffTags.LONG
            data = encoded(photograph, "tiff", tiffinfo=info, compression=compression)
            private = struct.pack("<HHII", 64_000, 4, 1, offset)
            assert data.count(private) == 1
            for kind, place in ((4, offset), (9, 0xFFFFFFFF)):  # the latter: -1, an error in Pillow
                damaged = data.replace(private, struct.pack("<HHII", tag, kind, 1, place))
                assert (read(damaged) == np.rot90(np.asarray(photograph), -1)).all()


def test_only_the_first_frame_of_an_animation_is_decoded(photograph, encoded, read) -> None:
    """Damage in the other frames does not matter."""
    frames = [photograph.rotate(angle) for angle in (90, 180, 270)]
    for kind in ("gif", "png", "webp"):
        options = {"lossless": True} if kind == "webp" else {}
        data = encoded(photograph, kind, save_all=True, append_images=frames, **options)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        if kind == "webp":  # libwebp wants each frame to be there
            second = data.index(b"ANMF", data.index(b"ANMF") + 4)
            third = data.index(b"ANMF", second + 4)
            data = data[: second + 60] + bytes(third - second - 60) + data[third:]
        else:
            data = data[: -len(data) // 3]
        assert (read(data) == expected).all()


def test_damaged_files_of_this_folder_are_read(read) -> None:
    folder = Path(__file__).parent / "damaged"
    assert len(list(folder.iterdir())) == 2
    phone = read((folder / "wrong-scan-header.jpg").read_bytes())
    opened = Image.open(folder / "wrong-scan-header.jpg")
    assert phone.shape == (213, 160, 3) and (phone == np.asarray(opened)).all()
    turned = read((folder / "exif-garbage.webp").read_bytes())
    opened = Image.open(folder / "exif-garbage.webp")
    opened.load()
    assert turned.shape == (213, 160, 3) and (turned == np.asarray(opened.convert("RGB"))).all()


def test_decoding_leaves_the_warnings_of_other_threads_alone(
    photograph, encoded, read, monkeypatch
) -> None:
    """`warnings.catch_warnings` restores what another thread may have changed in between."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("catch_warnings is called")

    monkeypatch.setattr(warnings, "catch_warnings", forbidden)
    before = list(warnings.filters)
    assert read(encoded(photograph, "webp", exif=b"Exif\0\0damaged")).shape == (43, 61, 3)
    assert warnings.filters == before
