"""CIFAR-10 becomes the same packed file from the original batches and from a tree of images."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from ddhpc.data.sources.cifar10 import BATCHES, CLASSES, Cifar10Options, prepare_cifar10, subset
from ddhpc.data.sources.source import Packing, Prepared
from ddhpc.errors import InputError
from tests.data.sources.packing import packed_by

REAL = os.environ.get("DDHPC_DATA")
TRAIN, TEST = 12, 3
"""Images of a class in the small tree."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of noise, train|test/<class>/*.png."""
    folder = tmp_path_factory.mktemp("cifar") / "tree"
    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
                image.save(folder / split / name / f"{i:04d}.png")
    return folder


@pytest.fixture
def batches(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the same images in the original batches, whose sums torchvision is told."""
    write_batches(tmp_path / "original" / BATCHES, tree, monkeypatch)
    return tmp_path / "original"


def write_batches(folder: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as https://www.cs.toronto.edu/~kriz/cifar.html describes them; classes mixed, each in order of name."""
    from torchvision.datasets import CIFAR10

    folder.mkdir(parents=True)
    sums = {}

    def write(name: str, content: object) -> None:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()

    names = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    rng = np.random.default_rng(1)
    for split, files in names.items():
        per_class = [sorted((tree / split / name).iterdir()) for name in CLASSES]
        rounds = [[(paths[i], label) for label, paths in enumerate(per_class)] for i in range(len(per_class[0]))]
        mixed = [images[n] for images in rounds for n in rng.permutation(len(CLASSES))]
        for part, name in zip(np.array_split(np.arange(len(mixed)), len(files)), files, strict=True):
            chosen = [mixed[i] for i in part]
            pixels = [np.asarray(Image.open(path)).transpose(2, 0, 1).ravel() for path, _ in chosen]
            write(
                name,
                {
                    "batch_label": name,
                    "labels": [label for _, label in chosen],
                    "data": np.stack(pixels),
                    "filenames": [path.name for path, _ in chosen],
                },
            )
    write("batches.meta", {"num_cases_per_batch": 10, "label_names": list(CLASSES), "num_vis": 3072})
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names["train"]])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, sums[name]] for name in names["test"]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})


def prepare(source: Path, output: Path, **options) -> Prepared:
    return packed_by(prepare_cifar10, Cifar10Options, source, output, **options)


