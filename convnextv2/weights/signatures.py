"""Recognises files that this package cannot read weights from, so that errors say what they are."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

SIGNATURE_BYTES = 512
"""The number of bytes at the start of a file by which its kind is recognised."""

_DOWNLOAD = "Download the file itself"
_SAVE = "Where it was made, save model.state_dict() with torch.save or as safetensors instead."
_STARTS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        f"is a Git LFS pointer, not the file it points to. {_DOWNLOAD}: git lfs pull.",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "is an HDF5 file (Keras, MATLAB), which is not read. Convert it to safetensors.",
    ),
    (b"\x93NUMPY", "is a NumPy array without names. Save the tensors by name as safetensors."),
    (b"GGUF", "is a GGUF file (llama.cpp), which is not read."),
    (b"\x1f\x8b", "is compressed with gzip. Unpack it first."),
    (b"BZh", "is compressed with bzip2. Unpack it first."),
    (b"\xfd7zXZ", "is compressed with xz. Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd. Unpack it first."),
    (b"7z\xbc\xaf", "is a 7z archive. Unpack it first."),
    (b"Rar!", "is a RAR archive. Unpack it first."),
    (b"\x89PNG", "is an image, not weights."),
    (b"\xff\xd8\xff", "is an image, not weights."),
    (b"%PDF", "is a PDF document, not weights."),
)
_ARCHIVES: tuple[tuple[str, str], ...] = (
    (r"(.*/)?constants\.pkl", f"is a TorchScript archive (torch.jit.save), a program. {_SAVE}"),
    (r"(.*/)?archive_format", f"is a torch.export program, not a checkpoint. {_SAVE}"),
    (
        r"(.*/)?(serialized_exported_program\.json|serialized_state_dict\.\w+)",
        f"is a torch.export program. {_SAVE}",
    ),
    (r"(.*/)?\.data/extern_modules", f"is a torch.package archive, a program. {_SAVE}"),
    (r"model\.weights\.h5", "is a Keras model, which is not read. Convert it to safetensors."),
    (r".*\.npy", "is a NumPy archive (.npz), which is not read. Save its arrays as safetensors."),
    (r"word/.*|xl/.*|ppt/.*", "is an office document, not weights."),
)
_TENSORFLOW = re.compile(r"\.index$|\.data-\d{5}-of-\d{5}$|\.pb$|\.tflite$|^checkpoint$")


def signature_of(path: Path, head: bytes, size: int) -> str:
    """Say what a file is if it cannot hold weights, and give the remedy.

    Args:
        path: Its name, which is considered if the bytes are not conclusive.
        head: Its first `SIGNATURE_BYTES` bytes.
        size: Its length in bytes.

    Returns:
        The end of a sentence that begins with the file's name; empty for a file that may hold
        weights.
    """
    if not size:
        return "is empty. Copy or download it again."
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return (
            f"is a web page about a file, not the file. {_DOWNLOAD}: on the Hugging Face Hub and "
            "on GitHub its address has /resolve/ or /raw/ in place of /blob/, and may need a "
            "login."
        )
    for start, what in _STARTS:
        if head.startswith(start):
            return what
    if head[257:262] == b"ustar":
        return (
            "is a tar archive, such as PyTorch wrote before 0.2. Unpack it, or save it once more "
            "with a newer PyTorch."
        )
    if head[4:8] == b"TFL3" or _TENSORFLOW.search(path.name):
        return "is a TensorFlow file, which is not read. Convert it to safetensors."
    if path.suffix == ".onnx" or (
        head[:1] == b"\x08" and head[1:2] <= b"\x20" and b"\x12\x07pytorch" in head[:16]
    ):
        return (
            "is an ONNX model, a program without the names of its layers. Use the checkpoint that "
            "it was exported from."
        )
    if path.suffix == ".msgpack":
        return "is a Flax checkpoint, which is not read. Convert it to safetensors."
    if _is_text(head):
        if text.startswith((b"{", b"[")):
            return (
                "is JSON, not weights. Name the folder that it lies in, if the weights are there "
                "too."
            )
        begins = head.decode("utf-8", "replace").strip().partition("\n")[0][:40].strip()
        return f"is text, not weights (it begins with {begins!r})."
    return ""


def archive_of(names: Collection[str], path: Path) -> str:
    """Say what a ZIP archive is if `torch.save` did not write it.

    Args:
        names: The names of its entries.
        path: Its name.

    Returns:
        The end of a sentence that begins with the archive's name; empty for an archive that
        `torch.save` may have written.
    """
    for pattern, what in _ARCHIVES:
        if any(re.fullmatch(pattern, name) for name in names):
            return what
    return "is a torch.export program, not a checkpoint." if path.suffix == ".pt2" else ""


def _is_text(head: bytes) -> bool:
    """Return whether bytes are text. Protobuf and pickles have control characters early on."""
    if any(byte < 32 and byte not in b"\t\r\n\f" for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # the last character may be cut in two
    return True
