"""A packed file opened with a fold: each fold is test once, and statistics are of what is trained on alone."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from ddhpc.data.packed import SPLITS, open_packed
from ddhpc.data.packed.moments import Moments
from ddhpc.errors import InputError
from tests.conftest import make_older, pack_small

FOLDS = 4
WINDOW = (slice(3, 9), slice(5, 14))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of patients with two images each, who are in the folds one after the other."""
    return pack_small(tmp_path_factory.mktemp("folds") / "x.h5", patients=2, folds=FOLDS)


def stored(file: Path, name: str) -> np.ndarray:
    """What all splits of a file hold, one after the other."""
    with h5py.File(file) as opened:
        return np.concatenate([opened[f"{split}/{name}"][...] for split in SPLITS])


def expected(file: Path, fold: int) -> dict[str, np.ndarray]:
    """Which of all stored samples belong to each split when a fold is test."""
    numbers = stored(file, "fold")
    test, val = numbers == fold, numbers == (fold + 1) % FOLDS
    return {"train": ~test & ~val, "val": val, "test": test}


@pytest.mark.parametrize("fold", range(FOLDS))
def test_a_split_is_what_its_folds_hold(file, fold):
    packed, pixels = open_packed(file, fold), stored(file, "image")
    for split, chosen in expected(file, fold).items():
        count = chosen.sum()
        assert packed.samples[split] == count > 0
        assert np.array_equal(packed.labels[split], stored(file, "label")[chosen])
        for name in ("id", "patient"):
            assert getattr(packed, f"{name}s")(split) == [text.decode() for text in stored(file, name)[chosen].tolist()]
        assert np.array_equal(packed.read(split, WINDOW), pixels[chosen][(..., *WINDOW)])
        assert np.array_equal(packed.sample(split, count - 1), pixels[chosen][-1])
        for some in (slice(0, 7), slice(7, 14), slice(count - 3, count + 9), slice(5, 5), slice(1, count, 3)):
            assert np.array_equal(packed.read(split, WINDOW, some), pixels[chosen][some][(..., *WINDOW)])
            found, whole = packed.read_restricted(split, (8, 7), some), stored(file, "restricted/8x7")
            assert np.array_equal(found, whole[chosen][some])


def test_all_samples_are_tested_once_and_no_patient_is_trained_on_and_tested(file):
    tested = []
    for fold in range(FOLDS):
        packed = open_packed(file, fold)
        tested += packed.ids("test")
        homes = [set(packed.patients(split)) for split in SPLITS]
        assert sum(map(len, homes)) == len(set.union(*homes))
    assert sorted(tested) == sorted(name.decode() for name in stored(file, "id").tolist())


def test_statistics_are_of_what_is_trained_on(file):
    pixels, found = stored(file, "image").astype(np.float64), []
    for fold in range(FOLDS):
        packed, train = open_packed(file, fold), pixels[expected(file, fold)["train"]]
        np.testing.assert_allclose(packed.mean, [train.mean()], rtol=1e-12)
        np.testing.assert_allclose(packed.std, [train.std()], rtol=1e-12)
        found.append(packed.mean[0])
    assert len({*found, open_packed(file).mean[0]}) == FOLDS + 1


