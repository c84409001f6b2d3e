"""Packed files of labelled images: writing them from raw data and reading them by window."""

from ddhpc.data.chunks import read_amplification
from ddhpc.data.packed import Packed, find, open_packed
from ddhpc.data.packing import Split, write_packed

__all__ = ["Packed", "Split", "find", "open_packed", "read_amplification", "write_packed"]
