"""The certificate of a server that uses HTTPS without a proxy."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from convnextv2.errors import RecipeError


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as PEM files.

    Attributes:
        certfile: The certificate, followed by the intermediate certificates.
        keyfile: The key, not encrypted.
    """

    certfile: str
    keyfile: str

    def load(self, context: ssl.SSLContext) -> None:
        """Load the certificate into a context, which uses it for new connections.

        Args:
            context: The server's TLS settings.

        Raises:
            RecipeError: A file cannot be read, or they do not belong together.
        """
        try:
            context.load_cert_chain(self.certfile, self.keyfile, password=self._refuse)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise RecipeError(
                f"ssl_certfile = {self.certfile}, ssl_keyfile = {self.keyfile}: cannot be used "
                f"({why}). Expected a certificate and its key as PEM files."
            ) from None

    def _refuse(self) -> str:
        """Raise instead of returning a password, for which OpenSSL would ask on the terminal."""
        raise ValueError("the key is encrypted")


def read_certificate(certfile: str, keyfile: str) -> Certificate | None:
    """Read a certificate.

    Args:
        certfile: See `Certificate`; empty for none.
        keyfile: See `Certificate`; empty for none.

    Returns:
        The certificate; None if neither file is given.

    Raises:
        RecipeError: Only one of the files is given, or they cannot be used.
    """
    if not certfile and not keyfile:
        return None
    if not (certfile and keyfile):
        missing, given = (
            ("ssl_keyfile", "ssl_certfile") if certfile else ("ssl_certfile", "ssl_keyfile")
        )
        raise RecipeError(f"{missing} is missing: {given} is given, and HTTPS needs both.")
    certificate = Certificate(certfile, keyfile)
    certificate.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    return certificate
