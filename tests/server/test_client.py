import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from convnextv2.cli import main
from convnextv2.errors import DataError, ServerError
from convnextv2.server.client import TRIES, predict_remotely

PREDICTIONS = [{"class": "ash", "prob": 0.75}, {"class": "birch", "prob": 0.25}]
Reply = tuple[int, dict[str, str], bytes]


def good(body: bytes) -> Reply:
    """Names the first class after what was sent, so that answers can be told apart."""
    found = [PREDICTIONS[0] | {"class": body.decode()}, PREDICTIONS[1]]
    return (
        200,
        {},
        json.dumps(
            {"model": "m", "version": "1", "images": [{"image": "image 0", "predictions": found}]}
        ).encode(),
    )


def refusal(status: int, code: str = "c", **headers: str) -> Reply:
    return (
        status,
        headers,
        json.dumps({"error": {"code": code, "message": f"because {status}"}}).encode(),
    )


class Fake(ThreadingHTTPServer):
    """Gives the replies that it has been given, then good ones."""

    request_queue_size = 50

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[Reply | None] = []
        self.by_body = good
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Fake

    def do_POST(self) -> None:  # noqa: N802 - the standard library's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), body))
        reply = self.server.replies.pop(0) if self.server.replies else self.server.by_body(body)
        if reply is None:  # break off
            return
        status, headers, answer = reply
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(answer))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{i}.jpg" for i in range(20)]
    for path in paths:
        path.write_bytes(path.stem.encode())
    return [str(path) for path in paths]


def ask(
    fake: Fake, files: list[str], waited: list[float] | None = None, **options: Any
) -> list[dict[str, Any]]:
    pauses: list[float] = [] if waited is None else waited
    return list(
        predict_remotely(
            fake.address, options.pop("model", "m"), files, wait=pauses.append, **options
        )
    )


def test_predictions_come_in_the_order_of_the_files(fake: Fake, files: list[str]) -> None:
    found = ask(fake, files)
    assert [result["image"] for result in found] == files
    assert [result["predictions"][0]["class"] for result in found] == [
        Path(file).stem for file in files
    ]


def test_what_is_asked_names_model_top_k_and_key(fake: Fake, files: list[str]) -> None:
    ask(fake, files[:1], model="my shoes/2", top_k=3, api_key="secret")
    path, headers, body = fake.asked[0]
    assert path == "/v1/models/my%20shoes%2F2/predict?top_k=3" and body == b"0"
    assert (
        headers["Authorization"] == "Bearer secret"
        and headers["Content-Type"] == "application/octet-stream"
    )
    ask(fake, files[:1])
    assert "Authorization" not in fake.asked[1][1]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_temporary_refusals_are_tried_again_not_before_the_server_says(
    fake: Fake, files: list[str], status: int
) -> None:
    fake.replies = [refusal(status, Retry_After="7"), refusal(status)]
    waited: list[float] = []
    assert ask(fake, files[:1], waited)[0]["predictions"][0]["class"] == "0"
    assert len(fake.asked) == 3
    assert 7 * 0.75 <= waited[0] <= 7 * 1.25 and 0.5 * 0.75 <= waited[1] <= 0.5 * 1.25


def test_a_very_long_retry_after_is_cut_and_one_that_is_no_number_ignored(
    fake: Fake, files: list[str]
) -> None:
    fake.replies = [
        refusal(503, Retry_After="86400"),
        refusal(503, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
    ]
    waited: list[float] = []
    ask(fake, files[:1], waited)
    assert waited[0] <= 15 * 1.25 and waited[1] < 1


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500])
def test_a_refusal_for_good_is_not_tried_again(fake: Fake, files: list[str], status: int) -> None:
    fake.replies = [refusal(status)]
    waited: list[float] = []
    with pytest.raises(ServerError, match=rf"refuses .*0.jpg \({status}\): because {status}"):
        ask(fake, files[:1], waited)
    assert len(fake.asked) == 1 and not waited


@pytest.mark.parametrize("status", [413, 415])
def test_a_file_that_is_no_image_is_an_error_of_the_data(
    fake: Fake, files: list[str], status: int
) -> None:
    fake.replies = [refusal(status)]
    with pytest.raises(DataError, match=f"0.jpg: because {status}"):
        ask(fake, files[:1])
    assert len(fake.asked) == 1


