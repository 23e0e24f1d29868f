"""What stands before the application: one ASGI middleware in each module."""
