"""The command line, `convnextv2 VERB ...`: from arguments to an exit code.

Importing this module, `--help` and `recipes` do not need torch.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from convnextv2 import waiting
from convnextv2.arguments import parse
from convnextv2.console import print_to_stderr
from convnextv2.ending import unwinding
from convnextv2.errors import GO_ON_LATER, ConvNeXtV2Error, Ended, Stopped
from convnextv2.files import mistake_of
from convnextv2.text import plain


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments without the program's name. None stands for those of sys.argv.

    Returns:
        The exit code: 0; 2 for a mistake of the user; 75 if a run was stopped as asked or lost a
        rank, and may be continued; 130 if it was interrupted, 143 or 129 if SIGTERM or SIGHUP
        ended it; 141 if nobody reads the output.
    """
    for stream in (sys.stdout, sys.stderr):  # file names may be anything; terminals may be ASCII
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        name, arguments = parse(sys.argv[1:] if argv is None else argv)
        if name:
            waiting.choose(os.environ)
            verb = load_verb(name)
            with unwinding():
                verb(**arguments)
        sys.stdout.flush()
    except ConvNeXtV2Error as error:
        _print_error(error, str(error))
        return error.exit_code
    except Stopped as stopped:
        print_to_stderr(f"convnextv2: {stopped}. To continue, add --resume to the same command.")
        return GO_ON_LATER
    except Ended as ended:
        print_to_stderr(f"convnextv2: {ended}")
        return GO_ON_LATER if name in ("train", "pretrain") else ended.exit_code
    except KeyboardInterrupt:
        print_to_stderr("convnextv2: interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output, such as `head`, has left. Python must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as done:  # argparse, after --help or --version
        return int(done.code or 0)
    except OSError as error:
        text = mistake_of(error)
        if text is None:
            raise
        _print_error(error, text)
        return ConvNeXtV2Error.exit_code
    return 0


def _print_error(error: BaseException, text: str) -> None:
    """Print a message. The names of files in it may hold sequences that terminals obey."""
    whole = " ".join([f"convnextv2: error: {text}", *getattr(error, "__notes__", ())])
    print_to_stderr("\n".join(map(plain, whole.split("\n"))))


def load_verb(name: str) -> Callable[..., object]:
    """Return the function of a verb. Its module, and what that needs, are imported only now."""
    function: Callable[..., object] = getattr(import_module(f"convnextv2.verbs.{name}"), name)
    return function
