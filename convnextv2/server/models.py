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
from convnextv2.server.spec import Spec, age, fingerprint, is_number, parse_specs
from convnextv2.server.warm_up import warm_up, warm_up_dense, warm_up_pretrained


@dataclass(frozen=True)
class Change:
    """What a reload has done to a model, or could not do.

    Attributes:
        text: What has happened, for people.
        failed: Whether it could not be done.
    """

    text: str
    failed: bool = False


class Models:
    """Everything that a server serves, and what the models share.

    Use it inside of one event loop, between `start` and `stop`.

    Args:
        sources: What to serve; see `parse_specs`.
        limits: The server's limits.
        metrics: The server's metrics.
        device: Where classifiers run; see `open_scorer`.
        precision: The arithmetic of classifiers; see `open_scorer`.

    Attributes:
        admission: Counts the images of all models that wait.
        decoders: Turn the files of requests into pixels.
        model_thread: The one thread in which all models compute, on all cores.
        is_ready: Whether the models are warm, until `stop`.
        is_draining: Whether the server is about to end. Requests are still answered, but load
            balancers should send no more.
        failure: Why a model does not run; None if all do.

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
            versions.sort(key=lambda served: age(served.version))

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self._models)

    def check_ready(self) -> None:
        """Raise Refusal before the models are warm, and after the end."""
        if not self.is_ready:
            raise Refusal(
                503, "not_ready", "The server is starting or shutting down. Try again later.", 2
            )

    def check_open(self) -> None:
        """Raise Refusal if a load balancer should send nothing here."""
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
        """Find a model as `find` does, and keep it from being retired until it is no longer used.

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
        """Warm all models up, then be ready."""
        async with self._reloading:
            for versions in self._models.values():
                for served in versions:
                    await self._begin(served)
        if self.is_draining:
            return
        # What is there now stays. Searching it for garbage took a fifth of the time.
        gc.collect()
        gc.freeze()
        self.is_ready = True

    async def stop(self) -> None:
        """Answer what waits, then end."""
        self.is_ready = False
        for versions in self._models.values():
            for served in versions:
                if served.batcher:
                    await served.batcher.stop()
        self.decoders.shut_down()
        self.model_thread.shutdown()

    async def reload(self, only: str = "") -> list[Change]:
        """Look again at the places where the models lie.

        A model that has changed is loaded and warmed up. Then it takes the place of the old one,
        which finishes what it was given. New versions of a model repository are added, and those
        that are gone are served no more. What cannot be loaded stays as it was.

        Args:
            only: The model to look at; empty for all.

        Returns:
            What has changed, and what should have changed and could not.
        """
        async with self._reloading:
            try:
                specs = await asyncio.to_thread(parse_specs, self.sources)
            except (RunError, OSError) as error:
                return [Change(f"All stays as it was: {error}", failed=True)]
            specs = [spec for spec in specs if only in ("", spec.name)]
            changes = [change for spec in specs for change in await self._renew(spec)]
            return changes + await self._drop_missing(specs, only)

    async def _renew(self, spec: Spec) -> list[Change]:
        """Load a model again if it has changed, or for the first time if it is new."""
        versions = self._models.get(spec.name, [])
        old = next((served for served in versions if served.spec.source == spec.source), None)
        version = spec.version or _next_version(versions)
        try:
            if old and await asyncio.to_thread(fingerprint, spec.source) == old.fingerprint:
                return []
            new = await asyncio.to_thread(self._open, spec, version)
            await self._begin(new)
        except Exception as error:
            outcome = f"{old.version}: stays as it was" if old else f"{version}: is not served"
            return [Change(f"{spec.name}@{outcome}: {error}", failed=True)]
        if old:
            versions.remove(old)
        versions.append(new)
        versions.sort(key=lambda served: age(served.version))
        self._models[spec.name] = versions
        if old:
            await self._retire(old)
        self._announce(new)
        instead = f", in place of {old.version}" if old else ""
        text = f"{spec.name}@{version}: {new.engine}, sha256 {new.sha256[:16]}{instead}"
        return [Change(text)]

    async def _drop_missing(self, specs: Sequence[Spec], only: str) -> list[Change]:
        """Retire the versions whose source is gone, but never the last one of a model."""
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
        """Let a version that is no longer found finish what it was given."""
        old.idle.clear()
        if old.users:
            await old.idle.wait()
        if old.batcher:
            await old.batcher.stop()
        self.metrics.model.remove(old.spec.name, old.version, old.sha256, old.engine)

    def _announce(self, served: Served) -> None:
        """Show a version in the metrics."""
        labels = (served.spec.name, served.version, served.sha256, served.engine)
        self.metrics.model.labels(*labels).set(1)

    def _open(self, spec: Spec, version: str) -> Served:
        return open_served(
            spec,
            version,
            device=self.device,
            precision=self.precision,
            most_pixels=self.limits.max_map_pixels,
        )

    async def _begin(self, served: Served) -> None:
        """Warm a model up, then let it take requests."""
        if served.scorer:
            images, seconds = await warm_up(served.scorer, self.model_thread, self.limits.max_batch)
            self.admission.finished(images, seconds)
            score = self._watched(served.spec.name, served.scorer)
            served.batcher = self._build_batcher(served, score, self.limits)
            served.batcher.start()
        elif served.dense:
            dense = served.dense
            self.admission.finished(1, await warm_up_dense(dense, self.model_thread))
            # One image at a time: their sizes differ, and what they are answered with is large.
            served.batcher = self._build_batcher(
                served,
                lambda questions: [dense(*question) for question in questions],
                replace(self.limits, max_batch=1),
                join=list,
                part=lambda answers, i: answers[i],
            )
            served.batcher.start()
        else:
            await warm_up_pretrained(served.pretrained, self.model_thread)
        self._announce(served)

    def _watched(self, name: str, scorer: Scorer) -> Callable[[Tensor], Scores]:
        """Make a function that scores, and shows in the metrics how unknown images are."""
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
            self.admission.finished(images, seconds)
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
