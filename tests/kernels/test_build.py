"""A compiled library in the cache that is cut short, replaced, not writable or shared.

Except where processes build at the same time, a script stands in for the compiler: it copies a
library that a real one has built once, so that each test takes no time.
"""

import ctypes
import errno
import hashlib
import os
import re
import shlex
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import pytest
from processes import Program, finish_ranks, run_program

from convnextv2 import files
from convnextv2.kernels import build, choice
from convnextv2.kernels.build import load_library

pytestmark = pytest.mark.skipif(choice.choose("auto") != "native", reason="no C++ compiler")

NOBODY = 65_534
COMPILER = """#!/bin/sh
[ "$1" = --version ] && echo stand-in && exit
for out; do :; done
case "$out" in {full}*) echo "final link failed: No space left on device" >&2; exit 1;; esac
echo built >> {log}
cp {library} "$out"
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that the real compiler built."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVNEXTV2_CACHE", str(folder / "cache"))
        assert isinstance(load_library(lambda built: ""), ctypes.CDLL)
    (path,) = (folder / "cache").glob("*.so")
    return path


@pytest.fixture
def cache(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the library in it, a stand-in for the compiler, and another temporary folder."""
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER.format(library=real, log=tmp_path / "log", full=tmp_path / "full"))
    compiler.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert loads()
    assert builds(tmp_path) == 1
    return tmp_path / "cache"


def loads() -> bool:
    found = load_library(lambda built: "")
    return isinstance(found, ctypes.CDLL) and hasattr(found, "depthwise_float")


def builds(folder: Path) -> int:
    """Return the number of times that the stand-in was called."""
    return len((folder / "log").read_text().splitlines())


def kept(cache: Path) -> Path:
    """The one library in a cache, which is as its name says and has nothing beside it."""
    (path,) = cache.iterdir()
    assert path.name.endswith(f"-{hashlib.sha256(path.read_bytes()).hexdigest()}.so")
    return path


def put(path: Path, content: bytes) -> None:
    """Put another file in the place of one that this process may have loaded.

    Writing to that one would take the code away that runs when the process ends.
    """
    path.unlink()
    path.write_bytes(content)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert not out
    return err.splitlines()


