"""What the README says is true: its commands are accepted, its files exist, its names are in the results file."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddhpc.cli import VERBS, main
from ddhpc.cli.study import read_study
from tests.jobs.starting import mpirun

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M) if not kind]
COMMANDS = [
    line.split("#")[0].split(">")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if re.match(r"(mpirun|python -m ddhpc|srun)", line)
]
OTHER_VERBS = r"ddhpc (prepare|phantom|inspect|predict|export|coarse|report|sweep|doctor|plan|--help)"
TRAININGS = [command for command in COMMANDS if not re.search(OTHER_VERBS, command)]


def test_there_are_commands():
    assert len(COMMANDS) > 8
    assert len(TRAININGS) > 4


@pytest.mark.parametrize("command", sorted(set(TRAININGS)))
def test_every_training_command_is_accepted(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["--print_config"], 0)
    Path("mine.yaml").write_text(capsys.readouterr().out)
    arguments = shlex.split(command.split("-m ddhpc")[1])
    main([*arguments, "--print_config"], 0)
    assert "decomposition:" in capsys.readouterr().out


def test_the_studies_can_be_read(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", README, re.S | re.M)
    shown = tmp_path / "shown.yaml"
    shown.write_text(block)
    assert len(read_study(shown, tmp_path)) == 9
    for study in sorted((ROOT / "benchmarks/studies").glob("*.yaml")):
        assert len(read_study(study, tmp_path)) > 1


def test_every_verb_that_help_names_exists(capsys):
    main(["--help"], 0)
    out = capsys.readouterr().out
    named = re.findall(r"^  (\w+) ", out.split("verbs:")[1].split("examples:")[0], re.M)
    assert named == list(VERBS)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_targets_exist():
    for target in set(re.findall(r"\bmake ([a-z-]+)\b(?= |$|`|\n)", README)) & {"run", "test", "check"}:
        subprocess.run(["grep", "-q", f"^{target}:", "Makefile"], cwd=ROOT, check=True)


@pytest.mark.slow
def test_the_way_of_a_folder_of_images(tmp_path):
    """prepare, plan, train, inspect: the README's commands one after the other, on photographs of two colours."""
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / "FOLDER" / name).mkdir(parents=True)
        for number in range(40):
            size = rng.integers(70, 120, 2)
            pixels = rng.integers(0, 50, (*size, 3)) + np.array(colour)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "FOLDER" / name / f"{number}.jpg")
    (tmp_path / "FOLDER/red/notes.txt").write_text("not an image")
    prepared = mpirun(0, *shlex.split("prepare images FOLDER --output x.h5 --size 64 64"), cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    assert "red/notes.txt" in prepared.stdout
    planned = mpirun(0, *shlex.split("plan --data.file x.h5 --decomposition.grid 2 2 --ranks 2"), cwd=tmp_path)
    assert "64x64, 3 channels" in planned.stdout
    assert "0:34, 30:64" in planned.stdout
    options = "--data.file x.h5 --decomposition.grid 2 2 --local.epochs 2 --coarse.epochs 40"
    trained = mpirun(4, *shlex.split(options), cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    inspected = mpirun(0, "inspect", "runs/latest", cwd=tmp_path)
    assert re.search(r"dnn +│ +\d+\.\d % │ +100.0 %", inspected.stdout), inspected.stdout
