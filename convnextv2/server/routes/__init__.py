"""The paths of the server, one module for each kind of client."""

from convnextv2.server.routes import dense, health, kserve, models, page, repository

ROUTERS = tuple(part.router for part in (health, models, dense, kserve, repository, page))
