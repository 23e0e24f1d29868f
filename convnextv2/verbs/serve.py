"""Serve models over HTTP, with a page to try them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnextv2.deploy.serve.signals import hold
from convnextv2.errors import DeviceError, MissingPackageError, RecipeError
from convnextv2.recipe.read import read_recipe

if TYPE_CHECKING:
    from convnextv2.deploy.serve.limits import Limits
    from convnextv2.deploy.serve.store import Store

_NEEDS = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")
_MAY_BE_ZERO = ("max_delay_ms", "drain_s")


def serve(
    models: str | Path | Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: str | int = 8000,
    api_key: str = "",
    api_key_file: str = "",
    cors_origins: str = "",
    access_log: str = "failed",
    ssl_certfile: str = "",
    ssl_keyfile: str = "",
    **knobs: Any,
) -> None:
    """Serve models until the process is told to end (SIGTERM finishes what was accepted; SIGHUP reloads what has changed).

    Args:
        models: `[NAME[@VERSION]=]PATH` of runs, weights or artifacts, or OWNER/NAME of the Hub in place of the path. Without a
            name it is the last part of the path.
        host: 0.0.0.0 to be reached from other machines.
        port: 0 for any that is free.
        api_key: A key that clients may send as bearer token, or the environment's CONVNEXTV2_API_KEY.
        api_key_file: A file with more of them, one on each line, which SIGHUP reads again.
        cors_origins: Origins whose pages may call, separated by commas.
        access_log: What is written of requests: failed ones, all, all as json, or off.
        ssl_certfile: The certificate to speak HTTPS with, as PEM, which SIGHUP reads again.
        ssl_keyfile: Its key.
        knobs: device, precision (of PyTorch), kernels, and the limits of `deploy.serve.limits.Limits`.

    Raises:
        RecipeError: Options cannot be used.
        DeviceError: The port is taken, or a model does not run.
        MissingPackageError: What serving needs is not installed.
    """
    hold()
    for module in _NEEDS:
        if not find_spec(module):
            raise MissingPackageError(module.replace("_", "-"), "serve")

    from convnextv2.deploy.serve.access_log import KINDS
    from convnextv2.deploy.serve.app import build_app
    from convnextv2.deploy.serve.keys import Keys
    from convnextv2.deploy.serve.limits import Limits
    from convnextv2.deploy.serve.metrics import Metrics
    from convnextv2.deploy.serve.server import bind, run_server
    from convnextv2.deploy.serve.store import Store
    from convnextv2.deploy.serve.tls import read_certificate
    from convnextv2.model.kernels import native

    mistakes: list[str] = []
    limits = _read_limits(knobs, mistakes)
    number = _read_port(port, mistakes)
    origins = _read_origins(cors_origins, mistakes)
    if access_log not in KINDS:
        mistakes.append(f"access_log = {access_log!r}: expected one of {', '.join(KINDS)}.")
    if mistakes:
        raise RecipeError("\n".join(mistakes))
    names = {field.name for field in fields(Limits)}
    others = {name: value for name, value in knobs.items() if name not in names}
    recipe, notes = read_recipe(others, verb="serve", uses=("device", "precision", "kernels"))
    native.choose(recipe.kernels)
    for note in notes:
        print(note)
    keys = Keys(api_key or os.environ.get("CONVNEXTV2_API_KEY", ""), api_key_file)
    certificate = read_certificate(ssl_certfile, ssl_keyfile)

    try:
        bound = bind(host, number)
    except OSError as error:
        why = error.strerror or error
        raise DeviceError(f"port = {number}: cannot listen on {host} ({why}). Choose another port or host.") from None
    number = bound.getsockname()[1]
    sources = [str(models)] if isinstance(models, str | Path) else [str(model) for model in models]
    store = Store(sources, limits, Metrics(), device=recipe.device, precision=recipe.precision)
    _show(store)
    if host not in ("127.0.0.1", "localhost", "::1") and not keys.are_asked_for:
        print(f"Anyone who reaches {host}:{number} may use the server: it has no api_key.")
    app = build_app(store, keys=keys, cors_origins=origins, access_log=access_log)
    shown = f"[{host}]" if ":" in host else host
    print(f"{'https' if certificate else 'http'}://{shown}:{number} (page), /openapi.json, /metrics", flush=True)
    run_server(app, store, limits, bound, keys=keys, certificate=certificate)


def _read_limits(knobs: Mapping[str, Any], mistakes: list[str]) -> Limits:
    from convnextv2.deploy.serve.limits import Limits

    kinds = {field.name: int if field.type == "int" else float for field in fields(Limits)}
    given: dict[str, int | float] = {}
    for name in [name for name in kinds if name in knobs]:
        try:
            given[name] = kinds[name](knobs[name])
        except (ValueError, OverflowError):
            mistakes.append(f"{name} = {knobs[name]!r}: expected a {'whole ' if kinds[name] is int else ''}number.")
            continue
        may_be_zero = name in _MAY_BE_ZERO
        if not (0 < given[name] < math.inf or (may_be_zero and given[name] == 0)):
            mistakes.append(f"{name} = {knobs[name]}: expected a number {'>=' if may_be_zero else '>'} 0.")
    return Limits(**given)  # type: ignore[arg-type]


def _read_port(port: str | int, mistakes: list[str]) -> int:
    try:
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number < 65536:
        mistakes.append(f"port = {port!r}: expected a number from 0 to 65535.")
    return number


def _read_origins(text: str, mistakes: list[str]) -> list[str]:
    origins = [origin for origin in map(str.strip, text.split(",")) if origin]
    mistakes += [
        f"cors_origins = {origin}: expected addresses such as https://example.org, without a path, or *."
        for origin in origins
        if not re.fullmatch(r"\*|https?://[^/\s*]+", origin)
    ]
    return origins


def _show(store: Store) -> None:
    for name in store.names:
        for served in store.versions(name):
            print(f"{name}@{served.version}: {served.engine}, sha256 {served.sha256[:16]}")
            for line in served.notes:
                print(f"  {line}")
