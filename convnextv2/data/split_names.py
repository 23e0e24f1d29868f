"""Names that people give to the splits of a data set, as folders and in the column of a table."""

from __future__ import annotations

import unicodedata
from typing import Literal

Kind = Literal["train", "validation", "test"]

NAMES: dict[Kind, tuple[str, ...]] = {
    "train": ("train", "training", "train_set", "trainset", "training_set"),
    "validation": (
        *("val", "valid", "validation", "dev", "eval", "evaluation", "development"),
        *("val_set", "valset", "validation_set", "dev_set", "devset"),
    ),
    "test": ("test", "testing", "test_set", "testset", "testing_set"),
}

_KINDS = {name: kind for kind, names in NAMES.items() for name in names}


def kind_of(word: str) -> Kind | None:
    """Say which split a word names.

    Numbers name none: which of ten folds is for validation is the user's choice.

    Args:
        word: Name of a folder, or a value of a table's column. Letter case, the Unicode form,
            blanks at the ends, and "-" or " " in place of "_" make no difference.

    Returns:
        The split, or None if the word is not a usual name of one.
    """
    plain = unicodedata.normalize("NFC", word).strip().casefold()
    return _KINDS.get(plain.replace("-", "_").replace(" ", "_"))
