import time

import pytest

from convnextv2.evaluation.timing import Timing, ratio, take_turns


def test_works_take_turns_after_two_calls_that_do_not_count() -> None:
    order: list[str] = []
    timings = take_turns(
        {name: lambda name=name: order.append(name) for name in "ab"}, seconds=0, min_rounds=3
    )
    assert order == ["a", "a", "b", "b", *"ababab"]
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_time_is_what_the_clock_says() -> None:
    timings = take_turns(
        {"short": lambda: time.sleep(0.01), "long": lambda: time.sleep(0.04)}, seconds=0.3
    )
    assert 0.009 < timings["short"].median < 0.03 < timings["long"].median < 0.08
    low, middle, high = ratio(timings["long"], timings["short"])
    assert low <= middle <= high and 1.5 < middle < 5


def test_spread_is_half_of_what_lies_between_the_quartiles() -> None:
    timing = Timing([1.0, 2.0, 3.0, 4.0, 5.0])
    assert timing.median == 3.0 and timing.spread == pytest.approx((4.5 - 1.5) / 2 / 3)
