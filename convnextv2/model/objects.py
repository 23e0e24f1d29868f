"""The types of the targets and of the detections of a detector."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

BOX_SIDE = 7
"""The side of the crop of a feature map that RoIAlign makes of each box for the box head."""
MASK_SIDE = 28
"""The side of a predicted mask, which is stretched over its box."""

Targets = Sequence[dict[str, Tensor]]
"""The objects of each image: `boxes` float32 (n, 4), x0, y0, x1, y1 in px; `labels` int64 (n,),
class numbers from 0; with masks also `mask_pixels` and `mask_places`, see `mask_crops.resample`."""

Found = list[dict[str, Tensor]]
"""The detections in each image, the best first: `boxes` and `labels` as in `Targets`, `scores`
float32 (n,), and with masks `masks` float32 (n, 28, 28), the probabilities within each box."""
