"""`python train.py ...` is `convnextv2 train ...`."""

import sys

from convnextv2.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
