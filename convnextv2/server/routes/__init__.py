"""The paths of the server, one module for each kind of client."""

from convnextv2.server.routes import health, kserve, models, page, repository

ROUTERS = tuple(part.router for part in (health, models, kserve, repository, page))
