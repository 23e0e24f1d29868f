"""`python -m convnextv2 ...` is `convnextv2 ...`."""

import os
import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the command line, as the only purpose of this process.

    Args:
        argv: The arguments without the program's name. None stands for those of sys.argv.

    Returns:
        The exit code; see `cli.main`.
    """
    from convnextv2.ending import ENDS, quiet_interrupts, stop_early

    _open_streams()
    argv = sys.argv[1:] if argv is None else argv
    verb = argv[0] if argv else ""
    quiet_interrupts()
    if verb != "serve":
        if verb in ("train", "pretrain"):
            stop_early()
        from convnextv2.cli import main

        code = main(argv)
        for number in ENDS:  # another signal must not change what a launcher is told
            signal.signal(number, signal.SIG_IGN)
        return code
    # The signals are held from here to the end: a service may be reloaded or stopped while its
    # modules are being imported, or while it ends.
    from convnextv2.server.signals import hold, ignore

    hold()
    try:
        from convnextv2.cli import main

        return main(argv)
    finally:
        ignore()


def _open_streams() -> None:
    """Open the standard streams that the process was started without, for example with `>&-`.

    Python sets them to None. A file that is opened later would get a free descriptor of theirs, and
    what libraries print would go into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
            if getattr(sys, name) is None and opened == number:
                setattr(sys, name, open(number, "w" if number else "r", closefd=False))


if __name__ == "__main__":
    sys.exit(main())
