"""Finds the image files below a folder, each once, and records what was skipped."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from convnextv2.data.formats import MAP_ENDS
from convnextv2.data.path_list import PathListBuilder
from convnextv2.errors import DataError
from convnextv2.text import counted

SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
)
"""Folders that archives, file servers and operating systems create. Users put no images there."""

COMPANIONS = frozenset(
    (".txt", ".xml", ".json", ".jsonl", ".csv", ".tsv", ".md", ".yaml", ".yml", ".html")
    + (".db", ".ini", ".log", ".license")
)
"""Endings of files that usually lie beside images. They are skipped without a message."""

_CONVERTIBLE = {".heic": "HEIC", ".heif": "HEIC", ".jxl": "JPEG XL", ".psd": "Photoshop"}
_MAP_NAME = re.compile(rf"(.+)(?:{'|'.join(map(re.escape, MAP_ENDS))})(?:_\d+)?\.[^.]+")
_EXAMPLES = 3

Identity = tuple[int, int]


class Walk:
    """Lists the folders of one data set.

    A folder that is reached a second time through a link is not listed again, so loops of links
    end. Hidden files and folders, whose names begin with a dot, are skipped without a message.

    Attributes:
        label_maps: Images whose names are those of label maps of images in the same folder, such as
            a_mask.png or a_mask_1.png beside a.png.
        passed_over: The number of files that are not images, by ending in lower case ("" without
            one).
        system_folders: The names of folders in `SYSTEM_FOLDERS` that were skipped.
        broken_links: Links whose target does not exist.
        repeated: Paths that lead through a link to a folder or an image that is listed already.
        shared_folders: Pairs of folders of classes that contain the same real folder.
        subfolders: The names of the folders in each folder of the upper two levels.
        visited: Each folder that was listed -> its modification time, in nanoseconds.
    """

    def __init__(self, suffixes: frozenset[str]) -> None:
        self.label_maps: list[str] = []
        self.passed_over: Counter[str] = Counter()
        self.system_folders: set[str] = set()
        self.broken_links: list[str] = []
        self.repeated: list[str] = []
        self.shared_folders: list[tuple[str, str]] = []
        self.subfolders: dict[str, list[str]] = {}
        self.visited: dict[str, int] = {}
        self._links: list[tuple[str, str, str]] = []
        self._suffixes = suffixes
        self._owners: dict[Identity, str] = {}
        self._left_alone: Collection[str] = ()

    def add_images(
        self, root: Path, builder: PathListBuilder, *, left_alone: Collection[str] = ()
    ) -> int:
        """Append the images below a folder to a list, in the order of their paths.

        Args:
            root: The folder. Links to folders and images are followed.
            builder: The list.
            left_alone: Names of folders in `root` that are not listed.

        Returns:
            The number of images.

        Raises:
            DataError: A folder cannot be read.
        """
        self._left_alone = left_alone
        seen = _ancestors(root)
        start = str(root)
        spellings = (os.path.join(start, ""), os.path.join(os.path.realpath(start), ""))
        outside: set[str] = set()
        count = 0
        # An item is a folder, or a folder with the names of images in it.
        work_root = os.path.join(start, "")
        work: list[str | tuple[str, list[str]]] = [work_root]
        while work:
            item = work.pop()
            if isinstance(item, tuple):
                builder.add(*item)
                count += len(item[1])
            elif self._enter(item, start, seen):
                files, folders = self._entries(item, spellings, outside)
                self.label_maps += (os.path.join(item, name) for name in _label_maps(files))
                if folders and item.count(os.sep) <= work_root.count(os.sep) + 1:
                    self.subfolders[item.rstrip(os.sep)] = folders
                if item == work_root:
                    folders = [name for name in folders if name not in left_alone]
                work += reversed(_in_order(item, files, folders))
        return count

    @property
    def has_links(self) -> bool:
        """True if links to files or broken links were found."""
        return bool(self._links or self.broken_links)

    def notes(self, root: Path) -> tuple[str, ...]:
        """Return messages about what was skipped. Each begins with `root`."""
        lines = []
        if self.passed_over:
            lines.append(f"{root}: {describe(self.passed_over)}.")
        if self.system_folders:
            names = ", ".join(sorted(self.system_folders))
            lines.append(f"{root}: skipped folders of the system ({names}).")
        for paths, what in (
            (self.broken_links, "link(s) to nothing"),
            (self.repeated, "path(s) to something that is listed already"),
        ):
            if paths:
                lines.append(f"{root}: skipped {counted(len(paths), what)} ({_few(paths)}).")
        if shared := self._shared_images():
            number = counted(len(shared), "image(s)")
            lines.append(f"{root}: {number} in two classes by links ({_few(shared)}).")
        for first, second in self.shared_folders[:_EXAMPLES]:
            lines.append(f"{second}: holds images of {first} by a link; these have both classes.")
        return tuple(lines)

    def label_map_note(self, root: Path) -> tuple[str, ...]:
        """Return a message if some images may be label maps. It begins with `root`.

        It is not one of the `notes`, because only those who use every image need it.
        """
        if not self.label_maps:
            return ()
        number = counted(len(self.label_maps), "image(s)")
        return (
            f"{root}: judging by the names, {number} may be label maps of images beside them "
            f"({_few(sorted(self.label_maps))}). All are used as images. Move label maps "
            "elsewhere.",
        )

    def _shared_images(self) -> list[str]:
        """Return the links in one class to an image that another class contains too."""
        starts = {os.path.join(os.path.realpath(start), "") for start in self._owners.values()}
        first: dict[str, str] = {}
        shared = []
        for link, path, start in self._links:
            target = os.path.realpath(path)
            own = os.path.join(os.path.realpath(start), "")
            parents = {os.path.join(str(parent), "") for parent in Path(target).parents}
            if (parents & starts) - {own} or first.setdefault(target, start) != start:
                shared.append(link)
        return shared

    def _enter(self, folder: str, start: str, seen: set[Identity]) -> bool:
        """Record a folder, and return whether it must be listed, because it is new."""
        status = _status(folder)
        identity = status.st_dev, status.st_ino
        self.visited[folder] = status.st_mtime_ns
        if identity in seen and folder != os.path.join(start, ""):
            self.repeated.append(folder.rstrip(os.sep))
            return False
        seen.add(identity)
        owner = self._owners.setdefault(identity, start)
        if owner != start:
            self.shared_folders.append((owner, start))
        return True

    def _entries(
        self, folder: str, spellings: tuple[str, str], outside: set[str]
    ) -> tuple[list[str], list[str]]:
        """Return the names of the images and of the folders in a folder, unsorted."""
        found: list[tuple[str, str]] = []
        links = []
        with scan(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    links.append(entry)
                else:
                    found.append((entry.name, _kind(entry)))
        # Sorted, so that the choice between two links to one image does not depend on the file
        # system.
        for entry in sorted(links, key=lambda entry: entry.name):
            found.append((entry.name, self._follow(entry, spellings, outside)))
        self.system_folders |= {n for n, kind in found if kind == "folder" and n in SYSTEM_FOLDERS}
        files = [name for name, kind in found if kind == "file" and self._is_image(name)]
        folders = [n for n, kind in found if kind == "folder" and n not in SYSTEM_FOLDERS]
        return files, folders

    def _follow(
        self, entry: os.DirEntry[str], spellings: tuple[str, str], outside: set[str]
    ) -> str:
        """Return the kind of a link's target: "folder", "file", or "" if it must not be listed."""
        try:
            if entry.is_dir():
                return "folder"
            if not entry.is_file():
                raise FileNotFoundError
            target = os.readlink(entry.path)
        except OSError:  # the target does not exist, or the links form a circle
            self.broken_links.append(entry.path)
            return ""
        path = os.path.normpath(os.path.join(os.path.dirname(entry.path), target))
        below = [path[len(root) :] for root in spellings if path.startswith(root)]
        inside = any(not _is_hidden(rest) and not self._is_left_alone(rest) for rest in below)
        if inside and os.path.splitext(path)[1].lower() in self._suffixes or path in outside:
            self.repeated.append(entry.path)
            return ""
        outside.add(path)
        self._links.append((entry.path, path, spellings[0]))
        return "file"

    def _is_left_alone(self, path: str) -> bool:
        return path.split(os.sep)[0] in self._left_alone

    def _is_image(self, name: str) -> bool:
        suffix = os.path.splitext(name)[1].lower()
        if suffix in self._suffixes:
            return True
        if suffix not in COMPANIONS:
            self.passed_over[suffix] += 1
        return False


