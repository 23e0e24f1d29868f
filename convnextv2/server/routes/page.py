"""The page on which models can be tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

_PAGE = Path(__file__).parents[1] / "page"

router = APIRouter(include_in_schema=False)


def _send_file(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send_file() -> FileResponse:
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    return send_file


for _path, _file in (
    ("/", "index.html"),
    ("/page/app.js", "app.js"),
    ("/page/dense.js", "dense.js"),
    ("/page/style.css", "style.css"),
):
    router.add_api_route(_path, _send_file(_PAGE / _file))
