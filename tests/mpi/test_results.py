import fcntl
import os
import subprocess
import tempfile
from contextlib import ExitStack

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from ddhpc import results
from ddhpc.data.hdf5 import text
from ddhpc.errors import InputError
from ddhpc.method.decomposition import owned, windows
from ddhpc.method.fusions import mean, vote
from ddhpc.method.metrics import accuracy
from ddhpc.method.solutions import CoarseSolution, CoherentSolution
from ddhpc.method.training import History
from ddhpc.results import gather as gathering
from ddhpc.results import writer as writing
from ddhpc.results.format import HISTORY

pytestmark = pytest.mark.mpi

GRID, SHAPE, CLASSES, FEATURES, EPOCHS = (3, 2), (12, 10), 4, 3, 5
SAMPLES = {"train": 31, "val": 7, "test": 11}


@pytest.fixture
def directory(comm, tmp_path_factory):
    """One directory for all ranks."""
    path = str(tmp_path_factory.mktemp("run")) if comm.rank == 0 else ""
    from pathlib import Path

    return Path(comm.broadcast(path))


def layout():
    rng = np.random.default_rng(0)
    return results.Layout(
        attributes={
            **{"config": "run:\n  seed: 0\n", "seed": 0, "job": "this", "hosts": text(["a", "bcd"]), "ranks": 2},
            **{"data_digest": "a", "ddhpc_version": "0", "git_commit": "", "cores": 2, "created": "", "processor": ""},
        },
        classes=("one", "zwei", "trois", "ψ"),
        features=FEATURES,
        decomposition=windows(SHAPE, GRID, 1),
        grid=GRID,
        overlap=1,
        balance="blocks",
        image_shape=SHAPE,
        coarse_shape=(),
        labels={split: rng.integers(0, CLASSES, count) for split, count in SAMPLES.items()},
        fold=np.arange(SAMPLES["train"]) % 3,
        decisions="cross_fitted",
        ids={split: [f"{split}-{n}" for n in range(count)] for split, count in SAMPLES.items()},
        patients={split: [f"patient {n // 2}" for n in range(count)] for split, count in SAMPLES.items()},
        epochs=EPOCHS,
        coarse_epochs=3,
        weights={"1.weight": (4, 24), "1.bias": (4,)},
        coherent_epochs=2,
        allow_missing=1,
        ranks=2,
    )


def local_values():
    """What all subdomains know, [N, ...] by dataset; the same on all ranks."""
    rng = np.random.default_rng(1)
    subdomains = GRID[0] * GRID[1]
    values = {
        f"{split}/decision": rng.dirichlet(np.ones(CLASSES), (subdomains, count)).astype(np.float32)
        for split, count in SAMPLES.items()
    }
    for split, count in SAMPLES.items():
        values[f"{split}/feature"] = rng.random((subdomains, count, FEATURES), np.float32)
    for split, labels in layout().labels.items():
        values[f"{split}/accuracy"] = accuracy(values[f"{split}/decision"], labels)
    for name in HISTORY:
        values[f"history/{name}"] = rng.random((subdomains, EPOCHS))
    for name in ("parameters", "rank", "peak_memory_bytes"):
        values[name] = rng.integers(0, 10**10, subdomains)
    for name in ("seconds", "cpu_seconds", "path_seconds"):
        values[name] = rng.random(subdomains)
    values["device"] = text([f"CPU {n}" for n in range(subdomains)], 64)
    return values


