"""Make convnextv2/data/bundled/fashion_mnist.npz.

It holds the first 400 training images and the first 100 test images of each class of Fashion-MNIST,
in the order of the files.
"""

import numpy as np

from convnextv2.data.named_sets import BUNDLED, _fashion_mnist
from convnextv2.recipe.knobs import Recipe

content = {}
for split, part, count in zip(
    ("train", "val"), _fashion_mnist(Recipe(dataset="fashion_mnist")), (400, 100), strict=True
):
    chosen = np.sort(
        np.concatenate([np.flatnonzero(part.targets == target)[:count] for target in range(10)])
    )
    content[f"{split}_pixels"], content[f"{split}_targets"] = (
        part.pixels[chosen],
        part.targets[chosen].astype(np.uint8),
    )
np.savez_compressed(BUNDLED / "fashion_mnist.npz", **content)
