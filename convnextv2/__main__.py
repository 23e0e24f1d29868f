"""`python -m convnextv2 ...` is `convnextv2 ...`."""

import sys


def main() -> int:
    """Run one command of the command line.

    Returns:
        The exit code; see `cli.main`.
    """
    if sys.argv[1:2] != ["serve"]:
        from convnextv2.cli import main

        return main()
    # First of all, and to the last: a service may be reloaded or stopped while this is being imported, or ends.
    from convnextv2.deploy.serve.signals import hold, ignore

    hold()
    try:
        from convnextv2.cli import main

        return main()
    finally:
        ignore()


if __name__ == "__main__":
    sys.exit(main())
