"""Reads the sizes of the frames of an AV1 stream, which its decoder allocates.

Source: AV1 Bitstream & Decoding Process Specification, sections 5.3 to 5.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from convnextv2.data.decode.bits import Bits

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _SWITCH = 0, 3
_SELECT = 2
_HEADER_BYTES = 256  # more than the part of a header that is read here


class Sequence(NamedTuple):
    """The parts of a sequence header that are needed to read the sizes of frames.

    Attributes:
        width: The width of the largest frame, in pixels.
        height: The height of the largest frame, in pixels.
        stated: The largest width and height that the header of a frame can state.
        is_reduced: The flag reduced_still_picture_header: frame headers have no size.
        has_time: Whether the headers of shown frames have a presentation time.
        time_bits: The number of bits of the presentation time.
        id_bits: The number of bits of a frame id; 0 without ids.
        screen: seq_force_screen_content_tools; 2 if each frame states it.
        whole_motion: seq_force_integer_mv; 2 if each frame states it.
    """

    width: int
    height: int
    stated: tuple[int, int]
    is_reduced: bool
    has_time: bool
    time_bits: int
    id_bits: int
    screen: int
    whole_motion: int


def frame_sizes(stream: bytes) -> Iterator[tuple[int, int]]:
    """Yield the widths and heights that the units (OBUs) of a stream state.

    Args:
        stream: The stream of one item or sample.

    Raises:
        ValueError: A header cannot be read.
    """
    sequence = None
    for kind, unit in _units(stream):
        if kind == _SEQUENCE:
            sequence = read_sequence(unit)
            yield sequence.width, sequence.height
        elif kind in (_FRAME_HEADER, _FRAME) and sequence and not sequence.is_reduced:
            if _has_own_size(Bits(unit), sequence):
                yield sequence.stated


def _units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type of each unit, and the beginning of its payload."""
    at = 0
    while at < len(stream):
        header = stream[at]
        at += 2 if header & 4 else 1
        length = len(stream) - at
        if header & 2:
            length = shift = 0
            for shift in range(0, 56, 7):
                if at >= len(stream):
                    return
                length |= (stream[at] & 127) << shift
                at += 1
                if stream[at - 1] < 128:
                    break
        yield header >> 3 & 15, stream[at : at + min(length, _HEADER_BYTES)]
        at += length


def read_sequence(unit: bytes) -> Sequence:
    """Read a sequence header, up to the last field that is needed for the sizes of frames."""
    bits = Bits(unit)
    bits.skip(3 + 1)  # profile, still_picture
    is_reduced = bool(bits.take(1))
    time_bits, has_time = 0, False
    if is_reduced:
        bits.skip(5)
    else:
        time_bits, has_time = _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    id_bits, screen, whole_motion = 0, _SELECT, _SELECT
    if not is_reduced:
        if bits.take(1):
            id_bits = bits.take(4) + 2 + bits.take(3) + 1
        bits.skip(3)
        bits.skip(4)
        if bits.take(1):
            bits.skip(2)
        if not bits.take(1):
            screen = bits.take(1)
        if screen and not bits.take(1):
            whole_motion = bits.take(1)
    stated = (1 << width_bits, 1 << height_bits)
    return Sequence(
        width, height, stated, is_reduced, has_time, time_bits, id_bits, screen, whole_motion
    )


def _skip_operating_points(bits: Bits) -> tuple[int, bool]:
    """Return the number of bits of the presentation time, and whether shown frames have it."""
    delay_bits = time_bits = 0
    has_model = is_even = False
    if bits.take(1):  # timing_info
        bits.skip(64)
        is_even = bool(bits.take(1))
        if is_even:
            _skip_uvlc(bits)
        has_model = bool(bits.take(1))
        if has_model:
            delay_bits = bits.take(5) + 1
            bits.skip(32 + 5)
            time_bits = bits.take(5) + 1
    has_display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.skip(12)
        if bits.take(5) > 7:
            bits.skip(1)
        if has_model and bits.take(1):
            bits.skip(2 * delay_bits + 1)
        if has_display_delay and bits.take(1):
            bits.skip(4)
    return time_bits, has_model and not is_even


def _skip_uvlc(bits: Bits) -> None:
    zeros = 0
    while not bits.take(1):
        zeros += 1
    if zeros < 32:
        bits.skip(zeros)


def _has_own_size(bits: Bits, sequence: Sequence) -> bool:
    """Return whether the header of a frame states its own size."""
    if bits.take(1):  # shows an earlier frame again
        return False
    kind, is_shown = bits.take(2), bits.take(1)
    if is_shown and sequence.has_time:
        bits.skip(sequence.time_bits)
    if not is_shown:
        bits.skip(1)
    if not (kind == _SWITCH or (kind == _KEY and is_shown)):
        bits.skip(1)  # error_resilient_mode
    bits.skip(1)  # disable_cdf_update
    has_screen = bits.take(1) if sequence.screen == _SELECT else sequence.screen
    if has_screen and sequence.whole_motion == _SELECT:
        bits.skip(1)
    bits.skip(sequence.id_bits)
    return kind == _SWITCH or bool(bits.take(1))
