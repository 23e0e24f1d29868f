"""The usual names of the splits of a data set, as folders or in a column of a table."""

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
    """Return the kind of split that a word means.

    A number, such as that of a fold, means no split: the user must choose the fold for validation.

    Args:
        word: The name of a folder, or a value in a table. Letter case, the Unicode form, blanks at
            the ends, and "-" or " " in place of "_" make no difference.

    Returns:
        The kind of split; None if the word is not a usual name of a split.
    """
    plain = unicodedata.normalize("NFC", word).strip().casefold()
    return _KINDS.get(plain.replace("-", "_").replace(" ", "_"))
