"""The packed file: labelled images in one HDF5 file, written once and read by window.

Layout, format version 2 (S samples of a split, C channels, K classes; split is train, val or test)::

    /                   attrs: format, format_version, created, ddhpc_version, source, preparation, complete
    /classes            [K] UTF-8
    /{split}/image      [S, C, *spatial] uint8, int16, uint16 or float32; attr sha256, of all pixels
    /{split}/restricted/{A}x{B}[x{D}]
                        [S, C, A, B, D] like image, whose pixels are halved along each axis (rounded up) until 8 or less
                        are left: means over equal boxes, of integers rounded; attr sha256, likewise
    /{split}/label      [S] int64
    /{split}/id         [S] UTF-8
    /{split}/patient    [S] UTF-8, pseudonyms, empty where nobody knows; only where the source knows patients
    /{split}/fold       [S] int64, only of a file with folds: of each sample, numbered from 0
    /statistics/mean    [C] float64, of the training split in stored units; std likewise
    /statistics/fold_mean
                        [folds, C] likewise, of what is train when a fold is test; fold_std likewise
    /skipped            [n] UTF-8, names of the files left out, each with the reason

`preparation` is JSON text, what `prepare` did to each file; older files lack it. Strings of datasets have fixed length;
filters are shuffle, gzip and a checksum (Fletcher32) of each chunk. h5ls, h5dump and every HDF5 library read the file.

Chunks of `image` are small in space and long over samples, for windows; those of `restricted` hold whole images. Files
of format version 1 lack `restricted`: what would be there is computed, with the same bits. `prepare` puts the samples
of a split in the order of their folds, so that a fold is read in few parts.
"""

from ddhpc.data.packed.checks import SPLITS
from ddhpc.data.packed.chunks import read_amplification
from ddhpc.data.packed.location import find
from ddhpc.data.packed.reader import Packed, open_packed
from ddhpc.data.packed.writer import Contents, Split, write_packed

__all__ = ["SPLITS", "Contents", "Packed", "Split", "find", "open_packed", "read_amplification", "write_packed"]
