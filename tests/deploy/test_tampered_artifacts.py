"""Artifacts that somebody has changed, or made to do harm, are refused."""

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from convnextv2.deploy.artifact import Artifact, json_object, open_artifact
from convnextv2.deploy.formats import ARTIFACT_FORMATS
from convnextv2.errors import ArtifactError

Exported = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


def test_a_changed_artifact_is_refused(exported: Exported, tmp_path: Path) -> None:
    copy = shutil.copytree(exported("torch"), tmp_path / "copy")
    model = copy / "model.pt2"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    for use in (Artifact.check, lambda artifact: artifact.open(1)):
        with pytest.raises(ArtifactError, match="does not match its SHA-256 in artifact.json"):
            use(open_artifact(copy))
    model.unlink()
    with pytest.raises(ArtifactError, match="model.pt2 is missing"):
        open_artifact(copy)
    for text in ("{}", "[1, 2]", "\xff", '{"artifact": 7}'):
        (copy / "artifact.json").write_text(text, encoding="latin-1")
        with pytest.raises(ArtifactError, match="Export the model again"):
            open_artifact(copy)


def test_lists_too_deep_to_be_read_are_no_json_object(tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text("[" * 50_000)
    with pytest.raises(ValueError, match="too deeply"):
        json_object(tmp_path / "certificate.json")


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("member", ["sample inputs", "a constant"])
def test_pickled_objects_in_an_artifact_of_pytorch_are_not_run(
    member: str, exported: Exported, tmp_path: Path
) -> None:
    copy = shutil.copytree(exported("torch"), tmp_path / "copy")
    trace, model = tmp_path / "trace", copy / "model.pt2"
    evil = pickle.dumps(Payload(trace))
    pickle.loads(evil)
    assert trace.exists()  # so the payload works
    trace.unlink()
    with zipfile.ZipFile(model) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    top = next(iter(content)).partition("/")[0]
    if member == "a constant":
        config = next(name for name in content if name.endswith("constants_config.json"))
        constant = {
            "path_name": "opaque_obj_0",
            "is_param": False,
            "use_pickle": True,
            "tensor_meta": None,
        }
        content[config] = json.dumps({"config": {"x": constant}}).encode()
        content[f"{top}/data/constants/opaque_obj_0"] = evil
    else:
        buffer = io.BytesIO()
        torch.save(Payload(trace), buffer)
        content[f"{top}/data/sample_inputs/model.pt"] = buffer.getvalue()
    with zipfile.ZipFile(model, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    card = json.loads((copy / "artifact.json").read_text())
    card["files"]["model.pt2"] = hashlib.sha256(model.read_bytes()).hexdigest()
    (copy / "artifact.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="holds pickled objects"):
        open_artifact(copy).open(1)
    assert not trace.exists()


def test_a_card_cannot_name_files_outside_its_folder(exported: Exported, tmp_path: Path) -> None:
    copy = shutil.copytree(exported("torch"), tmp_path / "copy")
    card = json.loads((copy / "artifact.json").read_text())
    (tmp_path / "secret").write_text("x")
    card["files"]["../secret"] = "0" * 64
    (copy / "artifact.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="secret is missing"):
        open_artifact(copy)


def compiled_for(**stated: str) -> dict[str, bytes]:
    """A package without code that says for which machine it was compiled."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model/data/aotinductor/model/c.wrapper_metadata.json", json.dumps(stated))
    return {"model.pt2": content.getvalue()}


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"AOTI_MACHINE": "riscv64", "AOTI_CPU_ISA": ""}, "riscv64"),
        ({"AOTI_MACHINE": "x86_64", "AOTI_CPU_ISA": "AVX512 AMX_TILE"}, "x86_64 with amx_tile"),
        ({"AOTI_MACHINE": "x86_64", "AOTI_CPU_ISA": "AVX512 AVX512_VNNI"}, ""),
        ({}, ""),
    ],
)
def test_code_for_another_processor_is_refused_before_it_is_loaded(
    stated: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cpu = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
    monkeypatch.setattr(Path, "read_text", lambda path, **options: cpu)
    loaded: list[io.BytesIO] = []
    monkeypatch.setattr(torch._inductor, "aoti_load_package", loaded.append)
    aoti = ARTIFACT_FORMATS["aoti"]
    if not told:
        aoti.open(compiled_for(**stated), "float32", 1)
        assert loaded[0].tell() == 0
        return
    with pytest.raises(ArtifactError, match=rf"another kind of processor \({told}\). Export"):
        aoti.open(compiled_for(**stated), "float32", 1)
    assert not loaded


def test_a_folder_for_temporary_files_that_is_missing_is_no_reason_to_export_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(content: io.BytesIO) -> None:  # as PyTorch does where TMPDIR is missing or full
        raise RuntimeError("Error generating temporary directory: No such file or directory")

    monkeypatch.setattr(torch._inductor, "aoti_load_package", load)
    with pytest.raises(ArtifactError, match="Set TMPDIR to a folder that can be written"):
        ARTIFACT_FORMATS["aoti"].open(compiled_for(), "float32", 1)
