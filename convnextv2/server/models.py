"""The models of a server, by name and version."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from convnextv2.data.decode import open_picture
from convnextv2.data.transforms import EvalTransform
from convnextv2.deploy.artifact import is_artifact
from convnextv2.distributed import available_cores
from convnextv2.errors import DataError, ImageSizeError, MissingPackageError, RunError
from convnextv2.inference.reconstructor import Reconstructor
from convnextv2.inference.scorer import Scorer, open_scorer
from convnextv2.run import find_weights
from convnextv2.server.batcher import Batcher
from convnextv2.server.limits import Limits
from convnextv2.server.metrics import Metrics
from convnextv2.server.queue import Queue
from convnextv2.server.refusal import Refusal
from convnextv2.server.served import Served
from convnextv2.server.spec import Spec, age, fingerprint, is_number, parse_specs
from convnextv2.weights.load import open_weights

_WARM_UP_S = 0.2
"""How long the largest batch of a warm-up may take: requests for other models, and for this one's old version, wait for it."""


@dataclass(frozen=True)
class Prepared:
    """An image of a request. pixels: uint8 (C, H, W), for the model. seen: see `EvalTransform.seen`. height, width: in px."""

    pixels: Tensor
    seen: tuple[float, float, float, float]
    height: int
    width: int


@dataclass(frozen=True)
class Change:
    """What a reload has done, or could not do, to a model. text: for people."""

    model: str
    text: str
    failed: bool = False


