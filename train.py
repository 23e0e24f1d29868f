"""`python train.py ...` is `convnextv2 train ...`."""

import sys

from convnextv2.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
