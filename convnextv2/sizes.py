"""The largest accepted sizes of networks, for recipes, weights files and artifacts alike.

Useful networks are far smaller. Without these limits, a typing error or a malicious file could ask
for more memory or time than any machine has.
"""

from __future__ import annotations

MAX_BLOCKS = 1_000
"""Blocks in a stage, or in a decoder."""
MAX_WIDTH = 65_536
"""Channels of a layer."""
MAX_CHANNELS = 10_000
"""Channels of images."""
MAX_CLASSES = 10_000_000
MAX_REGIONS = 100_000
"""Regions of an image that a detector looks at, or objects that it finds."""
MAX_ANCHOR_SCALE = 1_000
"""Side of an anchor over the stride of its level."""
MAX_RESIZING = 16
"""Factor on the size of an image."""
