"""The ASGI middleware before the application, one in each module."""
