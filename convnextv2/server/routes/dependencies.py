"""What FastAPI gives to a route as an argument."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from convnextv2.server.models import Models


async def _models(request: Request) -> Models:  # async: FastAPI would run it in a thread otherwise
    models: Models = request.app.state.models
    return models


ModelsOf = Annotated[Models, Depends(_models)]
"""The server's models, as the argument of a route."""
