"""Training and applying in Python: the same files, bits and errors as on the command line."""

import signal
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest

import ddhpc
from ddhpc.results import checkpoint, verify
from ddhpc.results.model import open_model
from tests.jobs.starting import decisions, environment, mpirun

OPTIONS = {
    **{"decomposition.grid": [2, 1], "local.epochs": 2, "local.batch_size": 16, "coarse.epochs": 3},
    **{"model.global_width": 8, "run.threads": 1, "run.report": False},
}
SCRIPT = """
import sys
import ddhpc

config = ddhpc.Config.from_recipe("fashion_mnist", {options!r})
try:
    run = ddhpc.train(config, "run")
except (ddhpc.InputError, ddhpc.Stopped) as error:
    print("raised", error, flush=True)
    sys.exit(error.code)
print("accuracy", run.accuracy(), flush=True)
"""


def config(small, **options):
    named = {name.replace("__", "."): value for name, value in options.items()}
    return ddhpc.Config.from_recipe("fashion_mnist", {"data.file": str(small), **OPTIONS, **named})


def script(small, folder, **options):
    """A script of a user that trains."""
    file = folder / "mine.py"
    file.write_text(SCRIPT.format(options={"data.file": str(small), **OPTIONS, **options}))
    return file


@pytest.fixture(scope="module")
def typed(small, tmp_path_factory):
    """The run of the command line."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "mine.yaml").write_text(config(small).to_yaml())
    done = mpirun(0, "--config", "mine.yaml", "--output", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_a_training_has_the_bits_and_files_of_the_command_line(small, typed, tmp_path, capsys):
    run = ddhpc.train(config(small), tmp_path / "run")
    assert verify(tmp_path / "run") == []
    found, expected = decisions(tmp_path / "run"), decisions(typed)
    for name, values in expected.items():
        assert np.array_equal(values, found[name]), name
    assert sorted(file.name for file in run.path.iterdir()) == sorted(file.name for file in typed.iterdir())
    said = capsys.readouterr().out
    assert f"run directory {tmp_path / 'run'}" in said
    with pytest.raises(ddhpc.InputError, match=f"--output {tmp_path / 'run'}: holds a finished run"):
        ddhpc.train(config(small), tmp_path / "run")
    before = run.decisions("test")
    again = ddhpc.train(config(small, run__seed=1), tmp_path / "run", overwrite=True)
    assert not np.array_equal(again.decisions("test"), before)


@pytest.mark.slow
def test_all_ranks_get_the_run(small, typed, tmp_path):
    done = subprocess.run(
        ["mpirun", "-n", "2", sys.executable, script(small, tmp_path)],
        **{"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True, "timeout": 120},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy") == 2
    assert done.stdout.count("run directory") == 1
    for name, values in decisions(typed).items():
        assert np.array_equal(values, decisions(tmp_path / "run")[name]), name


@pytest.mark.slow
def test_bad_input_is_raised_on_all_ranks(small, tmp_path):
    wrong = script(small, tmp_path, **{"decomposition.grid": [2, 2, 2]})
    done = subprocess.run(
        ["mpirun", "-n", "2", sys.executable, wrong],
        **{"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True, "timeout": 120},
    )
    assert done.returncode == 2
    assert done.stdout.count("raised --decomposition.grid 2 2 2: expected 2 numbers") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ('config.__dict__["local"] = None', 1, "ddhpc: error on rank 1:"),
        ('config.local.__dict__["epochs"] = "x"', 2, "ddhpc: --local.epochs: expected int, found x (on rank 1)"),
    ],
)
def test_an_error_of_one_rank_ends_all(fault, code, said, small, tmp_path):
    file = script(small, tmp_path)
    alone = f"from mpi4py import MPI\nif MPI.COMM_WORLD.rank == 1:\n    {fault}\ntry:\n    run"
    file.write_text(file.read_text().replace("try:\n    run", alone))
    done = subprocess.run(
        ["mpirun", "-n", "2", sys.executable, file],
        **{"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True, "timeout": 120},
    )
    assert done.returncode == code
    assert said in done.stderr
    assert "accuracy" not in done.stdout


@pytest.mark.slow
def test_an_interrupt_makes_checkpoints_and_the_same_call_continues(small, tmp_path):
    long = script(small, tmp_path, **{"local.epochs": 3000, "run.checkpoint_seconds": 1})
    with (tmp_path / "said").open("w") as said:
        job = subprocess.Popen([sys.executable, long], cwd=tmp_path, env=environment(), stdout=said)
    while job.poll() is None and not list((tmp_path / "run").glob("checkpoints/*.pt")):
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=60) == 75
    assert "raised stopped by SIGINT; checkpoints are made, continue with" in (tmp_path / "said").read_text()
    assert checkpoint.verify(tmp_path / "run") == []
    assert not (tmp_path / "run/results.h5").exists()


def test_a_thread_of_a_program_may_train(small, tmp_path):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(ddhpc.train(config(small), tmp_path / "run")))
    thread.start()
    thread.join()
    assert runs[0].accuracy() > 0


def test_what_was_made_of_wrong_types_is_refused(small, tmp_path):
    wrong = ddhpc.Config(local=type(ddhpc.Config().local)(label_smoothing=0.5, flip="no"))
    with pytest.raises(ddhpc.InputError, match="^--local.flip: expected bool, found no$"):
        ddhpc.train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_model_is_applied(finished, small):
    found = ddhpc.predict(finished, [small])
    test = [n for n, name in enumerate(found.ids) if name.startswith("test/")]
    assert np.allclose(found.decisions[test], ddhpc.open_run(finished).decisions("test"), atol=1e-6)


def test_even_windows_are_those_of_the_run_and_its_model(small, tmp_path):
    """Of 16 rows with an overlap of 1 equal blocks have windows of 5, 6, 6, 5 rows; equal windows have 6, 6, 5, 5."""
    cut = {"decomposition__grid": [4, 1], "decomposition__overlap": 1, "decomposition__balance": "even"}
    run = ddhpc.train(config(small, **cut), tmp_path / "run")
    assert verify(run.path) == []
    with h5py.File(run.path / "results.h5") as file:
        lower, upper = (file[f"decomposition/{side}"][:, 0].tolist() for side in ("lower", "upper"))
        assert file["decomposition"].attrs["balance"] == "even"
    assert (lower, upper) == ([0, 4, 8, 11], [6, 10, 13, 16])
    again = mpirun(0, "coarse", run.path, "--output", tmp_path / "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert verify(tmp_path / "again") == []
    found = ddhpc.predict(run.path, [small])
    test = [n for n, name in enumerate(found.ids) if name.startswith("test/")]
    assert np.allclose(found.decisions[test], run.decisions("test"), atol=1e-6)
    assert open_model(run.path).trained.sides[0] == [slice(0, 5), slice(5, 9), slice(9, 12), slice(12, 16)]
