"""Makes fashion_mnist.h5, the small real data set of the default run, from the original Fashion-MNIST files.

    python data/make_fashion_mnist.py /usr/share/datasets/fashion-mnist

The directory holds the four original IDX files (Debian: package dataset-fashion-mnist). Classes are drawn in
equal parts with a fixed seed: running this again gives the same data.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np

from ddhpc.data.packed import Contents, Split, write_packed
from ddhpc.data.sources.image_decoding import ImagePreparation

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SAMPLES = {"train": ("train", 6000), "val": ("train", 1000), "test": ("t10k", 1500)}
"""By split: the original set it is drawn from and its size."""


PREPARATION = ImagePreparation(mode="grey", white=255, size=(28, 28), resize="crop")
"""What is done to an image file before it is classified as one of these."""


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist, "file formats") as an array."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path}: is not an IDX file of unsigned bytes")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def main() -> None:
    """Draws the samples and writes the packed file beside this program."""
    parser = argparse.ArgumentParser(description="Make fashion_mnist.h5 from the original Fashion-MNIST files.")
    parser.add_argument("source", type=Path, help="directory of the four original IDX files")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("fashion_mnist.h5"))
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()

    images, labels, order = {}, {}, {}
    rng = np.random.default_rng(2017)
    for original in ("train", "t10k"):
        images[original] = read_idx(options.source / f"{original}-images-idx3-ubyte.gz")
        labels[original] = read_idx(options.source / f"{original}-labels-idx1-ubyte.gz")
        order[original] = rng.permutation(len(labels[original]))

    splits = {}
    for split, (original, samples) in SAMPLES.items():
        found = labels[original][order[original]]
        each = samples // len(CLASSES)
        places = np.concatenate([np.flatnonzero(found == label)[:each] for label in range(len(CLASSES))])
        drawn = np.sort(order[original][places])
        order[original] = np.delete(order[original], places)
        splits[split] = Split(
            labels=labels[original][drawn],
            ids=[f"{original}-{index:05d}" for index in drawn],
            images=images[original][drawn, None],
        )
    packed = write_packed(
        options.output,
        Contents(
            classes=CLASSES,
            splits=splits,
            image_shape=PREPARATION.image_shape,
            channels=PREPARATION.channels,
            dtype=PREPARATION.stored_dtype,
            preparation=PREPARATION.to_json(),
            source="Fashion-MNIST (Zalando SE, 2017, MIT licence): a balanced selection of the original files; "
            "train and val from the original training set, test from the original test set",
        ),
        overwrite=options.overwrite,
    )
    print(f"{packed.path}: {packed.samples}, {packed.path.stat().st_size / 1e6:.2f} MB, digest {packed.digest}")


if __name__ == "__main__":
    main()
