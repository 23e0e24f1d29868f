"""The API keys of a server."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path

from convnextv2.errors import RecipeError


class Keys:
    """The keys that clients may send: a single one, and those in a file.

    Args:
        key: A key; empty for none.
        file: A file with a key on each line; empty for none. Blank lines and lines that begin with
            "#" are ignored.

    Raises:
        RecipeError: The file cannot be read, or holds no key.
    """

    def __init__(self, key: str = "", file: str = "") -> None:
        self._given, self._file = key, file
        self._keys: list[bytes] = []
        self.read()

    @property
    def are_required(self) -> bool:
        """True if requests need a key, that is, if there are any keys."""
        return bool(self._keys)

    def read(self) -> bool:
        """Read the file again. If that fails, the old keys stay valid.

        Returns:
            Whether the keys have changed.

        Raises:
            RecipeError: The file cannot be read, or holds no key.
        """
        keys = [self._given.encode()] if self._given else []
        if self._file:
            keys += [line.encode() for line in self._lines()]
        changed, self._keys = keys != self._keys, keys
        return changed

    def _lines(self) -> list[str]:
        try:
            text = Path(self._file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"api_key_file = {self._file}: cannot be read ({error}). Expected a key on each "
                "line."
            ) from None
        found = [
            line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")
        ]
        if not found:
            raise RecipeError(
                f"api_key_file = {self._file}: holds no key. Expected a key on each line."
            )
        return found

    def accept(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether a request has one of the keys.

        The key may be in X-API-Key, or be a bearer token (RFC 6750) with the scheme in any case.

        Args:
            headers: The request's headers, names in lower case.
        """
        scheme, _, token = headers.get(b"authorization", b"").strip().partition(b" ")
        given = headers.get(b"x-api-key") or (token.strip() if scheme.lower() == b"bearer" else b"")
        # All keys are compared, so that the time does not reveal anything about them.
        matches = [hmac.compare_digest(given, key) for key in self._keys]
        return any(matches)
