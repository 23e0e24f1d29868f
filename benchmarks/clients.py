"""Make the table of docs/how-to/deploy.md that shows what clients print of each answer.

    python benchmarks/clients.py WEIGHTS_OR_ARTIFACT PRETRAINED PHOTO

The script starts a server and asks it by curl, httpx, `convnextv2 predict --server`, tritonclient
(with JSON and with binary tensors) and, where Chromium is installed, by a browser's fetch. A cell
is "yes" if the client shows the server's own message, "no" with what it shows if it does not, and
"-" if the client has no way to ask for this. The exit code is 1 if there is a "no".

Needs `pip install 'tritonclient[http]'` beside the package's own extras.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.http as triton
import uvicorn
from tritonclient.utils import InferenceServerException

from convnextv2.errors import ConvNeXtV2Error
from convnextv2.server.app import build_app
from convnextv2.server.client import predict_remotely
from convnextv2.server.keys import Keys
from convnextv2.server.limits import Limits
from convnextv2.server.models import Models
from convnextv2.server.process import DrainingServer, bind
from convnextv2.server.prometheus import Metrics
from convnextv2.server.protocol import TimedProtocol

KEY = "secret"
JPEG = "image/jpeg"
FORM = "application/json"
CHROMIUM = shutil.which("chromium")


@dataclass
class Case:
    """One request. For tritonclient, the model and the files or the array that it sends."""

    name: str
    body: bytes = b""
    path: str = "/v1/models/m/predict"
    kind: str = JPEG
    method: str = "POST"
    key: str = KEY
    state: Callable[[], Any] = nullcontext
    model: str = "m"
    version: str = ""
    files: list[bytes] | None = None
    array: np.ndarray | None = None
    is_slow: bool = False
    more: dict[str, str] = field(default_factory=dict)


class Server:
    """The server in a thread of this process, so that the script can bring it into any state."""

    def __init__(self, sources: list[str]) -> None:
        limits = Limits(
            max_body_mb=3,
            max_images=4,
            max_queue=4,
            deadline_s=1.0,
            read_timeout_s=1.0,
            max_image_pixels=4_000_000,
        )
        self.models = Models(sources, limits, Metrics(), device="cpu", precision="float32")
        app = build_app(self.models, keys=Keys(KEY), access_log="off")

        class Protocol(TimedProtocol):
            timeout_s = limits.read_timeout_s

        self.bound = bind("127.0.0.1", 0)
        self.port = self.bound.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, http=Protocol, ws="none", log_level="critical", lifespan="on")
        self.server = DrainingServer(config, self.models, 0)
        self.thread = threading.Thread(target=self.server.run, args=([self.bound],))
        self.thread.start()
        while not self.models.is_ready:
            assert self.thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        """End it."""
        self.server.should_exit = True
        self.thread.join()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep the model busy."""
        gate = threading.Event()
        self.models.model_thread.submit(gate.wait)
        try:
            yield
        finally:
            gate.set()

    @contextmanager
    def having(self, where: Any, name: str, value: Any) -> Iterator[None]:
        """Change something of the server for a while."""
        before = getattr(where, name)
        setattr(where, name, value)
        try:
            yield
        finally:
            setattr(where, name, before)


