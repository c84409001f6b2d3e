"""Folds: every class in each alike, all of a patient and all copies in one."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from ddhpc.data.hdf5 import decoded
from ddhpc.data.packed import SPLITS, open_packed
from ddhpc.data.sources.faces import FaceOptions
from ddhpc.data.sources.folds import draw_folds, together
from ddhpc.data.sources.image_folders import ImageOptions, prepare_images
from ddhpc.errors import InputError
from tests.data.sources.packing import packed_by


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=9, max_size=60),
    st.integers(3, 6),
    st.integers(0, 3),
)
def test_folds_are_balanced_by_class_and_by_whole_patients(patients, count, seed):
    """Patients of one class each, with a number of scans."""
    kinds = np.array([kind for kind, _ in patients])
    assume(np.bincount(kinds, minlength=3).min() >= count)
    owner = np.random.default_rng(seed).permutation([n for n, (_, scans) in enumerate(patients) for _ in range(scans)])
    labels = kinds[owner]
    fold = draw_folds(labels, [[f"P{n}" for n in owner]], count, seed, "abc")
    assert all(len(set(fold[owner == n].tolist())) == 1 for n in range(len(patients)))
    home = np.array([fold[owner == n][0] for n in range(len(patients))])
    for kind in range(3):
        whole = np.bincount(home[kinds == kind], minlength=count)
        scans = np.bincount(fold[labels == kind], minlength=count)
        assert np.ptp(whole) <= 1
        assert np.ptp(scans) <= max(scans for other, scans in patients if other == kind)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=20, max_size=80), st.integers(3, 5))
def test_samples_of_their_own_are_dealt_evenly(labels, count):
    assume(np.bincount(labels, minlength=4).min() >= count)
    fold = draw_folds(np.array(labels), [[str(n) for n in range(len(labels))]], count, 0, "abcd")
    assert np.ptp(np.bincount(fold, minlength=count)) <= 1
    assert all(np.ptp(np.bincount(fold[np.array(labels) == kind], minlength=count)) <= 1 for kind in range(4))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 9)), min_size=10, max_size=60),
    st.integers(3, 4),
)
def test_patients_of_several_classes_and_copies_stay_whole_or_are_refused(samples, count):
    labels = np.array([label for label, _, _ in samples])
    copies = [f"copy {copy}" if copy < 2 else f"own {n}" for n, (_, _, copy) in enumerate(samples)]
    keys = [[f"P{patient}" for _, patient, _ in samples], copies]
    try:
        fold = draw_folds(labels, keys, count, 0, "abc")
    except InputError as error:
        assert str(error).startswith(f"--folds {count}: class ")  # noqa: PT017
        return
    for names in keys:
        assert all(len({fold[n] for n, name in enumerate(names) if name == one}) == 1 for one in set(names))
    assert all(set(labels[fold == number].tolist()) == {0, 1, 2} for number in range(count))


def test_patients_with_many_scans_make_up_for_those_with_few():
    """Per fold 5 + 1, 4 + 2 and 3 + 3 scans."""
    owners = [f"P{n}" for n, scans in enumerate((1, 5, 3, 2, 4, 3)) for _ in range(scans)]
    fold = draw_folds(np.zeros(18, np.int64), [owners], 3, 0, "a")
    assert np.bincount(fold).tolist() == [6, 6, 6]
    assert fold[owners.index("P1")] == fold[owners.index("P0")]


def test_groups_are_joined_by_way_of_others():
    patients = ["a", "b", "c", "d", "a", "e"]
    checksums = ["1", "2", "3", "2", "3", "4"]
    assert together([patients, checksums]).tolist() == [0, 1, 0, 1, 0, 2]


def test_the_seed_decides_who_goes_where():
    labels, names = np.repeat([0, 1], 10), [[str(n) for n in range(20)]]
    first, again, other = (draw_folds(labels, names, 5, seed, "ab").tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(("owners", "said"), [("pqrstuklm", "'b' has 3 samples"), ("pqpqpquvw", "'a' has 2 patients")])
def test_more_folds_than_patients_of_a_class_are_refused(owners, said):
    labels = np.array([0] * 6 + [1] * 3)
    with pytest.raises(InputError, match=rf"^--folds 4: class {said}; expected one for each fold$"):
        draw_folds(labels, [owners], 4, 0, "ab")


def test_a_class_that_is_left_without_a_fold_is_named():
    """The three patients of a are dealt as of b, the first of them before larger ones of b."""
    labels = np.array([*[0] * 30, 1, 1, *[1] * 5, *[1] * 4, 0, 1, 1, 0, 1, 1, 1])
    owners = ["p"] * 32 + ["x"] * 5 + ["y"] * 4 + ["q"] * 3 + ["r"] * 3 + ["s"]
    with pytest.raises(InputError, match=r"^--folds 3: class 'a' is not in fold 1, since patients have samples of sev"):
        draw_folds(labels, [owners], 3, 0, "ab")


@pytest.mark.parametrize("folds", [-1, 0, 1, 2])
def test_too_few_folds_are_refused_before_anything_is_read(folds, tmp_path):
    with pytest.raises(InputError, match=rf"^--folds {folds}: expected 3 or more, of which one is test and one val$"):
        packed_by(prepare_images, ImageOptions, tmp_path, tmp_path / "x.h5", size=(8, 8), folds=folds)


def test_folds_of_faces_by_light_are_refused():
    with pytest.raises(InputError, match=r"^--folds 5: .*; expected --split random$"):
        FaceOptions(split="light", folds=5).check()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of patients with one to three images, in splits that are given; a0 and a3 have an image in common."""
    home, rng = tmp_path_factory.mktemp("folds"), np.random.default_rng(0)
    common, patients = rng.integers(0, 255, (8, 8), np.uint8), {"a": 11, "b": 6}
    for label, count in patients.items():
        for patient in range(count):
            folder = home / "in" / {1: "val", 2: "test"}.get(patient, "train") / label
            folder.mkdir(parents=True, exist_ok=True)
            for scan in range(1 + patient % 3):
                shared = (label, scan) == ("a", 0) and patient in (0, 3)
                pixels = common if shared else rng.integers(0, 255, (8, 8), np.uint8)
                Image.fromarray(pixels).save(folder / f"{label}{patient}-{scan}.png")
    packed_by(prepare_images, ImageOptions, home / "in", home / "x.h5", size=(8, 8), folds=4, patients=r"(\w+)-")
    return home / "x.h5"


def test_prepare_keeps_patients_and_copies_together_in_order_of_the_folds(packed):
    home: dict[str, set[int]] = {}
    with h5py.File(packed) as file:
        for split in SPLITS:
            numbers = file[f"{split}/fold"][...].tolist()
            assert numbers == sorted(numbers)
            for name, number in zip(decoded(file[f"{split}/id"]), numbers, strict=True):
                home.setdefault(name.split("/")[-1].split("-")[0], set()).add(number)
    assert sorted(home) == sorted([f"a{n}" for n in range(11)] + [f"b{n}" for n in range(6)])
    assert all(len(numbers) == 1 for numbers in home.values())
    assert home["a0"] == home["a3"]


def test_the_file_says_what_was_done(packed):
    assert "4 folds of all samples of all splits: " in open_packed(packed).source
