"""The memory that decoding takes: pictures here are made up, and say how many pixels they hold."""

import asyncio
import threading
from typing import Any

import pytest
import torch

from convnextv2.data.transforms import EvalTransform
from convnextv2.errors import DataError, ImageSizeError
from convnextv2.preprocessing import Preprocessing
from convnextv2.server import decoders as module
from convnextv2.server.decoders import Decoders
from convnextv2.server.refusal import Refusal

pytestmark = pytest.mark.anyio

TRANSFORM = EvalTransform(Preprocessing((8, 8)))


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 6)


async def test_decoding_holds_at_most_twice_the_largest_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six threads could hold six images of 1000 pixels."""
    lock, held, most = threading.Lock(), 0, 0
    two_are_there, third_is_there = threading.Event(), threading.Event()

    class Picture:
        held_pixels, height, width = 1000, 40, 25

        def decode(self) -> torch.Tensor:
            nonlocal held, most
            with lock:
                held += self.held_pixels
                most = max(most, held)
                if held >= 2000:
                    two_are_there.set()
                if held > 2000:
                    third_is_there.set()
            two_are_there.wait(10)
            third_is_there.wait(0.1)  # time for a third one to come, if it may
            with lock:
                held -= self.held_pixels
            return torch.zeros(3, 40, 25, dtype=torch.uint8)

    monkeypatch.setattr(module, "open_picture", lambda *_, **__: Picture())
    seconds: list[float] = []
    decoders = Decoders(1000, seconds.append)
    found = await asyncio.gather(
        *(decoders.prepare(b"", f"image {i}", TRANSFORM) for i in range(6))
    )
    decoders.shut_down()
    assert most == 2000
    assert len(seconds) == 6 and all(second >= 0 for second in seconds)
    # 40 x 25 px become 14 x 9 before the crop of 8 x 8.
    (seen,) = {one.seen for one in found}
    assert seen == pytest.approx((3 / 14, 0.0, 8 / 14, 8 / 9))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ImageSizeError("a.jpg: is too large."), 413, "image_too_large"),
        (DataError("a.jpg: is not an image."), 415, "not_an_image"),
    ],
)
async def test_what_cannot_be_decoded_is_refused_and_not_measured(
    error: Exception, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(module, "open_picture", fail)
    seconds: list[float] = []
    decoders = Decoders(1000, seconds.append)
    with pytest.raises(Refusal) as refused:
        await decoders.prepare(b"", "a.jpg", TRANSFORM)
    decoders.shut_down()
    assert (refused.value.status, refused.value.code) == (status, code)
    assert refused.value.message == str(error) and not seconds
