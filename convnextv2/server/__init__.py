"""The HTTP server, its page, and a client of it.

A request passes through `middleware` to one of `routes`. Its images pass through `scoring`:
`decoders` turn files into pixels, and the `batcher` of a model scores them together with the images
of other requests. `models` holds the models that are served. uvicorn runs `process` and `protocol`.
"""
