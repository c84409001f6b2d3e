"""What a user names on the command line becomes a list of files, or one line that tells why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddhpc.data.sources.image_decoding import ImagePreparation
from ddhpc.data.sources.inputs import Inputs, list_inputs
from ddhpc.data.sources.preparation import Preparation, UnusableFile
from ddhpc.data.sources.volume import VolumePreparation
from ddhpc.errors import InputError

IMAGES = ImagePreparation(mode="grey", white=255, size=(8, 8), resize="crop")
VOLUMES = VolumePreparation(
    shape=(4, 4, 4),
    resize="stretch",
    spacing=None,
    intensity_range=None,
    orientation="of the file",
    dtype="int16",
)
CLASSES = ("bee", "cat", "dog,fox")


def touch(folder: Path, *names: str) -> Path:
    """Files that nobody decodes here; those ending in .dcm count as slices by their names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return folder


def shown(inputs: Inputs, folder: Path) -> list[str]:
    """Relative paths, after a check of what always holds."""
    assert [each.id for each in inputs.samples] == [str(each.path) for each in inputs.samples]
    return [str(each.path.relative_to(folder)) for each in inputs.samples]


def labelled(inputs: Inputs, folder: Path) -> dict[str, str | None]:
    return {str(each.path.relative_to(folder)): each.label for each in inputs.samples}


def refused(*sources: Path, preparation: Preparation = IMAGES, labels: bool = False) -> str:
    with pytest.raises(InputError) as error:
        list_inputs(sources, preparation, labels=labels, classes=CLASSES)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_images(tmp_path):
    touch(tmp_path, "in/b/2.png", "in/b/10.JPG", "in/a.tif", "in/.hidden.png", "in/.git/x.png", "in/notes.txt", "z.png")
    found = list_inputs([tmp_path / "z.png", tmp_path / "in"], IMAGES)
    assert shown(found, tmp_path) == ["z.png", "in/a.tif", "in/b/10.JPG", "in/b/2.png"]
    assert {each.label for each in found.samples} == {None}
    assert found.skipped == {
        f"{tmp_path}/in/.git": "hidden",
        f"{tmp_path}/in/.hidden.png": "hidden",
        f"{tmp_path}/in/notes.txt": "other kind of file by its name",
    }


def test_paths_are_shown_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(touch(tmp_path, "in/x.png", "in/y.png"))
    assert [each.id for each in list_inputs([Path("./in")], IMAGES).samples] == ["in/x.png", "in/y.png"]


def test_volumes(tmp_path):
    touch(tmp_path, "in/a/1.dcm", "in/a/2.dcm", "in/b/c/1.dcm", "in/b/x.nii.gz", "in/DICOMDIR", "in/readme", "y.nii")
    found = list_inputs([tmp_path / "in", tmp_path / "y.nii"], VOLUMES)
    assert shown(found, tmp_path) == ["in/a", "in/b/c", "in/b/x.nii.gz", "y.nii"]
    assert set(found.skipped.values()) == {"no kind of volume"}
    assert shown(list_inputs([tmp_path / "in/a"], VOLUMES), tmp_path) == ["in/a"]


def test_labels_of_class_directories(tmp_path):
    touch(tmp_path, "one/cat/2.png", "one/cat/1.png", "one/fox/3.png", "one/cat/notes.txt")
    found = list_inputs([tmp_path / "one"], IMAGES, labels=True, classes=CLASSES)
    assert labelled(found, tmp_path) == {"one/cat/1.png": "cat", "one/cat/2.png": "cat", "one/fox/3.png": "dog,fox"}
    touch(tmp_path, "split/test/cat/1.png")
    found = list_inputs([tmp_path / "split"], IMAGES, labels=True, classes=CLASSES)
    assert labelled(found, tmp_path) == {"split/test/cat/1.png": "cat"}
    touch(tmp_path, "scans/cat/a/1.dcm", "scans/cat/a/2.dcm", "scans/dog,fox/x.nii", "scans/readme", "scans/bee/notes")
    found = list_inputs([tmp_path / "scans"], VOLUMES, labels=True, classes=CLASSES)
    assert labelled(found, tmp_path) == {"scans/cat/a": "cat", "scans/dog,fox/x.nii": "dog,fox"}
    assert len(found.skipped) == 2


