"""The warm-up, by a clock of its own."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch import Tensor

from convnextv2.data.transforms import EvalTransform
from convnextv2.preprocessing import Preprocessing
from convnextv2.server import warm_up as module
from convnextv2.server.warm_up import warm_up

pytestmark = pytest.mark.anyio


class Scorer:
    """Takes so long for each image, and remembers the batches."""

    transform = EvalTransform(Preprocessing((8, 8)))

    def __init__(self, seconds_per_image: float, setting_up_s: float = 0.0) -> None:
        self.seconds_per_image, self.setting_up_s = seconds_per_image, setting_up_s
        self.now = 0.0
        self.batches: list[int] = []

    def __call__(self, pixels: Tensor) -> None:
        assert pixels.shape[1:] == (3, 8, 8) and (pixels == 128).all()
        self.now += self.seconds_per_image * len(pixels)
        if not self.batches:
            self.now += self.setting_up_s
        self.batches.append(len(pixels))


@pytest.fixture
async def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    async def run(scorer: Scorer, max_batch: int) -> tuple[int, float]:
        monkeypatch.setattr(module, "perf_counter", lambda: scorer.now)
        with ThreadPoolExecutor(1) as thread:
            return await warm_up(scorer, thread, max_batch)  # type: ignore[arg-type]

    return run


async def test_a_fast_model_is_warmed_up_to_the_largest_batch(run: Any) -> None:
    scorer = Scorer(0.001, setting_up_s=5.0)
    assert await run(scorer, 12) == (12, pytest.approx(0.012))
    assert scorer.batches == [1, 1, 2, 4, 8, 12]


async def test_a_slow_model_is_not_asked_for_more_than_others_may_wait(run: Any) -> None:
    scorer = Scorer(0.03)
    assert await run(scorer, 32) == (4, pytest.approx(0.12))  # 8 images would take 0.24 s
    assert scorer.batches == [1, 1, 2, 4]