def test_an_empty_file_is_the_files_fault(
    fake: Fake, files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The client finds an empty file itself. A server may also refuse one as empty."""
    (tmp_path / "empty.jpg").touch()
    fake.replies = [refusal(400, "no_image")]
    told: list[str] = []
    assert ask(fake, [str(tmp_path / "empty.jpg"), files[0]], on_bad=told.append) == []
    assert told == [
        f"{tmp_path / 'empty.jpg'}: is empty. Expected an image.",
        f"{files[0]}: because 400",
    ]
    assert main(["predict", "m", str(tmp_path / "empty.jpg"), "--server", fake.address]) == 2
    assert "empty.jpg: is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'"ok"',
        b'{"images": []}',
        b'{"images": [{"predictions": [{"name": "x"}]}]}',
        b'{"images": 1}',
    ],
)
def test_another_servers_json_is_one_line_and_not_asked_for_again(
    fake: Fake, files: list[str], body: bytes
) -> None:
    fake.replies = [(200, {}, body)]
    with pytest.raises(ServerError, match="/v1/models/m/predict: returns JSON that is not ours"):
        ask(fake, files[:1])
    assert len(fake.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_said_and_the_key_never_follows_it(
    fake: Fake, files: list[str], status: int
) -> None:
    with Fake() as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        fake.replies = [refusal(status, Location=f"{other.address}/stolen")]
        with pytest.raises(
            ServerError, match=f"redirects to '{other.address}/stolen'. Give that server's address"
        ):
            ask(fake, files[:1], api_key="TOPSECRET")
        other.shutdown()
        thread.join()
    assert not other.asked and len(fake.asked) == 1


@pytest.mark.parametrize(
    "server",
    [
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "http://",
        "https://:80",
        "ftp://host",
        "http://a b/",
        "http://u:p@host",
    ],
)
def test_an_address_that_is_none_is_not_tried(server: str, files: list[str]) -> None:
    with pytest.raises(ServerError, match="expected an address such as"):
        list(
            predict_remotely(
                server, "m", files[:1], wait=lambda _: pytest.fail("it has tried again")
            )
        )


def test_mistakes_for_good_are_not_tried_again(fake: Fake, files: list[str]) -> None:
    def again(_: float) -> None:
        pytest.fail("it has tried again")

    for key in ("two\nlines", "caf\u00e9"):
        with pytest.raises(ServerError, match="api_key: holds a line break or another character"):
            list(predict_remotely(fake.address, "m", files[:1], api_key=key, wait=again))
    with pytest.raises(ServerError, match="cannot be reached .*Check the address"):
        list(predict_remotely("http://no-such-host.invalid", "m", files[:1], wait=again))
    with pytest.raises(ServerError, match="cannot be reached .*Check the address"):
        list(predict_remotely(fake.address.replace("http:", "https:"), "m", files[:1], wait=again))


def test_it_gives_up_after_some_tries(fake: Fake, files: list[str]) -> None:
    fake.replies = [refusal(503)] * (TRIES + 1)
    waited: list[float] = []
    with pytest.raises(ServerError, match=f"after {TRIES} tries .because 503."):
        ask(fake, files[:1], waited)
    assert len(fake.asked) == TRIES and len(waited) == TRIES - 1
    assert waited[-1] > 4 * waited[0]


def test_where_one_file_fails_the_tries_of_others_are_not_waited_for(
    fake: Fake, files: list[str]
) -> None:
    fake.by_body = lambda file: refusal(404 if file == b"0" else 503)
    began = time.monotonic()
    with pytest.raises(ServerError, match="refuses .*0.jpg .404."):
        list(predict_remotely(fake.address, "m", files))
    assert time.monotonic() - began < 5


def test_broken_connections_and_answers_are_tried_again(fake: Fake, files: list[str]) -> None:
    fake.replies = [None, (200, {}, b"{"), (503, {}, b"<html>")]
    assert ask(fake, files[:1])[0]["predictions"][0]["class"] == "0"
    assert len(fake.asked) == 4


def test_an_answer_that_breaks_off_is_tried_again(fake: Fake, files: list[str]) -> None:
    fake.replies = [(200, {"Content_Length": "1000"}, b'{"images"')]
    assert ask(fake, files[:1])[0]["predictions"][0]["class"] == "0"


def test_a_server_that_is_not_there_and_an_address_that_is_none_are_one_line(
    fake: Fake, files: list[str]
) -> None:
    with pytest.raises(ServerError, match=f"after {TRIES} tries .*Is the server running"):
        list(predict_remotely("http://127.0.0.1:1", "m", files[:1], wait=lambda _: None))
    with pytest.raises(ServerError, match="expected an address such as"):
        list(predict_remotely("127.0.0.1:8000", "m", files[:1]))
    with pytest.raises(DataError, match="missing.jpg: cannot be opened"):
        ask(fake, ["missing.jpg"])


def test_predict_asks_a_server_from_the_command_line(
    fake: Fake,
    files: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONVNEXTV2_API_KEY", "from the environment")
    assert (
        main(["predict", "m", *files[:2], "--server", fake.address, "--json", "--top_k", "2"]) == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["predictions"][0]["class"] for line in lines] == ["0", "1"]
    assert fake.asked[0][1]["Authorization"] == "Bearer from the environment"
    fake.replies = [refusal(404)]
    assert main(["predict", "m", files[0], "--server", fake.address]) == 2
    assert "because 404" in capsys.readouterr().err


def test_files_that_are_no_image_are_skipped_where_that_is_asked_for(
    fake: Fake, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.replies = [refusal(415)]
    assert main(["predict", "m", files[0], "--server", fake.address, "--bad_images", "skip"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"{files[0]}: because 415 Skipped.\n") and not told.out
    assert "Of 1 image, none can be read." in told.err
    fake.replies = [refusal(415)]
    assert main(["predict", "m", files[0], "--server", fake.address]) == 2


@pytest.mark.parametrize("knob", ["device", "batch_size", "max_image_pixels"])
def test_what_the_server_decides_is_no_question_to_the_client(
    fake: Fake, files: list[str], knob: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value = "cpu" if knob == "device" else "4"
    assert main(["predict", "m", files[0], "--server", fake.address, f"--{knob}", value]) == 2
    assert f"{knob} = {value}: the server decides this." in capsys.readouterr().err
    assert not fake.asked
