"""The parts of a dense task that depend on its annotations.

A goal has no base class: any class with these attributes and methods is one. The goals of this
package are in `tasks.segmentation` and `tasks.detection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from convnextv2.data.batch import Batch
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.loader import Augmentation, EvaluationLoader, Preparation
from convnextv2.distributed import Place
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import Segmentor
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.preview import Shown

DenseNetwork = Segmentor | Detector


class DenseGoal(Protocol):
    """The part of a dense task that depends on what its annotations are."""

    kind: str
    """The kind of the weights; see `Description.kind`."""

    score: str
    """The name of the figure that decides which weights are best."""

    def find(self, recipe: Recipe, place: Place) -> tuple[AnnotatedSource, AnnotatedSource | None]:
        """Find the images for training and for validation, and scan their annotations.

        Args:
            recipe: The recipe.
            place: This rank.

        Raises:
            MissingPackageError: A package that reads the annotations is not installed.
            DataError: The annotations cannot be used.
        """

    def summary(self, training: AnnotatedSource, validation: AnnotatedSource | None) -> str:
        """Describe the images and their annotations in one line."""

    def check_validation(self, validation: AnnotatedSource) -> None:
        """Check that there is something to measure in the validation images.

        Raises:
            DataError: There is nothing.
        """

    def build_model(self, recipe: Recipe, place: Place, source: AnnotatedSource) -> DenseNetwork:
        """Build the network for the training images, with random weights.

        Raises:
            RecipeError: The recipe asks for something that the annotations do not have.
        """

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        """Return how images are prepared for evaluation."""

    def trial(self, model: nn.Module, images: Tensor, recipe: Recipe) -> Tensor:
        """Compute a loss for blank images (N, C, H, W), to measure the memory of a step."""

    def train_transform(self, recipe: Recipe, source: AnnotatedSource) -> Augmentation:
        """Build the augmentation of training images."""

    def eval_transform(self, preprocessing: Preprocessing) -> Preparation:
        """Build the preprocessing of evaluation images."""

    def collate(self, targets: Sequence[Any], /) -> Any:
        """Join the targets of a batch, which may be empty."""

    def loss(
        self, model: nn.Module, network: DenseNetwork, images: Tensor, targets: Any, recipe: Recipe
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            model: The network, wrapped if gradients are averaged over ranks.
            network: The network itself.
            images: (N, C, H, W), normalised, on the device.
            targets: The targets of the batch, as the training loader gives them.
            recipe: The recipe.

        Returns:
            A scalar.
        """

    def shown(self, batch: Batch, class_names: Sequence[str]) -> list[Shown]:
        """Return the images of a batch with their annotations drawn over them."""

    def evaluate(
        self,
        network: DenseNetwork,
        loader: EvaluationLoader,
        source: AnnotatedSource,
        preprocessing: Preprocessing,
        recipe: Recipe,
        place: Place,
    ) -> dict[str, float]:
        """Evaluate the network. Every image is counted exactly once over all ranks.

        Args:
            network: The network.
            loader: The batches of this rank.
            source: The images.
            preprocessing: How they are prepared.
            recipe: The recipe.
            place: This rank.

        Returns:
            The figures by name.
        """
