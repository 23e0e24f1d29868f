"""Arguments that FastAPI passes to routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from convnextv2.server.models import Models


async def _models(request: Request) -> Models:  # async, so that FastAPI starts no thread for it
    models: Models = request.app.state.models
    return models


ModelsOf = Annotated[Models, Depends(_models)]
"""The server's models, as the argument of a route."""
