"""The HTTP server, its page, and a client of it.

A request passes `middleware`, one of `routes`, and for images `scoring`: `decoders` turn its files
into pixels, and the `batcher` of the model that it names scores them together with the images of
other requests. `models` holds what is served. `process` and `protocol` are what uvicorn runs.
"""
