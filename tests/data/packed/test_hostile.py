"""Packed files of somebody who means harm: one line each, in bounded time and memory."""

import os
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ddhpc.data.packed import open_packed
from ddhpc.errors import InputError
from tests.conftest import pack_small

MEMORY = 20 * 2**30
"""Of addresses, of which torch alone takes some GiB."""


@pytest.fixture
def file(tmp_path):
    return pack_small(tmp_path / "x.h5")


def replaced(file, name, **new):
    attrs = dict(file[name].attrs) if name in file else {}
    if name in file:
        del file[name]
    file.create_dataset(name, **new).attrs.update(attrs)


def spoil(path, kind):
    secret = path.with_name("secret.txt")
    secret.write_text("password\n" * 1000)
    with h5py.File(path, "r+") as file:
        if kind == "integer classes":
            replaced(file, "classes", data=np.arange(3))
        elif kind == "scalar classes":
            replaced(file, "classes", data=np.bytes_(b"one"))
        elif kind == "text of any length":
            replaced(file, "classes", data=["a", "b", "c"], dtype=h5py.string_dtype())
        elif kind == "compound classes":
            replaced(file, "classes", data=np.zeros(3, [("a", "i4")]))
        elif kind == "a group":
            del file["train/label"]
            file.create_group("train/label")
        elif kind == "many labels":
            replaced(file, "train/label", shape=(10**11,), dtype="i8", chunks=(10**6,))
        elif kind == "many images":
            replaced(file, "train/image", shape=(10**9, 1, 16, 14), dtype="u1", chunks=(1, 1, 16, 14))
        elif kind == "scalar label":
            replaced(file, "train/label", data=np.int64(1))
        elif kind == "statistics of text":
            replaced(file, "statistics/mean", data=np.array([b"x"]))
        elif kind == "scalar statistics":
            replaced(file, "statistics/std", data=1.0)
        elif kind == "external storage":
            replaced(file, "val/label", shape=(30,), dtype="i8", external=[(str(secret), 0, 240)])
        elif kind == "external link":
            del file["val/label"]
            file["val/label"] = h5py.ExternalLink("other.h5", "/label")
        elif kind == "soft link":
            del file["val/label"]
            file["val/label"] = h5py.SoftLink("/train/label")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((30,), "i8")
            layout[:] = h5py.VirtualSource("other.h5", "label", (30,))
            del file["val/label"]
            file.create_virtual_dataset("val/label", layout)
        elif kind == "format of numbers":
            file.attrs["format"] = [1, 2]
        elif kind == "version of text":
            file.attrs["format_version"] = "one"
        elif kind == "complete of numbers":
            file.attrs["complete"] = [1.0, 2.0]
        elif kind == "version of a time":
            del file.attrs["format_version"]
            scalar = h5py.h5s.create(h5py.h5s.SCALAR)
            h5py.h5a.create(file.id, b"format_version", h5py.h5t.UNIX_D32LE, scalar)
        elif kind == "labels of times":
            del file["val/label"]
            h5py.h5d.create(file["val"].id, b"label", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((30,)))
        elif kind == "no values":
            replaced(file, "val/image", dtype="u1", shape=None, data=h5py.Empty("u1"))
        elif kind == "many classes":
            zeros = np.zeros(10**7, "S1")
            replaced(file, "classes", data=zeros, chunks=(10**6,), compression="gzip", compression_opts=9)
        elif kind == "long ids":
            replaced(file, "val/id", shape=(30,), dtype="S10000000", chunks=(1,), compression="gzip")
            file["val/id"][...] = np.bytes_(b"x")
        elif kind == "no restricted images":
            del file["val/restricted/8x7"]
        elif kind == "restricted images of another size":
            replaced(file, "val/restricted/8x7", data=np.zeros((30, 1, 8, 8), "u1"), chunks=True)
        elif kind == "too few restricted images":
            replaced(file, "test/restricted/8x7", data=np.zeros((32, 1, 8, 7), "u1"), chunks=True)
        elif kind == "restricted images of another type":
            replaced(file, "train/restricted/8x7", data=np.zeros((96, 1, 8, 7), "f4"), chunks=True)
        elif kind == "restricted images in one piece":
            replaced(file, "train/restricted/8x7", data=np.zeros((96, 1, 8, 7), "u1"))
        elif kind == "many restricted images":
            replaced(file, "val/restricted/8x7", shape=(10**9, 1, 8, 7), dtype="u1", chunks=(1, 1, 8, 7))
        elif kind == "a group of restricted images":
            del file["val/restricted/8x7"]
            file.create_group("val/restricted/8x7")
        elif kind == "images in one piece":
            replaced(file, "val/image", data=file["val/image"][...])
        elif kind == "nested":
            group = file
            for _ in range(100):
                group = group.create_group("a")
        elif kind == "many objects":
            for number in range(2000):
                file[f"more/{number}"] = file["classes"]
        elif kind == "unknown filter":
            replaced(file, "val/label", data=np.resize(np.arange(3), 30), chunks=(30,), compression="lzf")
    if kind == "unknown filter":
        lzf, blosc = (number.to_bytes(2, "little") for number in (32000, 32001))
        path.write_bytes(path.read_bytes().replace(lzf, blosc))
    if kind == "forged end":
        path.write_bytes(path.read_bytes()[:2000])
    if kind == "a pipe":
        path.unlink()
        os.mkfifo(path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("integer classes", r"classes is int64 \(3,\); expected a string a class"),
        ("scalar classes", r"classes is .* \(\); expected a string a class"),
        ("text of any length", "classes is object"),
        ("compound classes", "classes is .*; expected a string a class"),
        ("a group", "lacks the dataset /train/label"),
        ("many labels", r"/train/label is declared as \(100000000000,\), of which most is not there"),
        ("many images", "/train/image is declared as .*, of which most is not there"),
        ("scalar label", "label int64"),
        ("statistics of text", "statistics/mean is .*; expected a number a channel"),
        ("scalar statistics", r"statistics/std is float64 \(\); expected a number a channel"),
        ("external storage", "/val/label is stored in another file, expected all data in the file itself"),
        ("external link", "/val/label is a link to elsewhere, expected all data in the file itself"),
        ("soft link", "/val/label is a link to elsewhere"),
        ("virtual", "/val/label is stored in another file"),
        ("format of numbers", "is an HDF5 file but not a packed file"),
        ("version of text", "has format version one; expected 1"),
        ("complete of numbers", "is not complete"),
        ("version of a time", "has format version something unreadable; expected 1"),
        ("labels of times", "/val/label is of a type that is not known here"),
        ("no values", "lacks the dataset /val/image"),
        ("many classes", r"/classes is declared as \(10000000,\), of which most is not there"),
        ("long ids", r"/val/id is declared as \(30,\), of which most is not there"),
        ("no restricted images", "lacks the dataset /val/restricted/8x7; `prepare` it again"),
        (
            "restricted images of another size",
            r"val/restricted/8x7 is .*8\); expected .* \(30, 1, 8, 7\)",
        ),
        ("too few restricted images", r"test/restricted/8x7 is uint8 \(32, 1, 8, 7\); expected .* \(33, 1, 8, 7\)"),
        ("restricted images of another type", r"train/restricted/8x7 is float32 .*; expected chunked uint8"),
        ("restricted images in one piece", "train/restricted/8x7 is uint8 .*; expected chunked uint8"),
        ("many restricted images", "/val/restricted/8x7 is declared as .*, of which most is not there"),
        ("a group of restricted images", "lacks the dataset /val/restricted/8x7"),
        ("images in one piece", "val/image is uint8 .*; expected chunked uint8"),
        ("nested", "more than 1,000 objects, or nested more than 20 deep"),
        ("many objects", "more than 1,000 objects"),
        ("unknown filter", "cannot be read: .*; expected an intact HDF5 file"),
        ("forged end", "cannot be read: .*truncated"),
        ("a pipe", "is no regular file; expected an HDF5 file"),
    ],
)
def test_a_hostile_packed_file_is_refused(kind, reason, file):
    spoil(file, kind)
    with pytest.raises(InputError, match=rf"^{file}: [^\n]*{reason}[^\n]*$"):
        open_packed(file)


