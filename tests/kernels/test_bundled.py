"""The libraries that a wheel carries: chosen, damaged, stale, unknown or absent."""

import ctypes
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import run_program

from convnextv2.errors import DeviceError
from convnextv2.kernels import build, bundled, choice, library, sources
from convnextv2.kernels.bundled import load_bundled
from convnextv2.kernels.sources import DESCRIPTION, LEVELS, file_name

ROOT = Path(__file__).parents[2]
HERE = bundled.levels_here()

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None or not HERE, reason="no g++, or a processor without levels"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as in a wheel, with the libraries of all levels."""
    folder = tmp_path_factory.mktemp("prebuilt")
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bundle_kernels.py"), str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CONVNEXTV2_LEVEL", raising=False)
    return Path(shutil.copytree(made, tmp_path / "prebuilt"))


def load(folder: Path, disagreement: Callable[[ctypes.CDLL], str] = lambda library: "") -> str:
    """Return the level that is taken; "" if none is."""
    found = load_bundled(disagreement, folder)
    return found[1] if found else ""


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr, without the folder."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(", so they are compiled here if possible.")
    return str(line)


def test_the_best_level_of_this_processor_is_taken_without_a_word(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(folder) == HERE[0]
    assert capsys.readouterr().err == ""


def test_the_levels_are_those_that_the_dynamic_linker_finds() -> None:
    linker = Path("/lib64/ld-linux-x86-64.so.2")
    if platform.machine() != "x86_64" or not linker.exists():
        pytest.skip("glibc on x86-64 only")
    run = subprocess.run([linker, "--help"], capture_output=True, text=True)
    found = re.findall(r"(x86-64-v[234]) \(supported", run.stdout)
    if not found:
        pytest.skip("a glibc that does not tell")
    assert HERE == found


@pytest.mark.parametrize(
    ("lacks", "expected"),
    [
        ((), "x86-64-v4"),
        (("avx512bw",), "x86-64-v3"),
        (("fma", "avx512f"), "x86-64-v2"),
        (("ssse3",), ""),
    ],
)
def test_a_processor_that_lacks_an_instruction_gets_a_lower_level(
    lacks: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = LEVELS["x86_64"][0].needs.difference(lacks)
    text = f"processor\t: 0\nflags\t\t: fpu {' '.join(flags)} rdpid\n"
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(Path, "read_text", lambda path, **options: text)
    assert next(iter(bundled.levels_here()), "") == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_are_those_of_the_library_compiled_here(folder: Path, threads: int) -> None:
    compiled = build.load_library(lambda built: "")
    found = load_bundled(lambda built: "", folder)
    assert isinstance(compiled, ctypes.CDLL) and found
    for dtype in (torch.float32, torch.bfloat16):
        x, gradient = (torch.randn(2, 8 * 8, 40).to(dtype) for _ in range(2))
        taps, bias, scale = torch.randn(49, 40), torch.randn(40), torch.randn(2, 40)
        cases = {
            "depthwise": ((None, 2, 16, 4, 8, 8, 40, x, taps, bias), torch.empty_like(x)),
            "depthwise_weight": ((None, 2, 16, 4, 8, 8, 40, x, gradient), torch.empty(50, 40)),
            "gelu_squares": ((0, 2, 64, 40, x), torch.empty(2, 40)),
            "gelu_scale": ((0, 2, 64, 40, x, scale, bias), torch.empty_like(x)),
            "gelu_backward": ((1, 2, 64, 40, x, gradient, scale, scale), torch.empty_like(x)),
        }
        for name, (arguments, out) in cases.items():
            results = []
            for each in (compiled, found[0]):
                out.fill_(float("nan"))
                run_with(threads, each, name, x, *arguments, out)
                assert out.isfinite().all()
                results.append(out.clone())
            assert torch.equal(*results), (name, dtype)


def run_with(threads: int, of: ctypes.CDLL, name: str, x: torch.Tensor, *arguments: object) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        library._call_in(of, name, x, *arguments)  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)


def test_no_second_openmp_runtime_comes_into_the_process(folder: Path) -> None:
    program = f"""
import re, torch
from pathlib import Path
from convnextv2.kernels.bundled import load_bundled
def runtimes():
    text = Path("/proc/self/maps").read_text()
    return set(re.findall(r"/\\S*lib(?:gomp|iomp5|omp)[-.]\\S*", text))