def cases(server: Server, photo: bytes, size: tuple[int, int]) -> list[Case]:
    """List a request for every answer of the server."""
    models = server.models
    text = base64.b64encode(photo).decode()
    huge = b"P6 5000 5000 255\n"  # 25 million pixels, by the header
    pixels = np.zeros((1, *size, 3), np.uint8)

    def as_json(images: list[str]) -> bytes:
        return json.dumps({"images": images}).encode()

    full = partial(server.having, models.admission, "waiting", 4)
    return [
        Case("200", photo, files=[photo]),
        Case("200, pixels", array=pixels),
        Case("400 no_image", b"", files=[]),
        Case("400 bad_base64", as_json(["?"]), kind=FORM),
        Case("400 bad_shape", array=np.zeros((1, 7, 7, 3), np.uint8)),
        Case("400 bad_request", photo, kind="multipart/form-data; boundary=b"),
        Case("401 unauthorized", photo, key="wrong", files=[photo]),
        Case(
            "404 no_such_model",
            photo,
            path="/v1/models/shoes/predict",
            model="shoes",
            files=[photo],
        ),
        Case(
            "404 no_such_version",
            photo,
            path="/v1/models/m/versions/9/predict",
            version="9",
            files=[photo],
        ),
        Case("404 not_a_classifier", photo, path="/v1/models/p/predict", model="p", files=[photo]),
        Case("404 no_such_path", path="/v3", method="GET"),
        Case("405 method_not_allowed", path="/v1/models/m/predict", method="GET"),
        Case("408 too_slow", photo, is_slow=True),
        Case("413 image_too_large", huge, files=[huge]),
        Case("413 body_too_large", b"x" * 3_500_000, files=[b"x" * 3_500_000]),
        Case("413 too_many_images", as_json([text] * 5), kind=FORM, files=[photo] * 5),
        Case("415 not_an_image", b"years of work", files=[b"years of work"]),
        Case("415 content_type", b"<x/>", kind="application/xml"),
        Case("415 content_encoding", photo, more={"Content-Encoding": "gzip"}, files=[photo]),
        Case("422 invalid_value", photo, path="/v1/models/m/predict?top_k=0"),
        Case("429 queue_full", photo, state=full, files=[photo]),
        Case(
            "500 internal_error",
            photo,
            state=lambda: server.having(models.find("m").scorer, "_run", None),
            files=[photo],
        ),
        Case("503 deadline_exceeded", photo, state=server.busy, files=[photo]),
        Case(
            "503 not_ready",
            photo,
            state=lambda: server.having(models, "is_ready", False),
            files=[photo],
        ),
        Case(
            "503 shutting_down",
            path="/readyz",
            method="GET",
            state=lambda: server.having(models, "is_draining", True),
        ),
    ]


