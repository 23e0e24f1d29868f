import pytest

from convnextv2.data.split_names import NAMES, kind_of


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "train",
            [
                "train",
                "Train",
                "TRAIN",
                "training",
                "Training",
                "TRAINING",
                " train ",
                "Training Set",
                "train-set",
            ],
        ),
        (
            "validation",
            [
                "val",
                "Val",
                "valid",
                "VALID",
                "validation",
                "Validation",
                "dev",
                "eval",
                "Validation_Set",
                "val\t",
            ],
        ),
        ("test", ["test", "Test", "TEST", "testing", "Testing", "test set"]),
        (
            None,
            [
                "",
                "0",
                "1",
                "fold_1",
                "hat",
                "trains",
                "contest",
                "unlabeled",
                "all",
                "trai\u0301n",
                "tr ain",
                "tr",
            ],
        ),
    ],
)
def test_usual_names_of_splits_in_any_spelling_and_nothing_else(
    kind: str | None, words: list[str]
) -> None:
    assert {word: kind_of(word) for word in words} == dict.fromkeys(words, kind)


def test_no_name_belongs_to_two_splits() -> None:
    names = [name for group in NAMES.values() for name in group]
    assert len(names) == len(set(names))
