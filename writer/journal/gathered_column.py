"""Column of journal entries, gathered from places all over the journal.

    slab  | .. 17 18 19 .. | .. 30 31 .. |      value = slab[where the column's run begins in it + place in the batch]

A column of an Arrow batch is a bitmap of what is valid, a run of values, and for strings a run of offsets and the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

NO_ROW = -1
VALID, DATA, TEXT = range(3)


@dataclass
class RowLocation:
    """Where entries are: batch number and position in it, each shape (n,) int32; NO_ROW for none."""

    batch: np.ndarray
    at: np.ndarray

    def __getitem__(self, chosen: np.ndarray | slice) -> RowLocation:
        return RowLocation(self.batch[chosen], self.at[chosen])

    def where(self, other: RowLocation, mask: np.ndarray) -> RowLocation:
        """This place where `first`, else the other."""
        return RowLocation(np.where(mask, self.batch, other.batch), np.where(mask, self.at, other.at))


class GatheredColumn:
    """Values of one column, slab by slab."""

    def __init__(self, schema: pa.Schema, name: str, location: RowLocation) -> None:
        self.number = schema.get_field_index(name)
        self.location = location
        self._kind = schema.field(name).type
        count = len(location.at)
        self._width = 0 if self._kind == pa.string() else self._kind.bit_width // 8
        self._valid = np.zeros(count, bool)
        self._values = np.zeros(count, f"i{self._width or 8}")
        self._texts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def fill(self, buffer: bytearray, offset: np.ndarray, mine: np.ndarray) -> None:
        """Take the values at `mine` from a slab; `offset` (n, 3): where the runs of their columns begin in it."""
        at = self.location.at[mine].astype(np.int64)
        data = np.maximum(offset[:, DATA], 0)
        self._valid[mine] = _read_bits(buffer, offset[:, VALID], at)
        if self._width:
            self._values[mine] = _read_values(buffer, data, at, f"i{self._width}")
            return
        begin, end = (_read_values(buffer, data, at + n, "i4").astype(np.int64) for n in (0, 1))
        length = np.where(self._valid[mine], end - begin, 0)
        within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        text = np.frombuffer(buffer, np.uint8)[np.repeat(offset[:, TEXT] + begin, length) + within]
        self._values[mine] = length
        self._texts.append((mine, length, text))

    def to_array(self) -> pa.Array:
        """All values; null where none was."""
        if not self._width:
            return _build_strings(self._values, self._valid, self._texts)
        if pa.types.is_floating(self._kind):
            return pa.array(self._values.view(f"f{self._width}"), mask=~self._valid)
        return pa.array(self._values, mask=~self._valid).cast(self._kind)


def _read_values(buffer: bytearray, offset: np.ndarray, at: np.ndarray, kind: str) -> np.ndarray:
    """Value number `at` of the run of values that begins at byte `offset`."""
    width = np.dtype(kind).itemsize
    values = np.frombuffer(buffer, kind, len(buffer) // width)
    return values[offset // width + at]


def _read_bits(buffer: bytearray, offset: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Bit number `at` of the bitmap that begins at byte `offset`; set where there is no bitmap."""
    some = offset >= 0
    octets = np.frombuffer(buffer, np.uint8)[np.where(some, offset + at // 8, 0)]
    return ~some | (octets >> (at % 8).astype(np.uint8) & 1).astype(bool)


def _build_strings(
    lengths: np.ndarray, valid: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> pa.Array:
    """Strings of these lengths from parts: which strings, the length of each, their bytes."""
    ends = np.cumsum(lengths)
    text = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    for mine, length, octets in parts:
        within = np.arange(len(octets)) - np.repeat(np.cumsum(length) - length, length)
        text[np.repeat(ends[mine] - length, length) + within] = octets
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    bitmap = np.packbits(valid, bitorder="little")
    return pa.StringArray.from_buffers(len(valid), pa.py_buffer(offsets), pa.py_buffer(text), pa.py_buffer(bitmap))
