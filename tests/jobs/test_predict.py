"""What was trained, applied to files: the bits of the training, on any number of ranks, in any company."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from ddhpc.data.hdf5 import text
from ddhpc.data.packed import SPLITS
from ddhpc.data.sources.faces import FaceOptions, prepare_faces
from ddhpc.data.sources.image_folders import ImageOptions, prepare_images
from ddhpc.data.sources.volumes import VolumeOptions, prepare_volumes
from ddhpc.errors import InputError
from ddhpc.predict import Settings, check_maps, predict, warn_of_names
from ddhpc.process import Process
from ddhpc.results.model import open_model
from ddhpc.solver.maps import maps_wanted
from ddhpc.tables.predictions import check_csv
from tests.conftest import pack_small
from tests.data.sources.packing import packed_by
from tests.data.sources.test_dicom import write_series
from tests.jobs.disks import disk
from tests.jobs.starting import mpirun

pytestmark = pytest.mark.slow

OPTIONS = [
    *("--decomposition.overlap", 1, "--local.epochs", 2, "--local.batch_size", 8, "--model.global_width", 8),
    *("--coarse.epochs", 5, "--run.threads", 1),
]


def draw_images(folder):
    """Colour, grey and turned images of several sizes."""
    rng = np.random.default_rng(0)
    for n in range(45):
        path = folder / ("bee", "cat", "dog")[n % 3] / f"{n}.{'png' if n % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (30 + n, 50 - n // 2, 3), np.uint8)
        pixels[:: 3 + n % 3] //= 4
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).save(path, **({"exif": exif} if n % 5 == 0 else {}))
    return packed_by(prepare_images, ImageOptions, folder, folder.parent / "x.h5", size=(23, 20))


def draw_faces(folder):
    rng = np.random.default_rng(0)
    for n in range(40):
        subject = f"yaleB0{1 + n % 2}"
        path = folder / subject / f"{subject}_P00A+{n:03}E+00.pgm"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 200 + 40 * (n % 2), (40, 36), np.uint8)).save(path)
    return packed_by(prepare_faces, FaceOptions, folder, folder.parent / "x.h5", size=(24, 21))


def draw_nifti(folder):
    rng = np.random.default_rng(0)
    for n in range(24):
        path = folder / ("no", "yes")[n % 2] / f"{n}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = rng.integers(-1000, 1000, (13, 11, 9)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([-1.5, 1.0, 2.0, 1.0])), path)
    options = {"shape": (12, 10, 9), "spacing": (1.6, 1.1, 2.0), "window": (-900, 700)}
    return packed_by(prepare_volumes, VolumeOptions, folder, folder.parent / "x.h5", **options)


def draw_dicom(folder):
    rng = np.random.default_rng(0)
    for n in range(20):
        voxels = rng.integers(-1000, 1000, (10, 9, 9)).astype(np.int16)
        write_series(folder / ("no", "yes")[n % 2] / f"{n}", voxels)
    return packed_by(prepare_volumes, VolumeOptions, folder, folder.parent / "x.h5", shape=(11, 9, 8))


KINDS = {
    "images": (draw_images, ["--decomposition.grid", 2, 2, "--decomposition.coarse_image", "true"]),
    "faces": (draw_faces, ["--decomposition.grid", 1, 2, "--coarse.inputs", "decisions", "--model.name", "vgg"]),
    "nifti": (draw_nifti, ["--decomposition.grid", 2, 1, 1, "--decomposition.coarse_image", "true"]),
    "dicom": (draw_dicom, ["--decomposition.grid", 1, 1, 1]),
}


def trained(cwd, kind):
    """A finished run of a kind of files, which stay in `files`, and no packed file."""
    draw, options = KINDS[kind]
    (cwd / "files").mkdir()
    draw(cwd / "files")
    done = mpirun(0, "--data.file", "x.h5", *options, *OPTIONS, "--output", "run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    (cwd / "x.h5").rename(cwd / "moved.h5")
    return cwd


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("images"), "images")


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stored(cwd):
    """Final decisions of the run by id."""
    with h5py.File(cwd / "run/results.h5") as file:
        pairs = [(file[f"samples/{split}/id"], file[f"coarse/{split}/decision"]) for split in SPLITS]
        return {name.decode(): row for ids, rows in pairs for name, row in zip(ids[...], rows[...], strict=True)}


def asked(cwd, *sources, **settings):
    """In this process, without MPI."""
    found = predict(open_model(cwd / "run"), list(sources), Process(), "cpu", Settings(**settings))
    return dict(zip(found.ids, found.decisions, strict=True)), found


def check_same(found, expected, prefix):
    """To the bit."""
    for name, row in found.items():
        assert np.array_equal(row, expected[name.removeprefix(prefix)]), name


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["faces", "nifti", "dicom"])
def test_files_get_the_decisions_that_the_training_stored(kind, tmp_path):
    check_files(trained(tmp_path, kind))
    if kind == "nifti":
        check_map_of_volume(tmp_path)
        check_ranks_share_a_volume(tmp_path)


@pytest.mark.usefixtures("one_thread")
def test_images_get_the_decisions_that_the_training_stored(images):
    check_files(images)


def check_files(cwd):
    expected, prefix = stored(cwd), f"{cwd}/files/"
    every, _ = asked(cwd, cwd / "files")
    assert len(every) == len(expected) >= 20
    assert len({row.tobytes() for row in every.values()}) > 10, "they differ"
    check_same(every, expected, prefix)
    names = list(every)
    alone, _ = asked(cwd, cwd / "files" / names[7].removeprefix(prefix))
    assert list(alone) == [names[7]]
    check_same(alone, expected, prefix)
    others, _ = asked(cwd, *(cwd / "files" / names[n].removeprefix(prefix) for n in (9, 2, 5)), memory=0)
    assert list(others) == [names[n] for n in (9, 2, 5)]
    check_same(others, expected, prefix)


@pytest.mark.usefixtures("one_thread")
def test_a_packed_file_gets_them_too(images):
    found, _ = asked(images, images / "moved.h5")
    assert {name.split("/")[0] for name in found} == set(SPLITS)
    for split in SPLITS:
        check_same(
            {name: row for name, row in found.items() if name.startswith(f"{split}/")}, stored(images), f"{split}/"
        )
    in_blocks, _ = asked(images, images / "moved.h5", memory=7 * 23 * 20 * 3 / 2**30)
    assert list(in_blocks) == list(found)
    assert all(np.array_equal(row, found[name]) for name, row in in_blocks.items())


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def in_maps(cwd, folder, sources, **settings):
    """In this process, with maps; what these show by id."""
    wanted = maps_wanted(folder, cwd / "run", overwrite=settings.pop("overwrite", False))
    _, found = asked(cwd, *sources, maps=wanted, **settings)
    assert sorted(path.name for path in folder.iterdir()) == sorted(found.maps.files)
    paths = [folder / file for file in found.maps.files]
    return dict(zip(found.ids, zip(paths, found.maps.drops, strict=True), strict=True))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("ranks", [0, 2, 3])
def test_any_number_of_ranks_writes_the_same_table_and_maps(ranks, images, tmp_path):
    (tmp_path / "files").symlink_to(images / "files")
    (tmp_path / "broken.png").write_bytes(b"no image")
    outputs = ["--csv", "out.csv", "--maps", "maps", "--threads", 1]
    done = mpirun(ranks, "predict", images / "run", "broken.png", "files", *outputs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not used: broken.png: " in done.stdout
    assert "1 input could not be used" in done.stdout
    assert "45 inputs decided: " in done.stdout
    found, expected = rows(tmp_path / "out.csv"), stored(images)
    drops = ["drop_0", "drop_1", "drop_2", "drop_3", "drop_coarse_image"]
    assert list(found[0]) == ["id", "decision", "probability_bee", "probability_cat", "probability_dog", "map", *drops]
    assert len(found) == 45
    assert [row["id"] for row in found] == sorted(row["id"] for row in found)
    for row in found:
        values = [np.float32(row[f"probability_{name}"]) for name in ("bee", "cat", "dog")]
        assert np.array_equal(values, expected[row["id"].removeprefix("files/")])
        assert row["decision"] == ("bee", "cat", "dog")[int(np.argmax(values))]
    maps = in_maps(images, tmp_path / "alone", [images / "files"], memory=0)
    assert len({path.read_bytes() for path, _ in maps.values()}) == 45
    assert len(list((tmp_path / "maps").iterdir())) == 45
    for row in found:
        path, shown = maps[f"{images}/{row['id']}"]
        assert row["map"] == path.name
        assert (tmp_path / "maps" / row["map"]).read_bytes() == path.read_bytes()
        assert np.array_equal([np.float32(row[name]) for name in drops], shown)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "broken.png", "files", "maps", "out.csv"]


@pytest.mark.usefixtures("one_thread")
def test_maps_show_what_is_lost_without_a_subdomain(images, tmp_path):
    """Computed with the CNN-DNN as one torch module, and the outputs for training images of the results file."""
    found = in_maps(images, tmp_path / "maps", [images / "moved.h5"])
    network = open_model(images / "run").cnn_dnn()
    with h5py.File(images / "run/results.h5") as file:
        local = [file["local/train/decision"][...], file["local/train/feature"][...]]
    usual = torch.from_numpy(np.concatenate(local, axis=2).mean(axis=1))
    with h5py.File(images / "moved.h5") as file, torch.inference_mode():
        outputs = network.local_outputs(torch.from_numpy(file["test/image"][...]))
        final = network.coarse(torch.cat(outputs, 1)).softmax(1)
        decided = final.argmax(1, keepdim=True)
        for n in range(5):
            covered = [*outputs[:n], usual[n].expand_as(outputs[n]), *outputs[n + 1 :]]
            lost = (final - network.coarse(torch.cat(covered, 1)).softmax(1)).gather(1, decided)[:, 0].numpy()
            assert np.abs(lost).max() > 0.001
            for name, expected in zip(file["test/id"].asstr()[...], lost, strict=True):
                assert found[f"test/{name}"][1][n] == pytest.approx(expected, abs=1e-5)
    path, _ = found["test/" + name]
    assert path.name == f"test_{name.replace('/', '_')}_map.png"
    with Image.open(path) as drawn:
        assert drawn.width == 480, "23x20 pixels, each a square of 21"


def check_map_of_volume(cwd):
    path = cwd / "files/yes/3.nii.gz"
    affine = nib.load(path).affine @ np.diag([-1, 1, 1, 1])  # another order, and another place
    affine[:3, 3] = (5, 6, 7)
    nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj)[::-1], affine), path.with_name("turned.nii.gz"))
    both = [path, path.with_name("turned.nii.gz")]
    (own, drops), (turned, same) = in_maps(cwd, cwd / "maps", both).values()
    assert [own.name, turned.name] == ["3_map.nii.gz", "turned_map.nii.gz"]
    assert np.array_equal(drops, same)
    assert abs(drops).max() > 0.0001
    found = np.asarray(nib.load(own).dataobj)
    # 13 voxels of 1.5 mm are 12 of 1.6 mm, which are cut into 6 and 6, and run the other way in the file.
    assert (found[7:] == drops[0]).all()
    assert (found[:6] == drops[1]).all()
    assert np.array_equal(nib.load(own).affine, nib.load(path).affine)
    assert np.array_equal(nib.load(turned).dataobj, found[::-1])
    assert np.array_equal(nib.load(turned).affine[:3, 3], (5, 6, 7))
    packed, _ = next(iter(in_maps(cwd, cwd / "packed", [cwd / "moved.h5"]).values()))
    assert np.allclose(nib.load(packed).affine, np.diag([1.6, 1.1, 2, 1]))
    assert nib.load(packed).shape == (12, 10, 9)


def check_ranks_share_a_volume(cwd):
    done = mpirun(2, "predict", "run", "files/yes/3.nii.gz", "--threads", 1, "--csv", "shared.csv", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "2 ranks share the 3 subdomains of an image" in done.stdout
    (row,) = rows(cwd / "shared.csv")
    assert [np.float32(row[f"probability_{name}"]) for name in ("no", "yes")] == stored(cwd)["yes/3.nii.gz"].tolist()


def refused(message, cwd, folder, *sources, overwrite=False, **settings):
    """A line that says so, and nothing new or lost in the directory."""
    before = {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}
    wanted = maps_wanted(folder, cwd / "run", overwrite=overwrite)
    with pytest.raises(InputError, match=message) as said:
        asked(cwd, *sources, maps=wanted, **settings)
    assert "\n" not in str(said.value)
    assert {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()} == before


def test_maps_that_cannot_be_are_refused(images, coherent, small, tmp_path):
    files = tmp_path / "files"
    for name in ("a/b.png", "a_b.png"):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / "files/cat/1.png", files / name)
    one = files / "a_b.png"
    new = tmp_path / "maps"
    refused(r"a/b.png and .*a_b.png both get a_b_map.png; expected inputs of other names", images, new, files)
    refused("maps/x: there is no directory .*maps; create it first", images, new / "x", one)
    refused("cat/1.png: is no directory; expected one", images, images / "files/cat/1.png", one)
    long = files / f"{'x' * 249}.png"
    shutil.copy(one, long)
    refused("longer than 250 bytes; expected shorter names", images, new, long)
    (tmp_path / "broken.png").write_bytes(b"no image")
    refused("expected at least one file that fits", images, new, tmp_path / "broken.png")
    assert not new.exists()
    new.mkdir()
    (new / "a_b_map.png").write_bytes(b"mine")
    refused("a_b_map.png: exists; choose another name, or --overwrite", images, new, one)
    in_maps(images, new, [one], overwrite=True)
    again = shutil.copy(new / "a_b_map.png", files / "a_b.png")
    shutil.copy(again, files / "a_b_map.png")
    both = [one, files / "a_b_map.png"]
    refused("a_b_map.png is an input; expected another directory", images, files, *both, overwrite=True)
    refused("--calibrated with --maps: maps tell of", images, new, one, calibrated=True)
    refused("--maps with --coherent: a run does not keep", coherent, new, small, coherent=True)
    with pytest.raises(InputError, match="model is a model alone; expected the run directory"):
        maps_wanted(new, images / "run/model", overwrite=False)
    alone = replace(open_model(images / "run").trained, coarse=None)
    with pytest.raises(InputError, match="--maps: a single subdomain, the global CNN, decides alone"):
        check_maps(Settings(maps=maps_wanted(new, images / "run", overwrite=False)), alone)


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_on_a_disk_that_takes_no_maps_none_is_left(kind, images, tmp_path):
    with disk(kind, tmp_path / "disk") as failing:
        (failing.path / "maps").mkdir()
        failing.fail()
        message = f"--maps .*maps: cannot be written: {failing.refusal}; expected a writable directory"
        with pytest.raises(InputError, match=message):
            in_maps(images, failing.path / "maps", [images / "files/cat"])
        assert list((failing.path / "maps").iterdir()) == []


def test_labels_tell_how_good_it_is(images, tmp_path):
    done = mpirun(0, "predict", images / "run", images / "files", "--labels", "--csv", "out.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out.csv")
    right = sum(row["label"] == row["decision"] for row in found)
    assert {row["label"] for row in found} == {"bee", "cat", "dog"}
    with h5py.File(images / "run/results.h5") as file:
        known = len(file["samples/train/id"])
    assert f"warning: {known} inputs have names of training images, such as " in done.stderr
    assert "; if they are the same images, accuracy on them is too high for new ones" in done.stderr
    assert 0 < known < len(found)
    assert f"accuracy {100 * right / 45:.1f} % (95 % interval " in done.stdout
    packed = mpirun(0, "predict", images / "run", images / "moved.h5", "--labels", cwd=tmp_path)
    assert packed.returncode == 0, packed.stderr
    assert "moved.h5: holds the images of the training" in packed.stderr
    assert f"accuracy {100 * right / 45:.1f} % (95 % interval " in packed.stdout
    assert "15 more are not shown; --csv FILE writes all" in packed.stdout


@pytest.mark.parametrize("below", ["", "train", "train/rose"])
def test_names_of_training_images_are_told_wherever_it_runs(below, tmp_path, monkeypatch, capsys):
    (tmp_path / "train/rose").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / below)
    names = [os.path.relpath(tmp_path / "train/rose" / name) for name in ("1.jpg", "2.jpg")]
    warn_of_names(names, frozenset({"train/rose/1.jpg", "rose/3.jpg"}))
    said = capsys.readouterr().err
    assert f"1 input has the name of training images, such as {names[0]}; if they are the same images, " in said


def test_labels_need_the_model_alone(images, tmp_path):
    """A results file beside it that is damaged takes no part."""
    (tmp_path / "run").mkdir()
    shutil.copytree(images / "run/model", tmp_path / "run/model")
    (tmp_path / "run/results.h5").write_bytes(b"no HDF5")
    done = mpirun(2, "predict", "run/model", images / "files", "--labels", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "training images" not in done.stderr
    assert "accuracy " in done.stdout


def test_two_classes_are_told_as_in_medicine(small, tmp_path, capsys):
    from ddhpc.method.solutions import Predictions
    from ddhpc.tables.predictions import print_predictions

    decisions = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
    found = Predictions(
        classes=("healthy", "ill"), ids=tuple("abcd"), decisions=decisions, labels=np.array([0, 1, 1, 1]), unusable=()
    )
    print_predictions(found, None)
    said = capsys.readouterr().out
    assert "ill (positive) against healthy: roc auc 1.000" in said
    assert "accuracy 75.0 %" in said


@pytest.fixture(scope="module")
def coherent(small, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("coherent")
    options = ["--decomposition.grid", 1, 2, "--coherent.start", "transfer", "--coherent.epochs", 1]
    done = mpirun(2, "--data.file", small, *options, *OPTIONS, "--output", "run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd


@pytest.mark.usefixtures("one_thread")
def test_the_coherent_cnn_dnn_decides_where_asked_for(coherent, small):
    found, _ = asked(coherent, small, coherent=True)
    with h5py.File(coherent / "run/results.h5") as file:
        expected = file["coherent/test/decision"][...]
    assert np.array_equal(np.stack([found[f"test/test/{n}"] for n in range(len(expected))]), expected)


@pytest.mark.parametrize("way", [{"coherent": False}, {"coherent": True}])
def test_calibrated_probabilities_are_those_at_the_temperature_of_the_model(way, coherent, small, tmp_path):
    """A power of the decision, made to sum to one."""
    plain, _ = asked(coherent, small, **way)
    (tmp_path / "run").mkdir()
    folder = shutil.copytree(coherent / "run/model", tmp_path / "run/model")
    description = json.loads((folder / "model.json").read_text())
    temperatures = {"temperature": 2.5, "coherent_temperature": 0.4}
    (folder / "model.json").write_text(json.dumps(description | temperatures))
    given = Settings(calibrated=True, **way)
    found = predict(open_model(folder), [small], Process(), "cpu", given)
    expected = np.stack(list(plain.values())).astype(np.float64) ** (1 / (0.4 if way["coherent"] else 2.5))
    assert found.decisions == pytest.approx(expected / expected.sum(1, keepdims=True), abs=1e-6)
    assert found.decisions.dtype == np.float32
    assert np.ptp(expected) > 0.01


def test_the_model_keeps_the_temperature_of_the_results(coherent, images, small):
    """Of the coherent run none is best on val, which is then refused."""
    kept = {}
    for cwd in (coherent, images):
        with h5py.File(cwd / "run/results.h5") as file:
            stored = file["fusion/dnn"].attrs["temperature"]
        kept[cwd] = open_model(cwd / "run").trained.temperature
        assert kept[cwd] == (None if np.isnan(stored) else stored)
    for cwd in (cwd for cwd, temperature in kept.items() if temperature is None):
        with pytest.raises(InputError, match="^--calibrated: the model keeps no temperature"):
            asked(cwd, small, calibrated=True)
    assert set(map(type, kept.values())) == {type(None), float}


def test_without_a_coherent_one_it_is_refused(images):
    with pytest.raises(InputError, match="--coherent: the run has not trained the coherent CNN-DNN"):
        asked(images, images / "moved.h5", coherent=True)


def test_a_model_of_an_older_packed_file_takes_packed_files_alone(coherent, tmp_path):
    (tmp_path / "x.png").touch()
    with pytest.raises(InputError, match=r"x.png: the packed file of the training does not tell how [^\n]*$"):
        asked(coherent, tmp_path / "x.png")


def test_what_does_not_fit_is_one_line(images, small, tmp_path):
    cases = {
        "another shape": ([small], "holds images of 16x14, 1 channel, uint8; expected images of 23x20, 3 channels"),
        "twice": ([images / "files/bee/0.jpg", images / "files"], "0.jpg is named twice"),
        "nothing": ([tmp_path / "nothing"], "nothing: no such file or directory"),
        "empty": ([tmp_path], "holds no image"),
        "no image": ([images / "run/run.yaml"], "is of another kind"),
        "a results file": ([images / "run/results.h5"], "is an HDF5 file but not a packed file"),
    }
    for sources, message in cases.values():
        with pytest.raises(InputError, match=message) as refused:
            asked(images, *sources)
        assert "\n" not in str(refused.value)


def test_files_in_directories_that_are_no_images_are_counted(images, tmp_path, capsys):
    shutil.copy(images / "files/bee/0.jpg", tmp_path / "0.jpg")
    for name in ("notes.txt", "more.txt", ".hidden"):
        (tmp_path / name).touch()
    found, _ = asked(images, tmp_path)
    assert len(found) == 1
    expected = "3 files in the directories left out: 2 other kind of file by its name, 1 hidden"
    assert expected in capsys.readouterr().out


def test_of_another_class_with_labels_it_is_refused(images, tmp_path):
    with h5py.File(shutil.copy(images / "moved.h5", tmp_path / "x.h5"), "r+") as file:
        file["classes"][...] = text(["ant", "cat", "dog"])
    asked(images, tmp_path / "x.h5")
    with pytest.raises(InputError, match="has the classes ant, cat, dog; expected those of the model with --labels"):
        asked(images, tmp_path / "x.h5", labels=True)


def test_several_packed_files_are_told_apart(images, tmp_path):
    shutil.copy(images / "moved.h5", tmp_path / "x.h5")
    found, _ = asked(images, images / "moved.h5", tmp_path / "x.h5")
    assert len(found) == 90
    assert sum(name.startswith(f"{tmp_path}/x.h5/test/") for name in found) > 0


@pytest.mark.parametrize(
    ("ranks", "arguments", "message"),
    [
        (2, ["nowhere", "x.png"], "nowhere: expected a run directory"),
        (2, ["RUN", "bad.png", "worse.png"], r"bad.png: .*\(and 1 more\); expected at least one file that fits"),
        (2, ["RUN", "FILES", "--csv", "no/out.csv"], "--csv no/out.csv: there is no directory no"),
        (0, ["RUN", "FILES", "--csv", "bad.png"], "--csv bad.png: exists; choose another name, or --overwrite"),
        (0, ["RUN"], "SOURCES: missing; expected it"),
        (0, ["RUN", "FILES", "--memory", -1], "--memory -1.0: expected 0 or more GiB"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(ranks, arguments, message, images, tmp_path):
    for name in ("bad.png", "worse.png"):
        (tmp_path / name).write_text("no image")
    named = {"RUN": images / "run", "FILES": images / "files"}
    done = mpirun(ranks, "predict", *(named.get(each, each) for each in arguments), cwd=tmp_path)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("ddhpc: ")]
    assert len(said) == 1
    assert re.search(message, said[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png", "worse.png"]


def test_nothing_but_a_regular_file_is_replaced(tmp_path):
    """A device would be lost to the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"--csv .*/pipe: is no regular file; expected the name of a file"):
        check_csv(tmp_path / "pipe", overwrite=True)


def test_an_unfinished_run_has_no_model(images, tmp_path):
    run = shutil.copytree(images / "run", tmp_path / "run")
    (run / "results.h5").rename(run / "results.h5.part")
    with pytest.raises(InputError, match=r"the run is not finished \(there is only results.h5.part\)"):
        asked(tmp_path, images / "moved.h5")


def test_a_damaged_network_ends_it(images, tmp_path):
    run = shutil.copytree(images / "run", tmp_path / "run")
    with (run / "model/subdomain-00002.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="subdomain-00002.safetensors: damaged, its checksum differs"):
        asked(tmp_path, images / "moved.h5")


def test_a_packed_file_of_other_numbers_is_refused(coherent, tmp_path):
    """The mean would not be that of these."""
    with pytest.raises(InputError, match="holds images of 16x14, 1 channel, int16; expected images of .*, uint8"):
        asked(coherent, pack_small(tmp_path / "x.h5", dtype="int16"))
