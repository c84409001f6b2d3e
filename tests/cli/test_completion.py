"""What a real shell offers at the tabulator key."""

import shutil
import subprocess
import sys

import pytest

from ddhpc.cli import VERBS, completion, main
from ddhpc.cli.completion import SHELLS
from ddhpc.errors import InputError
from ddhpc.recipes import recipe_names

PRESS = """
. "$0"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_ddhpc
printf '%s\\n' "${COMPREPLY[@]}"
"""
WITHOUT_TORCH = "import sys; from ddhpc.cli import main; main({}, 0); assert 'torch' not in sys.modules"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script of bash, made without loading torch."""
    path = tmp_path_factory.mktemp("completion") / "ddhpc"
    with path.open("w") as file:
        subprocess.run([sys.executable, "-c", WITHOUT_TORCH.format(["--completion", "bash"])], stdout=file, check=True)
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ([""], VERBS),
        (["pre"], ["prepare", "predict"]),
        (["--ver"], ["--version"]),
        (["plan", "--ver"], []),
        (["--recipe", ""], recipe_names()),
        (["train", "--recipe", "=", "fl"], ["flowers"]),
        (["plan", "--recipe", "="], recipe_names()),
        (["--local.optimizer", ""], ["sgd", "adamw"]),
        (["--local.flip", "t"], ["true"]),
        (["--model.weights", ""], []),
        (["--decomposition.g"], ["--decomposition.grid"]),
        (["--data"], ["--data.file", "--data.fold", "--data.memory_limit"]),
        (["doctor", "--j"], ["--json"]),
        (["prepare", "fl"], ["flowers"]),
        (["prepare", "images", "photos", "--res"], ["--resize"]),
        (["prepare", "images", "photos", "--resize", ""], ["crop", "stretch"]),
        (["prepare", "faces", "photos", "--res"], []),
        (["phantom", "ct", "out", "--s"], ["--scans", "--shape", "--seed"]),
        (["predict", "run", "photo.jpg", "--device", "c"], ["cpu", "cuda"]),
        (["inspect", "run", ""], []),
    ],
    ids=" ".join,
)
def test_what_bash_offers(typed, offered, script):
    """Where there is nothing, bash offers files."""
    pressed = subprocess.run(["bash", "-c", PRESS, script, "ddhpc", *typed], capture_output=True, text=True, check=True)
    assert pressed.stderr == ""
    assert set(pressed.stdout.split()) == set(offered)


def test_scripts_of_bash_are_free_of_mistakes(script):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", "--shell=bash", script], check=True)


def test_zsh_takes_the_same():
    (_, of_bash), (head, of_zsh) = (completion.script(shell, ["export"]).split("_ddhpc()", 1) for shell in SHELLS)
    assert "bashcompinit" in head
    assert of_bash == of_zsh


@pytest.mark.parametrize("given", [[], ["fish"], ["bash", "zsh"]])
def test_other_shells(given):
    with pytest.raises(InputError, match=f"^--completion {' '.join(given) or 'nothing'}: expected bash or zsh$"):
        main(["--completion", *given], 0)
