"""The description in /openapi.json agrees with the answers to generated requests."""

import base64
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from dense import detector, save_dense, segmentor
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from jsonschema_rs import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
EXAMPLES = settings(
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


@pytest.fixture
def api(
    build: Callable[..., Any], weights: Path, pretrained: Path, tmp_path: Path
) -> Iterator[Any]:
    """Load the description from a server in a thread of this process."""
    places = save_dense(segmentor(), tmp_path / "places")
    things = save_dense(detector(), tmp_path / "things")
    served = build(f"trees={weights}", f"pre={pretrained}", f"places={places}", f"things={things}")
    server = uvicorn.Server(uvicorn.Config(served.app, port=0, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not (server.started and served.models.is_ready):
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    server.should_exit = True
    thread.join()


def try_out(operation: Any, mode: GenerationMode, images: list[bytes]) -> Counter[int]:
    """Send generated requests, check every answer, and return the number of each status."""
    answered: Counter[int] = Counter()
    own = {"reconstruct": "pre", "segment": "places", "detect": "things"}
    there = {"name": own.get(operation.path.rpartition("/")[2], "trees"), "version": "1"}

    @settings(EXAMPLES, max_examples=10 if "{" in operation.path else 1)
    @given(
        case=operation.as_strategy(generation_mode=mode),
        is_there=st.booleans(),
        image=st.sampled_from([b"", *images[:3]]),
    )
    def check(case: schemathesis.Case, is_there: bool, image: bytes) -> None:
        if is_there:  # what is made names no model and holds no image
            case.path_parameters.update({key: there[key] for key in case.path_parameters})
        if image and mode is GenerationMode.POSITIVE:
            case.body = with_image(case, image)
        answer = case.call_and_validate(checks=CHECKS)
        check_schema(operation, answer)
        answered[answer.status_code] += 1

    with suppress(Unsatisfiable):  # nothing can be wrong where nothing is taken
        check()
    return answered


def check_schema(operation: Any, answer: Any) -> None:
    """Check an answer against its schema; the check of schemathesis refuses `prefixItems`."""
    described = operation.schema.raw_schema
    responses = described["paths"][operation.path][operation.method]["responses"]
    content = responses[str(answer.status_code)].get("content", {}).get("application/json")
    if content:
        Draft202012Validator(content["schema"] | {"components": described["components"]}).validate(
            answer.json()
        )


def with_image(case: schemathesis.Case, image: bytes) -> Any:
    """Return the body of a case with a real image in it."""
    text = base64.b64encode(image).decode()
    if case.path.endswith("infer"):
        if case.media_type != "application/json":
            return case.body
        return case.body | {
            "inputs": [{"name": "image_files", "shape": [1], "datatype": "BYTES", "data": [text]}]
        }
    bodies = {
        "application/octet-stream": image,
        "multipart/form-data": {"images": [image]},
        "application/json": {"images": [text]},
    }
    return bodies.get(case.media_type, case.body)


def test_answers_are_what_the_description_says(api: Any, images: list[bytes]) -> None:
    codes = {}
    for operation in (result.ok() for result in api.get_all_operations()):
        modes = [
            try_out(operation, mode, images)
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        ]
        codes[f"{operation.method} {operation.path}"] = modes[0] + modes[1]
    assert sum(map(Counter.total, codes.values())) > 150
    never = [
        path for path, answered in codes.items() if not answered[200]
    ]  # one needs a key, the other is always refused
    assert never == [
        f"post /v2/repository/models/{{name}}/{what}" for what in ("load", "unload")
    ], codes


def test_every_path_of_the_server_is_described(api: Any) -> None:
    paths = set(api.raw_schema["paths"])
    assert {
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/models/{name}/predict",
        "/v2/models/{name}/infer",
    } <= paths
    for path in paths:
        for operation in api.raw_schema["paths"][path].values():
            assert operation["description"] and "200" in operation["responses"]
