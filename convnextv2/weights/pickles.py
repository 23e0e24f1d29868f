"""Reads pickles of tensors without importing or calling anything that they name.

A pickle is a program: its opcodes build objects on a stack and call the functions that they name.
This module interprets them with a stack machine of its own, which supports plain values, lists,
tuples, dictionaries and the few functions of PyTorch that describe a tensor. A tensor becomes a
`Record` that says where its numbers lie in the file. An object of any other class becomes a
`Foreign`, which keeps none of its content.

Memory is bounded: the cost of whatever an opcode builds is deducted from a budget of `BUDGET`
bytes. Long texts, bytes and long integers are skipped without being copied.
Entries of the memo have a cost too. Keys of dictionaries must be plain values, since hashing nested
tuples can take forever.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable
from typing import Any

from convnextv2.weights.pickle_values import (
    KNOWN_CALLS,
    STORAGE_DTYPES,
    Entries,
    Foreign,
    Global,
    HarmfulError,
    PickleError,
    Storage,
    is_count,
    of_subclass,
)

BUDGET = 128 << 20
"""The most bytes of objects that one file may build, not counting the numbers of its tensors."""

_LONGEST_TEXT = 10_000
_LONGEST_NAME = 300
_MAX_FOREIGN = 1000

_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
_SILENT = re.compile(
    r"_codecs\.encode|copy_?reg\._reconstructor|(builtins|__builtin__)\.\w+"
    r"|collections\.\w+|torch\.\w+"
)
"""Names that belong to pickling or to PyTorch itself, which need not be reported."""

_HARMFUL = re.compile(
    r"(os|posix|nt)\.(system|popen|exec\w*|(posix_)?spawn\w*|fork\w*|remove|unlink|rmdir|kill)"
    r"|(subprocess|_posixsubprocess|pty|runpy|webbrowser|importlib|imp|code|ctypes|socket)\..*"
    r"|shutil\.\w+"
    r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|__import__|open|breakpoint)"
    r"|(io|_io)\.open|sys\.(modules|settrace|setprofile)|torch\.(load|hub\..*)|pickle\.loads?"
)
"""Functions that no legitimate checkpoint names. None is ever run; these names only decide which
message is shown."""


class PickleReader:
    """Reads the pickles of one file, which share one budget.

    Args:
        data: The bytes of the file.

    Attributes:
        foreign: Unknown classes and functions that the pickles name, in order, at most 1,000.
        storages: The storages by key, as the pickles first mention them.
    """

    def __init__(self, data: bytes | bytearray | mmap.mmap) -> None:
        self._data, self._left = data, BUDGET
        self.foreign: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}
        self._start(0)

    def read(self, at: int = 0) -> tuple[Any, int]:
        """Interpret the pickle that begins at a position.

        Args:
            at: The position in bytes.

        Returns:
            What the pickle builds, made of None, bool, int, float, str, tuple, list, `Entries`,
            `Record`, `OddTensor`, `Storage`, `Global` and `Foreign`; and the position after it.

        Raises:
            PickleError: The pickle is damaged, builds too much, or has opcodes that PyTorch does
                not write.
            HarmfulError: The pickle names a function that runs commands.
        """
        self._start(at)
        data, handlers, end = self._data, _HANDLERS, len(self._data)
        try:
            while self._at < end:
                opcode = data[self._at]
                self._at += 1
                if opcode == 0x2E:  # STOP
                    return self._pop(), self._at
                handler = handlers.get(opcode)
                if handler is None:
                    raise PickleError(
                        f"its pickle has opcode {opcode:#04x}, which PyTorch does not write"
                    )
                self._left -= 32
                if self._left < 0:
                    self._spend(0)
                handler(self)
        except struct.error:
            pass  # the file ends in the middle of a number
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise PickleError(f"its pickle is damaged ({type(error).__name__})") from error
        raise PickleError("its pickle is cut short")

    def _start(self, at: int) -> None:
        self._at = at
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def _spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise PickleError(
                f"its pickle builds more than {BUDGET >> 20} MiB of objects besides the tensors"
            )

    def _push(self, value: Any, cost: int = 0) -> None:
        if cost:
            self._spend(cost)
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise PickleError("its pickle is damaged (it takes more from the stack than there is)")
        return self._stack.pop()

    def _top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise PickleError("its pickle is damaged (it needs more on the stack than there is)")
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            raise PickleError("its pickle is damaged (it goes back to a mark that does not exist)")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value

    def _span(self, form: str) -> tuple[int, int]:
        """Read a length; return the start and length of what follows, which must be in the file."""
        length, start = self._number(form), self._at
        if length < 0 or start + length > len(self._data):
            raise PickleError("its pickle is cut short or damaged (a length points beyond the end)")
        self._at = start + length
        return start, length

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + _LONGEST_NAME)
        if end < 0:
            raise PickleError("its pickle is damaged (a name without an end)")
        text = self._data[self._at : end].decode("utf-8", "replace")
        self._at = end + 1
        return text

    def _named(self, module: Any, name: Any) -> Global:
        if (
            not isinstance(module, str)
            or not isinstance(name, str)
            or len(module) + len(name) > _LONGEST_NAME
        ):
            raise PickleError("its pickle is damaged (a class without a name)")
        full = f"{module}.{name}"
        if _HARMFUL.fullmatch(full):
            raise HarmfulError(full)
        return Global(full)

    def _call(self, function: Any, arguments: Any) -> Any:
        """Return what a call would return if the function is known, and a stand-in otherwise."""
        if not isinstance(function, Global):
            return Foreign(function.name if isinstance(function, Foreign) else "object")
        name = function.name
        if name in KNOWN_CALLS and isinstance(arguments, tuple):
            return KNOWN_CALLS[name](arguments)
        if name in _DICTIONARIES and isinstance(arguments, tuple):
            return self._dictionary(name, arguments)
        if name == "torch._tensor._rebuild_from_type_v2" and isinstance(arguments, tuple):
            return of_subclass(arguments)
        if len(self.foreign) < _MAX_FOREIGN and not _SILENT.fullmatch(name):
            self.foreign[name] = None
        return Foreign(name)

    def _dictionary(self, name: str, arguments: tuple[Any, ...]) -> Entries:
        made = Entries()
        given = arguments[-1] if arguments and not name.endswith("defaultdict") else None
        for pair in (
            given
            if isinstance(given, list)
            else given.items()
            if isinstance(given, Entries)
            else ()
        ):
            if isinstance(pair, list | tuple) and len(pair) == 2:
                self._set(made, pair[0], pair[1])
        return made

    def _set(self, target: Any, key: Any, value: Any) -> None:
        if isinstance(target, Foreign):
            return
        if not isinstance(target, Entries):
            raise PickleError(
                "its pickle is damaged (it sets an entry of something other than a dictionary)"
            )
        if isinstance(key, str | float | bool | None) or (
            isinstance(key, int) and -(2**63) <= key < 2**63
        ):
            self._spend(128)
            target[key] = value

    def _append(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, list):
            self._spend(16 * len(items))
            target.extend(items)
        elif not isinstance(target, Foreign):
            raise PickleError("its pickle is damaged (it appends to something other than a list)")

    def _persistent(self, found: Any) -> Any:
        """Resolve a reference to a storage outside the pickle; old files refer to classes too."""
        if not isinstance(found, tuple) or len(found) < 2:
            raise PickleError("its pickle is damaged (a reference that is not to a storage)")
        if found[0] == "module":  # old files name a class here, with its source
            return found[1]
        if found[0] != "storage" or len(found) < 5 or not isinstance(found[1], Global):
            raise PickleError("its pickle is damaged (a reference that is not to a storage)")
        name, key, count = found[1].name, found[2], found[4]
        if name not in STORAGE_DTYPES or not isinstance(key, str) or not is_count(count):
            raise PickleError(f"it has a storage of an unknown kind, {name[:60]}")
        if len(found) > 5 and found[5] is not None:
            raise PickleError(
                "it has a view of a storage as PyTorch wrote it before 0.4; save it with a newer "
                "version"
            )
        storage = Storage(key, STORAGE_DTYPES[name], count)
        self.storages.setdefault(key, storage)
        return storage


def _text(reader: PickleReader, form: str) -> None:
    start, length = reader._span(form)
    if length > _LONGEST_TEXT:
        reader._push(Foreign("text"), 64)
    else:
        raw = reader._data[start : start + length]
        try:
            text = raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")  # Python 2 wrote bytes as text
        reader._push(text, 64 + 4 * length)


def _bytes(reader: PickleReader, form: str) -> None:
    reader._span(form)
    reader._push(Foreign("bytes"), 64)


def _long(reader: PickleReader, form: str) -> None:
    start, length = reader._span(form)
    if length > 16:
        reader._push(Foreign("integer"), 64)
    else:
        reader._push(
            int.from_bytes(reader._data[start : start + length], "little", signed=True), 64
        )


def _tuple(reader: PickleReader, items: list[Any]) -> None:
    reader._push(tuple(items), 64 + 8 * len(items))


def _tuple_of(count: int) -> Callable[[PickleReader], None]:
    return lambda reader: _tuple(reader, [reader._pop() for _ in range(count)][::-1])


def _reduce(reader: PickleReader) -> None:
    arguments, function = reader._pop(), reader._pop()
    reader._push(reader._call(function, arguments), 300)


def _new_with_keywords(reader: PickleReader) -> None:
    reader._pop()
    _reduce(reader)


def _build(reader: PickleReader) -> None:
    state, made = reader._pop(), reader._top()
    if isinstance(made, Entries) and isinstance(state, Entries):
        made.attributes = state


def _dictionary_of(reader: PickleReader, made: Entries) -> None:
    items = reader._pop_mark()
    for key, value in zip(items[::2], items[1::2], strict=True):
        reader._set(made, key, value)
    reader._push(made, 300)


def _set_items(reader: PickleReader) -> None:
    items = reader._pop_mark()
    target = reader._top()
    for key, value in zip(items[::2], items[1::2], strict=True):
        reader._set(target, key, value)


def _set_item(reader: PickleReader) -> None:
    value, key = reader._pop(), reader._pop()
    reader._set(reader._top(), key, value)


def _append_items(reader: PickleReader) -> None:
    items = reader._pop_mark()
    reader._append(reader._top(), items)


def _append_item(reader: PickleReader) -> None:
    item = reader._pop()
    reader._append(reader._top(), [item])


def _frozen_set(reader: PickleReader) -> None:
    reader._pop_mark()
    reader._push(Foreign("set"), 64)


def _mark(reader: PickleReader) -> None:
    reader._spend(32)
    reader._marks.append(len(reader._stack))


def _ignore(reader: PickleReader, form: str) -> None:
    """Skip the protocol version or the length of a frame."""
    reader._number(form)


def _pop_to_mark(reader: PickleReader) -> None:
    reader._pop_mark()


def _memoize(reader: PickleReader, index: int) -> None:
    reader._spend(128)
    reader._memo[index] = reader._top()


def _stack_global(reader: PickleReader) -> None:
    name, module = reader._pop(), reader._pop()
    reader._push(reader._named(module, name), 128)


def _pop_item_or_mark(reader: PickleReader) -> None:
    """Pop the top of the stack, or a mark if nothing lies above it."""
    if reader._marks and reader._marks[-1] == len(reader._stack):
        reader._marks.pop()
    else:
        reader._pop()


_HANDLERS: dict[int, Callable[[PickleReader], None]] = {
    ord("N"): lambda r: r._push(None),
    0x88: lambda r: r._push(True),
    0x89: lambda r: r._push(False),
    ord("J"): lambda r: r._push(r._number("<i")),
    ord("K"): lambda r: r._push(r._number("<B")),
    ord("M"): lambda r: r._push(r._number("<H")),
    ord("G"): lambda r: r._push(r._number(">d")),
    0x8A: lambda r: _long(r, "<B"),
    0x8B: lambda r: _long(r, "<i"),
    ord("X"): lambda r: _text(r, "<I"),
    0x8C: lambda r: _text(r, "<B"),
    0x8D: lambda r: _text(r, "<Q"),
    ord("U"): lambda r: _text(r, "<B"),
    ord("T"): lambda r: _text(r, "<i"),
    ord("C"): lambda r: _bytes(r, "<B"),
    ord("B"): lambda r: _bytes(r, "<I"),
    0x8E: lambda r: _bytes(r, "<Q"),
    0x96: lambda r: _bytes(r, "<Q"),
    ord(")"): lambda r: r._push(()),
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    ord("t"): lambda r: _tuple(r, r._pop_mark()),
    ord("]"): lambda r: r._push([], 96),
    ord("l"): lambda r: r._push(r._pop_mark(), 96),
    ord("}"): lambda r: r._push(Entries(), 300),
    ord("d"): lambda r: _dictionary_of(r, Entries()),
    0x8F: lambda r: r._push(Foreign("set"), 64),
    0x90: _append_items,
    0x91: _frozen_set,
    ord("a"): _append_item,
    ord("e"): _append_items,
    ord("s"): _set_item,
    ord("u"): _set_items,
    ord("("): _mark,
    ord("1"): _pop_to_mark,
    ord("0"): _pop_item_or_mark,
    ord("2"): lambda r: r._push(r._top()),
    ord("q"): lambda r: _memoize(r, r._number("<B")),
    ord("r"): lambda r: _memoize(r, r._number("<I")),
    0x94: lambda r: _memoize(r, len(r._memo)),
    ord("h"): lambda r: r._push(r._memo[r._number("<B")]),
    ord("j"): lambda r: r._push(r._memo[r._number("<I")]),
    ord("c"): lambda r: r._push(r._named(r._line(), r._line()), 128),
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _reduce,
    0x92: _new_with_keywords,
    ord("b"): _build,
    ord("Q"): lambda r: r._push(r._persistent(r._pop()), 256),
    0x80: lambda r: _ignore(r, "<B"),
    0x95: lambda r: _ignore(r, "<Q"),
}
"""A handler for each opcode (see pickletools.opcodes). The opcodes of protocols 0 and 1 for text
and instances, extension codes, and buffers outside the file are not supported."""
