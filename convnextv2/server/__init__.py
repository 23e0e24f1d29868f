"""The HTTP server: limits, batching, models, application, page."""
