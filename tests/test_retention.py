"""Which checkpoints are kept, by names in place of folders."""

import pytest

from convnextv2.retention import kept


@pytest.mark.parametrize(
    ("policy", "scores", "expected"),
    [
        ("all", {}, "abcde"),
        ("latest_k", {"a": 9.0}, "de"),
        ("top_k", {"a": 3.0, "b": 5.0, "c": 4.0, "d": 1.0}, "bce"),
        ("top_k", {"a": 3.0, "b": 3.0, "c": 3.0}, "abe"),  # of equal scores, the older ones
        ("top_k", {"a": 1.0, "e": 2.0}, "ae"),
        ("top_k", {}, "de"),
        ("top_k", {"x": 1.0}, "de"),  # the score of a checkpoint that is no more
    ],
)
def test_the_policy_decides_which_are_kept(
    policy: str, scores: dict[str, float], expected: str
) -> None:
    assert sorted(set(kept("abcde", scores, 2, policy))) == list(expected)


def test_nothing_is_kept_of_nothing() -> None:
    assert kept([], {"a": 1.0}, 2, "top_k") == []
