"""Sets of the library `datasets`, saved to disk or read by it from files."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image as Pillow
from shards import CLASSES, picture

from convnextv2.data import hugging_face
from convnextv2.data.sources import find_sources, validation_source
from convnextv2.errors import DataError, MissingPackageError
from convnextv2.recipe.read import read_recipe
from convnextv2.training.conditions import _names_sha256

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore")  # of datasets, about itself


def rows(count=6, start=0, **columns):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    content = {
        "image": [{"bytes": picture(start + i), "path": f"{i}.png"} for i in range(count)],
        "label": [i % 3 for i in range(count)],
    }
    return datasets.Dataset.from_dict(content, features=features)


@pytest.fixture
def saved(tmp_path):
    splits = {"train": rows(9), "validation": rows(6, 50), "test": rows(3, 90)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def sources(data, labelled=True, **knobs):
    return find_sources(read_recipe({"data_dir": str(data)} | knobs)[0], labelled=labelled)


def pixels_of(data):
    return np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)


def test_a_saved_set_has_its_splits_classes_and_pixels(saved):
    training, validation = sources(saved)
    assert training.class_names == validation.class_names == CLASSES
    assert training.targets.tolist() == [i % 3 for i in range(9)]
    assert len(validation) == 6 and validation.names[5] == f"{saved}/validation/5"
    for i in range(6):
        assert np.array_equal(validation.pixels(i).numpy(), pixels_of(picture(50 + i)))
    assert training.notes[0].endswith(
        "the split train is for training, validation for validation; not used: test."
    )
    measured = validation_source(read_recipe({"data_dir": str(saved)})[0], CLASSES[::-1])
    assert measured.targets.tolist() == [2 - i % 3 for i in range(6)]
    assert len(sources(saved, labelled=False)[0]) == 9
    assert len(sources(saved, val_split="test")[1]) == 3


def test_a_set_without_splits_holds_images_out(tmp_path):
    rows(30).save_to_disk(str(tmp_path / "one"))
    training, validation = sources(tmp_path / "one", val_fraction=0.2, seed=3)
    assert (len(training), len(validation)) == (24, 6)
    again = sources(tmp_path / "one", val_fraction=0.2, seed=3)
    assert list(again[0].names) == list(training.names)
    assert _names_sha256(again[0].names) == _names_sha256(training.names)
    assert _names_sha256(validation.names) != _names_sha256(training.names)
    assert not set(training.names) & set(validation.names)
    for one, row in ((training, int(training.names[7].split("/")[-1])),):
        assert one.names.read(7) == picture(row)


def test_rows_that_were_chosen_or_mixed_before_saving_stay_so(tmp_path):
    rows(9).shuffle(seed=1).select(range(2, 8)).save_to_disk(str(tmp_path / "some"))
    order = np.random.default_rng(1).permutation(9)[2:8]
    source = sources(tmp_path / "some", val_while_train=False)[0]
    assert source.targets.tolist() == [int(i) % 3 for i in order]
    assert [source.names.read(i) for i in range(6)] == [picture(int(i)) for i in order]


def test_another_process_gets_a_copy_that_reads(saved):
    source = sources(saved)[0]
    copy = pickle.loads(pickle.dumps(source.names))
    assert list(copy) == list(source.names) and copy.read(3) == picture(3)
    assert list(copy[2:4]) == list(source.names)[2:4]


def test_a_folder_of_parquet_files_is_a_set(tmp_path):
    (tmp_path / "set").mkdir()
    rows(12).to_parquet(str(tmp_path / "set" / "train-00000-of-00001.parquet"))
    source = sources(f"hf:{tmp_path}/set", val_while_train=False)[0]
    assert source.class_names == CLASSES and source.names.read(5) == picture(5)


@pytest.mark.parametrize(
    ("labels", "names", "targets"),
    [
        (["oak", "ash", "oak"], ("ash", "oak"), [1, 0, 1]),
        ([2, 0, 1], ("0", "1", "2"), [2, 0, 1]),
    ],
)
def test_labels_may_be_words_or_numbers(tmp_path, labels, names, targets):
    images = [{"bytes": picture(i), "path": None} for i in range(3)]
    content = {"photo": images, "category": labels, "note": ["a", "b", "c"]}
    data = datasets.Dataset.from_dict(content).cast_column("photo", datasets.Image())
    data.save_to_disk(str(tmp_path / "set"))
    source = sources(tmp_path / "set", val_while_train=False)[0]
    assert source.class_names == names and source.targets.tolist() == targets
    other = sources(tmp_path / "set", val_while_train=False, columns="label=note,path=photo")[0]
    assert other.class_names == ("a", "b", "c")


def message(data, **knobs):
    with pytest.raises(DataError) as caught:
        sources(data, **knobs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mistakes_are_one_line(saved, tmp_path):
    assert "has no column 'x'. It has image, label." in message(saved, columns="label=x")
    assert "has no column of images 'label'" in message(saved, columns="path=label")
    assert "none of which is for training" in message(saved, train_split="other")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "text"))
    assert "has no column of images" in message(tmp_path / "text")
    hidden = rows(3).cast_column("label", datasets.Value("int64"))
    hidden = hidden.map(lambda row: {"label": -1})
    hidden.save_to_disk(str(tmp_path / "hidden"))
    assert "row 0 has no class (label = -1)" in message(tmp_path / "hidden")
    several = datasets.Dataset.from_dict(
        {"image": [{"bytes": picture(0), "path": None}], "label": [[0, 1]]}
    ).cast_column("image", datasets.Image())
    several.save_to_disk(str(tmp_path / "several"))
    assert "does not hold one class for each image" in message(tmp_path / "several")
    (saved / "train" / "state.json").unlink()
    assert "cannot be opened" in message(saved)


def test_a_set_of_the_hub_is_asked_for_by_name_and_configuration(monkeypatch):
    asked = []

    def load_dataset(*names):
        asked.append(names)
        if names[0] == "owner/none":
            raise ConnectionError("cannot reach the Hub\nat all")
        return datasets.DatasetDict({"train": rows(6)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert "cannot be opened (cannot reach the Hub)" in message("hf:owner/none")
    found = sources("hf:owner/name:small", val_while_train=False)[0]
    assert found.names[0] == "hf:owner/name:small/train/0"
    assert asked == [("owner/none", None), ("owner/name", "small")]


def test_without_the_package_one_line_says_so(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match="datasets is not installed"):
        hugging_face.open_rows("hf:owner/name", None, None)
