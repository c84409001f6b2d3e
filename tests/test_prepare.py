"""`prepare` and `phantom` as typed: every kind takes its options, packs, and says what it did."""

import shutil

import numpy as np
import pytest
from PIL import Image

from ddhpc.cli import main
from ddhpc.data import open_packed
from ddhpc.errors import InputError
from ddhpc.options import parse, parser
from ddhpc.prepare import KINDS, add_common_options


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
    given = parse(options, argv, KINDS["ct"].lists)
    assert given.groups == ["CT-0", "CT-2,CT-3"]
    assert given.window == (-1000, 400)
    assert given.shape == (8, 8, 4)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["prepare", "imagse"], "prepare imagse: unknown kind, did you mean images"),
        (["prepare", "images", "x", "--output", "y.h5"], "size"),
        (["prepare", "images", "x", "--output", "y.h5", "--size", "8"], "--size"),
        (["prepare", "images", "x", "--sise", "8", "8"], "--sise: unknown option, did you mean --size"),
        (["prepare", "faces", "x", "--output", "y.h5", "--split", "dark"], "--split.*random.*light"),
        (["phantom", "mri"], "phantom mri: unknown kind; expected ct"),
    ],
)
def test_what_is_typed_wrongly(argv, message):
    with pytest.raises(InputError, match=message) as raised:
        main(argv, 0)
    assert "\n" not in str(raised.value)


def test_what_only_the_source_can_know_ends_with_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["prepare", "images", str(tmp_path / "nix"), "--output", str(tmp_path / "y.h5"), "--size", "8", "8"], 0)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("ddhpc: ")


def test_flowers_are_images_of_64_pixels(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("rose", "tulip"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(0, 255, (70, 90, 3), np.uint8)).save(tmp_path / "in" / name / f"{number}.png")
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
    assert "volumes of 32x32x16" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "ph")
