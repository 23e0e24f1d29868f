"""The batch size that `auto` finds, and the global batch, which is kept."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import Program, finish_ranks
from torch import Tensor, nn

from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.training import memory
from convnextv2.training.batch_size import fit_batch, largest_batch, resolve_batch
from convnextv2.training.schedule import scaled_lr

CPU = Place(torch.device("cpu"))


@pytest.mark.parametrize(
    ("global_batch", "ranks", "fits", "expected"),
    [
        (64, 1, 64, (64, 1)),
        (64, 1, 1000, (64, 1)),
        (64, 1, 63, (32, 2)),
        (64, 4, 10, (8, 2)),
        (60, 1, 16, (15, 4)),
        (96, 2, 20, (16, 3)),
        (4096, 8, 100, (64, 8)),
        (7, 1, 6, (1, 7)),  # a prime number
    ],
)
def test_the_largest_batch_that_fits_keeps_the_global_batch(
    global_batch: int, ranks: int, fits: int, expected: tuple[int, int]
) -> None:
    assert fit_batch(global_batch, ranks, fits) == expected


def test_a_global_batch_that_ranks_cannot_share_is_refused_with_one_that_they_can() -> None:
    with pytest.raises(RecipeError, match=r"global_batch = 65: cannot .* 4 ranks. Use 64"):
        fit_batch(65, 4, 10)
    with pytest.raises(RecipeError, match=r"global_batch = 2: .* Use 4"):
        fit_batch(2, 4, 10)


def test_where_no_image_fits_the_remedies_are_named() -> None:
    with pytest.raises(RecipeError, match="not even one image fits"):
        fit_batch(64, 1, 0)


class Device:
    """A device that takes so many images, and notes what is asked of it."""

    def __init__(self, room: int) -> None:
        self.room, self.tried, self.emptied = room, list[int](), 0

    def try_step(self, images: int) -> None:
        assert self.emptied == len(self.tried), "what the try before left was not given back"
        self.tried.append(images)
        if images > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def empty(self) -> None:
        self.emptied += 1


@pytest.mark.parametrize(
    "sizes",
    [[1], [1, 7], [1, 2, 4, 8, 16, 32, 64], [1, 2, 3, 4, 6, 8, 12, 16, 24, 48], [*range(1, 101)]],
    ids=str,
)
def test_trying_finds_the_largest_batch_whatever_the_room(sizes: list[int]) -> None:
    for room in range(sizes[-1] + 2):
        device = Device(room)
        found = largest_batch(device.try_step, sizes, empty=device.empty)
        assert found == max((size for size in sizes if size <= room), default=0)
        assert device.emptied == len(device.tried) == len({*device.tried})
        assert len(device.tried) <= 2 * math.log2(sizes[-1]) + 2


def test_an_error_that_is_not_about_memory_is_raised() -> None:
    def broken(images: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_batch(broken, [1, 2], empty=lambda: None)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Say how much memory the CPU has."""

    def set_room(mib: float) -> None:
        monkeypatch.setattr(memory, "available_memory", lambda device: int(mib * 2**20))

    return set_room


WIDE = nn.Linear(2**18, 1, bias=False)
"""An image of it has 1 MiB."""


def forward(model: nn.Module, images: int) -> Tensor:
    device = next(model.parameters()).device
    result: Tensor = model(torch.zeros(images, 2**18, device=device)).sum()
    return result


def resolved(recipe: Recipe, place: Place = CPU) -> tuple[int | str, int]:
    found = resolve_batch(recipe, WIDE, forward, precision=torch.float32, place=place)
    before = recipe.model_dump(include={"batch_size", "accumulate"})
    assert found.model_copy(update=before) == recipe
    return found.batch_size, found.accumulate


def test_a_step_takes_no_more_images_than_there_are(room: Callable[[float], None]) -> None:
    room(1000)

    def settled(recipe: Recipe, images: int, ranks: int = 1) -> tuple[int | str, int]:
        place = Place(torch.device("cpu"), world_size=ranks)
        found = resolve_batch(
            recipe, WIDE, forward, precision=torch.float32, place=place, images=images
        )
        return found.batch_size, found.accumulate

    auto = Recipe(batch_size="auto", image_size=1)
    assert settled(auto, 3) == (3, 1) and settled(auto, 64) == settled(auto, 9999) == (64, 1)
    assert settled(Recipe(batch_size="auto", image_size=1, accumulate=4), 37) == (37, 1)
    for kept in ({"global_batch": 64}, {"drop_last": False}):
        assert settled(Recipe(batch_size="auto", image_size=1, **kept), 3) == (64, 1)


def test_on_the_cpu_the_estimate_decides(room: Callable[[float], None]) -> None:
    auto = Recipe(batch_size="auto", image_size=1)
    room(1000)
    assert resolved(auto) == (64, 1)
    # An image takes 1 MiB, times 2.2 for the allocator: 90 % of 90 MiB hold 35 and the weights.
    room(90)
    assert resolved(auto) == (32, 2)
    assert resolved(auto.model_copy(update={"accumulate": 3})) == (32, 6)
    assert resolved(auto.model_copy(update={"global_batch": 48})) == (24, 2)
    room(1)
    with pytest.raises(RecipeError, match="not even one image"):
        resolved(auto)


