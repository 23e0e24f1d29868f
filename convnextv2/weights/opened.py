"""Opens weights of any known format.

It finds the format, gives the tensors their canonical names, and describes the network that they
belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.preprocessing import Preprocessing
from convnextv2.text import brief, plain
from convnextv2.weights.build import check_complete
from convnextv2.weights.class_names import class_names
from convnextv2.weights.containers import Container, open_container
from convnextv2.weights.describe import describe, is_projection
from convnextv2.weights.description import Description, is_ours, read_description
from convnextv2.weights.detect import Layout, depths_of, detect, detect_all, is_average
from convnextv2.weights.names import FORMATS, is_version_1, library_of
from convnextv2.weights.notices import notice_of
from convnextv2.weights.renaming import rename
from convnextv2.weights.upernet import encoder_config, find_upernet
from convnextv2.weights.version_1 import FOLDED, UNSCALED, check_variant, fold_layer_scale

OURS = "convnextv2"
"""The format of weights files of this package, beside the keys of `FORMATS`."""


@dataclass(frozen=True)
class Origin:
    """The origin of weights: their file, its format and its licence.

    Attributes:
        path: The file or folder.
        format: A key of `FORMATS`, or `OURS`.
        container: The kind of file, such as "safetensors".
        sha256: The SHA-256 of the file, in hexadecimal.
        notice: The requirements of its licence; empty if none are known.
        nbytes: The size of all its files in bytes.
    """

    path: str
    format: str
    container: str
    sha256: str
    notice: str = ""
    nbytes: int = 0


@dataclass(frozen=True)
class Weights:
    """An opened weights file of any format: its tensors by canonical name, and their description.

    The file is read and hashed only once, when it is opened. This object is passed on to all code
    that needs the weights.

    Attributes:
        tensors: Canonical name to tensor, on the CPU.
        description: The network that the tensors belong to.
        origin: The file.
        left_out: Name and reason of each tensor that is not part of the network.
        notes: Lines to print about the weights.
        is_average: Whether these are the moving average that the file keeps beside its weights.
        container: The file's content under its own names; empty for weights without a file.
    """

    tensors: dict[str, Tensor]
    description: Description
    origin: Origin
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_average: bool = False
    container: Container = field(default_factory=lambda: Container("", {}, []), repr=False)

    @property
    def path(self) -> Path:
        """The file or folder that was opened."""
        return Path(self.origin.path)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of evaluation images.

        Raises:
            CheckpointError: The file does not state it.
        """
        if not self.description.preprocessing:
            raise CheckpointError(
                f"{self.path}: does not state the preprocessing of its images. Write it with its "
                "preprocessing."
            )
        return Preprocessing.read(self.description.preprocessing)

    @cached_property
    def has_average(self) -> bool:
        """True if the file has a moving average of the weights beside them."""
        return not is_ours(self.container.metadata) and bool(_averaged_tensors(self.container))

    def average(self) -> Weights:
        """Take the moving average that the file keeps beside its weights.

        The file is not read again.

        Returns:
            The average as `Weights`. If it is of the same network, it has the description of these
            weights, with the names of the classes, for example.

        Raises:
            CheckpointError: The file has no average.
        """
        average = _interpret(self.container, self.path, average=True)
        if average.description.arguments != self.description.arguments:
            return average
        return replace(average, description=self.description)

    def without_container(self, *, keeps_tensors: bool) -> Weights:
        """Release the content of the file, to free memory.

        Args:
            keeps_tensors: Whether the tensors of the network stay.

        Returns:
            These weights with an empty container.
        """
        emptied = replace(self.container, tensors={}, average={})
        return replace(self, tensors=self.tensors if keeps_tensors else {}, container=emptied)

    def lines(self) -> list[str]:
        """Describe the weights in lines to print.

        Returns:
            Printable lines about the kind of file, the notes, and the requirements of the licence.
        """
        origin = self.origin
        title = "convnextv2" if origin.format == OURS else FORMATS[origin.format].title
        lines = [f"{origin.path}: {title}, {origin.container}, sha256 {origin.sha256[:16]}"]
        if self.has_average and not self.is_average:
            lines.append(
                "The file also holds an average of the weights, which is not used; `convert --ema` "
                "takes it."
            )
        lines += self.notes
        if origin.notice:
            lines.append(f"Licence: {origin.notice}")
        return [plain(line) for line in lines]

    def provenance(self) -> dict[str, Any]:
        """Return the provenance of the weights, for models and files that are derived from them.

        Returns:
            The format, the hash, the notice and more, as in `Description.provenance`. If the
            weights were themselves made from others, what they state about those takes precedence.
        """
        known = {name: value for name, value in self.description.provenance.items() if value}
        return {
            "format": self.origin.format,
            "sha256": self.origin.sha256,
            "notice": self.origin.notice,
        } | known


def open_weights(path: Path, *, average: bool = False) -> Weights:
    """Open a weights file or Hub folder of any known format.

    The tensors get canonical names, and the size, the channels, the classes and the rest of the
    description are inferred.

    Args:
        path: The file or folder.
        average: Whether to take the moving average that a training checkpoint of MindCV ("ema.") or
            of PyTorch code keeps beside its weights.

    Returns:
        The weights, checked to be complete.

    Raises:
        CheckpointError: The format is unknown, a tensor is missing, unexpected or of the wrong
            shape, there is no average, or the file is damaged.
    """
    return _interpret(open_container(path), path, average=average)


