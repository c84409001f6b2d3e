"""`prepare` and `phantom` as typed: every kind takes its options, packs, and says what it did."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from PIL import Image

from ddhpc.cli import main
from ddhpc.cli.options import parse, parser
from ddhpc.cli.sources import KINDS, add_common_options
from ddhpc.data.packed import open_packed
from ddhpc.errors import InputError
from ddhpc.phantoms.ct import write_phantoms
from tests.conftest import mpirun


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
    ],
)
def test_what_is_typed_wrongly(argv, message):
    with pytest.raises(InputError, match=message) as raised:
        main(argv, 0)
    assert "\n" not in str(raised.value)


def test_what_only_the_source_can_know_ends_with_code_2(tmp_path):
    command = ["prepare", "images", str(tmp_path / "nix"), "--output", str(tmp_path / "y.h5"), "--size", "8", "8"]
    with pytest.raises(InputError, match=r"nix: No such file.*; expected a directory of class directories") as left:
        main(command, 0)
    assert left.value.code == 2


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


def photographs(folder, count=40, side=70):
    """Two classes, each with its last file damaged."""
    rng = np.random.default_rng(0)
    for name in ("rose", "tulip"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (side, side + 20, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:04}.png")
        (folder / name / "z.png").write_bytes((folder / name / "0000.png").read_bytes()[:400])


def contents(file):
    """All datasets of a file, and the text that says what was done."""
    found = {}
    with h5py.File(file) as opened:
        opened.visititems(lambda name, item: found.update({name: item[...]} if isinstance(item, h5py.Dataset) else {}))
        return found, opened.attrs["source"]


def same(file, expected):
    found, source = contents(file)
    assert source == expected[1]
    assert found.keys() == expected[0].keys()
    for name, values in expected[0].items():
        assert np.array_equal(found[name], values), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "ct"])
def test_any_number_of_ranks_writes_the_same_file(kind, tmp_path):
    if kind == "images":
        photographs(tmp_path / "in")
        options = ["--size", 16, 16]
    else:
        write_phantoms(tmp_path / "in", patients=12, seed=0)
        (tmp_path / "in/CT-0/bad.nii.gz").write_text("no volume")
        options = ["--shape", 32, 32, 16, "--groups", "CT-0", "CT-2,CT-3"]
    command = ["prepare", kind, "in", *options, "--output"]
    outs = {}
    for ranks in (0, 1, 3, 4):
        completed = mpirun(ranks, *command, f"{ranks}.h5", cwd=tmp_path)
        assert completed.returncode == 0, completed.stderr
        outs[ranks] = completed.stdout.replace(f"{ranks}.h5", "x.h5").splitlines()
        same(tmp_path / f"{ranks}.h5", contents(tmp_path / "0.h5"))
    progress = re.compile(r"  packing \w+: (\d+)%")
    assert progress.findall("\n".join(outs[4]))[-1] == "100"
    said = {tuple(line for line in out if not progress.fullmatch(line)) for out in outs.values()}
    assert len(said) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "1.h5", "3.h5", "4.h5", "in"]


def start(ranks, cwd, *arguments):
    """A job under mpirun, running."""
    command = ["mpirun", "-n", ranks, sys.executable, "-m", "ddhpc", *arguments]
    with (cwd / "log").open("w") as log:
        return subprocess.Popen(
            [*map(str, command)],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # not that of this process, in which MPI may have left its own
            env=dict(os.environ),
        )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_job_continues_with_other_ranks(number, tmp_path):
    """Stopped when some images are decoded; with another number of ranks it goes on, and ends with the same file."""
    photographs(tmp_path / "in", count=150, side=300)
    command = ["prepare", "images", "in", "--size", 200, 200, "--output"]
    job = start(3, tmp_path, *command, "x.h5")
    pixels, deadline = "x.h5.partial/*-pixels-*.data", time.monotonic() + 60
    while sum(path.stat().st_size for path in tmp_path.glob(pixels)) < 5e5:
        assert job.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    job.send_signal(number)
    assert job.wait(timeout=60) != 0
    assert not (tmp_path / "x.h5").exists()
    continued = mpirun(2, *command, "x.h5", cwd=tmp_path)
    assert continued.returncode == 0, continued.stderr
    kept = re.search(r"x.h5.partial: continuing; 302 facts, (\d+) pixels are there", continued.stdout)
    assert kept, continued.stdout
    # On a busy machine all may be decoded before the signal arrives.
    assert 5e5 / (3 * 200 * 200) - 3 <= int(kept[1]) <= 300
    assert not (tmp_path / "x.h5.partial").exists()
    whole = mpirun(0, *command, "whole.h5", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    same(tmp_path / "x.h5", contents(tmp_path / "whole.h5"))


def test_an_interrupted_process_says_how_to_go_on(tmp_path):
    photographs(tmp_path / "in", count=150, side=300)
    command = [sys.executable, "-m", "ddhpc", "prepare", "images", "in", "--size", "200", "200", "--output", "x.h5"]
    job = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while job.poll() is None and not list(tmp_path.glob("x.h5.partial/*-pixels-*.index")):
        time.sleep(0.01)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    assert (job.returncode, said) == (
        75,
        "ddhpc: interrupted; what is decoded is kept, the same command goes on from there\n",
    )


def test_an_output_whose_name_is_not_utf8(tmp_path):
    photographs(tmp_path / "in", count=10, side=20)
    name = os.fsdecode(b"bad\xff.h5")
    command = [sys.executable, "-m", "ddhpc", "prepare", "images", "in", "--size", "8", "8", "--output", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^bad\\udcff.h5: \d+ train", done.stdout, re.MULTILINE)
    assert open_packed(tmp_path / name).samples["train"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images", "in", "--size", 16, 16, "--on-error", "stop"], r"in: (rose|tulip)/z.png: .*; --on-error skip"),
        (["images", "nix", "--size", 16, 16], "nix: No such file"),
        (["images", "in", "--size", 16, 16, "--seed", -1], "--seed -1: expected 0 or more"),
        (["images", "in", "--size", 16, 16, "--val-fraction", 0.99, "--test-fraction", 0.001], "class 'rose' has"),
    ],
)
def test_bad_input_on_any_rank_is_one_line(arguments, message, ranks, tmp_path):
    photographs(tmp_path / "in")
    completed = mpirun(ranks, "prepare", *arguments, "--output", "x.h5", cwd=tmp_path)
    assert completed.returncode == 2
    lines = [line for line in completed.stderr.splitlines() if line.startswith("ddhpc: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert "Traceback" not in completed.stderr
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.slow
def test_another_option_starts_anew_and_says_so(tmp_path):
    photographs(tmp_path / "in")
    command = ["prepare", "images", "in", "--output", "x.h5", "--size"]
    assert mpirun(2, *command, 16, 16, "--on-error", "stop", cwd=tmp_path).returncode == 2
    again = mpirun(2, *command, 12, 12, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "x.h5.partial: options changed since; starting anew" in again.stdout
