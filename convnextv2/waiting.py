"""The time that an OpenMP thread spins before it sleeps, which is set before PyTorch is loaded.

After each parallel region, every thread waits for the others and for the next region. By default,
it spins while it waits. In libgomp, which comes with PyTorch from pip, it spins 300,000 times,
which takes milliseconds. That is best if nothing else runs. On a shared core, it uses up the time
slice that the awaited thread needs, and a training run shares its cores with its own loader
workers.
that the awaited thread needs, and a training run shares its cores with its own loader workers.

The runtimes read these environment variables once, when they are loaded, and have no function to
change them later. The command line therefore sets them before a verb imports PyTorch. Child
processes inherit them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, MutableMapping

SETTINGS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""The environment variables and their values. libgomp then spins for about 10 microseconds, which
is long enough for the next of many short regions to begin, and short compared with a time slice.
The runtimes of LLVM and Intel, which other builds of PyTorch use, spin for one millisecond instead
of 200. Each runtime ignores the other's variable."""
_DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables with which users choose how threads wait. If one is set, nothing is changed."""

_set_here: dict[str, str] = {}


def choose(environment: MutableMapping[str, str], modules: Iterable[str] = sys.modules) -> None:
    """Make waiting threads sleep soon, unless the user chose otherwise or PyTorch is loaded.

    Args:
        environment: The environment of this process, in which the variables are set.
        modules: Names of the modules that are loaded. If torch is among them, its runtime has read
            its variables, and nothing is set.
    """
    if "torch" not in modules and not any(name in environment for name in _DECIDED_BY):
        environment.update(SETTINGS)
        _set_here.update(SETTINGS)


def line(environment: MutableMapping[str, str], threads: int) -> str:
    """Return a line about how threads wait, if the user did not choose it.

    Args:
        environment: The environment of this process.
        threads: The number of threads that compute. A single one never waits.

    Returns:
        A line for the start of a run, or "" if there is nothing to say.
    """
    if threads == 1:
        return ""
    if _set_here:
        values = ", ".join(f"{name}={value}" for name, value in _set_here.items())
        return (
            f"Waiting threads soon sleep, to share the cores ({values}; OMP_WAIT_POLICY=ACTIVE "
            "in the environment keeps them awake)."
        )
    if any(name in environment for name in _DECIDED_BY):
        return ""
    return (
        "Waiting threads spin, because PyTorch was loaded before this call. Where other "
        "processes or loader workers share the cores, set OMP_WAIT_POLICY=PASSIVE before Python "
        "starts."
    )
