"""The paths of the server, by whom they are for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from convnextv2.server.models import Store


async def _store(request: Request) -> Store:  # async, else each request would go through a thread
    store: Store = request.app.state.store
    return store


StoreOf = Annotated[Store, Depends(_store)]
"""The models, as an argument of a route."""
