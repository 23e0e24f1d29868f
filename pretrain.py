"""`python pretrain.py ...` is `convnextv2 pretrain ...`."""

import sys

from convnextv2.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
