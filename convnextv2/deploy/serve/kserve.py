"""KServe's inference protocol, version 2 (Open Inference Protocol), for clients that speak it already."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

from fastapi import FastAPI, Request

from convnextv2.deploy.serve.bodies import MOST_NUMBERS, V2_BODY, decode_base64, parse, plain
from convnextv2.deploy.serve.limits import Refusal
from convnextv2.deploy.serve.schemas import REFUSALS, V2Live, V2Metadata, V2Output, V2Ready, V2Request, V2Response, V2Server
from convnextv2.deploy.serve.scoring import score, score_pixels
from convnextv2.deploy.serve.store import Store


def add_kserve(app: FastAPI, store: Store) -> None:
    """Its paths: the server, and each model by its newest or a certain version."""
    some: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (401, 404)}

    @app.get("/v2", tags=["kserve v2"])
    async def v2_server() -> V2Server:
        """What this server is."""
        return V2Server(name="convnextv2", version=version_of("convnextv2"), extensions=[])

    @app.get("/v2/health/live", tags=["kserve v2"])
    async def v2_live() -> V2Live:
        """As /healthz."""
        return V2Live(live=True)

    @app.get("/v2/health/ready", tags=["kserve v2"], responses={503: REFUSALS[503]})
    async def v2_ready() -> V2Ready:
        """As /readyz."""
        store.check_open()
        return V2Ready(ready=True)

    def metadata(name: str, version: str | None) -> V2Metadata:
        versions = store.versions(name)
        served = store.find(name, version)
        class_names = served.classifier.class_names
        size = [-1, *served.transform.image_size, served.transform.channels]
        return V2Metadata(
            name=name,
            versions=[one.version for one in versions],
            platform=f"convnextv2 {served.engine}",
            inputs=[
                {"name": "image_files", "datatype": "BYTES", "shape": [-1]},
                {"name": "pixels", "datatype": "UINT8", "shape": size},
            ],
            outputs=[
                {"name": "probs", "datatype": "FP32", "shape": [-1, len(class_names)]},
                {"name": "embedding", "datatype": "FP32", "shape": [-1, -1]},
            ],
        )

    def model_ready(name: str, version: str | None) -> V2Ready:
        store.find(name, version)
        store.check_open()
        return V2Ready(ready=True)

    async def infer(http: Request, name: str, version: str | None) -> V2Response:
        store.check_ready()
        request = await parse(http, V2Request, MOST_NUMBERS, "numbers")
        async with store.use(name, version) as served:
            given = request.inputs[0]
            if given.datatype != {"image_files": "BYTES", "pixels": "UINT8"}[given.name]:
                raise Refusal(400, "bad_datatype", f"input {given.name}: is no {given.datatype}.")
            if given.datatype == "BYTES":
                files = decode_base64(given.data, store.limits)
                if given.shape not in ([len(files)], [len(files), 1]):
                    raise Refusal(400, "bad_shape", f"shape {given.shape}: expected [{len(files)}], one for each image.")
                scored = [scores for _, scores in await score(http, store, served, files)]
            else:
                scored = await score_pixels(http, store, served, given)
        wanted = {output.name for output in request.outputs}
        outputs = {"probs": [scores.probs for scores in scored], "embedding": [scores.embedding for scores in scored]}
        return V2Response(
            id=plain(request.id),
            model_name=name,
            model_version=served.version,
            outputs=[_v2_output(key, rows) for key, rows in outputs.items() if key in wanted or not wanted],
        )

    @app.get("/v2/models/{name}", tags=["kserve v2"], responses=some)
    async def v2_metadata(name: str) -> V2Metadata:
        """Inputs and outputs of a model."""
        return metadata(name, None)

    @app.get("/v2/models/{name}/versions/{version}", tags=["kserve v2"], responses=some)
    async def v2_metadata_by_version(name: str, version: str) -> V2Metadata:
        """Inputs and outputs of a version."""
        return metadata(name, version)

    @app.get("/v2/models/{name}/ready", tags=["kserve v2"], responses=some | {503: REFUSALS[503]})
    async def v2_model_ready(name: str) -> V2Ready:
        """Whether a model answers."""
        return model_ready(name, None)

    @app.get("/v2/models/{name}/versions/{version}/ready", tags=["kserve v2"], responses=some | {503: REFUSALS[503]})
    async def v2_version_ready(name: str, version: str) -> V2Ready:
        """Whether a version answers."""
        return model_ready(name, version)

    @app.post("/v2/models/{name}/infer", tags=["kserve v2"], responses=REFUSALS, openapi_extra=V2_BODY)
    async def v2_infer(request: Request, name: str) -> V2Response:
        """Classify by the newest version."""
        return await infer(request, name, None)

    @app.post("/v2/models/{name}/versions/{version}/infer", tags=["kserve v2"], responses=REFUSALS, openapi_extra=V2_BODY)
    async def v2_infer_by_version(request: Request, name: str, version: str) -> V2Response:
        """Classify by a certain version."""
        return await infer(request, name, version)


def _v2_output(name: str, rows: list[Any]) -> V2Output:
    return V2Output(
        name=name,
        shape=[len(rows), rows[0].shape[-1]],
        datatype="FP32",
        data=[value for row in rows for value in row[0].tolist()],
    )