def by_curl(server: Server, case: Case, folder: Path) -> tuple[int, str, str]:
    """Return the status, the code and the message that curl shows."""
    (folder / "body").write_bytes(case.body)
    shown = "\n%{http_code} %header{x-error-code}"
    command = [
        "curl",
        "-s",
        "-X",
        case.method,
        "-w",
        shown,
        "-H",
        f"Authorization: Bearer {case.key}",
        server.address + case.path,
    ]
    if case.method == "POST":
        command += ["-H", f"Content-Type: {case.kind}", "--data-binary", f"@{folder / 'body'}"]
    for name, value in case.more.items():
        command += ["-H", f"{name}: {value}"]
    if case.is_slow:
        command += ["--limit-rate", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    body, _, last = done.stdout.rpartition("\n")
    status, _, code = last.partition(" ")
    return int(status), code, message_of(json.loads(body))


def message_of(found: Any) -> str:
    """Return the message in the body of an error."""
    error = found.get("error", "") if isinstance(found, dict) else ""
    return error["message"] if isinstance(error, dict) else error


def by_httpx(server: Server, case: Case) -> str:
    """Return the message that httpx shows."""
    headers = {"Authorization": f"Bearer {case.key}", "Content-Type": case.kind} | case.more

    def slowly() -> Iterator[bytes]:
        for at in range(0, len(case.body), 50):
            yield case.body[at : at + 50]
            time.sleep(0.2)

    body = slowly() if case.is_slow else case.body
    return message_of(
        httpx.request(
            case.method, server.address + case.path, content=body, headers=headers, timeout=60
        ).json()
    )


def by_ours(server: Server, case: Case, folder: Path) -> str | None:
    """Return what `convnextv2 predict --server` shows; None if it cannot send this request."""
    if (
        case.method != "POST"
        or case.kind != JPEG
        or "versions" in case.path
        or "?" in case.path
        or case.more
        or case.is_slow
    ):
        return None
    (folder / "file.jpg").write_bytes(case.body)
    model = case.path.split("/")[3]
    try:
        asked = predict_remotely(
            server.address, model, [folder / "file.jpg"], api_key=case.key, wait=lambda _: None
        )
        return "" if next(iter(asked))["predictions"] else "nothing"
    except ConvNeXtV2Error as error:
        return str(error)


def by_triton(server: Server, case: Case, binary: bool) -> str | None:
    """Return what tritonclient shows; None if it cannot send this request."""
    client = triton.InferenceServerClient(
        f"127.0.0.1:{server.port}", network_timeout=60, connection_timeout=60
    )
    if case.array is not None:
        given = triton.InferInput("pixels", list(case.array.shape), "UINT8")
        given.set_data_from_numpy(case.array, binary_data=binary)
    elif case.files is not None:
        files = case.files if binary else [base64.b64encode(file) for file in case.files]
        given = triton.InferInput("image_files", [len(files)], "BYTES")
        given.set_data_from_numpy(np.array(files, dtype=object), binary_data=binary)
    else:
        return None
    outputs = [
        triton.InferRequestedOutput("probs", binary_data=binary),
        triton.InferRequestedOutput("embedding", binary_data=binary),
    ]
    headers = {"Authorization": f"Bearer {case.key}"} | case.more
    try:
        answer = client.infer(case.model, [given], case.version, outputs, headers=headers)
        probs = answer.as_numpy("probs")
        return "" if abs(probs.sum(-1) - 1).max() < 1e-4 else f"probs {probs}"
    except InferenceServerException as error:
        return f"{error} | {error.message()}"
    finally:
        client.close()


def by_browser(page: Any, case: Case) -> str | None:
    """Return what a page's fetch shows; None if it cannot send this request."""
    if case.is_slow or "Content-Encoding" in case.more:
        return None
    headers = {"Authorization": f"Bearer {case.key}"} | (
        {"Content-Type": case.kind} if case.method == "POST" else {}
    )
    found = page.evaluate(
        """async ([path, method, headers, encoded]) => {
            const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
            const body = method === "POST" ? bytes : undefined;
            const answer = await fetch(path, { method, headers, body });
            return await answer.json();
        }""",
        [case.path, case.method, headers, base64.b64encode(case.body).decode()],
    )
    return message_of(found)


@contextmanager
def opened_page(address: str) -> Iterator[Any]:
    """Open the server's page in a browser, and yield it; None if there is no browser."""
    if CHROMIUM is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        yield page
        browser.close()


def cell(shown: str | None, message: str) -> str:
    """Return whether a client shows the message."""
    if shown is None:
        return "-"
    if shown.endswith("is empty. Expected an image."):
        return "yes, before it asks"
    return "yes" if message in shown and (message or not shown) else f"no: {shown[:120]!r}"


def main() -> int:
    """Ask, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "pretrained", "photo"):
        parser.add_argument(name)
    given = parser.parse_args()
    server = Server([f"m={given.model}", f"p={given.pretrained}"])
    clients = (
        "curl",
        "httpx",
        "browser",
        "`predict --server`",
        "tritonclient, JSON",
        "tritonclient, binary",
    )
    print("| answer | message |", " | ".join(clients), "|")
    print("|---" * (2 + len(clients)), "|", sep="")
    is_good = True
    try:
        with tempfile.TemporaryDirectory() as name, opened_page(server.address) as page:
            folder = Path(name)
            size = server.models.find("m").transform.preprocessing.image_size
            for case in cases(server, Path(given.photo).read_bytes(), size):
                message, cells = "", ["-"] * 4
                with case.state():
                    if case.body or case.method == "GET" or case.files is not None:
                        status, code, message = by_curl(server, case, folder)
                        is_good &= case.name == f"{status} {code}".strip()
                        others = (
                            by_httpx(server, case),
                            by_browser(page, case) if page else None,
                            by_ours(server, case, folder),
                        )
                        cells = ["yes", *(cell(shown, message) for shown in others)]
                    asked = [by_triton(server, case, binary) for binary in (False, True)]
                    if not message and case.name[:3] != "200":  # asked by tritonclient alone
                        message = (asked[0] or "").partition(" | ")[2]
                    # The refusal may name another file or size there: any sentence will do.
                    cells += ["-" if one is None else sentence(one, case.name[:3]) for one in asked]
                is_good &= not any(text.startswith("no") for text in cells)
                print(f"| {case.name} | {message[:100]} |", " | ".join(cells), "|", flush=True)
    finally:
        server.stop()
    return 0 if is_good else 1


def sentence(shown: str, status: str) -> str:
    """Say whether tritonclient's exception can be printed and has the right status.

    A good answer raises none.
    """
    if status == "200":
        return "yes" if not shown else f"no: {shown[:120]!r}"
    return (
        "yes"
        if shown.startswith(f"[{status}] ") and " | " in shown and len(shown) > 30
        else f"no: {shown[:120]!r}"
    )


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