def test_tables(tmp_path):
    touch(tmp_path, "in/x.nii", "in/series/1.dcm", "y.nii")
    table = tmp_path / "in/list.csv"
    table.write_text(f"path;label;patient\nx.nii;fox;1\nseries;bee;2\n{tmp_path / 'y.nii'};cat;2\n")
    expected = {"in/x.nii": "dog,fox", "in/series": "bee", "y.nii": "cat"}
    assert labelled(list_inputs([table], VOLUMES, labels=True, classes=CLASSES), tmp_path) == expected
    assert labelled(list_inputs([table], VOLUMES), tmp_path) == dict.fromkeys(expected)
    table.write_text("path\nx.nii\n")
    assert labelled(list_inputs([table], VOLUMES), tmp_path) == {"in/x.nii": None}
    message = refused(table, preparation=VOLUMES, labels=True)
    assert message == f"{table}: has columns 'path'; expected path,label and, as you like, patient,split"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("path,label\n", "has no rows; expected one for each image"),
        ("file,label\nx.png,cat\n", "has columns 'file,label'; expected path,label"),
        ("path,label\n,cat\n", "line 2: no path; expected an image"),
        ("path,label\nx.png,cat\nz.png,cat\n", "line 3: z.png: no such file, looked for "),
        ("path,label\nx.png,cow\n", "line 2: no class 'cow'; the model knows bee, cat, dog,fox"),
        ("path,label\nx.png,\n", "line 2: no label; the model knows bee, cat, dog,fox"),
        ("path,label\ny.nii,cat\n", "line 2: y.nii: is of another kind; expected an image"),
        ("path,label\nfolder,cat\n", "line 2: folder: is a directory; expected an image"),
        ("path,label\nx.png,cat\nx.png,cat\n", "x.png is named twice; expected every file once"),
    ],
)
def test_bad_tables(tmp_path, rows, message):
    touch(tmp_path, "x.png", "y.nii", "folder/x.png")
    (tmp_path / "x.csv").write_text(rows)
    found = refused(tmp_path / "x.csv", labels=True)
    assert found.startswith(f"{tmp_path}/x.csv: ")
    assert message in found


def test_bad_sources(tmp_path):
    touch(tmp_path, "x.png", "y.nii", "series/1.dcm", "pictures/x.png", "pictures/y.png", "scans/y.nii")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    image, volume = "expected an image, such as .png, .jpg or .tif", "expected a volume: .nii, .nii.gz, .hdr, .mha"
    assert refused(tmp_path / "z.png") == f"{tmp_path}/z.png: no such file or directory"
    assert refused(tmp_path / "z.csv") == f"{tmp_path}/z.csv: no such file or directory"
    assert refused(tmp_path / "y.nii") == f"{tmp_path}/y.nii: is of another kind; {image}"
    assert refused(tmp_path / "pipe.png") == f"{tmp_path}/pipe.png: is no regular file; {image}"
    assert refused(tmp_path / "empty") == f"{tmp_path}/empty: holds no image; {image}"
    found = refused(tmp_path / "scans")
    assert found == f"{tmp_path}/scans: holds no image (1 other kind of file by its name); {image}"
    assert refused(tmp_path / "x.png", tmp_path / "x.png").startswith(f"{tmp_path}/x.png: {tmp_path}/x.png is named")
    found = refused(tmp_path / "x.png", preparation=VOLUMES)
    assert found.startswith(f"{tmp_path}/x.png: is of another kind; {volume}")
    found = refused(tmp_path / "pictures", preparation=VOLUMES)
    assert found.startswith(f"{tmp_path}/pictures: holds no volume (2 no kind of volume); {volume}")
    found = refused(tmp_path / "series/1.dcm", preparation=VOLUMES)
    assert found.endswith(f"1.dcm: is one slice; expected the directory of the DICOM series, {tmp_path}/series")


def test_missing_labels(tmp_path):
    touch(tmp_path, "x.png", "in/cat/1.png", "in/2.png", "out/cow/1.png", "out/cat/1.png", "flat/1.png")
    found = refused(tmp_path / "x.png", labels=True)
    assert found == f"{tmp_path}/x.png: has no label; expected a CSV table of path,label or a directory of classes"
    assert refused(tmp_path / "in", labels=True).startswith(f"{tmp_path}/in: 2.png: in no class directory; expected")
    found = refused(tmp_path / "out", labels=True)
    assert found == f"{tmp_path}/out: cow/1.png: no class 'cow'; the model knows bee, cat, dog,fox"
    found = refused(tmp_path / "flat", labels=True)
    assert found.startswith(f"{tmp_path}/flat: holds 0 class directories; expected at least one")


def test_files_that_cannot_be_read_are_listed_and_told_when_they_are_used(tmp_path):
    touch(tmp_path, "in/x.png")
    (tmp_path / "in/y.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    found = list_inputs([tmp_path / "in"], IMAGES)
    assert shown(found, tmp_path) == ["in/x.png", "in/y.png"]
    for each, reason in zip(found.samples, ["not an image", "No such file or directory"], strict=True):
        with pytest.raises(UnusableFile) as error:
            IMAGES.apply(each.path)
        assert error.value.reason == reason


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"\xff.png")
    touch(tmp_path, name)
    (found,) = list_inputs([tmp_path], IMAGES).samples
    assert found.id == f"{tmp_path}/\\udcff.png"
    assert found.path == tmp_path / name
