"""Studies: what is read from their file."""

import sys

import pytest
import yaml

from ddhpc.cli.study import read_study
from ddhpc.errors import InputError

STUDY = {
    "options": {
        **{"local.epochs": 1, "coarse.epochs": 2, "model.global_width": 8, "run.threads": 1},
        "run.report": False,
    },
    "vary": [
        {"decomposition.grid": [[1, 1]]},
        {"decomposition.grid": [[2, 2]], "decomposition.overlap": [0], "run.seed": [0, 1]},
    ],
}


def write(folder, study):
    file = folder / "study.yaml"
    file.write_text(study if isinstance(study, str) else yaml.safe_dump(study))
    return file


def test_every_combination_of_a_block_is_a_training(tmp_path):
    trainings = read_study(write(tmp_path, STUDY), tmp_path)
    assert [training.directory.name for training in trainings] == [
        "grid-1x1",
        "grid-2x2_overlap-0_seed-0",
        "grid-2x2_overlap-0_seed-1",
    ]
    last = trainings[-1].config
    assert (last.decomposition.grid, last.decomposition.overlap, last.run.seed) == ((2, 2), 0, 1)
    assert last.local.epochs == 1


def test_a_training_starts_no_more_ranks_than_it_has_subdomains(tmp_path):
    one, four, _ = read_study(write(tmp_path, STUDY), tmp_path)
    assert one.command("mpirun -n {ranks}", 16)[0] == sys.executable
    assert four.command("srun --mpi=pmix -n {ranks}", 16)[:4] == ["srun", "--mpi=pmix", "-n", "4"]
    assert four.command("mpirun -n {ranks}", 3)[:3] == ["mpirun", "-n", "3"]


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("vary: [", "cannot read it as YAML"),
        ({"options": {}}, "expected a mapping with vary"),
        ({"vary": {"run.seed": [0]}, "grids": 1}, "expected a mapping with vary"),
        ({"vary": {"run.seed": 0}}, "expected a mapping from options to lists of values"),
        ({"vary": {1: [0]}}, "vary: expected the name of an option, such as local.epochs, found 1"),
        ("options: {yes: 1}\nvary: {run.seed: [0]}", "options: expected the name of an option.*, found True"),
        ({"options": [1], "vary": {"run.seed": [0]}}, "options: expected a mapping from options to values"),
        ({"vary": {"data.memory_limit": ["null", 0, 0.0]}}, "twice; expected each training once"),
        ({"vary": [{"run.seed": [0]}, {"run.seed": [0]}]}, "vary: has {'run.seed': 0} twice"),
        ({"vary": "run.seed"}, "vary: expected a mapping"),
        ("vary: !!python/name:os.system ''", "cannot read it as YAML"),
        ("vary: {run.seed: &a [*a]}", "cannot read it as YAML: nested too deeply"),
        ({"vary": {"run.seed": []}}, "expected a mapping from options to lists of values"),
        ({"vary": {"run.sed": [0]}}, "--run.sed: unknown option, did you mean --run.seed?"),
        ({"vary": {"local.epochs": ["many"]}}, "local.epochs"),
        ({"recipe": "flower", "vary": {"run.seed": [0]}}, "no such recipe"),
    ],
)
def test_a_mistake_in_a_study_is_named_with_its_file(tmp_path, study, message):
    with pytest.raises(InputError, match=message) as error:
        read_study(write(tmp_path, study), tmp_path)
    assert "study.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_would_collide_get_their_sections(tmp_path):
    vary = [
        {f"{section}.{name}": [value]}
        for name, value in (("epochs", 5), ("learning_rate", 0.01))
        for section in ("local", "coarse")
    ]
    trainings = read_study(write(tmp_path, {"vary": vary}), tmp_path)
    assert [training.directory.name for training in trainings] == [
        *("local.epochs-5", "coarse.epochs-5", "local.learning_rate-0.01", "coarse.learning_rate-0.01")
    ]
    assert [training.config.local.epochs for training in trainings] == [5, 10, 10, 10]


def test_null_and_truth_are_values(tmp_path):
    vary = {"data.memory_limit": [None, 0], "local.flip": [True, False]}
    trainings = read_study(write(tmp_path, {"vary": vary}), tmp_path)
    assert [each.config.data.memory_limit for each in trainings] == [None, None, 0, 0]
    assert [each.config.local.flip for each in trainings] == [True, False, True, False]
    assert trainings[0].directory.name == "memory_limit-null_flip-true"


def test_values_that_make_the_same_name_make_two_directories(tmp_path):
    vary = {"model.name": ["a/b:c", "a-b:c", "a-b-c"]}
    trainings = read_study(write(tmp_path, {"vary": vary}), tmp_path)
    assert len({training.directory for training in trainings}) == 3


def test_a_study_without_end_is_refused(tmp_path):
    study = tmp_path / "s.yaml"
    study.write_text("vary: {" + ", ".join(f"local.x{n}: [1, 2]" for n in range(60)) + "}")
    with pytest.raises(InputError, match=r"vary: makes more than 1,000 trainings; expected several studies"):
        read_study(study, tmp_path)
