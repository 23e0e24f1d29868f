import pytest

from convnextv2.recipe.columns import read_columns


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", {}),
        (
            "path=image_id,label=class,split=fold",
            {"path": "image_id", "label": "class", "split": "fold"},
        ),
        (" label = class name , path=1, split=", {"label": "class name", "path": "1", "split": ""}),
    ],
)
def test_roles_and_columns_are_pairs(text: str, columns: dict[str, str]) -> None:
    assert read_columns(text) == columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image_id", "expected path, label, split with = and the name of a column"),
        ("file=image_id", "expected path, label, split with = and the name of a column"),
        ("path=a,path=b", "expected path only once"),
        ("path=", "expected the name of a column after path="),
        ("path=a,label=a", "expected a different column for each role"),
    ],
)
def test_other_forms_say_what_is_expected(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        read_columns(text)
