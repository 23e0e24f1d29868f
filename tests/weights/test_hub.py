from pathlib import Path

import huggingface_hub
import pytest

from convnextv2.errors import CheckpointError
from convnextv2.weights import hub
from convnextv2.weights.hub import download, is_hub_name, repository_of, retried


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
    def missing(name: str, **more: object) -> str:
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

    def fetch(name: str, allow_patterns: list[str], **more: object) -> str:
        asked.append("pytorch_model.bin" in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    (tmp_path / "pytorch_model.bin").touch()
    download("me/shoes")
    (tmp_path / "model.safetensors").touch()
    download("me/shoes")
    assert asked == [False, True, False]


def test_a_folder_of_the_cache_knows_its_repository() -> None:
    assert repository_of(Path("hub/models--me--shoes/snapshots/0123")) == "me/shoes"
    assert repository_of(Path("runs/shoes")) == repository_of(Path("x")) == ""


class Refusal(Exception):
    """An answer of a server, as clients raise it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = type("Response", (), {"status_code": status})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, without any."""
    made: list[float] = []
    monkeypatch.setattr(hub.time, "sleep", made.append)
    return made


def trying(*errors: Exception) -> str:
    outcomes = iter(errors)

    def request() -> str:
        if (error := next(outcomes, None)) is not None:
            raise error
        return "done"

    return retried(request)


def test_a_transient_failure_is_tried_again_after_growing_pauses(waits: list[float]) -> None:
    assert trying(Refusal(503), ConnectionResetError(), Refusal(429), TimeoutError()) == "done"
    assert waits == [1, 2, 4, 8]
    with pytest.raises(Refusal, match="status 500"):
        trying(*[Refusal(500)] * 5)


@pytest.mark.parametrize(
    "error", [Refusal(404), Refusal(403), ValueError("x"), ConnectionRefusedError()]
)
def test_a_failure_that_stays_is_not_tried_again(waits: list[float], error: Exception) -> None:
    with pytest.raises(type(error)):
        trying(error)
    assert not waits


def test_without_a_network_nobody_waits(
    waits: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An address where nobody listens, asked by the client itself."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="runs/typo: no such local file or folder"):
        download("runs/typo")
    assert not waits


@pytest.mark.parametrize("files", [[], ["config.json"]])
def test_a_repository_without_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]
) -> None:
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(CheckpointError, match="me/shoes: this repository .* has no weights"):
        download("me/shoes")
