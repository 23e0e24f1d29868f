from pathlib import Path

from convnextv2.data.dense.letter_case import files_ending_in, folders_called, in_either_case


def test_folders_are_found_in_any_letter_case(tmp_path: Path) -> None:
    for name in ("LABELS", "labels", "Images", "imagesets"):
        (tmp_path / name).mkdir()
    (tmp_path / "IMAGES").touch()
    found = [path.name for path in folders_called(tmp_path, "labels", "images", "other")]
    assert found == ["labels", "LABELS", "Images"]
    assert folders_called(tmp_path / "none", "labels") == []


def test_a_folder_that_cannot_be_listed_may_hold_one_that_can(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "labels").mkdir()

    def refuse(folder: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    assert folders_called(tmp_path, "labels", "images") == [tmp_path / "labels"]


def test_files_are_found_in_capitals(tmp_path: Path) -> None:
    for name in ("b.TXT", "a.txt", "c.Txt", "txt", "d.txt.png"):
        (tmp_path / name).touch()
    assert [path.name for path in files_ending_in(tmp_path, ".txt")] == ["a.txt", "b.TXT", "c.Txt"]
    assert files_ending_in(tmp_path / "none", ".txt") == []
    assert in_either_case(tmp_path / "a", ".txt") == f"{tmp_path}/a.txt"
    assert in_either_case(tmp_path / "b", ".txt") == f"{tmp_path}/b.TXT"
    assert in_either_case(tmp_path / "d", ".txt") is None
