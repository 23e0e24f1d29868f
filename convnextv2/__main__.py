"""`python -m convnextv2 ...` is `convnextv2 ...`."""

import signal
import sys


def main() -> int:
    """Run one command of the command line.

    Returns:
        The exit code; see `cli.main`.
    """
    from convnextv2.ending import ENDS, quiet_interrupts

    quiet_interrupts()
    if sys.argv[1:2] != ["serve"]:
        from convnextv2.cli import main
        from convnextv2.errors import GO_ON_LATER

        code = main()
        if code == GO_ON_LATER:  # another signal must not change what a launcher is told
            for number in ENDS:
                signal.signal(number, signal.SIG_IGN)
        return code
    # This comes first and holds to the last: a service may be reloaded or stopped while it is being
    # imported, or while it ends.
    from convnextv2.server.signals import hold, ignore

    hold()
    try:
        from convnextv2.cli import main

        return main()
    finally:
        ignore()


if __name__ == "__main__":
    sys.exit(main())
