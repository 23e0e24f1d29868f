"""Tables of images, and images that they list, for tests of how tables are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from convnextv2.data.manifest import Table, read_table
from convnextv2.errors import DataError

IMAGES = ("hat/1.jpg", "hat/2.jpg", "shoe/3.jpg")
ROWS = "hat/1.jpg,hat\nhat/2.jpg,hat\nshoe/3.jpg,shoe\n"


def place(images: Sequence[str]) -> None:
    for image in images:
        Path(image).parent.mkdir(parents=True, exist_ok=True)
        Path(image).touch()


def read(content: str | bytes, name: str = "list.csv", **options: Any) -> Table:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(name, **options)


def refused(content: str | bytes, name: str = "list.csv", **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(content, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
