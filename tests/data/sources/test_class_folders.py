"""Folders of class directories: layouts, what is left out, links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddhpc.data.sources.class_folders import scan
from ddhpc.errors import InputError


def lay(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def listed(folder: Path) -> list[tuple[str, str, int]]:
    return [(file.id, file.split, file.label) for file in scan(folder, (".png",)).files]


def test_classes_and_files_are_in_order_of_name(tmp_path):
    lay(tmp_path, "b/2.png", "b/1.PNG", "a/x/3.png", "C/1.png")
    assert scan(tmp_path, (".png",)).classes == ("C", "a", "b")
    assert listed(tmp_path) == [
        ("C/1.png", "", 0),
        ("a/x/3.png", "", 1),
        ("b/1.PNG", "", 2),
        ("b/2.png", "", 2),
    ]


def test_given_splits(tmp_path):
    lay(tmp_path, "train/a/1.png", "train/b/1.png", "test/b/2.png")
    assert scan(tmp_path, (".png",)).classes == ("a", "b")
    assert listed(tmp_path) == [
        ("test/b/2.png", "test", 1),
        ("train/a/1.png", "train", 0),
        ("train/b/1.png", "train", 1),
    ]


def test_a_class_may_be_called_train(tmp_path):
    lay(tmp_path, "car/1.png", "train/1.png")
    assert scan(tmp_path, (".png",)).classes == ("car", "train")


def test_everything_left_out_is_named(tmp_path):
    lay(
        tmp_path,
        "train/a/1.png",
        "train/b/1.png",
        "train/a/1.info",
        "train/2.png",
        "other/c/3.png",
        "readme.txt",
    )
    lay(tmp_path, "train/b/.hidden.png", "train/b/none", "train/b/1.png.bad")
    (tmp_path / "train/a/gone.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "train/a/pipe.png")
    assert scan(tmp_path, (".png",)).skipped == {
        "readme.txt": "other kind of file by its name",
        "other/c/3.png": "outside of train",
        "train/2.png": "in no class directory",
        "train/a/1.info": "other kind of file by its name",
        "train/a/gone.png": "broken link or special file",
        "train/a/pipe.png": "broken link or special file",
        "train/b/.hidden.png": "hidden",
        "train/b/none": "other kind of file by its name",
        "train/b/1.png.bad": "other kind of file by its name",
    }


def test_links_are_followed_and_loops_end(tmp_path):
    lay(tmp_path / "data", "a/1.png", "b/1.png")
    lay(tmp_path / "far", "2.png")
    (tmp_path / "data/a/far").symlink_to(tmp_path / "far")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/b/self").symlink_to("self")
    found = scan(tmp_path / "data", (".png",))
    assert [file.id for file in found.files] == ["a/1.png", "a/far/2.png", "b/1.png"]
    assert found.skipped == {
        "a/loop": "link to a directory that is read already",
        "b/self": "other kind of file by its name",
    }


def test_names_that_are_no_utf8(tmp_path):
    lay(tmp_path, "a/1.png", "b/1.png")
    os.rename(bytes(tmp_path / "a/1.png"), bytes(tmp_path) + b"/a/\xff.png")
    assert listed(tmp_path)[0][0] == "a/\\udcff.png"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its rights for a while")
def test_a_directory_that_cannot_be_listed_is_named(tmp_path):
    lay(tmp_path, "a/1.png", "b/1.png", "b/closed/2.png")
    os.chmod(tmp_path, 0o755)
    os.chmod(tmp_path / "b/closed", 0)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.fchdir(descriptor)
    os.seteuid(65534)
    try:
        found = scan(Path(), (".png",))
    finally:
        os.seteuid(0)
        os.close(descriptor)
    assert found.skipped == {"b/closed": "Permission denied"}


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["x.png"], "holds 0 class directories"),
        (["a/x.png"], "holds 1 class directories; expected at least two"),
        (["val/a/1.png", "val/b/1.png"], "has val/ but no train/"),
    ],
)
def test_unusable_folders_are_named(tmp_path, names, part):
    with pytest.raises(InputError) as error:
        scan(lay(tmp_path, *names), (".png",))
    assert str(tmp_path) in str(error.value)
    assert part in str(error.value)


@pytest.mark.parametrize(("name", "part"), [("absent", "No such file"), ("x.png", "Not a directory")])
def test_a_folder_that_is_none_is_named(tmp_path, name, part):
    with pytest.raises(InputError, match=part):
        scan(lay(tmp_path, "x.png") / name, (".png",))
