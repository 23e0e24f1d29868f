"""Serve models over HTTP, with a web page to try them."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from importlib.util import find_spec
from typing import TYPE_CHECKING

from convnextv2.errors import DeviceError, MissingPackageError, RecipeError
from convnextv2.recipe.options import takes
from convnextv2.server.signals import hold
from convnextv2.verbs.options.predicting import ServeOptions

if TYPE_CHECKING:
    from convnextv2.server.models import Models

_NEEDS = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")


@takes(ServeOptions)
def serve(options: ServeOptions) -> None:
    """Serve models until a signal ends the process.

    On SIGTERM, the server finishes the requests that it has accepted. On SIGHUP, it reloads what
    has changed.

    Raises:
        RecipeError: An option cannot be used.
        DeviceError: The port is taken, or a model does not run.
        MissingPackageError: A package that serving needs is not installed.
    """
    hold()
    for module in _NEEDS:
        if not find_spec(module):
            raise MissingPackageError(module.replace("_", "-"), "serve")

    from convnextv2 import waiting
    from convnextv2.kernels import choice
    from convnextv2.machine import available_cores
    from convnextv2.server.app import build_app
    from convnextv2.server.keys import Keys
    from convnextv2.server.limits import Limits
    from convnextv2.server.models import Models
    from convnextv2.server.process import bind, run_server
    from convnextv2.server.prometheus import Metrics
    from convnextv2.server.tls import read_certificate

    origins = _read_origins(options.cors_origins)
    limits = Limits(**{field.name: getattr(options, field.name) for field in fields(Limits)})
    recipe, notes = options.recipe()
    choice.choose(recipe.kernels)
    for note in (*notes, waiting.line(os.environ, available_cores())):
        if note:
            print(note)
    keys = Keys(options.api_key or os.environ.get("CONVNEXTV2_API_KEY", ""), options.api_key_file)
    certificate = read_certificate(options.ssl_certfile, options.ssl_keyfile)

    host = options.host
    try:
        bound = bind(host, options.port)
    except OSError as error:
        why = error.strerror or error
        raise DeviceError(
            f"port = {options.port}: cannot listen on {host} ({why}). Choose another port or host."
        ) from None
    port = bound.getsockname()[1]  # the one that the system chose if 0 was asked for
    models = Models(
        [str(model) for model in options.models],
        limits,
        Metrics(),
        device=recipe.device,
        precision=recipe.precision,
    )
    _show(models)
    if host not in ("127.0.0.1", "localhost", "::1") and not keys.are_required:
        print(f"Anyone who reaches {host}:{port} may use the server: it has no api_key.")
    app = build_app(models, keys=keys, cors_origins=origins, access_log=options.access_log)
    scheme, shown = "https" if certificate else "http", f"[{host}]" if ":" in host else host
    print(f"{scheme}://{shown}:{port} (page), /openapi.json, /metrics", flush=True)
    run_server(app, models, limits, bound, keys=keys, certificate=certificate)


def _read_origins(text: str) -> list[str]:
    origins = [origin for origin in map(str.strip, text.split(",")) if origin]
    if wrong := [one for one in origins if not re.fullmatch(r"\*|https?://[^/\s*]+", one)]:
        raise RecipeError(
            "\n".join(
                f"cors_origins = {origin}: expected addresses such as https://example.org, without "
                "a path, or *."
                for origin in wrong
            )
        )
    return origins


def _show(models: Models) -> None:
    for name in models.names:
        for served in models.versions(name):
            print(f"{name}@{served.version}: {served.engine}, sha256 {served.sha256[:16]}")
            for line in served.notes:
                print(f"  {line}")
        print(f"  POST images to {models.find(name).path}")
