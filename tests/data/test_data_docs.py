"""Every row of the tables in docs/how-to/data.md: what it promises happens and is said."""

import codecs
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pages import documented

from convnextv2.data.manifest import read_table
from convnextv2.data.sources import find_sources
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe

IMAGES = ("hat/1.jpg", "hat/2.jpg", "shoe/3.jpg")
ROWS = "hat/1.jpg,hat\nhat/2.jpg,hat\nshoe/3.jpg,shoe\n"
LISTED = [("hat/1.jpg", "hat"), ("hat/2.jpg", "hat"), ("shoe/3.jpg", "shoe")]
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


@dataclass(frozen=True)
class Case:
    """A table, and the images that are read from it: path, label and perhaps split.

    None instead of the images stands for an error.
    """

    content: str | bytes
    listed: list[tuple[str, ...]] | None = None
    images: tuple[str, ...] = IMAGES
    name: str = "list.csv"
    options: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, list[Case]] = {
    "semicolons": [
        Case("path;label\n" + ROWS.replace(",", ";"), LISTED),
        Case("sep=;\r\npath;label\r\n" + ROWS.replace(",", ";").replace("\n", "\r\n"), LISTED),
        Case("path|label\n" + ROWS.replace(",", "|"), LISTED),
        Case("path\tlabel\n" + ROWS.replace(",", "\t"), LISTED, name="list.tsv"),
    ],
    "utf16": [
        Case(
            mark + f"path,label\nhat/1.jpg,H{COMPOSED}\n".encode(encoding),
            [("hat/1.jpg", f"H{COMPOSED}")],
        )
        for mark, encoding in (
            (codecs.BOM_UTF8, "utf-8"),
            (codecs.BOM_UTF16_LE, "utf-16-le"),
            (codecs.BOM_UTF16_BE, "utf-16-be"),
            (codecs.BOM_UTF32_LE, "utf-32-le"),
            (codecs.BOM_UTF32_BE, "utf-32-be"),
        )
    ],
    "cp1252": [Case("path;label\nhat/1.jpg;Hüte €\n".encode("cp1252"), [("hat/1.jpg", "Hüte €")])],
    "blanks": [Case('path, label \nhat/1.jpg, hat\nhat/2.jpg,hat \n"shoe/3.jpg", shoe\n', LISTED)],
    "letter-case": [
        Case(
            "path,label\nhat/1.jpg,hat\nhat/2.jpg,Hat\n",
            [("hat/1.jpg", "hat"), ("hat/2.jpg", "Hat")],
        )
    ],
    "kaggle": [Case("image_id,category,width\nhat/1,hat,9\nhat/2,hat,9\nshoe/3,shoe,9\n", LISTED)],
    "unknown-columns": [Case("fname,breed\n" + ROWS)],
    "two-columns": [Case("path,class,species\nhat/1.jpg,hat,x\n")],
    "no-header": [Case(ROWS, LISTED)],
    "list": [
        Case(
            "1.jpg 65\nmy cat.jpg 970\n",
            [("1.jpg", "65"), ("my cat.jpg", "970")],
            ("1.jpg", "my cat.jpg"),
            "val.txt",
        )
    ],
    "one-hot": [
        Case("image,hat,shoe\nhat/1.jpg,1,0\nhat/2.jpg,1.0,0.0\nshoe/3.jpg,False,True\n", LISTED)
    ],
    "pandas": [
        Case(
            f"{index},path,label\n0,hat/1.jpg,3.0\n1,hat/2.jpg,12.0\n",
            [("hat/1.jpg", "3"), ("hat/2.jpg", "12")],
        )
        for index in ("", "Unnamed: 0")
    ],
    "split": [
        Case(
            "Path,LABEL,Split\nhat/1.jpg,hat,Training\nnot_there.jpg,,test\nshoe/3.jpg,shoe,dev\n",
            [("hat/1.jpg", "hat", "Training"), ("shoe/3.jpg", "shoe", "dev")],
            options={"wanted": lambda counts: [word for word in counts if word != "test"]},
        )
    ],
    "folds": [
        Case(
            "path,label,fold\nhat/1.jpg,hat,0\nshoe/3.jpg,shoe,1\n",
            [("hat/1.jpg", "hat", "0"), ("shoe/3.jpg", "shoe", "1")],
        )
    ],
    "flag": [
        Case(
            "path,label,is_valid\nhat/1.jpg,hat,False\nhat/2.jpg,hat,True\n",
            [("hat/1.jpg", "hat", "train"), ("hat/2.jpg", "hat", "val")],
        )
    ],
    "jsonl": [
        Case(
            '{"file_name": "hat/1.jpg", "label": 0}\n\n'
            '{"file_name": "shoe/3.jpg", "label": "1", "width": [1]}\n',
            [("hat/1.jpg", "0"), ("shoe/3.jpg", "1")],
            name="metadata.jsonl",
        )
    ],
    "backslashes": [Case("path,label\n" + ROWS.replace("/", "\\"), LISTED)],
    "other-machine": [
        Case("path,label\n" + re.sub("^(?=.)", "/home/me/data/", ROWS, flags=re.MULTILINE), LISTED)
    ],
    "accents": [
        Case(
            f"path,label\n{COMPOSED}/1.JPG,hat\n",
            [(f"{DECOMPOSED}/1.jpg", "hat")],
            (f"{DECOMPOSED}/1.jpg",),
        ),
    ],
    "images-elsewhere": [
        Case("path,label\n1.jpg,a\n2.jpg,b\n", images=("train/1.jpg", "train/2.jpg"))
    ],
    "missing": [Case("path,label\nhat/1.jpg,hat\nhat/9.jpg,hat\n")],
    "web": [Case("path,label\nhttps://example.com/1.jpg,hat\n")],
    "repeated": [Case("path,label\n" + ROWS + "./hat/1.jpg,hat\n", LISTED)],
    "two-labels": [Case("path,label\nhat/1.jpg,hat\nhat/1.jpg,shoe\n")],
    "two-splits": [
        Case(
            "path,label,split\nhat/1.jpg,hat,train\nhat/1.jpg,hat,val\n",
            [("hat/1.jpg", "hat", "train"), ("hat/1.jpg", "hat", "val")],
        )
    ],
    "no-label": [Case("path,label\nhat/1.jpg,hat\nhat/2.jpg,\nshoe/3.jpg,NaN\n")],
    "comma-in-label": [Case("path,label\nhat/1.jpg,hat, red\n")],
    "open-quote": [Case('path,label\nhat/1.jpg,hat\n"hat/2.jpg,hat\nshoe/3.jpg,shoe\n')],
    "spreadsheet": [Case(b"PK\x03\x04", name="list.xlsx")],
}


