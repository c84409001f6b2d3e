"""What the documents say is true: their commands are accepted, and what they link to exists."""

import os
import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ddhpc.cli import OVERVIEW, VERBS, main
from ddhpc.cli.completion import parsers
from ddhpc.cli.study import read_study
from tests.jobs.starting import mpirun

ROOT = Path(__file__).parents[1]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in sorted(
        [
            *ROOT.glob("*.md"),
            *ROOT.glob("docs/*.md"),
            *(ROOT / name / "README.md" for name in ("slurm", "data", "benchmarks")),
        ]
    )
}
SITE = (ROOT / "zensical.toml").read_text()
COMMAND = re.compile(
    r"\s*(?:[^#]*python -m ddhpc\b|ddhpc\b|(?:sbatch|flux batch)[^#]*?\b(?:train|ct3d)\.(?:sbatch|flux)\b)([^#>]*)"
)
WORDS = 700
"""Of the README."""


def blocks(kind):
    fenced = {page: re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M) for page, text in PAGES.items()}
    return {page: [text for found, text in blocks if found == kind] for page, blocks in fenced.items()}


def commands():
    """What the pages and --help tell to type, continued lines joined: the words after the program or job file."""
    found, helps = (
        set(),
        [OVERVIEW.partition("examples:")[2].partition("\n\n")[0], *(parser.epilog for _, parser in parsers(VERBS))],
    )
    for page in [*map("".join, blocks("").values()), *helps]:
        for line in page.replace("\\\n", " ").splitlines():
            if match := COMMAND.match(line):
                found.add(match[1].split(";")[0].replace("OPTIONS", "").strip())
    return sorted(found - {"VERB --help"})


class Parsed(Exception):
    """The command was understood."""


def test_there_are_commands():
    assert len(commands()) > 40


@pytest.mark.parametrize("command", commands())
def test_every_command_is_accepted(command, tmp_path, monkeypatch, capsys):
    """Trainings resolve their configuration; of the other verbs the options are parsed."""
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command)
    if arguments[:1] in (["--help"], ["help"], ["--completion"]):
        return main(arguments, 0)
    verb = arguments[0] if arguments and arguments[0] in VERBS else "train"
    if verb == "train":
        Path("mine.yaml").write_text("run: {seed: 1}\n")
        main([*arguments, *(["--print-config"] if "--print-config" not in arguments else [])], 0)
        assert "decomposition:" in capsys.readouterr().out
        return None
    module = import_module(f"ddhpc.cli.{verb}")
    for name in ("parse", "configure"):
        if understand := getattr(module, name, None):

            def stop(*given, understand=understand):
                understand(*given)
                raise Parsed

            monkeypatch.setattr(module, name, stop)
    with pytest.raises(Parsed):
        main(arguments, 0)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page):
    """Files, and headings in them."""
    for target in re.findall(r"\]\((?!http)([^)]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_every_document_is_in_the_index():
    index = PAGES["docs/README.md"]
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "README.md" or f"({page.name})" in index
        assert page.name == "README.md" or f'"docs/{page.name}"' in SITE
    for page in re.findall(r'"([\w/-]+\.md)"', SITE):
        assert (ROOT / page).exists() or page == "docs/interface.md"


def test_the_readme_is_short():
    assert len(PAGES["README.md"].split()) <= WORDS


def test_python_in_the_documents_can_be_compiled():
    found = [body for page in blocks("python").values() for body in page]
    assert len(found) > 1
    for body in found:
        compile(body, "document", "exec")


def test_the_studies_can_be_read(tmp_path):
    (block,) = blocks("yaml")["docs/training.md"]
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


def test_make_targets_exist():
    for target in set(re.findall(r"\bmake ([a-z-]+)\b(?= |$|`|\n)", "".join(PAGES.values()))) & {
        "run",
        "test",
        "check",
    }:
        subprocess.run(["grep", "-q", f"^{target}:", "Makefile"], cwd=ROOT, check=True)


def test_the_form_for_bugs_asks_for_what_there_is():
    """In the fields that forges know."""
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    assert {*form} == {"name", "description", "labels", "body"}
    fields = {field["id"]: field for field in form["body"]}
    assert len(fields) == len(form["body"])
    for field in fields.values():
        assert {*field} <= {"type", "id", "attributes", "validations"}
        assert field["type"] == "textarea"
        assert {*field["attributes"]} <= {"label", "description", "render"}
    assert "`ddhpc doctor --json`" in fields["doctor"]["attributes"]["label"]
    assert fields["doctor"]["validations"]["required"]


def test_both_images_are_of_the_same():
    """Base, files and set-up; the files are there, and with them all that installs the package."""
    apptainer, docker = ((ROOT / "containers" / name).read_text() for name in ("ddhpc.def", "Dockerfile"))
    (base,) = re.findall("^From: (.*)$", apptainer, re.M)
    assert re.findall("^FROM (.*)$", docker, re.M) == [base]
    files = re.findall("^    (\\S+) /opt/ddhpc/$", apptainer, re.M)
    copied = re.findall("^COPY (.*) \\S+$", docker, re.M)
    assert sorted(files) == sorted(" ".join(copied).split())
    assert all((ROOT / name).exists() for name in files)
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "ddhpc", "data", "scripts"} <= {*files}
    assert "    /opt/ddhpc/containers/install.sh\n" in apptainer
    assert "RUN containers/install.sh\n" in docker


def test_hosted_tests_are_those_of_ci():
    """With every Python from the oldest that setup.cfg takes, and both MPIs."""
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    matrix, steps = job["strategy"]["matrix"], job["steps"]
    oldest = re.search(r"python_requires = >=3\.(\d+)", (ROOT / "setup.cfg").read_text())[1]
    assert matrix["python"] == [f"3.{minor}" for minor in range(int(oldest), 15)]
    assert [mpi.split("-")[0].split()[0] for mpi in matrix["mpi"]] == ["openmpi", "mpich"]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    assert steps[-1]["run"] == ".ci/run"
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_every_shell_script_is_linted():
    """By `make test-shell`: whatever a shell runs, by its first line."""
    shown = subprocess.run(
        ["make", "--silent", "--eval=shown: ; @echo $(shell_scripts)", "shown"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = [
        path.relative_to(ROOT)
        for folder in (".ci", "cluster", "containers", "scripts", "slurm", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and re.match(rb"#!.*\bbash|# shellcheck shell", path.read_bytes())
    ]
    assert len(found) > 10
    assert sorted(shown.stdout.split()) == sorted(map(str, found))


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
