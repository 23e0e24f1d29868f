import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from convnextv2.kernels.folders import cache_folders, distrust

NOBODY = 65_534


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a home, and a folder for what is temporary."""
    monkeypatch.delenv("CONVNEXTV2_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    no_home = RuntimeError("Could not determine home directory.")
    monkeypatch.setattr(Path, "home", Mock(side_effect=no_home))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def found() -> tuple[list[Path], list[str]]:
    lines: list[str] = []
    return list(cache_folders(lines.append)), lines


def test_the_users_cache_comes_before_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / f"convnextv2-{os.getuid()}"
    folders, lines = found()
    assert folders == [own] and own.stat().st_mode & 0o777 == 0o700
    assert lines == ["Could not determine home directory; CONVNEXTV2_CACHE = FOLDER names another."]
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert found() == ([tmp_path / "home/.cache/convnextv2", own], [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert found() == ([tmp_path / "xdg/convnextv2", own], [])
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(tmp_path / "named"))
    assert found() == ([tmp_path / "named", own], [])
    for folder in ("home/.cache/convnextv2", "xdg/convnextv2", "named"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("which", ["CONVNEXTV2_CACHE", "XDG_CACHE_HOME", "home", "temporary"])
@pytest.mark.parametrize("how", ["mode 777", "mode 775", "another's", "below a mode 777"])
def test_no_folder_is_trusted_that_others_can_change(
    which: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    folder = {
        "CONVNEXTV2_CACHE": parent,
        "XDG_CACHE_HOME": parent / "convnextv2",
        "home": parent / ".cache/convnextv2",
        "temporary": parent / f"convnextv2-{os.getuid()}",
    }[which]
    folder.mkdir(parents=True, exist_ok=True)
    if which == "home":
        monkeypatch.setattr(Path, "home", lambda: parent)
    elif which == "temporary":
        monkeypatch.setattr("tempfile.tempdir", str(parent))
    else:
        monkeypatch.setenv(which, str(parent))
    assert folder in found()[0]

    if how == "another's":
        if os.getuid():
            pytest.skip("only root can give a folder away")
        os.chown(folder, NOBODY, -1)
        expected = f"{folder} belongs to another user (number {NOBODY})"
    elif how == "below a mode 777":
        folder.parent.chmod(0o777)
        expected = f"others may write to {folder.parent} (chmod o-w {folder.parent} prevents that)"
    else:
        folder.chmod(int(how.removeprefix("mode "), 8))
        expected = f"others may write to {folder} (chmod go-w {folder} prevents that)"
    folders, lines = found()
    assert folder not in folders
    (line,) = (line for line in lines if str(parent) in line)
    assert line.startswith(expected) and "CONVNEXTV2_CACHE" in line


def test_a_folder_that_all_may_use_but_only_owners_may_rename_in_is_no_danger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(tmp_path / "shared" / "mine"))
    assert found()[0][0] == tmp_path / "shared" / "mine" and found()[1] == []


def test_a_link_is_followed_to_what_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(tmp_path / "link"))
    assert str(tmp_path / "open") in found()[1][0]


def test_a_link_among_the_temporary_folders_is_not_followed(tmp_path: Path) -> None:
    own = tmp_path / f"convnextv2-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    own.symlink_to(tmp_path / "elsewhere")
    folders, lines = found()
    assert folders == [] and f"{own} is a link and not a folder" in lines[-1]


def test_roots_folder_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12_345)
    assert distrust(Path("/usr")) == ""
