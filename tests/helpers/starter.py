"""A process that has imported what programs of ours import, and starts each as a copy of itself.

It is a program, which `processes.py` starts. To import everything takes most of the time of a
small run. A copy differs from a new process in nothing else: it has its own memory, its own
environment, arguments and output, it runs the program as `__main__`, and ends as the interpreter
ends.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

BEFORE = (
    "convnextv2.cli",
    "convnextv2.verbs.pretrain",
    "convnextv2.verbs.train",
    "convnextv2.verbs.validate",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torchvision.transforms.v2.functional",
)


def wait_for_orders(channel: socket.socket) -> dict:
    """Make a copy for each order. Return the order in the copy, and never in the original."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, 1 << 20, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            return obey(json.loads(message), files, channel)
        for file in files:
            os.close(file)


def obey(order: dict, files: list[int], channel: socket.socket) -> dict:
    """Become the program's parent, which tells its number and how it ends, and the program."""
    channel.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output, errors, told = files
    program = os.fork()
    if program:
        os.close(output)
        os.close(errors)
        os.write(told, b"%d\n" % program)
        os.write(told, b"%d\n" % os.waitpid(program, 0)[1])
        os._exit(0)
    if order["own_session"]:
        os.setsid()
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for file in files:
        os.close(file)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    return order


def run(kind: str, *words: str) -> None:
    """Run a program as `python KIND WORDS` does: `-m` a module, `-c` code, or a file."""
    # OpenMP read the variable when the original was started.
    torch = importlib.import_module("torch")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if kind == "-m":
        sys.argv = list(words)
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *words[1:]]
        exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [kind, *words]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    for name in BEFORE:
        importlib.import_module(name)
    # Threads are not copied, and what waits for one would wait for ever.
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "an import has started a thread"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # copies are not waited for
    gc.freeze()  # what was imported is not garbage, and to look through it takes a copy a second
    run(*wait_for_orders(socket.socket(fileno=int(sys.argv[1])))["words"])
