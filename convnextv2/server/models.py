"""The models of a server, by name and version."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from convnextv2.errors import RunError
from convnextv2.inference.scorer import Scorer, Scores
from convnextv2.server.admission import Admission
from convnextv2.server.batcher import Batcher
from convnextv2.server.decoders import Decoders
from convnextv2.server.limits import Limits
from convnextv2.server.prometheus import Metrics
from convnextv2.server.refusal import Refusal
from convnextv2.server.served import Served, open_served
from convnextv2.server.spec import Spec, fingerprint, is_number, parse_specs, version_order
from convnextv2.server.warm_up import warm_up, warm_up_dense, warm_up_pretrained


@dataclass(frozen=True)
class Change:
    """The result of a reload for one model.

    Attributes:
        text: A line for the user.
        failed: Whether the reload failed.
    """

    text: str
    failed: bool = False


class Models:
    """The models of a server, and the resources that they share.

    It must be used in one event loop, between `start` and `stop`.

    Args:
        sources: The models to serve; see `parse_specs`.
        limits: The server's limits.
        metrics: The server's metrics.
        device: The device of classifiers; see `open_scorer`.
        precision: The precision of classifiers; see `open_scorer`.

    Attributes:
        admission: Counts the images of all models that wait.
        decoders: Turn the files of requests into pixels.
        model_thread: The one thread in which all models compute, on all cores.
        is_ready: Whether the models are warmed up. It becomes False again at `stop`.
        is_draining: Whether the server is about to end. Requests are still answered, but load
            balancers should send no more.
        failure: The error of a model that cannot run; None if all can.

    Raises:
        ConvNeXtV2Error: A source cannot be found or opened.
    """

    def __init__(
        self,
        sources: Sequence[str],
        limits: Limits,
        metrics: Metrics,
        *,
        device: str,
        precision: str,
    ) -> None:
        self.sources, self.limits, self.metrics = sources, limits, metrics
        self.device, self.precision = device, precision
        self.admission = Admission(limits)
        self.decoders = Decoders(limits.max_image_pixels, metrics.decoded.observe)
        self.model_thread: Executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.is_ready = self.is_draining = False
        self.failure: BaseException | None = None
        self._reloading = asyncio.Lock()
        self._models: dict[str, list[Served]] = {}
        for spec in parse_specs(sources):
            self._models.setdefault(spec.name, []).append(self._open(spec, spec.version or "1"))
        for versions in self._models.values():
            versions.sort(key=lambda served: version_order(served.version))

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self._models)

    def check_ready(self) -> None:
        """Raise Refusal before the models are warmed up, and after `stop`."""
        if not self.is_ready:
            raise Refusal(
                503, "not_ready", "The server is starting or shutting down. Try again later.", 2
            )

    def check_open(self) -> None:
        """Raise Refusal if a load balancer should send no requests here."""
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
        """Return the versions of a model, the newest last. Raises Refusal for an unknown name."""
        if name not in self._models:
            raise Refusal(
                404,
                "no_such_model",
                f"There is no model {name[:100]!r}. There are: {', '.join(self._models)}.",
            )
        return self._models[name]

    def find(self, name: str, version: str | None = None) -> Served:
        """Find a model.

        Args:
            name: The model's name.
            version: The version; None for the newest.

        Returns:
            That version.

        Raises:
            Refusal: There is no such model or version.
        """
        versions = self.versions(name)
        if version:
            found = [served for served in versions if served.version == version]
        else:
            found = versions
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
        """Find a model as `find` does, and prevent its retirement during the `with` block.

        Args:
            name: The model's name.
            version: The version; None for the newest.
        """
        served = self.find(name, version)
        served.users += 1
        try:
            yield served
        finally:
            served.users -= 1
            if served.users == 0:
                served.idle.set()

    async def start(self) -> None:
        """Warm up all models, and set `is_ready`."""
        async with self._reloading:
            for versions in self._models.values():
                for served in versions:
                    await self._warm_up_and_start(served)
        if self.is_draining:
            return
        # The present objects are permanent. Their garbage collection took a fifth of the time.
        gc.collect()
        gc.freeze()
        self.is_ready = True

    async def stop(self) -> None:
        """Answer the images that wait, then shut down."""
        self.is_ready = False
        for versions in self._models.values():
            for served in versions:
                if served.batcher:
                    await served.batcher.stop()
        self.decoders.shut_down()
        self.model_thread.shutdown()

    async def reload(self, only: str = "") -> list[Change]:
        """Load models whose files have changed.

        A changed model is loaded and warmed up before it replaces the old one, which first answers
        the requests that it has. New versions in a model repository are added, and deleted ones are
        retired. If a model cannot be loaded, the old one stays.

        Args:
            only: The model to reload; empty for all.

        Returns:
            The changes, including those that failed.
        """
        async with self._reloading:
            try:
                specs = await asyncio.to_thread(parse_specs, self.sources)
            except (RunError, OSError) as error:
                return [Change(f"Nothing has changed: {error}", failed=True)]
            specs = [spec for spec in specs if only in ("", spec.name)]
            changes = [change for spec in specs for change in await self._reload_model(spec)]
            return changes + await self._drop_missing(specs, only)

    async def _reload_model(self, spec: Spec) -> list[Change]:
        """Load a model if it is new or has changed."""
        versions = self._models.get(spec.name, [])
        old = next((served for served in versions if served.spec.source == spec.source), None)
        version = spec.version or _next_version(versions)
        try:
            if old and await asyncio.to_thread(fingerprint, spec.source) == old.fingerprint:
                return []
            new = await asyncio.to_thread(self._open, spec, version)
            await self._warm_up_and_start(new)
        except Exception as error:
            outcome = f"{old.version}: is unchanged" if old else f"{version}: is not served"
            return [Change(f"{spec.name}@{outcome}: {error}", failed=True)]
        if old:
            versions.remove(old)
        versions.append(new)
        versions.sort(key=lambda served: version_order(served.version))
        self._models[spec.name] = versions
        if old:
            await self._retire(old)
        self._announce(new)
        instead = f", in place of {old.version}" if old else ""
        text = f"{spec.name}@{version}: {new.engine}, sha256 {new.sha256[:16]}{instead}"
        return [Change(text)]

    async def _drop_missing(self, specs: Sequence[Spec], only: str) -> list[Change]:
        """Retire versions whose source is gone, except the last version of a model."""
        there = {(spec.name, spec.source) for spec in specs}
        changes = []
        for name, versions in self._models.items():
            if only not in ("", name):
                continue
            for served in [one for one in versions if (name, one.spec.source) not in there]:
                if len(versions) == 1:  # an old version is better than none
                    break
                versions.remove(served)
                await self._retire(served)
                changes.append(Change(f"{name}@{served.version}: is gone"))
        return changes

    async def _retire(self, old: Served) -> None:
        """Let a replaced version answer the requests that it has, then stop it."""
        old.idle.clear()
        if old.users:
            await old.idle.wait()
        if old.batcher:
            await old.batcher.stop()
        self.metrics.model.remove(old.spec.name, old.version, old.sha256, old.engine)

    def _announce(self, served: Served) -> None:
        """Add a version to the metrics."""
        labels = (served.spec.name, served.version, served.sha256, served.engine)
        self.metrics.model.labels(*labels).set(1)

    def _open(self, spec: Spec, version: str) -> Served:
        return open_served(
            spec,
            version,
            device=self.device,
            precision=self.precision,
            max_pixels=self.limits.max_map_pixels,
        )

    async def _warm_up_and_start(self, served: Served) -> None:
        """Warm up a model, then start its batcher."""
        if served.scorer:
            images, seconds = await warm_up(served.scorer, self.model_thread, self.limits.max_batch)
            self.admission.update_pace(images, seconds)
            score = self._counted_score(served.spec.name, served.scorer)
            served.batcher = self._build_batcher(served, score, self.limits)
            served.batcher.start()
        elif served.dense:
            dense = served.dense
            self.admission.update_pace(1, await warm_up_dense(dense, self.model_thread))
            # Images have different sizes, and their answers are large, so a batch has one image.
            served.batcher = self._build_batcher(
                served,
                lambda questions: [dense(*question) for question in questions],
                replace(self.limits, max_batch=1),
                join=list,
                select=lambda answers, i: answers[i],
            )
            served.batcher.start()
        else:
            await warm_up_pretrained(served.pretrained, self.model_thread)
        self._announce(served)

    def _counted_score(self, name: str, scorer: Scorer) -> Callable[[Tensor], Scores]:
        """Return a function that scores images and counts the unknown ones in the metrics."""
        if scorer.unknown is None:
            return scorer
        possible, foreign = self.metrics.possible.labels(name), self.metrics.foreign.labels(name)

        def score(pixels: Tensor) -> Scores:
            scores = scorer(pixels)
            assert scores.possible is not None and scores.foreignness is not None
            for count in scores.possible.sum(1).tolist():
                possible.observe(count)
            foreign.inc(int((scores.foreignness > 1).sum()))
            return scores

        return score

    def _build_batcher(
        self, served: Served, score: Callable[[Any], Any], limits: Limits, **how: Any
    ) -> Batcher:
        name = served.spec.name

        def measure(images: int, waits: list[float], seconds: float) -> None:
            self.admission.update_pace(images, seconds)
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

        return Batcher(score, self.model_thread, limits, measure, failed, **how)


def _next_version(versions: Sequence[Served]) -> str:
    """Return the number after the highest one; "1" if there is none."""
    numbers = [int(served.version) for served in versions if is_number(served.version)]
    return str(max(numbers, default=0) + 1)