def test_moments_of_parts_are_those_of_the_whole():
    images = np.random.default_rng(0).normal(1000, 1, (9, 2, 5, 4)).astype(np.float32)
    first, second = (
        Moments.of(some[0]) if len(some) == 1 else Moments.of(some[0]) + (Moments.of(some[1]) + Moments.of(some[2]))
        for some in (images[:1], images[1:4])
    )
    both, whole = first + second, images[:4].astype(np.float64)
    assert both.images == 4
    np.testing.assert_allclose(both.mean, whole.mean(axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(both.std, whole.std(axis=(0, 2, 3)), rtol=1e-6)


def test_an_older_file_computes_what_it_lacks(tmp_path):
    file = pack_small(tmp_path / "x.h5", folds=FOLDS)
    new = open_packed(file, 1).read_restricted("train", (8, 7), slice(3, 50))
    assert np.array_equal(open_packed(make_older(file), 1).read_restricted("train", (8, 7), slice(3, 50)), new)


def test_the_digest_is_of_the_file_and_tells_folds_apart(file, tmp_path):
    plain = open_packed(file)
    assert {open_packed(file, fold).digest for fold in range(FOLDS)} == {plain.digest}
    assert open_packed(pack_small(tmp_path / "x.h5", patients=2)).digest != plain.digest
    other = open_packed(pack_small(tmp_path / "y.h5", patients=2, folds=FOLDS + 1))
    assert other.digest != plain.digest
    assert np.array_equal(other.mean, plain.mean)


@pytest.mark.parametrize("fold", [-1, FOLDS, 70])
def test_a_fold_that_is_not_there_is_named(file, fold):
    with pytest.raises(InputError, match=rf"^--data.fold {fold}: .*x.h5 has folds 0 to 3$"):
        open_packed(file, fold)


def test_a_file_without_folds_says_how_to_make_them(small):
    with pytest.raises(InputError, match=r"^--data.fold 0: .*small.h5 has no folds; expected .*`prepare --folds`$"):
        open_packed(small, 0)


def refold(file: h5py.File, split: str, values: np.ndarray | None) -> None:
    del file[f"{split}/fold"]
    if values is not None:
        file[f"{split}/fold"] = values


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: refold(f, "val", None), "lacks the dataset /val/fold"),
        (lambda f: refold(f, "val", np.zeros(29, int)), r"val/fold is int64 \(29,\); expected an integer an image"),
        (lambda f: refold(f, "val", np.zeros(30)), r"val/fold is float64 \(30,\)"),
        (lambda f: f["test/fold"].__setitem__(2, 4), "split test has a sample in fold 4; expected 0 to 3"),
        (lambda f: f["test/fold"].__setitem__(2, -1), "split test has a sample in fold -1; expected 0 to 3"),
        (lambda f: f["val/fold"].__setitem__(0, 3), "patient 49 is in fold 3 and in fold 0; expected each patient in"),
        (lambda f: f.__delitem__("statistics/fold_std"), "lacks the dataset /statistics/fold_std"),
        (lambda f: f["statistics/fold_std"].__setitem__(1, 0), "channel 0 of the training images has .* deviation 0"),
        (
            lambda f: (f.__delitem__("statistics/fold_mean"), f.__setitem__("statistics/fold_mean", np.zeros((2, 1)))),
            r"statistics/fold_mean is float64 \(2, 1\) and .*_std float64 \(4, 1\); expected .* 3 folds or more",
        ),
        (
            lambda f: [f[f"{split}/fold"].write_direct(f[f"{split}/label"][...] % 3) for split in SPLITS],
            "class 'columns' is not in fold 0; expected every class in every fold",
        ),
    ],
)
def test_unsound_folds_are_named(tmp_path, change, said):
    file = pack_small(tmp_path / "x.h5", patients=2, folds=FOLDS)
    with h5py.File(file, "r+") as changed:
        change(changed)
    with pytest.raises(InputError, match=rf"x.h5: {said}"):
        open_packed(file)


def test_two_folds_are_too_few_to_be_written(tmp_path):
    with pytest.raises(InputError, match=r"folds \[0, 1\]: expected 0, 1, 2 and so on, 3 or more"):
        pack_small(tmp_path / "x.h5", folds=2)
    assert not list(tmp_path.iterdir())


def test_the_table_of_the_packed_file_has_each_dataset_and_no_other(file):
    """Of data/README.md, for the file that has all there is: patients, folds and restricted images."""
    section = (Path(__file__).parents[3] / "data/README.md").read_text().split("## The packed file")[1]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `/")]
    told = {name for row in rows for name in re.findall("`(/[^`]*)`", row)}
    found: set[str] = set()

    def note(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset):
            split = re.sub("^(train|val|test)/", "SPLIT/", name)
            found.add("/" + re.sub(r"restricted/[0-9x]+$", "restricted/SIZE", split))

    with h5py.File(file) as opened:
        opened.visititems(note)
        attributes = set(opened.attrs)
    assert told == found
    listed = set(re.findall("`([a-z_]+)`", section.split("Attributes of `/`:")[1].split(". Other")[0]))
    assert attributes == listed - {"preparation"}, "which `prepare` alone writes"
