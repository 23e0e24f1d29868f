from pathlib import Path

import pytest
from image_tables import IMAGES, place


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    place(IMAGES)
    return tmp_path
