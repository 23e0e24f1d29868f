import pytest

from convnextv2.data.auto_augment import build_policy
from convnextv2.data.auto_augment.grammar import POLICIES, parse
from convnextv2.data.auto_augment.operations import Canvas
from convnextv2.data.auto_augment.policies import (
    AugMix,
    AutoAugment,
    RandAugment,
    ThreeAugment,
    TrivialAugmentWide,
)
from convnextv2.errors import RecipeError

FILL = (124, 116, 104)


@pytest.mark.parametrize(
    ("text", "policy", "expected"),
    [
        (
            "randaug-m9-mstd0.5-inc1",
            RandAugment,
            {
                "magnitude": 9,
                "std": 0.5,
                "increasing": True,
                "layers": 2,
                "max_magnitude": 10,
                "weighted": False,
            },
        ),
        ("randaug", RandAugment, {"magnitude": 10, "std": 0.5, "increasing": False}),
        ("rand-m9-inc1", RandAugment, {"magnitude": 9, "std": 0, "increasing": True}),
        (
            "randaug-inc0-n3-w0-mstd101-mmax30-m15.5",
            RandAugment,
            {"magnitude": 15.5, "layers": 3, "weighted": True, "std": 101, "max_magnitude": 30},
        ),
        ("autoaug-mstd1", AutoAugment, {"std": 1, "increasing_posterize": False}),
        ("autoaugr", AutoAugment, {"std": 0.5, "increasing_posterize": True}),
        ("3a", ThreeAugment, {"std": 0.5}),
        ("augmix-m5-w4-d-1-a0.5", AugMix, {"magnitude": 5, "width": 4, "depth": -1, "alpha": 0.5}),
        ("augmix-d2", AugMix, {"magnitude": 3, "width": 3, "depth": 2, "alpha": 1}),
        ("trivialaugwide-m21", TrivialAugmentWide, {"bins": 21}),
    ],
)
def test_each_part_of_the_text_arrives_in_the_policy(text, policy, expected):
    built = build_policy(text, fill=FILL, interpolation="bilinear").policy
    assert type(built) is policy
    assert {name: getattr(built, name) for name in expected} == expected
    assert built.canvas == Canvas(FILL, 2)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("randomaug-m9", "'randomaug'"),
        ("", "''"),
        ("randaug-x9", "'x9'"),
        ("randaug-m", "'m'"),
        ("randaug-9", "'randaug-9'"),
        ("randaug-m9-", "'m9-'"),
        ("randaug_m9", "'randaug_m9'"),
        ("randaug-m9-m8", "m is given twice"),
        ("randaug-m-9", "'m-9'"),
        ("randaug-n1.5", "'n1.5'"),
        ("randaug-n14-w0", "'n14'"),
        ("randaug-inc2", "'inc2'"),
        ("randaug-w1", "'w1'"),
        ("augmix-d0", "'d0'"),
        ("augmix-inc1", "'inc1'"),
        ("trivialaugwide-m1", "'m1'"),
        ("3a-m9", "'m9'"),
    ],
)
def test_a_mistake_is_named(text, part):
    with pytest.raises(RecipeError) as raised:
        parse(text)
    message = str(raised.value)
    assert (
        part in message
        and "auto_augment" in message
        and "xpected" in message
        or "Keep one" in message
    )
    assert "\n" not in message


def test_every_policy_can_be_built_by_its_bare_name():
    assert {build_policy(name, fill=FILL).policy.__class__.__name__ for name in POLICIES} == {
        "RandAugment",
        "AutoAugment",
        "ThreeAugment",
        "AugMix",
        "TrivialAugmentWide",
    }
