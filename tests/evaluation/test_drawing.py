"""The text at the boxes of objects names the class only where there are several."""

from convnextv2.evaluation.drawing import tag_of


def test_the_only_class_is_not_named_at_every_box() -> None:
    assert tag_of(["cat", "dog"], 1, 0.604) == "dog 60%"
    assert tag_of(["nucleus"], 0, 0.604) == "60%"
