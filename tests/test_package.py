"""The package as a product: its public face, its start-up, its wheel."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import yaml

import convnextv2

ROOT = Path(__file__).parents[1]


def test_public_names_are_these_and_all_resolve() -> None:
    assert convnextv2.__all__ == [
        "ConvNeXtV2", "ConvNeXtV2Error", "FCMAE", "Predictor", "audit", "benchmark", "compare",
        "convert", "create_model", "demo", "embed", "explain", "export", "infer", "inspect",
        "models", "pack_data", "plan", "predict", "pretrain", "probe", "push", "recipes",
        "reconstruct", "replay", "serve", "statistics", "train", "validate",
    ]  # fmt: skip
    assert all(callable(getattr(convnextv2, name)) for name in convnextv2.__all__)


def test_help_and_recipes_do_not_import_torch() -> None:
    for arguments in ("['--help']", "['recipes']", "['train', '--help']"):
        script = (
            "import sys\nfrom convnextv2.cli import main\n"
            f"assert main({arguments}) == 0\nassert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_changelog_begins_with_the_version() -> None:
    newest = re.search(r"^## \[(\d.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] == convnextv2.__version__


def test_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == convnextv2.__version__


def requirements() -> dict[str, str]:
    """Read what pyproject.toml asks for, of itself and of its extras.

    Returns:
        The versions by the name of the package, without markers.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = {}
    for text in sum(project["optional-dependencies"].values(), project["dependencies"]):
        name, extras, versions = re.fullmatch(r"([\w.-]+)(\[.+])?([^;]*)(?:;.*)?", text).groups()  # type: ignore[union-attr]
        if extras:
            assert name == project["name"]
            continue
        assert found.setdefault(name, versions.strip()) == versions.strip(), (
            f"{name} has two bounds"
        )
    return found


def test_lowest_versions_are_those_that_are_tested() -> None:
    """Two lists, as a file of constraints knows no lower bounds."""
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    pinned = dict(
        line.partition(";")[0].strip().split("==") for line in lines if not line.startswith("#")
    )
    stated = {
        name: re.match(r">=([\d.]+)(,|$)", versions) for name, versions in requirements().items()
    }
    assert {name: found and found[1] for name, found in stated.items()} == pinned


def test_extras_that_messages_name_bring_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = 0
    for path in (ROOT / "convnextv2").rglob("*.py"):
        for package, extra in re.findall(
            r'MissingPackageError\("([\w-]+)", "(\w+)"\)', path.read_text()
        ):
            assert any(text.startswith(package) for text in extras[extra]), (path, package)
            named += 1
    assert named >= 4


def test_nothing_tells_to_install_this_project_from_a_registry() -> None:
    """It is in no registry: somebody else could take its name there, and would be installed."""
    texts = [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "convnextv2").rglob("*.py"),
        ROOT / "Dockerfile",
    ]
    lines = [
        line for path in texts for line in path.read_text().splitlines() if "pip install" in line
    ]
    assert len(lines) >= 5
    assert [line for line in lines if re.search(r"pip install [^`)]*convnextv2\b(?!/)", line)] == []


def context(folder: Path) -> None:
    """List what .dockerignore leaves of the checkout.

    It shuts out everything, and then lets names at the top through.
    """
    shut_out, *lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert shut_out == "*"
    for name in [line[1:] for line in lines if line.startswith("!")]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, folder / name)


def test_wheel_outside_the_checkout_finds_recipes_and_images_and_runs_the_demo(
    tmp_path: Path,
) -> None:
    # From what the Dockerfile's COPY takes, which has to be enough.
    context(tmp_path / "context")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--outdir",
        str(tmp_path),
        str(tmp_path / "context"),
    ]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(tmp_path / "venv", with_pip=False)  # that of this environment installs into it
    python = tmp_path / "venv" / "bin" / "python"
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            wheel,
        ],
        check=True,
    )
    # The dependencies are those of this environment; the package itself must be the wheel's.
    packages = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "deps"), "OMP_NUM_THREADS": "2"}
    (tmp_path / "deps").mkdir()
    for entry in packages.iterdir():
        if not entry.name.startswith(("convnextv2", "_convnextv2", "__editable__")):
            (tmp_path / "deps" / entry.name).symlink_to(entry)
    script = (
        "import convnextv2\nassert 'venv' in convnextv2.__file__\nconvnextv2.recipes()\n"
        "from convnextv2.verbs.demo import QUICK\nQUICK['num_samples'] = 128\n"
        "convnextv2.demo(quick=True)"
    )
    done = subprocess.run(
        [python, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "small_data" in done.stdout
    assert (tmp_path / "runs" / "demo" / "train" / "report.html").stat().st_size > 50_000
