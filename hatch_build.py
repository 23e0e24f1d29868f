"""Puts compiled kernels into a wheel, if `CONVNEXTV2_BUNDLE` names the folder that has them.

`scripts/bundle_kernels.py` fills such a folder. Without the variable, the wheel is pure Python and
its kernels are compiled at their first use. `make wheels` builds both kinds.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundledKernels(BuildHookInterface):
    """Adds the libraries, and the tag of the machine that they are for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Change what is built.

        Args:
            version: "standard" for a wheel, or "editable".
            build_data: What hatchling is going to do.

        Raises:
            RuntimeError: The libraries were built from other sources.
        """
        name = os.environ.get("CONVNEXTV2_BUNDLE", "")
        if not name or version == "editable":
            return
        sys.path.insert(0, self.root)
        from convnextv2.kernels.sources import DESCRIPTION, file_name, sources_sha256

        folder = Path(self.root, name)
        description = json.loads((folder / DESCRIPTION).read_bytes())
        if description["sources_sha256"] != sources_sha256():
            raise RuntimeError(
                f"CONVNEXTV2_BUNDLE = {name}: built from other sources. Run "
                "scripts/bundle_kernels.py again."
            )
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{description['machine']}"
        for file in (DESCRIPTION, *map(file_name, description["libraries"])):
            build_data["force_include"][str(folder / file)] = f"convnextv2/kernels/prebuilt/{file}"
