from pathlib import Path

import huggingface_hub
import pytest

from convnextv2.errors import CheckpointError
from convnextv2.weights.hub import download, is_hub_name, repository_of


def test_a_name_is_of_the_hub_where_nothing_local_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm" / "here").mkdir(parents=True)
    assert is_hub_name("timm/convnextv2_atto.fcmae") and is_hub_name(
        "facebook/convnextv2-tiny-1k-224"
    )
    assert not is_hub_name("timm/here")
    assert not any(
        is_hub_name(f"wights/tiny{suffix}")
        for suffix in (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
    )
    assert not any(is_hub_name(name) for name in ("tiny", "a/b/c", "../x", "/a/b"))


def test_the_error_says_that_it_is_neither_local_nor_on_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str, allow_patterns: list[str]) -> str:
        raise OSError("404 not found\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", missing)
    with pytest.raises(
        CheckpointError, match=r"runs/typo: no such local file or folder, and .* \(404 not found\)"
    ):
        download("runs/typo")


def test_a_pickle_is_fetched_only_where_there_is_no_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append("pytorch_model.bin" in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    download("me/shoes")
    (tmp_path / "model.safetensors").touch()
    download("me/shoes")
    assert asked == [False, True, False]


def test_a_folder_of_the_cache_knows_its_repository() -> None:
    assert repository_of(Path("hub/models--me--shoes/snapshots/0123")) == "me/shoes"
    assert repository_of(Path("runs/shoes")) == repository_of(Path("x")) == ""
