"""The cache of decoded images, and the loader with it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from convnextv2.data import cache as cache_module
from convnextv2.data import loader as loader_module
from convnextv2.data import workers as workers_module
from convnextv2.data.cache import DecodedCache, affordable
from convnextv2.data.folders import image_folder
from convnextv2.data.loader import build_training_loader
from convnextv2.data.source import Source
from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe


@pytest.fixture
def photographs(tmp_path: Path) -> Source:
    """Twelve JPEGs of 400 x 300 noise.

    They are so large that without a cache they are decoded at a reduced scale.
    """
    for i in range(12):
        noise = torch.randint(
            0, 256, (300, 400, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)
        )
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(noise.numpy()).save(tmp_path / "a" / f"{i:02}.jpg", quality=80)
    return image_folder(tmp_path)


def test_what_fits_comes_back_and_what_does_not_is_not_kept() -> None:
    cache = DecodedCache(3, 1)
    first, second = (
        torch.randint(0, 256, (3, 500, 400), dtype=torch.uint8),
        torch.ones(1, 600, 500, dtype=torch.uint8),
    )
    for index, pixels in enumerate((first, second, second)):
        cache.put(index, pixels)
    assert torch.equal(cache.get(0), first) and torch.equal(cache.get(1), second)
    assert cache.get(2) is None
    cache.put(0, second)  # two workers had the same image in hand: the first one stays
    assert torch.equal(cache.get(0), first)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_what_fitted(photographs: Source, workers: int) -> None:
    recipe = Recipe(
        image_size=64,
        batch_size=4,
        workers=workers,
        cache_mb=1,
        auto_augment="randaug-m9-mstd0.5-inc1",
    )
    small = build_training_loader(recipe, photographs, Place(torch.device("cpu")))
    large = build_training_loader(
        recipe.model_copy(update={"cache_mb": 50}), photographs, Place(torch.device("cpu"))
    )
    for epoch in range(2):
        pairs = list(zip(small.batches(epoch), large.batches(epoch), strict=True))
        assert len(pairs) == 3 and all(
            torch.equal(one.pixels, other.pixels) for one, other in pairs
        )


def test_each_file_is_read_once(photographs: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = Source.picture
    monkeypatch.setattr(
        Source,
        "picture",
        lambda self, index, *how: read.append(index) or original(self, index, *how),
    )
    recipe = Recipe(image_size=64, batch_size=4, workers=0, cache_mb=50)
    loader = build_training_loader(recipe, replace(photographs), Place(torch.device("cpu")))
    for epoch in range(3):
        list(loader.batches(epoch))
    assert sorted(read) == list(range(12))


def test_what_the_workers_need_is_left_to_them(
    photographs: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        loader_module, "affordable", lambda mb, **needs: asked.append(needs) or (0, "none is used")
    )
    monkeypatch.setattr(workers_module, "available_cores", lambda: 8)
    for workers in (0, 1):
        recipe = Recipe(image_size=(64, 32), batch_size=4, workers=workers, cache_mb=50)
        loader = build_training_loader(
            recipe, photographs, Place(torch.device("cpu"), local_world_size=2)
        )
        assert loader._reader.images.cache is None
    batch = 4 * 3 * 64 * 32
    assert asked == [{"batches": 0, "ranks": 2}, {"batches": 3 * batch, "ranks": 2}]


def test_little_shared_memory_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cache_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=64_000_000)
    )
    monkeypatch.setattr(cache_module, "_SHARED", tmp_path)
    used, note = affordable(4000)
    assert used == 57 and "cache_mb = 4000" in note and "64 MB left; 57 used" in note
    assert affordable(50) == (50, "")
    # Two ranks share what is left, and their workers' batches come first.
    used, note = affordable(50, batches=20_000_000, ranks=2)
    assert used == 8 and "64 MB left for 2 ranks; 8 used" in note
    assert affordable(8, batches=20_000_000, ranks=2) == (8, "")
    used, note = affordable(50, batches=60_000_000)
    assert used == 0 and "64 MB left; no cache is used" in note
    monkeypatch.setattr(cache_module, "_SHARED", tmp_path / "nowhere")
    assert affordable(4000) == (4000, "")