def content(prepared: Prepared, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids without file endings, labels and pixels."""
    packed = prepared.packed
    ids = [name.partition(".")[0] for name in packed.ids(split)]
    return ids, packed.labels[split], packed.read(split, (slice(None), slice(None)))


def assert_same(one: Prepared, other: Prepared) -> None:
    for name in ("classes", "samples", "image_shape", "channels", "dtype", "chunk_shape"):
        assert getattr(one.packed, name) == getattr(other.packed, name)
    for split in one.packed.splits:
        for mine, theirs in zip(content(one, split), content(other, split), strict=True):
            assert np.array_equal(mine, theirs)


def test_both_sources_give_the_same(tree, batches, tmp_path):
    from_tree, from_batches = prepare(tree, tmp_path / "t.h5"), prepare(batches, tmp_path / "b.h5")
    assert_same(from_tree, from_batches)
    assert from_batches.packed.classes == CLASSES
    assert from_batches.packed.samples == {"train": 110, "val": 10, "test": 30}
    assert from_batches.packed.image_shape == (32, 32)
    assert from_batches.packed.channels == 3
    assert from_batches.packed.dtype == np.uint8
    assert from_batches.packed.preparation == from_tree.packed.preparation != ""
    assert "val: 10% of each class in train, seed 0" in from_batches.notes
    assert "val: 10% of each class in train, seed 0" in from_tree.notes


def test_pixels_and_labels_belong_to_their_ids(tree, batches, tmp_path):
    prepared = prepare(batches, tmp_path / "b.h5")
    seen = []
    for split in prepared.packed.splits:
        for name, label, pixels in zip(*content(prepared, split), strict=True):
            assert name.split("/")[:2] == ["test" if split == "test" else "train", CLASSES[label]]
            assert np.array_equal(pixels.transpose(1, 2, 0), np.asarray(Image.open(tree / f"{name}.png")))
            seen.append(name)
    assert sorted(seen) == sorted(path.relative_to(tree).as_posix()[:-4] for path in tree.glob("*/*/*.png"))


@pytest.mark.skipif(not REAL, reason="DDHPC_DATA does not name the directory of the real data sets")
def test_real_images_in_both_sources(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    for split, count in (("train", 20), ("test", 5)):
        for name in CLASSES:
            (tree / split / name).mkdir(parents=True)
            for i in range(count):
                path = f"{split}/{name}/{i:04d}.jpg"
                (tree / path).symlink_to(Path(REAL) / "cifar10" / path)
    write_batches(tmp_path / BATCHES, tree, monkeypatch)
    from_tree, from_batches = prepare(tree, tmp_path / "t.h5"), prepare(tmp_path, tmp_path / "b.h5")
    assert from_tree.packed.samples == {"train": 180, "val": 20, "test": 50}
    assert_same(from_tree, from_batches)


def test_fewer_training_images(tree, batches, tmp_path):
    whole = prepare(tree, tmp_path / "a.h5")
    many, few = (prepare(tree, tmp_path / f"{n}.h5", train_samples=n) for n in (55, 20))
    assert_same(few, prepare(batches, tmp_path / "c.h5", train_samples=20))
    assert few.packed.samples == {"train": 20, "val": 10, "test": 30}
    assert np.bincount(few.packed.labels["train"]).tolist() == [2] * 10
    assert set(few.packed.ids("train")) < set(many.packed.ids("train")) < set(whole.packed.ids("train"))
    assert many.packed.ids("val") == whole.packed.ids("val")
    assert "train: 20 of 110 images, the same share of each class, seed 0" in few.notes
    assert "train: 20 of 110 images" in few.packed.source
    with pytest.raises(InputError, match="--train-samples 111: there are 110, without those of val"):
        prepare(tree, tmp_path / "x.h5", train_samples=111)


def test_subsets_are_exact_stratified_and_drawn_by_the_seed():
    labels = np.sort(np.random.default_rng(0).permutation(np.resize(np.arange(10), 1003)))
    for count in (10, 57, 1003):
        drawn = subset(labels, count, 3)
        assert drawn == sorted(set(drawn))
        assert len(drawn) == count
        assert np.ptp(np.bincount(labels[drawn], minlength=10)) <= 1
    assert subset(labels, 50, 3) == subset(labels, 50, 3) != subset(labels, 50, 4)


def test_the_seed_draws_val(tree, tmp_path):
    first, second = (
        prepare(tree, tmp_path / "x.h5", seed=seed, val_fraction=0.25).packed.ids("val") for seed in (0, 1)
    )
    assert len(first) == len(second) == 30
    assert first != second


def test_val_of_a_tree_is_kept(tree, tmp_path):
    for path in tree.glob("*/*/*.png"):
        split, *name = path.relative_to(tree).parts
        link = tmp_path.joinpath("in", "val" if (split, path.stem) == ("train", "0000") else split, *name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    prepared = prepare(tmp_path / "in", tmp_path / "x.h5")
    assert prepared.packed.ids("val") == [f"val/{name}/0000.png" for name in CLASSES]
    assert not any(note.startswith("val:") for note in prepared.notes)


def test_the_directory_of_the_batches_itself(batches, tmp_path, monkeypatch):
    digest = prepare(batches, tmp_path / "a.h5").packed.digest
    assert prepare(batches / BATCHES, tmp_path / "b.h5").packed.digest == digest
    monkeypatch.chdir(batches / BATCHES)
    assert prepare(Path(), tmp_path / "c.h5").packed.digest == digest


def test_progress_counts_every_image_once(batches, tmp_path):
    steps: list[tuple[int, int]] = []
    prepare(batches, tmp_path / "x.h5", train_samples=50, progress=lambda *step: steps.append(step))
    assert steps == [(i, 90) for i in range(1, 91)]


def test_copies_of_training_images_are_left_out(tree, tmp_path, monkeypatch):
    for path in tree.glob("*/*/*.png"):
        link = tmp_path / "in" / path.relative_to(tree)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tree / "train/cat/0005.png" if path == tree / "test/cat/0001.png" else path)
    write_batches(tmp_path / BATCHES, tmp_path / "in", monkeypatch)
    prepared = prepare(tmp_path, tmp_path / "b.h5")
    assert prepared.skipped == {"test/cat/0001": "copy of train/cat/0005"}
    assert "1 file left out: copy of an image of an earlier split" in prepared.notes
    assert_same(prepare(tmp_path / "in", tmp_path / "t.h5"), prepared)


class _Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_batches_with_another_sum_are_not_opened(batches, tmp_path, name):
    (batches / BATCHES / name).write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    with pytest.raises(InputError, match=f"^[^\n]*{BATCHES}: {name}: missing, or another MD5 sum[^\n]*$"):
        prepare(batches, tmp_path / "x.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original"]


def test_missing_batches_are_named(batches, tmp_path):
    for name in ("data_batch_2", "test_batch"):
        (batches / BATCHES / name).unlink()
    with pytest.raises(InputError, match="data_batch_2, test_batch: missing"):
        prepare(batches, tmp_path / "x.h5")


def test_download_without_a_network(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{closed.getsockname()[1]}/cifar-10-python.tar.gz")
        monkeypatch.setenv("no_proxy", "*")
        with pytest.raises(
            InputError, match=r"^--download into [^\n]*new: Connection refused; expected a network[^\n]*$"
        ):
            prepare(tmp_path / "new", tmp_path / "x.h5", download=True)
    assert not (tmp_path / "x.h5").exists()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of an HTTP server of the directory `served`."""
    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_download_fetches_missing_batches_once(batches, served, tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    archive = tmp_path / "served/there.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(batches / BATCHES, BATCHES)
    monkeypatch.setattr(CIFAR10, "url", f"{served}/there.tar.gz")
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(InputError, match="data_batch_1, .*: missing"):
        prepare(tmp_path / "bad", tmp_path / "x.h5", download=True)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    first = prepare(tmp_path / "new", tmp_path / "x.h5", download=True)
    assert first.packed.digest == prepare(batches, tmp_path / "y.h5").packed.digest
    archive.unlink()
    assert prepare(tmp_path / "new", tmp_path / "x.h5", download=True).packed.digest == first.packed.digest
    with pytest.raises(InputError, match="^--download into [^\n]*: HTTP Error 404: File not found; expected a network"):
        prepare(tmp_path / "newer", tmp_path / "x.h5", download=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its rights for a while")
def test_batches_without_permission(batches, monkeypatch):
    os.chmod(batches / BATCHES / "data_batch_1", 0)
    os.chmod(batches, 0o755)
    monkeypatch.chdir(batches)
    os.seteuid(65534)
    try:
        with pytest.raises(InputError, match=f"^{BATCHES}: cannot be read: Permission denied$"):
            prepare_cifar10(Path(), Cifar10Options(), Packing(output=Path("x.h5")))
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("names", "part"),
    [
        ([], "holds neither cifar-10-batches-py nor train/ and test/"),
        (["train/cat"], "holds neither cifar-10-batches-py nor train/ and test/"),
        ([f"{split}/{name}" for split in ("train", "test") for name in CLASSES[1:]], "lacks the class 'airplane'"),
        ([f"{split}/{name}" for split in ("train", "test") for name in (*CLASSES, "car")], "has a class 'car'"),
    ],
)
def test_other_sources_are_named(tmp_path, names, part):
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        prepare(tmp_path / "in", tmp_path / "x.h5")
    assert f"{tmp_path / 'in'}: {part}" in str(error.value)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"val_fraction": 0.0}, "--val-fraction 0.0: expected a number between 0 and 1"),
        ({"val_fraction": 1.0}, "--val-fraction 1.0"),
        ({"train_samples": 9}, "--train-samples 9: expected at least 10"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_bad_options_are_named(tree, tmp_path, options, part):
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        prepare(tree, tmp_path / "x.h5", **options)
    assert part in str(error.value)
    assert not (tmp_path / "x.h5").exists()


def test_an_existing_output_is_kept_before_anything_is_fetched(tmp_path):
    (tmp_path / "x.h5").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        prepare(tmp_path / "new", tmp_path / "x.h5", download=True, overwrite=False)
    assert (tmp_path / "x.h5").read_text() == "mine"
    assert not (tmp_path / "new").exists()
