"""`python -m convnextv2 ...` is `convnextv2 ...`."""

import sys

from convnextv2.cli import main

if __name__ == "__main__":
    sys.exit(main())