@dataclass(frozen=True)
class Folder:
    """Files of a folder, and the classes and counts of images that are found. None: an error."""

    files: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    training: int = 0
    validation: int = 0
    links: dict[str, str] = field(default_factory=dict)


def each(*folders: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{i}.jpg" for folder in folders for i in (1, 2))


PETS = each("cat", "dog")
FOLDERS = {
    "usual-names": Folder(
        each("Training/cat", "Training/dog", "valid/cat", "valid/dog", "Testing/cat"),
        ("cat", "dog"), 4, 4,
    ),
    "archive": Folder(
        each("shoes/train/cat", "shoes/train/dog", "shoes/val/cat", "shoes/val/dog"),
        ("cat", "dog"), 4, 4,
    ),
    "train-and-test": Folder(each("train/cat", "train/dog", "test/cat"), ("cat", "dog"), 4, 0),
    "two-splits": Folder(each("train/cat", "train/dog", "valid/cat", "dev/cat")),
    "no-training": Folder(each("val/cat", "val/dog", "test/cat")),
    "test-beside-classes": Folder((*PETS, "test/1.jpg"), ("cat", "dog"), 2, 2),
    "inside-classes": Folder(each("cat/train", "cat/test", "dog/train", "dog/test")),
    "one-class": Folder(each("animals/cat", "animals/dog")),
    "no-classes": Folder(("1.jpg", "2.jpg")),
    "endings": Folder(
        ("cat/1.JPG", "cat/2.jfif", "cat/3.heic", "cat/IMG_4", "cat/notes.txt", "cat/Thumbs.db")
        + ("dog/1.avif", "dog/2.jp2", "dog/3.HEIC"),
        ("cat", "dog"), 2, 2,
    ),
    "only-heic": Folder((*each("cat"), "dog/1.heic")),
    "label-maps": Folder(
        (*PETS, "cat/1_mask.png", "cat/1_mask_1.png", "dog/2_Mask.PNG", "dog/gas_mask.jpg"),
        ("cat", "dog"), 6, 2,
    ),
    "system": Folder(
        (*PETS, "__MACOSX/cat/1.jpg", "cat/@eaDir/1.jpg", "cat/.1.jpg"), ("cat", "dog"), 2, 2
    ),
    "loop": Folder(PETS, ("cat", "dog"), 2, 2, {"cat/again": ".."}),
    "broken-link": Folder(PETS, ("cat", "dog"), 2, 2, {"cat/gone.jpg": "nowhere.jpg"}),
    "linked-class": Folder(PETS, ("cat", "dog", "kitty"), 3, 3, {"kitty": "cat"}),
    "accents": Folder(
        ("dog/1.jpg", "dog/2.jpg", f"{COMPOSED}/1.jpg", f"{DECOMPOSED}/2.jpg"),
        ("dog", COMPOSED), 2, 2,
    ),
    "not-utf8": Folder(each("cat", "caf\udce9")),
    "absent-class": Folder(each("train/cat", "train/dog", "val/cat"), ("cat", "dog"), 4, 2),
    "single-images": Folder(("cat/1.jpg", "dog/1.jpg"), ("cat", "dog"), 2, 0),
}  # fmt: skip


def test_every_row_of_the_page_is_tested() -> None:
    assert list(documented("table")) == list(CASES)
    assert list(documented("folder")) == list(FOLDERS)


@pytest.mark.parametrize(
    ("slug", "case"),
    [
        pytest.param(slug, case, id=f"{slug}-{i}")
        for slug, cases in CASES.items()
        for i, case in enumerate(cases)
    ],
)
def test_tables_are_read_and_told_as_the_page_says(
    slug: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for image in case.images:
        Path(image).parent.mkdir(parents=True, exist_ok=True)
        Path(image).touch()
    content = case.content if isinstance(case.content, bytes) else case.content.encode()
    Path(case.name).write_bytes(content)
    if case.listed is None:
        with pytest.raises(DataError) as caught:
            read_table(case.name, **case.options)
        assert [str(caught.value)] == documented("table")[slug]
        return
    table = read_table(case.name, **case.options)
    columns = [column for column in (table.paths, table.labels, table.splits) if column is not None]
    assert list(zip(*columns, strict=True)) == case.listed
    # The page has accents in one form, the names on disk have them in both.
    assert [unicodedata.normalize("NFC", note) for note in table.notes] == documented("table")[slug]


@pytest.mark.parametrize("slug", FOLDERS)
def test_folders_are_read_and_told_as_the_page_says(
    slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = FOLDERS[slug]
    for name in case.files:
        file = Path("data", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for name, target in case.links.items():
        Path("data", name).symlink_to(target)
    said = [unicodedata.normalize("NFC", line) for line in documented("folder")[slug]]
    if case.classes is None:
        with pytest.raises(DataError) as caught:
            find_sources(Recipe(data_dir="data"), labelled=True)
        assert [str(caught.value)] == said
        return
    training, validation = find_sources(Recipe(data_dir="data"), labelled=True)
    assert training.class_names == case.classes
    assert (len(training), len(validation) if validation else 0) == (case.training, case.validation)
    notes = training.notes + (validation.notes if validation else ())
    assert [unicodedata.normalize("NFC", note) for note in notes] == said
