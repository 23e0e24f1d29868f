"""python infer.py ...: MindCV's command, which is convnextv2 infer ..."""

import sys

from convnextv2.cli import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