def test_it_takes_no_memory(file):
    spoil(file, "many labels")

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    command = [sys.executable, "-m", "ddhpc", "plan", "--data.file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ddhpc: {file}: /train/label is declared as")


def test_what_other_programs_write_is_read(file, tmp_path):
    """Big-endian pixels, and a whole number for a truth, as C and Fortran leave them."""
    wide = pack_small(tmp_path / "wide.h5", dtype="uint16")
    with h5py.File(wide, "r+") as opened:
        pixels = opened["val/image"][...]
        replaced(opened, "complete_images", data=pixels)
        for split in ("train", "val", "test"):
            values, name = opened[f"{split}/image"][...], f"{split}/image"
            replaced(opened, name, data=values.astype(">u2"), chunks=opened[name].chunks)
        opened.attrs["complete"] = 1
    found = open_packed(wide)
    assert found.dtype == np.dtype("uint16")
    read = found.read("val", (slice(0, 16), slice(0, 14)))
    assert read.dtype.isnative
    assert np.array_equal(read, pixels)
    assert np.array_equal(found.sample("val", 3), pixels[3])


def test_unknown_objects_and_empty_classes_do_no_harm(file):
    with h5py.File(file, "r+") as opened:
        opened["notes/more"] = np.arange(3)
        opened.attrs["owner"] = [1, 2, 3]
    assert open_packed(file).classes == ("rows", "columns", "none")
