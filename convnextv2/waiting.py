"""How long a thread of OpenMP spins before it sleeps, set before PyTorch is loaded.

After each parallel region every thread waits for the others and for the next region. By default it
spins meanwhile: in libgomp, which PyTorch from pip brings, 300,000 times, which takes milliseconds.
That is best where nothing else runs. On a shared core it burns the very time slice that the thread
it waits for needs, and a training run shares its cores with its own loader workers.

The runtimes read their variables once, when they are loaded, and have no function for it. So the
command line sets them, before a verb imports PyTorch. Processes that it starts inherit them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, MutableMapping

SETTINGS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""About 10 microseconds for libgomp: long enough for the next of many short regions to begin, and
short beside a time slice. One millisecond, in place of 200, for LLVM's and Intel's runtimes, which
other builds of PyTorch use; each runtime ignores the other's variable."""
_DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which users decide. If one is set, nothing else is."""

_set_here: dict[str, str] = {}


def choose(environment: MutableMapping[str, str], modules: Iterable[str] = sys.modules) -> None:
    """Let threads that wait sleep soon, unless the user decided or it is too late.

    Args:
        environment: The environment of this process, in which the variables are set.
        modules: Names of the modules that are loaded. If torch is among them, its runtime has read
            its variables, and nothing is set.
    """
    if "torch" not in modules and not any(name in environment for name in _DECIDED_BY):
        environment.update(SETTINGS)
        _set_here.update(SETTINGS)


def line(environment: MutableMapping[str, str], threads: int) -> str:
    """Say how threads wait, where that is not what the user set.

    Args:
        environment: The environment of this process.
        threads: How many threads compute. One alone waits for none.

    Returns:
        A line for the start of a run, or "" if there is nothing to say.
    """
    if threads == 1:
        return ""
    if _set_here:
        values = ", ".join(f"{name}={value}" for name, value in _set_here.items())
        return (
            f"Threads that wait sleep soon, to share the cores ({values}; OMP_WAIT_POLICY=ACTIVE "
            "in the environment keeps them awake)."
        )
    if any(name in environment for name in _DECIDED_BY):
        return ""
    return (
        "Threads that wait spin, because PyTorch was loaded before this call. Where other "
        "processes or loader workers share the cores, set OMP_WAIT_POLICY=PASSIVE before Python "
        "starts."
    )
