"""Allow pages of other origins to call the server (CORS)."""

from __future__ import annotations

from fastapi import Response
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse

from convnextv2.server.refusal import Refusal, answer_of


class Cors(CORSMiddleware):
    """Starlette's CORS middleware, with errors in our form."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Respond to a browser that asks whether a page may call the server."""
        answer = super().preflight_response(request_headers)
        if not isinstance(answer, PlainTextResponse) or answer.status_code < 400:
            return answer
        refused = answer_of(
            Refusal(answer.status_code, "cors_refused", bytes(answer.body).decode() + "."), ""
        )
        kept = [
            pair
            for pair in answer.raw_headers
            if pair[0] not in (b"content-type", b"content-length")
        ]
        refused.raw_headers.extend(kept)
        return refused
