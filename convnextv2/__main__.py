"""`python -m convnextv2 ...` is `convnextv2 ...`."""

import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the command line, for which alone this process was started.

    Args:
        argv: The arguments without the program's name. None stands for those of sys.argv.

    Returns:
        The exit code; see `cli.main`.
    """
    from convnextv2.ending import ENDS, quiet_interrupts, stop_early

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
    # This comes first and holds to the last: a service may be reloaded or stopped while it is being
    # imported, or while it ends.
    from convnextv2.server.signals import hold, ignore

    hold()
    try:
        from convnextv2.cli import main

        return main(argv)
    finally:
        ignore()


if __name__ == "__main__":
    sys.exit(main())