def write(comm, directory, created=lambda: None):
    """Create, write in parallel and finish a file of known content; `created` is called on rank 0 in between."""
    if comm.rank == 0:
        results.create(directory, layout())
        created()
    comm.mpi.Barrier()
    values, subdomains = local_values(), GRID[0] * GRID[1]
    mine = owned(subdomains, comm.size, comm.rank)
    slabs = {name: value[mine.start : mine.stop] for name, value in values.items()}
    results.write_local(directory, comm, mine, subdomains, slabs)
    comm.mpi.Barrier()
    if comm.rank == 0:
        local = {split: values[f"{split}/decision"] for split in SAMPLES}
        final = {split: mean(local[split]) for split in SAMPLES}
        network = nn.Sequential(nn.Flatten(), nn.Linear(24, 4))
        nn.init.ones_(network[1].weight)
        network[1].bias.data = torch.arange(4.0)
        ones = [1.0, 1.0, 1.0]
        outcome = results.Outcome(
            job="this",
            model_sha256=None,
            present=np.array([True] * (subdomains - 1) + [False]),
            coarse=CoarseSolution(
                network=network,
                fusions={"dnn": final, "mean": final, "vote": {split: vote(local[split]) for split in SAMPLES}},
                history=History(loss=[3.0, 2.0, 1.0], accuracy=[0.1, 0.2, 0.3], learning_rate=ones, seconds=ones),
                absent={fusion: np.array([0.5, 0.4]) for fusion in ("mean", "vote", "dnn")},
            ),
            coherent=CoherentSolution(
                decisions=final,
                history=History(loss=[2.0, 1.5], accuracy=[0.3, 0.4], learning_rate=[0.1, 0.0], seconds=[7.0, 6.0]),
            ),
            labels=layout().labels,
            timing=results.Timing(
                **dict.fromkeys(("startup", "read", "local_max", "local_sum", "write", "gather", "coarse"), 0.1),
                coherent=None,
                total=1.5,
                jobs=1,
            ),
            rank_seconds=np.arange(2.0 * len(results.PHASES)).reshape(2, -1),
        )
        results.finish(directory, outcome)
    comm.mpi.Barrier()
    return values


def test_what_is_written_is_read(comm, directory):
    values = write(comm, directory)
    with results.open_results(directory) as file:
        for name, value in values.items():
            assert np.array_equal(file[f"local/{name}"][...], value), name
        assert file["classes"].asstr()[...].tolist() == list(layout().classes)
        assert file["samples/val/id"].asstr()[0] == "val-0"
        assert results.patients(file, "val")[:3] == ["patient 0", "patient 0", "patient 1"]
        assert file["coarse/history/loss"][...].tolist() == [3.0, 2.0, 1.0]
        assert file["coherent/history/loss"][...].tolist() == [2.0, 1.5]
        assert file["coherent/history/seconds"][...].tolist() == [7.0, 6.0]
        assert "coherent" not in file["timing"].attrs
        assert file["coherent/val/decision"].shape == (SAMPLES["val"], CLASSES)
        assert file["fusion/coherent/test/confusion"][...].sum() == SAMPLES["test"]
        assert file["timing"].attrs["total"] == 1.5
        assert file["fusion/absent"].attrs["subdomains"] == 1
        assert file["timing/seconds"][1, 0] == len(results.PHASES)
        assert file["timing/phase"].asstr()[...].tolist() == list(results.PHASES)
        assert file["coarse/weights/1.weight"][...].tolist() == np.ones((4, 24)).tolist()
        assert file["coarse/weights/1.bias"][...].tolist() == [0, 1, 2, 3]
        assert file["decomposition/lower"][3].tolist() == [3, 4]
        assert file["decomposition/upper"][3].tolist() == [9, 10]
        assert not (directory / results.PART).exists()
    assert results.verify(directory) == []


def test_parallel_and_serial_writing_give_the_same_file(comm, directory, monkeypatch):
    if not writing.PARALLEL:
        pytest.skip("h5py is built without MPI")
    write(comm, directory)
    monkeypatch.setattr(writing, "PARALLEL", False)
    serial = directory / "serial"
    if comm.rank == 0:
        serial.mkdir()
    comm.mpi.Barrier()
    write(comm, serial)
    if comm.rank == 0:
        subprocess.run(
            ["h5diff", "-v", directory / "results.h5", serial / "results.h5"], check=True, capture_output=True
        )
        assert (directory / "results.h5").read_bytes() == (serial / "results.h5").read_bytes()
    comm.mpi.Barrier()


def test_a_reader_that_holds_the_unfinished_file_open_does_no_harm(comm, directory):
    """Viewers of HDF5 lock what they read, for as long as they show it."""
    with ExitStack() as shown:

        def read():
            reader = shown.enter_context((directory / results.PART).open("rb"))
            fcntl.flock(reader, fcntl.LOCK_SH)

        write(comm, directory, read)
    assert results.verify(directory) == []


