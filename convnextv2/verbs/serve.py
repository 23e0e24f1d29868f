"""Serve models over HTTP, with a page to try them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convnextv2.errors import DeviceError, MissingPackageError, RecipeError
from convnextv2.recipe.read import read_recipe

_NEEDS = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")


def serve(
    models: str | Path | Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: str | int = 8000,
    api_key: str = "",
    cors_origins: str = "",
    **knobs: Any,
) -> None:
    """Serve models until the process is told to end (SIGTERM finishes what was accepted; SIGHUP reloads what has changed).

    models: `[NAME[@VERSION]=]PATH` of runs, weights or artifacts; without a name it is the last part of the path. host: 0.0.0.0
    to be reached from other machines. api_key: or the environment's CONVNEXTV2_API_KEY; clients send it as bearer token.
    cors_origins: separated by commas. knobs: device, precision (of PyTorch), kernels, and the limits of
    `deploy.serve.limits.Limits`."""
    for module in _NEEDS:
        if not find_spec(module):
            raise MissingPackageError(module.replace("_", "-"), "serve")

    from convnextv2.deploy.serve.app import build_app
    from convnextv2.deploy.serve.limits import Limits
    from convnextv2.deploy.serve.metrics import Metrics
    from convnextv2.deploy.serve.server import bind, run_server
    from convnextv2.deploy.serve.store import Store

    names = {field.name: field.type for field in fields(Limits)}
    given: dict[str, int | float] = {}
    mistakes = []
    for name in names.keys() & knobs.keys():
        try:
            given[name] = (int if names[name] == "int" else float)(knobs[name])
        except (ValueError, OverflowError):
            mistakes.append(f"{name} = {knobs[name]!r}: expected a {'whole ' if names[name] == 'int' else ''}number.")
            continue
        may_be_zero = name in ("max_delay_ms", "drain_s")
        if not (0 < given[name] < math.inf or (may_be_zero and given[name] == 0)):
            mistakes.append(f"{name} = {knobs[name]}: expected a number {'>=' if may_be_zero else '>'} 0.")
    try:
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number < 65536:
        mistakes.append(f"port = {port!r}: expected a number from 0 to 65535.")
    origins = [origin for origin in map(str.strip, cors_origins.split(",")) if origin]
    for origin in origins:
        if not re.fullmatch(r"\*|https?://[^/\s*]+", origin):
            mistakes.append(f"cors_origins = {origin}: expected addresses such as https://example.org, without a path, or *.")
    if mistakes:
        raise RecipeError("\n".join(mistakes))
    limits = Limits(**given)  # type: ignore[arg-type]
    recipe, notes = read_recipe({name: value for name, value in knobs.items() if name not in names})
    for note in notes:
        print(note)

    try:
        bound = bind(host, number)
    except OSError as error:
        why = error.strerror or error
        raise DeviceError(f"port = {number}: cannot listen on {host} ({why}). Choose another port or host.") from None
    number = bound.getsockname()[1]
    sources = [str(models)] if isinstance(models, str | Path) else [str(model) for model in models]
    store = Store(sources, limits, Metrics(), device=recipe.device, precision=recipe.precision)
    for name in store.names:
        for served in store.versions(name):
            print(f"{name}@{served.version}: {served.engine}, sha256 {served.sha256[:16]}")
            for line in served.scorer.notes if served.scorer else []:
                print(f"  {line}")
    key = api_key or os.environ.get("CONVNEXTV2_API_KEY", "")
    if host not in ("127.0.0.1", "localhost", "::1") and not key:
        print(f"Anyone who reaches {host}:{number} may use the server: it has no api_key.")
    app = build_app(store, api_key=key, cors_origins=origins)
    print(f"http://{host}:{number} (page), /openapi.json, /metrics", flush=True)
    run_server(app, store, limits, bound)