class Store:
    """All that is served. Use it inside of one event loop, between `start` and `stop`.

    sources: see `parse_specs`, whose errors are raised, and those of what cannot be loaded. is_ready: warmed up. is_draining:
    requests are still answered, but load balancers should send no more. failure: why a model does not run."""

    def __init__(
        self,
        sources: Sequence[str],
        limits: Limits,
        metrics: Metrics,
        *,
        device: str,
        precision: str,
    ) -> None:
        self.sources, self.limits, self.metrics, self.device, self.precision = (
            sources,
            limits,
            metrics,
            device,
            precision,
        )
        self.queue = Queue(limits)
        self.engine: Executor = ThreadPoolExecutor(
            1, thread_name_prefix="model"
        )  # which has all cores to itself
        self.is_ready = self.is_draining = False
        self.failure: BaseException | None = None
        decoders = max(2, available_cores())
        self._decoders: Executor = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._free_decoders = asyncio.Semaphore(decoders)
        self._decoding = _Budget(2 * limits.max_image_pixels)
        self._reloading = asyncio.Lock()
        self._models: dict[str, list[Served]] = {}
        for spec in parse_specs(sources):
            self._models.setdefault(spec.name, []).append(self._open(spec, spec.version or "1"))
        for versions in self._models.values():
            versions.sort(key=lambda served: age(served.version))

    @property
    def names(self) -> list[str]:
        """Of its models."""
        return list(self._models)

    def check_ready(self) -> None:
        """Raises Refusal before the models are warm, and after the end."""
        if not self.is_ready:
            raise Refusal(
                503, "not_ready", "The server is starting or shutting down. Try again later.", 2
            )

    def check_open(self) -> None:
        """Raises Refusal where a load balancer should send nothing here."""
        self.check_ready()
        for name, versions in self._models.items():
            if not versions[-1].is_alive:
                raise Refusal(
                    503,
                    "model_failed",
                    f"The queue of model {name} has failed and is started again.",
                    2,
                )
        if self.is_draining:
            raise Refusal(503, "shutting_down", "The server is shutting down. Ask another one.", 2)

    def versions(self, name: str) -> list[Served]:
        """Of one model, the newest last. Raises Refusal where there is no such model."""
        if name not in self._models:
            raise Refusal(
                404,
                "no_such_model",
                f"There is no model {name[:100]!r}. There are: {', '.join(self._models)}.",
            )
        return self._models[name]

    def find(self, name: str, version: str | None = None) -> Served:
        """A model. version: None for the newest. Raises Refusal where there is no such model or version."""
        versions = self.versions(name)
        found = (
            [served for served in versions if served.version == version] if version else versions
        )
        if not found:
            there = ", ".join(served.version for served in versions)
            raise Refusal(
                404,
                "no_such_version",
                f"Model {name} has no version {(version or '')[:100]!r}. It has: {there}.",
            )
        return found[-1]

    @asynccontextmanager
    async def use(self, name: str, version: str | None = None) -> AsyncIterator[Served]:
        """The same, and it stays until it is no longer used."""
        served = self.find(name, version)
        served.users += 1
        try:
            yield served
        finally:
            served.users -= 1
            if served.users == 0:
                served.idle.set()

    async def start(self) -> None:
        """Warm up, then be ready."""
        async with self._reloading:
            for versions in self._models.values():
                for served in versions:
                    await self._begin(served)
        if self.is_draining:
            return
        gc.collect()
        gc.freeze()  # what is there now stays; to search it for garbage again and again took a fifth of the time
        self.is_ready = True

    async def stop(self) -> None:
        """Answer what waits, then end."""
        self.is_ready = False
        for versions in self._models.values():
            for served in versions:
                if served.batcher:
                    await served.batcher.stop()
        self._decoders.shutdown(cancel_futures=True)
        self.engine.shutdown()

    async def reload(self, only: str = "") -> list[Change]:
        """Look again where the models lie. What has changed is loaded and warmed up, then takes the place of the old one, which
        finishes what it was given; new versions of a model repository are added, and those that are gone are served no more.
        What cannot be loaded stays as it was.

        Args:
            only: The model to look at; empty for all.

        Returns:
            What has changed, and what should have and could not.
        """
        async with self._reloading:
            try:
                specs = await asyncio.to_thread(parse_specs, self.sources)
            except (RunError, OSError) as error:
                return [Change(only, f"All stays as it was: {error}", failed=True)]
            specs = [spec for spec in specs if only in ("", spec.name)]
            changes = [change for spec in specs for change in await self._renew(spec)]
            there = {(spec.name, spec.source) for spec in specs}
            for name, versions in self._models.items():
                if only not in ("", name):
                    continue
                for served in [one for one in versions if (name, one.spec.source) not in there]:
                    if len(versions) == 1:  # better an old one than none
                        break
                    versions.remove(served)
                    await self._retire(served)
                    changes.append(Change(name, f"{name}@{served.version}: is gone"))
            return changes

    async def _renew(self, spec: Spec) -> list[Change]:
        versions = self._models.get(spec.name, [])
        old = next((served for served in versions if served.spec.source == spec.source), None)
        version = spec.version or str(
            max(
                (int(served.version) for served in versions if is_number(served.version)), default=0
            )
            + 1
        )
        try:
            if old and await asyncio.to_thread(fingerprint, spec.source) == old.fingerprint:
                return []
            new = await asyncio.to_thread(self._open, spec, version)
            await self._begin(new)
        except Exception as error:
            outcome = f"{old.version}: stays as it was" if old else f"{version}: is not served"
            return [Change(spec.name, f"{spec.name}@{outcome}: {error}", failed=True)]
        if old:
            versions.remove(old)
        versions.append(new)
        versions.sort(key=lambda served: age(served.version))
        self._models[spec.name] = versions
        if old:
            await self._retire(old)
        self.metrics.model.labels(spec.name, version, new.sha256, new.engine).set(1)
        instead = f", in place of {old.version}" if old else ""
        return [
            Change(
                spec.name, f"{spec.name}@{version}: {new.engine}, sha256 {new.sha256[:16]}{instead}"
            )
        ]

    async def _retire(self, old: Served) -> None:
        old.idle.clear()
        if old.users:
            await old.idle.wait()
        if old.batcher:
            await old.batcher.stop()
        self.metrics.model.remove(old.spec.name, old.version, old.sha256, old.engine)

    async def prepare(self, data: bytes, name: str, transform: EvalTransform) -> Prepared:
        """Decode and prepare one image. Raises Refusal."""
        await self._free_decoders.acquire()  # so that nothing waits where it cannot be taken back
        loop = asyncio.get_running_loop()
        work = self._decoders.submit(self._prepare, data, name, transform)
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free_decoders.release))
        return await asyncio.wrap_future(work)

    def _prepare(self, data: bytes, name: str, transform: EvalTransform) -> Prepared:
        began = perf_counter()
        try:
            picture = open_picture(
                data,
                name=name,
                channels=transform.channels,
                max_pixels=self.limits.max_image_pixels,
                value_range=transform.value_range,
            )
            with self._decoding(picture.held_pixels):
                pixels = transform(picture.decode())
        except ImageSizeError as error:
            raise Refusal(413, "image_too_large", str(error)) from None
        except (DataError, MissingPackageError) as error:
            raise Refusal(415, "not_an_image", str(error)) from None
        self.metrics.decoded.observe(perf_counter() - began)
        return Prepared(
            pixels, transform.seen(picture.height, picture.width), picture.height, picture.width
        )

    def _open(self, spec: Spec, version: str) -> Served:
        mark = fingerprint(spec.source)
        if not is_artifact(spec.source):
            weights = find_weights(spec.source)
            if open_weights(weights).description.kind == "fcmae":
                return Served(spec, version, mark, None, Reconstructor(weights))
        return Served(
            spec,
            version,
            mark,
            open_scorer(spec.source, device=self.device, precision=self.precision),
            None,
        )

    async def _begin(self, served: Served) -> None:
        """Warm up, so that no request pays for it, then take requests."""
        name, scorer = served.spec.name, served.scorer
        if scorer:
            await self._warm_up(scorer)

            def measure(images: int, waits: list[float], seconds: float) -> None:
                self.queue.finished(images, seconds)
                self.metrics.images.labels(name).inc(images)
                self.metrics.batch.labels(name).observe(images)
                self.metrics.scored.labels(name).observe(seconds)
                for wait in waits:
                    self.metrics.waited.observe(wait)

            def failed(error: BaseException) -> None:
                self.metrics.batchers.labels(name).inc()
                print(
                    f"{name}@{served.version}: its queue has failed ({error!r}) and is started again.",
                    flush=True,
                )

            served.batcher = Batcher(scorer, self.engine, self.limits, measure, failed)
            served.batcher.start()
        else:
            assert served.reconstructor is not None
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(
                self.engine, served.reconstructor, _grey(served.transform, 1)[0], 0.6, 0
            )
        self.metrics.model.labels(name, served.version, served.sha256, served.engine).set(1)

    async def _warm_up(self, scorer: Scorer) -> None:
        """Score batches of ever more grey images, until one takes as long as others may wait. Between two of them the engine
        takes what has come for other models."""
        loop, images, is_first = asyncio.get_running_loop(), 1, True
        while True:
            began = perf_counter()
            await loop.run_in_executor(self.engine, scorer, _grey(scorer.transform, images))
            seconds = perf_counter() - began
            if is_first:  # engines and kernels are set up
                is_first = False
            elif images == self.limits.max_batch or 2 * seconds > _WARM_UP_S:
                break
            else:
                images = min(2 * images, self.limits.max_batch)
        self.queue.finished(images, seconds)


def _grey(transform: EvalTransform, images: int) -> Tensor:
    return torch.full((images, transform.channels, *transform.image_size), 128, dtype=torch.uint8)


class _Budget:
    """Bounds what several threads take at once: `with budget(amount):` waits until so much of it is free."""

    def __init__(self, free: int) -> None:
        self._free, self._changed = free, threading.Condition()

    @contextmanager
    def __call__(self, amount: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: amount <= self._free)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