def test_a_kept_library_is_loaded_without_a_word_and_without_the_compiler(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loads() and builds(cache.parent) == 1
    assert said(capsys) == []
    assert kept(cache).stat().st_mode & 0o777 == 0o644 and cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("length", [0, 1, 1_000, 60_000, 110_000, -1])
def test_a_cut_library_is_built_again_and_never_loaded(
    length: int, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kept(cache)
    whole = path.read_bytes()
    put(path, whole[:length])
    assert loads()
    (line,) = said(capsys)
    assert line.startswith(f"Kernel cache: {path} has changed since it was built")
    assert builds(cache.parent) == 2 and kept(cache).read_bytes() == whole
    assert loads() and said(capsys) == [] and builds(cache.parent) == 2


def test_a_flipped_bit_is_found(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = kept(cache)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    put(path, bytes(content))
    assert loads() and builds(cache.parent) == 2
    assert "SHA-256" in "".join(said(capsys))


def test_another_library_in_its_place_does_not_run(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, trace = tmp_path / "other.cpp", tmp_path / "trace"
    source.write_text(
        "#include <cstdio>\n__attribute__((constructor)) static void run() "
        f'{{ std::fclose(std::fopen("{trace}", "w")); }}\n'
    )
    other = tmp_path / "other.so"
    subprocess.run(["c++", "-shared", "-fPIC", str(source), "-o", str(other)], check=True)
    put(kept(cache), other.read_bytes())
    assert loads() and builds(cache.parent) == 2 and not trace.exists()
    assert len(said(capsys)) == 1
    ctypes.CDLL(str(other))
    assert trace.exists()  # the library does what this test is about


@pytest.mark.parametrize("of", ["another", "everybody"])
def test_a_library_that_another_user_may_have_planted_is_built_again(
    of: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if of == "everybody":
        kept(cache).chmod(0o666)
    elif os.getuid() == 0:
        os.chown(kept(cache), NOBODY, -1)
    else:
        pytest.skip("only root can give a file away")
    assert loads() and builds(cache.parent) == 2
    (line,) = said(capsys)
    assert ("belongs to another user" if of == "another" else "others may write to") in line


def test_a_folder_that_others_may_write_to_is_not_used(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.chmod(0o777)
    assert loads() and builds(cache.parent) == 2  # in the temporary folder
    (line,) = said(capsys)
    assert f"others may write to {cache} (chmod go-w {cache} prevents that)" in line
    assert loads() and builds(cache.parent) == 2
    kept(next((cache.parent / "tmp").iterdir()))


def test_a_folder_that_is_read_only_serves_what_it_has(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "scratch_folder", Mock(side_effect=AssertionError))
    cache.chmod(0o555)
    assert loads() and builds(cache.parent) == 1 and said(capsys) == []


def test_a_folder_that_is_read_only_is_replaced_by_the_temporary_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch_folder = build.scratch_folder

    def refuse(path: Path) -> object:
        if path.parent == cache:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return scratch_folder(path)

    monkeypatch.setattr(build, "scratch_folder", refuse)
    kept(cache).unlink()
    assert loads() and builds(cache.parent) == 2
    (line,) = said(capsys)
    assert f"cannot be kept in {cache} (" in line and "Read-only file system" in line
    assert loads() and builds(cache.parent) == 2


def test_a_full_disk_costs_a_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = cache.parent / "full"
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(full))
    assert loads() and not list(full.iterdir())
    (line,) = said(capsys)
    assert line == f"Kernel cache: the library cannot be kept in {full} (No space left on device)."


def test_a_file_where_the_folder_should_be_costs_a_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVNEXTV2_CACHE", os.environ["CXX"])
    assert loads()
    (line,) = said(capsys)
    assert f"{os.environ['CXX']}: File exists" in line and "CONVNEXTV2_CACHE" in line


def test_without_any_folder_the_plain_forms_run(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.chmod(0o777)
    own = cache.parent / "tmp" / f"convnextv2-{os.getuid()}"
    own.mkdir(mode=0o700)
    own.chmod(0o777)
    found = load_library(lambda built: "")
    assert isinstance(found, str) and "no folder can keep them" in found and "chmod go-w" in found
    assert len(said(capsys)) == 2 and not list(own.iterdir())


def test_a_library_that_does_not_agree_is_not_kept(cache: Path) -> None:
    kept(cache).unlink()
    found = load_library(lambda built: "squares differs by 1")
    assert isinstance(found, str) and found.endswith("not agree with PyTorch: squares differs by 1")
    assert not list(cache.iterdir())


def test_workers_and_other_ranks_do_not_repeat_a_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.chmod(0o777)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert loads() and said(capsys) == []


PROCESS = """
import sys, pathlib, time
from convnextv2.kernels import choice
pathlib.Path(sys.argv[1]).touch()
while len(list(pathlib.Path(sys.argv[1]).parent.glob("ready-*"))) < 2:
    time.sleep(0.01)
print(choice.choose("auto"))
"""


def test_processes_that_build_at_once_leave_one_whole_library(real: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    (cache / real.name).write_bytes(real.read_bytes()[:60_000])
    environment = {"CONVNEXTV2_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    processes = [
        Program("-c", PROCESS, tmp_path / f"ready-{i}", by=i, **environment) for i in range(2)
    ]
    for code, out, err in finish_ranks(processes):
        assert (code, out) == (0, "native\n"), err
        assert err.count("\n") <= 1, err
    assert kept(cache).read_bytes() == real.read_bytes()


def test_what_a_kill_during_the_compilation_leaves_is_removed(cache: Path) -> None:
    whole = kept(cache)
    killer = cache.parent / "killer"
    killer.write_text('#!/bin/sh\n[ "$1" = --version ] && echo killer || kill -KILL $PPID\n')
    killer.chmod(0o755)
    environment = {"CXX": str(killer), "CONVNEXTV2_CACHE": str(cache)}
    program = "from convnextv2.kernels import choice\nchoice.choose('auto')"
    assert run_program("-c", program, **environment)[0] == -signal.SIGKILL
    (left,) = set(cache.iterdir()) - {whole}
    assert left.is_dir()
    alive = cache / re.sub(r"\d+", str(os.getppid()), left.name, count=1)
    alive.mkdir()
    files._swept.clear()  # as in a process that has just started
    assert loads() and not left.exists() and alive.is_dir()
    alive.rmdir()
    assert kept(cache) == whole


def test_many_first_uses_at_once_leave_one_whole_library(cache: Path) -> None:
    whole = kept(cache).read_bytes()
    for begin in (b"", whole[:60_000]):
        put(kept(cache), begin)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda _: loads(), range(8)))
        assert kept(cache).read_bytes() == whole
    kept(cache).unlink()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: loads(), range(8)))
    assert kept(cache).read_bytes() == whole


def test_a_compiler_may_be_several_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = subprocess.SubprocessError("stop here")
    run = Mock(return_value=Mock(stdout=b"1"), side_effect=[DEFAULT, failure])
    monkeypatch.setattr(build.subprocess, "run", run)
    monkeypatch.setenv("CXX", shlex.join(["ccache", "g++"]))
    monkeypatch.setenv("CONVNEXTV2_CACHE", str(tmp_path))
    assert load_library(lambda built: "") == "ccache g++ did not build them: stop here"
    assert run.call_args_list[0].args[0] == ["ccache", "g++", "--version"]
    assert run.call_args_list[1].args[0][:3] == ["ccache", "g++", "-std=c++17"]
