import os
import socket
import stat
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
import torch

import convnextv2
from convnextv2.files import (
    UniqueNames,
    name_after,
    replacing,
    sha256_of,
    system_scratch,
    temporary_folders,
    write_text,
)
from convnextv2.weights.mindspore import write_ckpt
from convnextv2.weights.safetensors import write_tensors


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o027])
def test_files_have_the_permissions_of_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)})
        write_text(tmp_path / "b.txt", "b")
        write_ckpt(tmp_path / "c.ckpt", {"x": torch.ones(2)})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_a_write_that_is_interrupted_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_folders_are_made_for_a_file_and_go_if_it_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "a.txt"
    with pytest.raises(KeyboardInterrupt), replacing(path, makes_folder=True):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new").mkdir()
    with pytest.raises(KeyboardInterrupt), replacing(path, makes_folder=True):
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]  # which was there before
    with pytest.raises(OSError, match="deep"), temporary_folders(path.parent / "never"):
        path.parent.mkdir()
        raise OSError("deep")
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]
    with replacing(path, makes_folder=True) as temporary:
        temporary.write_text("a")
    assert path.read_text() == "a"


def test_the_content_is_flushed_before_the_name_points_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    done: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor: int) -> None:
        done.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        done.append(("rename", source.stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    write_text(path, "new")
    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert done == [("flush", file), ("rename", file), ("flush", folder)]


def test_the_hash_is_that_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == expected


def test_two_writers_of_one_file_do_not_mix_their_contents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        first.write_text("half of the first")
        with replacing(path) as second:
            second.write_text("the second")
        assert path.read_text() == "the second"
        first.write_text("the first")
    assert path.read_text() == "the first" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_a_live_one_keeps_its_own(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here, there = f"{zlib.crc32(socket.gethostname().encode()):08x}", "0" * 8
    names = [f".a.txt.{dead.pid}-{here}-0.tmp", f".a.txt.{os.getppid()}-{here}-0.tmp"]
    names += [f".a.txt.{dead.pid}-{there}-0.tmp", f".old.{dead.pid}-{there}-3.tmp", ".mine.tmp"]
    for name in names:
        (tmp_path / name).touch()
    folders = [f".build.{dead.pid}-{here}-1.tmp", f".build.{os.getppid()}-{here}-1.tmp"]
    for name in folders:
        (tmp_path / name / "inner").mkdir(parents=True)
    os.utime(tmp_path / names[3], (0, 0))  # nobody has written to it since 1970
    write_text(tmp_path / "b.txt", "b")
    kept = {names[1], names[2], names[4], "b.txt", folders[1]}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_what_a_killed_process_left_among_the_temporary_files_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not tmp_path itself: another test of this process may have had a folder of the same name, and
    # a process looks through a folder once.
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    code = (
        "import os, signal; from convnextv2.files import system_scratch as make\n"
        "with make('plan') as folder:\n"
        "    (folder / 'big').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(temporary)})
    [left] = temporary.iterdir()
    assert "convnextv2-plan" in left.name and (left / "big").exists()
    with system_scratch("push") as folder:
        assert list(temporary.iterdir()) == [folder]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(temporary.iterdir()) == []


def test_a_temporary_folder_that_another_user_left_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with system_scratch("plan") as first:
        number = int(first.name.split("-")[-1].removesuffix(".tmp"))
    taken = tmp_path / first.name.replace(f"-{number}.tmp", f"-{number + 1}.tmp")
    taken.symlink_to(tmp_path)  # which is not removed either
    with system_scratch("plan") as second:
        assert second.is_dir() and second != taken
    assert list(tmp_path.iterdir()) == [taken]


def test_every_temporary_folder_is_one_that_is_removed_after_a_kill() -> None:
    package = Path(convnextv2.__file__).parent
    makers = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "TemporaryDirectory" in path.read_text(encoding="utf-8")
    ]
    assert makers == []


def test_files_named_after_others_have_names_of_their_own() -> None:
    names = UniqueNames(".png")
    given = ["x/a.jpg", "y/a.jpg", "a-2.png", "z/a.b.jpg", "a.webp", ".hidden"]
    expected = ["a.png", "a-2.png", "a-2-2.png", "a.b.png", "a-3.png", ".hidden.png"]
    assert [names.after(name) for name in given] == expected
    many = [names.after(f"{i}/image.jpg") for i in range(20_000)]
    assert len(set(many)) == 20_000 and many[-1] == "image-20000.png"


@pytest.mark.parametrize("letter", ["x", "ü", "雪"])
def test_a_name_made_of_a_long_one_can_be_written(letter: str, tmp_path: Path) -> None:
    long = letter * (250 // len(letter.encode())) + ".jpg"
    name = name_after(f"folder/{long}", "-activation.png", prefix="007-")
    (tmp_path / name).touch()
    assert name.startswith(f"007-{letter}") and name.endswith(f"{letter}-activation.png")
    assert len(name.encode()) > 250
    names = UniqueNames(".png")
    for _ in range(3):
        (tmp_path / names.after(long)).touch()
    assert len(list(tmp_path.iterdir())) == 4