def test_ranks_on_one_machine_share_its_memory_and_take_what_fits_on_all(
    room: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    class Other(Place):
        """Two ranks, of which the other one can take fewer images."""

        def min(self, value: int) -> int:
            return min(value, 20)

    room(1000)
    recipe = Recipe(batch_size="auto", image_size=1)
    assert resolved(recipe, Other(CPU.device, 0, 2, 2)) == (16, 4)
    assert capsys.readouterr().out == (
        "batch_size auto: 16, and accumulate 4, on 2 ranks: 128 images in a step.\n"
    )
    room(60)
    assert resolved(recipe, Other(CPU.device, 0, 2, 1)) == (16, 4)
    room(30)
    assert resolved(recipe, Other(CPU.device, 0, 2, 2)) == (4, 16)  # 15 MiB each


@pytest.mark.parametrize("ema", [False, True])
def test_on_an_accelerator_steps_are_tried(ema: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands in for one: it runs every operation of the step, but holds nothing."""
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: None)
    tried: list[int] = []

    def limited(model: nn.Module, images: int) -> Tensor:
        assert model.weight.device.type == "meta"
        tried.append(images)
        if images > 20:
            raise torch.OutOfMemoryError("out of memory")
        return forward(model, images)

    before = WIDE.weight.clone()
    recipe = resolve_batch(
        Recipe(batch_size="auto", global_batch=64, ema=ema), WIDE, limited,
        precision=torch.float32, place=Place(torch.device("meta")),
    )  # fmt: skip
    assert (recipe.batch_size, recipe.accumulate) == (16, 4)
    # The second step of a try has the optimizer's state.
    assert tried.count(16) == 2 and tried.count(32) == 1
    assert torch.equal(WIDE.weight, before) and WIDE.weight.grad is None


def test_the_learning_rate_is_the_same_whatever_fits(room: Callable[[float], None]) -> None:
    recipe = Recipe(batch_size="auto", image_size=1, scale_lr=True, lr_batch_size=256, lr=0.1)
    rates, sizes = set(), set()
    for mib in (20, 60, 1000):
        room(mib)
        batch_size, accumulate = resolved(recipe)
        assert isinstance(batch_size, int)
        sizes.add(batch_size)
        rates.add(scaled_lr(recipe, batch_size * accumulate))
    assert len(sizes) == 3
    assert rates == {(0.1 * 64 / 256, 1e-6 * 64 / 256)}


@pytest.mark.parametrize(
    ("knobs", "ranks", "accumulate"),
    [
        ({"batch_size": 8}, 1, 1),
        ({"batch_size": 8, "accumulate": 3}, 2, 3),
        ({"batch_size": 8, "global_batch": 8}, 1, 1),
        ({"batch_size": 8, "global_batch": 64}, 2, 4),
        ({"batch_size": 8, "global_batch": 64, "accumulate": 8}, 1, 8),
    ],
)
def test_accumulate_follows_from_the_global_batch(
    knobs: dict[str, int], ranks: int, accumulate: int
) -> None:
    assert resolved(Recipe(**knobs), Place(CPU.device, 0, ranks, ranks)) == (8, accumulate)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"batch_size": 8, "global_batch": 20}, "global_batch = 20: expected a multiple .* Use 16"),
        ({"batch_size": 8, "global_batch": 4}, "global_batch = 4: expected a multiple .* Use 8"),
        ({"batch_size": 8, "global_batch": 32, "accumulate": 2}, r"accumulate = 2: .* needs 4"),
        ({"batch_size": "auto", "global_batch": 32, "accumulate": 2}, "accumulate = 2: with"),
    ],
)
def test_contradictions_are_refused_with_a_remedy(knobs: dict[str, int], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolved(Recipe(**knobs))


def test_a_resumed_run_on_other_ranks_lets_accumulate_follow() -> None:
    recipe = Recipe(batch_size=8, global_batch=64, accumulate=8, resume=True)
    assert resolved(recipe, Place(CPU.device, 0, 2, 2)) == (8, 4)


RANK = """
import sys, torch
import torch.distributed as dist
from convnextv2.distributed import Place
from convnextv2.evaluation.metrics import add_over_ranks, count
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
place = Place(torch.device("cpu"), rank, 2, 2)
targets = torch.tensor([[1, 2, 2], [2, 0, 1]])[rank]
counts = count(targets, torch.tensor([[2], [2], [2]]), torch.ones(3), rank + 0.5, 3)
print(place.min(7 - rank), add_over_ranks(counts, place).pairs.tolist())
dist.destroy_process_group()
"""


def test_two_ranks_take_the_least_and_add_their_pairs_of_classes(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ranks = [Program("-c", RANK, rank, store, by=rank, OMP_NUM_THREADS="1") for rank in range(2)]
    # Target 0 once taken for 2, target 1 twice, target 2 three times: keys 0 * 3 + 2, 5 and 8.
    expected = "6 [[2, 1], [5, 2], [8, 3]]\n"
    assert [printed for _, printed, _ in finish_ranks(ranks)] == [expected, expected]


def test_the_minimum_over_one_rank_is_its_own_value() -> None:
    assert CPU.min(7) == 7
