"""A tiny training for the tests of the loop."""

from types import SimpleNamespace

import torch
from torch import nn

from convnextv2.distributed import Place
from convnextv2.training.ema import WeightAverage
from convnextv2.training.loop import Loop
from convnextv2.training.loop_settings import LoopSettings
from convnextv2.training.state import Progress

PLACE = Place(torch.device("cpu"))
SETTINGS = LoopSettings(
    epochs=3,
    batches_per_epoch=5,
    batch_size=2,
    accumulate=1,
    clip_norm=None,
    log_every_steps=2,
    val_every_epochs=1,
    save_every_epochs=1,
    seed=1,
    dtype=torch.float32,
)


class Bench:
    """A tiny regression with noise from the generator that the loop passes in.

    A wrong seed thus changes the result.
    """

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.optimizer = torch.optim.AdamW([{"params": self.model.parameters(), "lr_scale": 1.0}])
        self.average = WeightAverage(self.model, 0.9)
        self.progress = Progress()
        self.records: list[dict] = []
        self.saves: list[int] = []
        self.closed: list[int] = []

    def losses(self) -> list[tuple]:
        """Return the records of the log without the times."""
        names = ("kind", "step", "epoch", "loss", "last_loss", "top1")
        return [tuple(record.get(name) for name in names) for record in self.records]

    @staticmethod
    def batches(epoch: int, first: int):
        for i in range(first, 5):
            yield torch.full((2, 3), float(10 * epoch + i))

    @staticmethod
    def loss(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise = torch.randn(batch.shape, generator=generator) + torch.rand(
            batch.shape
        )  # explicit and default generator
        return (model(batch / 10 + noise) - 1).square().mean()

    def fit(self, settings: LoopSettings = SETTINGS, **changes) -> None:
        parts = {
            "batches": self.batches,
            "loss": self.loss,
            "size": lambda batch: 1,
            "evaluate": lambda: {"top1": 0.5},
            "log": self.records.append,
            "save": lambda wait: self.saves.append(self.progress.step),
            "close_epoch": lambda: self.closed.append(self.progress.epoch),
            "keep_best": lambda figures: None,
            "keep_bad": lambda bad: "",
            "needs_all_ranks": False,
        }
        own = {name: changes.pop(name) for name in list(changes) if name in parts}
        parts = SimpleNamespace(**(parts | own), score="top1")
        parts.loader = Loader(parts.batches)
        arguments = {
            "settings": settings,
            "optimizer": self.optimizer,
            "lr_at": lambda step: 0.1,
            "average": self.average,
            "scaler": torch.amp.GradScaler("cpu", enabled=False),
            "progress": self.progress,
            "place": PLACE,
        }
        Loop(self.model, parts, parts, **(arguments | changes)).run()


class Loader:
    """The loader of a task, from a function that returns the batches of an epoch."""

    source = ()

    def __init__(self, batches) -> None:
        self.batches, self.storage_wait = batches, SimpleNamespace(stop_asked=None)

    def __len__(self) -> int:
        return 0  # an epoch is never cut short