before = runtimes()
assert before and load_bundled(lambda library: "", Path({str(folder)!r}))
assert runtimes() == before, runtimes()
"""
    code, _, errors = run_program("-c", program)
    assert not code, errors


@pytest.mark.parametrize("length", [0, 1000, -1])
def test_a_cut_library_is_never_loaded(
    length: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / file_name(HERE[0])
    path.write_bytes(path.read_bytes()[:length])
    assert load(folder) == ""
    assert f"{path} has changed since it was built (its SHA-256 differs)" in said(capsys)


def test_a_library_that_is_no_library_is_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = b"not ELF"
    (folder / file_name(HERE[0])).write_bytes(content)
    describe(folder, libraries={HERE[0]: hashlib.sha256(content).hexdigest()})
    assert load(folder) == ""
    assert "Bundled kernels: " in said(capsys)


def describe(folder: Path, **changes: object) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sources_sha256": "0" * 64}, "were built from other sources"),
        ({"libraries": {}}, "has no library for this processor"),
        ({"libraries": {"x86-64-v9": "0" * 64}}, "has no library for this processor"),
        ({"libraries": None}, "cannot be read (TypeError)"),
        ({"libraries": 7}, "cannot be read (TypeError)"),
    ],
)
def test_a_description_that_does_not_fit_is_said(
    changes: dict[str, object], reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    describe(folder, **changes)
    assert load(folder) == ""
    assert reason in said(capsys)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b"{}"])
def test_a_damaged_description_is_said(
    content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / DESCRIPTION).write_bytes(content)
    assert load(folder) == ""
    assert "cannot be read" in said(capsys)


def test_a_missing_file_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / file_name(HERE[0])).unlink()
    assert load(folder) == ""
    assert "No such file" in said(capsys)


def test_a_library_that_computes_wrongly_is_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(folder, lambda library: "depthwise differs by 2") == ""
    assert "does not agree with PyTorch: depthwise differs by 2" in said(capsys)


def test_an_installation_without_libraries_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONVNEXTV2_LEVEL", raising=False)
    assert load(tmp_path / "none") == ""
    assert capsys.readouterr().err == ""


def test_a_level_can_be_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for level in HERE:
        monkeypatch.setenv("CONVNEXTV2_LEVEL", level)
        assert load(folder) == level
    monkeypatch.setenv("CONVNEXTV2_LEVEL", "native")
    assert load(folder) == ""


def test_a_level_that_is_not_there_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVNEXTV2_LEVEL", "x86-64-v9")
    with pytest.raises(DeviceError, match=f"x86-64-v9: expected one of {HERE[0]}"):
        load(folder)
    monkeypatch.setenv("CONVNEXTV2_LEVEL", HERE[0])
    with pytest.raises(DeviceError, match="carries no libraries"):
        load(tmp_path / "none")


def test_run_records_name_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "are_on", lambda: True)
    monkeypatch.setattr(choice, "level", lambda: "x86-64-v3")
    assert choice.in_use() == "native (x86-64-v3)"


def test_vectors_are_as_long_as_the_level_has_them(made: Path) -> None:
    """A library of a lower level would end the process where it used a higher one's registers."""
    if platform.machine() != "x86_64" or shutil.which("objdump") is None:
        pytest.skip("objdump on x86-64 only")
    for level, register in (("x86-64-v2", "%ymm"), ("x86-64-v3", "%zmm")):
        run = subprocess.run(
            ["objdump", "-d", made / file_name(level)], capture_output=True, text=True, check=True
        )
        assert register not in run.stdout
        assert "GOMP" in run.stdout


def test_a_wheel_that_is_installed_needs_no_compiler(made: Path, tmp_path: Path) -> None:
    """The package as a wheel has it: its folder with the libraries in it, and no compiler."""
    package = Path(shutil.copytree(ROOT / "convnextv2", tmp_path / "convnextv2"))
    shutil.copytree(made, package / "kernels" / "prebuilt")
    hidden = ("CONVNEXTV2_", "CXX", "PYTHONPATH")
    clean = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
    run = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_wheel.py")],
        env=clean | {"PYTHONPATH": str(tmp_path), "PATH": "/nonexistent"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert not run.returncode, run.stderr
    assert f"kernels native ({HERE[0]}), {package}" in run.stdout
    assert run.stderr == ""


def test_the_build_of_a_wheel_refuses_stale_libraries(folder: Path) -> None:
    hook = pytest.importorskip("hatchling.builders.hooks.plugin.interface")
    assert hook
    import importlib.util

    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    builder = module.BundledKernels(str(ROOT), {}, None, None, "", "wheel")
    data: dict[str, object] = {"force_include": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CONVNEXTV2_BUNDLE", raising=False)
        builder.initialize("standard", data)
        assert data == {"force_include": {}}
        patch.setenv("CONVNEXTV2_BUNDLE", str(folder))
        builder.initialize("standard", data)
        assert data["tag"] == f"py3-none-linux_{platform.machine()}"
        assert not data["pure_python"]
        describe(folder, sources_sha256="0")
        with pytest.raises(RuntimeError, match="other sources"):
            builder.initialize("standard", data)


def test_every_source_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources.sources_sha256()
    for kind in ("SOURCES", "HEADERS"):
        paths: list[Path] = getattr(sources, kind)
        for path in paths:
            changed = tmp_path / path.name
            changed.write_bytes(path.read_bytes() + b"\n")
            with monkeypatch.context() as patch:
                others = [changed if each == path else each for each in paths]
                patch.setattr(sources, kind, others)
                assert sources.sources_sha256() != before
