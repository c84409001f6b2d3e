"""The command line of `prepare` and `phantom`: every kind takes its options, packs, and says what it did."""

import shutil

import pytest

from ddhpc.cli import main
from ddhpc.cli.options import parse, parser
from ddhpc.cli.sources import KINDS, add_common_options
from ddhpc.data.packed import open_packed
from ddhpc.errors import InputError
from tests.data.sources.packing import photographs

IMAGES = ["prepare", "images", "in", "--output", "x.h5", "--size", "8", "8"]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_explains_its_options(name, capsys):
    with pytest.raises(SystemExit) as left:
        main(["prepare", name, "--help"], 0)
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "--output FILE.h5" in out
    assert KINDS[name].description.split(",")[0] in " ".join(out.split())


def test_kinds_are_listed(capsys):
    main(["prepare"], 0)
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in KINDS)


def test_groups_keep_their_commas():
    options = parser("prepare ct", "x")
    KINDS["ct"].add_options(options)
    add_common_options(options)
    argv = [
        "SRC",
        "--output",
        "x.h5",
        "--groups",
        "CT-0",
        "CT-2,CT-3",
        "--window",
        "-1000",
        "400",
        "--shape",
        "8",
        "8",
        "4",
    ]
    assert parse(options, argv[:3]).shape == (128, 128, 64)
    assert parse(options, argv[:3]).window == (-1000, 400)
    given = parse(options, argv)
    assert given.groups == ["CT-0", "CT-2,CT-3"]
    assert given.window == (-1000, 400)
    assert given.shape == (8, 8, 4)


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["--groups", "0", "1,2"], "groups", ["0", "1,2"]),
        (["--groups", "010", "1e3", "-3", "true", "a b"], "groups", ["010", "1e3", "-3", "true", "a b"]),
        (["--window", "-.5", "500"], "window", (-0.5, 500)),
        (["--window", "-1e3", "+4.5E2"], "window", (-1000, 450)),
        (["--window=[-1,2.5]"], "window", (-1, 2.5)),
        (["--spacing", ".5", "1.", "010"], "spacing", (0.5, 1, 10)),
        (["--shape", "008", "8", "4"], "shape", (8, 8, 4)),
    ],
)
def test_values_are_what_they_look_like(words, name, expected):
    options = parser("prepare ct", "x")
    KINDS["ct"].add_options(options)
    assert getattr(parse(options, ["SRC", *words]), name) == expected


@pytest.mark.parametrize("words", [["--window", "-.5", "many"], ["--shape", "8", "8"], ["--shape", "8", "8", "4.5"]])
def test_values_of_another_kind_are_named(words):
    options = parser("prepare ct", "x")
    KINDS["ct"].add_options(options)
    with pytest.raises(InputError, match=f"^{words[0]}: [^\n]*$"):
        parse(options, ["SRC", *words])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["prepare", "imagse"], "prepare imagse: unknown kind, did you mean images"),
        (["prepare", "images", "x", "--output", "y.h5"], "^--size: missing; expected it, --help explains it$"),
        (["prepare", "images", "--size", "8", "8"], "^SOURCE, --output: missing; expected it, --help explains it$"),
        (["prepare", "images", "x", "--output", "y.h5", "--size", "8"], "--size"),
        (["prepare", "images", "x", "--sise", "8", "8"], "--sise: unknown option, did you mean --size"),
        (["prepare", "faces", "x", "--output", "y.h5", "--split", "dark"], "--split.*random.*light"),
        (["phantom", "mri"], "phantom mri: unknown kind; expected ct"),
        ([*IMAGES, "--seed", "-1"], "^--seed -1: expected 0 or more"),
        ([*IMAGES, "--val-fraction", "half"], "^--val-fraction: expected float, found half$"),
        ([*IMAGES, "--val-fraction", "0.99", "--test-fraction", "0.001"], "class 'rose' has"),
    ],
)
def test_what_is_typed_wrongly(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "in")
    with pytest.raises(InputError, match=message) as raised:
        main(argv, 0)
    assert "\n" not in str(raised.value)


def test_what_only_the_source_can_know_ends_with_code_2(tmp_path):
    command = ["prepare", "images", str(tmp_path / "nix"), "--output", str(tmp_path / "y.h5"), "--size", "8", "8"]
    with pytest.raises(InputError, match=r"nix: No such file.*; expected a directory of class directories") as left:
        main(command, 0)
    assert left.value.code == 2


def test_flowers_are_images_of_64_pixels(tmp_path, capsys):
    photographs(tmp_path / "in", count=8)
    main(["prepare", "flowers", str(tmp_path / "in"), "--output", str(tmp_path / "x.h5")], 0)
    packed = open_packed(tmp_path / "x.h5")
    assert packed.image_shape == (64, 64)
    out = capsys.readouterr().out
    assert f"mpirun -n 4 python -m ddhpc --data.file {tmp_path / 'x.h5'} --decomposition.grid 2 2" in out


def test_phantoms_are_packed_by_prepare_ct(tmp_path, capsys):
    main(["phantom", "ct", str(tmp_path / "ph"), "--patients", "12", "--seed", "3"], 0)
    assert "synthetic phantoms" in capsys.readouterr().out
    command = ["prepare", "ct", str(tmp_path / "ph"), "--output", str(tmp_path / "ct.h5"), "--shape", "32", "32", "16"]
    main([*command, "--groups", "CT-0", "CT-2,CT-3"], 0)
    packed = open_packed(tmp_path / "ct.h5")
    assert packed.image_shape == (32, 32, 16)
    assert packed.classes == ("CT-0", "CT-2,CT-3")
    assert sum(packed.samples.values()) == 12
    out = capsys.readouterr().out
    assert "volumes of 32x32x16" in out
    assert "\n  2 left out, each named in /skipped of the packed file:\n" in out
    shutil.rmtree(tmp_path / "ph")
