"""An artifact gets its place in one step, and never that of another one by mistake."""

from pathlib import Path

import pytest

from convnextv2.deploy.export import publish
from convnextv2.errors import RunError


def made(root: Path, content: str) -> Path:
    artifact = root / "temporary" / "artifact"
    artifact.mkdir(parents=True)
    (artifact / "artifact.json").write_text(content)
    return artifact


def test_what_another_process_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "artifact.json").write_text("theirs")
    with pytest.raises(RunError, match="another process wrote it in the meantime"):
        publish(made(tmp_path, "ours"), folder, overwrite=False)
    assert (folder / "artifact.json").read_text() == "theirs"


def test_the_old_artifact_comes_back_if_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "out", Path.rename
    folder.mkdir()
    (folder / "artifact.json").write_text("old")
    new = made(tmp_path, "new")

    def fails(self: Path, target: Path) -> Path:
        if self == new:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(KeyboardInterrupt):
        publish(new, folder, overwrite=True)
    assert (folder / "artifact.json").read_text() == "old"
    monkeypatch.setattr(Path, "rename", rename)
    publish(new, folder, overwrite=True)
    assert (folder / "artifact.json").read_text() == "new"
