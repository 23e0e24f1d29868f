"""`python validate.py ...` is `convnextv2 validate ...`."""

import sys

from convnextv2.cli import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