def _interpret(container: Container, path: Path, *, average: bool) -> Weights:
    """Identify the format and the network of a container's tensors; see `open_weights`."""
    if is_ours(container.metadata):
        return _interpret_ours(container, path, average=average)
    tensors = container.tensors
    if average:
        tensors = _averaged_tensors(container)
        if not tensors:
            raise CheckpointError(f"{path}: has no averaged weights. Use its plain weights.")
    layout, depths = _recognise(tensors, container, path)
    no_head = _why_no_head(tensors, layout, container)
    renamed = rename(tensors, layout, depths, path, no_head=no_head)
    encoder, left_out = renamed.network, renamed.left_out
    notes = list(container.notes)
    upernet = find_upernet(tensors, layout.prefix)
    if is_version_1(layout.key):
        notes.append(FOLDED if "stages.0.0.gamma" in encoder else UNSCALED)
        encoder = fold_layer_scale(encoder, depths, path)
    told = replace(container, config=encoder_config(container.config)) if upernet else container
    description, more = describe(encoder, renamed.decoder, layout.key, depths, told, tensors)
    network = encoder
    if upernet:
        names = class_names(container.config, upernet.num_classes)
        description = upernet.describe(description, names, has_processor=bool(container.processor))
        network = upernet.around(encoder)
        left_out = upernet.still_left_out(left_out)
        more = upernet.notes(more, container.processor)
    if renamed.decoder:
        inner = {f"encoder.{name}": tensor for name, tensor in network.items()}
        network = inner | renamed.decoder
    check_complete(network, description, path)
    return Weights(
        tensors=network,
        description=description,
        origin=_origin(path, layout.key, container, notice_of(layout.key, container, tensors)),
        left_out=left_out + container.beside,
        notes=notes + more,
        is_average=average,
        container=container,
    )


def _recognise(
    tensors: Mapping[str, Tensor], container: Container, path: Path
) -> tuple[Layout, tuple[int, ...]]:
    """Recognise the format of tensors of another library.

    Args:
        tensors: The tensors under their own names.
        container: The file that they come from.
        path: The file, for error messages.

    Returns:
        The format with the prefix of its names, and the number of blocks in each stage.

    Raises:
        CheckpointError: The format is unknown, or the encoder is of a form that is not supported.
    """
    layout = detect(tensors)
    if layout is None:
        raise CheckpointError(
            f"{path}: not a ConvNeXt of any known format ({_held(tensors, container)}). Expected "
            "that of the official code, timm, transformers, mmpretrain, MindCV, torchvision or "
            "this package."
        )
    check_variant(tensors, layout.key, layout.prefix, path)
    depths = depths_of(layout.key, layout.prefix, tensors)
    if 0 in depths:
        raise CheckpointError(
            f"{path}: stage {depths.index(0) + 1} of 4 has no blocks, so the encoder is incomplete."
        )
    return layout, depths


def _interpret_ours(container: Container, path: Path, *, average: bool) -> Weights:
    """Read the description in a file of this package; see `open_weights`."""
    if average:
        raise CheckpointError(
            f"{path}: has no average beside its weights. Use best/ or last/ of the run."
        )
    description = read_description(container.metadata, path)
    check_complete(container.tensors, description, path)
    notice = str(description.provenance.get("notice", ""))
    origin = _origin(path, OURS, container, notice)
    return Weights(container.tensors, description, origin, container=container)


def _origin(path: Path, format: str, container: Container, notice: str) -> Origin:
    return Origin(str(path), format, container.title, container.sha256, notice, container.nbytes())


def _averaged_tensors(container: Container) -> dict[str, Tensor]:
    """Return the moving average of the weights in a container; empty if it has none."""
    return container.average or _average_beside(container.tensors)


def _average_beside(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find a moving average among the tensors themselves.

    Its names begin with "ema." in MindCV, and with "model_ema." in some wrappers.

    Returns:
        The tensors of the average under the names of the weights; empty if there is no average, or
        only an average.
    """
    found = detect_all(tensors)
    if not found or is_average(found[0].prefix):
        return {}
    for layout in found:
        if is_average(layout.prefix):
            return {
                name.removeprefix(layout.root): tensor
                for name, tensor in tensors.items()
                if name.startswith(layout.root)
            }
    return {}


def _why_no_head(tensors: Mapping[str, Tensor], layout: Layout, container: Container) -> str:
    """Return why a head is not one linear layer that maps to classes; empty if it may be one."""
    if library_of(layout.key) != "timm":
        return ""
    if f"{layout.prefix}head.pre_logits.fc.weight" in tensors:
        return "a head with a hidden layer, which has no place here"
    return "a projection into the space of CLIP's texts" if is_projection(container) else ""


def _held(tensors: Mapping[str, Tensor], container: Container) -> str:
    """Describe briefly the content of a file of unknown format."""
    example = f", such as {brief([next(iter(tensors))])}" if tensors else ""
    beside = [
        f"{name} ({what})" if what.startswith("Python object") else name
        for name, what in container.beside
    ]
    return f"{len(tensors)} tensors{example}" + (f"; beside them {brief(beside)}" if beside else "")