def test_any_hdf5_tool_reads_it(comm, directory):
    write(comm, directory)
    if comm.rank == 0:
        dump = subprocess.run(
            ["h5dump", "-d", "/local/val/decision", "-s", "2,0,0", "-c", "1,1,4", directory / "results.h5"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        expected = local_values()["val/decision"][2, 0]
        found = dump.split("(2,0,0):")[1].split("\n")[0].split(",")
        assert np.allclose([float(value) for value in found], expected, atol=1e-6)
        listing = subprocess.run(["h5ls", "-r", directory / "results.h5"], check=True, capture_output=True, text=True)
        for name in (
            "/local/train/decision",
            "/coarse/test/decision",
            "/fusion/vote",
            "/timing",
            "/subdomain",
        ):
            assert name in listing.stdout
        with h5py.File(directory / "results.h5") as file:
            dataset = file["local/train/decision"]
            assert dataset.chunks is None
            assert dataset.dtype == np.float32
            assert dataset.dims[0][0].name == "/subdomain"
            assert dataset.dims[2][0].name == "/classes"
            assert file["local/seconds"].attrs["units"] == "s"
            assert file["local/train"].attrs["signal"] == "accuracy"
    comm.mpi.Barrier()


@pytest.mark.parametrize("memory_limit", [None, 0])
def test_outputs_gathered_in_memory_or_in_a_file_are_those_of_all_ranks(memory_limit, comm, directory, monkeypatch):
    monkeypatch.setattr(gathering, "BLOCK_BYTES", 300)
    values, subdomains = local_values(), GRID[0] * GRID[1]
    mine = owned(subdomains, comm.size, comm.rank)
    slabs = {name: value[mine.start : mine.stop] for name, value in values.items()}
    if comm.rank == 0:
        results.create(directory, layout())
    comm.mpi.Barrier()
    results.write_local(directory, comm, mine, subdomains, slabs)
    gathered = results.gather_local(directory, comm, slabs, subdomains, memory_limit)
    for split, samples in SAMPLES.items():
        expected = np.concatenate([values[f"{split}/{name}"] for name in ("decision", "feature")], axis=2)
        expected = expected if comm.rank == 0 else np.empty((0, samples, CLASSES + FEATURES), np.float32)
        assert np.array_equal(gathered[split], expected)
        assert isinstance(gathered[split], np.memmap) == (memory_limit == 0 and comm.rank == 0)


def test_no_room_for_the_temporary_file_ends_all_ranks(comm, directory, monkeypatch):
    slabs = {name: value[: (comm.rank == 0) * 6] for name, value in local_values().items()}
    if comm.rank == 0:
        results.create(directory, layout())
        monkeypatch.setattr(tempfile, "tempdir", str(directory / "nowhere"))
    comm.mpi.Barrier()
    with pytest.raises(InputError, match=r"--coarse.memory_limit: no temporary file in .*nowhere: No such file"):
        results.gather_local(directory, comm, slabs, 6, 1e-9)


def test_damage_is_found(comm, directory):
    write(comm, directory)
    if comm.rank == 0:
        path = directory / "results.h5"
        with h5py.File(path, "r+") as file:
            sound = file["local/val/decision"][1, 2, 3]
            file["local/val/decision"][1, 2, 3] += 0.25
        assert results.verify(directory) == ["/local/val/decision of subdomain 1: differs from its checksum"]
        with h5py.File(path, "r+") as file:
            file["local/val/decision"][1, 2, 3] = sound
            file["local/test/accuracy"][0] = 1
        assert results.verify(directory) == [
            "/local/test/decision of subdomain 0: the stored accuracy does not match it"
        ]
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(InputError, match=r"results.h5: truncated, or not HDF5"):
            results.verify(directory)
    comm.mpi.Barrier()


def test_an_unfinished_run_is_told_from_none(comm, directory):
    if comm.rank == 0:
        with pytest.raises(InputError, match="expected a run directory"):
            results.open_results(directory)
        results.create(directory, layout())
        with pytest.raises(InputError, match="the run is not finished"):
            results.open_results(directory)
        with pytest.raises(InputError, match="expected a run directory"):
            results.open_results(directory / "nix")
    comm.mpi.Barrier()


def test_space_is_reserved_before_training(comm, directory):
    if comm.rank == 0:
        results.create(directory, layout())
        stat = (directory / results.PART).stat()
        assert stat.st_size > local_values()["train/decision"].nbytes
        assert stat.st_blocks * 512 >= stat.st_size
    comm.mpi.Barrier()
