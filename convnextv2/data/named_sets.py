"""Small data sets that are held in memory: the bundled images, Fashion-MNIST, MNIST and CIFAR."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convnextv2.data import imagenet
from convnextv2.errors import DataError
from convnextv2.recipe.knobs import Recipe

BUNDLED = Path(__file__).parent / "bundled"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


class Part(NamedTuple):
    """The training or the validation images of a data set.

    Attributes:
        pixels: uint8 (N, H, W) or (N, H, W, 3).
        targets: int64 (N,), the class of each image.
        class_names: The names of the classes.
    """

    pixels: NDArray[np.uint8]
    targets: NDArray[np.int64]
    class_names: tuple[str, ...]


def load_named(recipe: Recipe) -> tuple[Part, Part]:
    """Load the training and the validation images of the recipe's `dataset`.

    Raises:
        DataError: The data set is missing and may not be downloaded, or it is damaged.
    """
    if recipe.dataset == "bundled":
        return _bundled()
    return (_fashion_mnist if recipe.dataset == "fashion_mnist" else _torchvision)(recipe)


FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _bundled() -> tuple[Part, Part]:
    with np.load(BUNDLED / "fashion_mnist.npz") as content:
        training, validation = (
            Part(
                content[f"{split}_pixels"],
                content[f"{split}_targets"].astype(np.int64),
                FASHION_CLASSES,
            )
            for split in ("train", "val")
        )
    return training, validation


def _fashion_mnist(recipe: Recipe) -> tuple[Part, Part]:
    """Load Debian's package dataset-fashion-mnist if it is installed, else torchvision's copy."""
    if not DEBIAN_FASHION_MNIST.is_dir():
        return _torchvision(recipe)

    def part(prefix: str) -> Part:
        pixels, targets = (
            read_idx(DEBIAN_FASHION_MNIST / f"{prefix}-{kind}-ubyte.gz")
            for kind in ("images-idx3", "labels-idx1")
        )
        return Part(pixels, targets.astype(np.int64), FASHION_CLASSES)

    try:
        return part("train"), part("t10k")
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(
            f"dataset = fashion_mnist: a file in {DEBIAN_FASHION_MNIST} cannot be read ({error}). "
            "Install Debian's package dataset-fashion-mnist again, or remove it."
        ) from None


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped file in the IDX format of MNIST, with values of uint8.

    The file has two zero bytes, the type, the number of axes, the size of each axis as a big-endian
    uint32, and the values.
    """
    with gzip.open(path) as file:
        data = file.read()
    axes = data[3]
    shape = np.frombuffer(data, ">u4", axes, offset=4).tolist()
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _torchvision(recipe: Recipe) -> tuple[Part, Part]:
    from torchvision import datasets

    kind = {
        "mnist": datasets.MNIST,
        "fashion_mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }[recipe.dataset]
    root = recipe.data_dir or _default_root()
    try:
        sets = [
            kind(root, train=train, download=recipe.dataset_download) for train in (True, False)
        ]
    except Exception as error:  # a truncated file raises errors of many types
        why = _why_not(error, root, downloads=recipe.dataset_download)
        raise DataError(f"dataset = {recipe.dataset}: {why}") from None
    training, validation = (
        Part(
            np.asarray(part.data),
            np.asarray(part.targets, dtype=np.int64),
            tuple(map(str, part.classes)),
        )
        for part in sets
    )
    return training, validation


def _default_root() -> str:
    try:
        return str(Path.home() / ".cache" / "convnextv2")
    except RuntimeError:
        raise DataError("data_dir = '': this user has no home folder. Set data_dir.") from None


def _why_not(error: Exception, root: str, *, downloads: bool) -> str:
    """Explain why torchvision could not open a data set, and name the remedy."""
    if isinstance(error, RuntimeError) and "not found" in str(error):
        return f"not found in {root}. Set dataset_download: True, or set data_dir to its folder."
    if isinstance(error, OSError) and downloads:
        return f"the download failed ({error})."
    if isinstance(error, OSError):
        return f"cannot be read ({error})."
    return (
        f"one of its files in {root} is damaged ({type(error).__name__}). Delete the files, and "
        "set dataset_download: True to download them again."
    )


def default_class_names(num_classes: int) -> list[str]:
    """Return names for the classes of a head without class names.

    Args:
        num_classes: The number of rows of the head.

    Returns:
        The names of the ImageNet-1K classes if there are 1,000, as in published weights; otherwise
        the numbers from 0.
    """
    if num_classes == imagenet.CLASSES:
        return list(imagenet.categories())
    return [str(i) for i in range(num_classes)]