def describe(passed_over: Counter[str]) -> str:
    """Write how many files were skipped, by ending, with a remedy for unread formats."""
    counts = [(kind or "without an ending", n) for kind, n in passed_over.most_common()]
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in counts)
    total = passed_over.total()
    files = "1 file that is" if total == 1 else f"{total:,} files that are"
    line = f"skipped {files} not read as images ({kinds})"
    unread = sorted({_CONVERTIBLE[kind] for kind in passed_over if kind in _CONVERTIBLE})
    return f"{line}; save {' and '.join(unread)} as JPEG" if unread else line


def visible_folders(root: Path) -> tuple[dict[str, Path], set[str]]:
    """Return the visible folders in a folder by name, sorted, and the names of its system folders.

    Raises:
        DataError: The folder cannot be read.
    """
    found = {}
    with scan(str(root)) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and _is_folder(entry):
                found[entry.name] = Path(entry.path)
    system = found.keys() & SYSTEM_FOLDERS
    return {name: found[name] for name in sorted(found.keys() - system)}, system


def scan(folder: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    """Open a folder with `os.scandir`.

    Raises:
        DataError: The folder cannot be read.
    """
    try:
        return os.scandir(folder)
    except OSError as error:
        why = error.strerror or error
        raise DataError(
            f"{folder}: cannot be read ({why}). Check its name and permissions."
        ) from None


def _in_order(
    folder: str, files: list[str], folders: list[str]
) -> list[str | tuple[str, list[str]]]:
    """Split the content of a folder into folders and runs of files, in the order of their paths."""
    if not folders:
        return [(folder, sorted(files))] if files else []
    # A folder "a" is sorted as "a/", with which the paths of its files begin. "a.jpg" comes first.
    names = sorted([*files, *(name + os.sep for name in folders)])
    items: list[str | tuple[str, list[str]]] = []
    run: list[str] = []
    for name in names:
        if not name.endswith(os.sep):
            run.append(name)
            continue
        if run:
            items.append((folder, run))
            run = []
        items.append(folder + name)
    return [*items, (folder, run)] if run else items


def _ancestors(folder: Path) -> set[Identity]:
    """Return the parents of a folder. A link to one of them would list the folder again."""
    return {_identity(str(parent)) for parent in Path(os.path.realpath(folder)).parents}


def _label_maps(names: list[str]) -> list[str]:
    """Return the names that are those of label maps of others, such as a_mask.png beside a.jpg."""
    maps = {name: found[1] for name in names if (found := _MAP_NAME.fullmatch(name.lower()))}
    if not maps:
        return []
    stems = {os.path.splitext(name)[0].lower() for name in names}
    return [name for name, stem in maps.items() if stem in stems]


def _identity(folder: str) -> Identity:
    found = _status(folder)
    return found.st_dev, found.st_ino


def _status(folder: str) -> os.stat_result:
    try:
        return os.stat(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}).") from None


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "file", or "" for a pipe or a device, where a read could block forever."""
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part in SYSTEM_FOLDERS for part in path.split(os.sep))


def _few(names: list[str]) -> str:
    more = ", ..." if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more
