"""The packed file: labelled images in one HDF5 file, written once and read by window."""

from ddhpc.data.packed.checks import SPLITS
from ddhpc.data.packed.chunks import read_amplification
from ddhpc.data.packed.reader import Packed, find, open_packed
from ddhpc.data.packed.writer import Contents, Split, write_packed

__all__ = ["SPLITS", "Contents", "Packed", "Split", "find", "open_packed", "read_amplification", "write_packed"]
