import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ddhpc.data.sources.decode_cache import open_cache
from ddhpc.errors import InputError
from ddhpc.parallel.work_sharing import WorkingRanks

pytestmark = pytest.mark.mpi


@dataclass(frozen=True)
class File:
    path: Path

    @property
    def id(self):
        return self.path.name


@pytest.fixture
def directory(comm):
    """That of rank 0, on all ranks; pytest's own are cleared by all ranks at once."""
    made = tempfile.mkdtemp() if comm.rank == 0 else ""
    yield Path(comm.broadcast(made))
    comm.mpi.Barrier()
    if comm.rank == 0:
        shutil.rmtree(made)


def files(directory, comm, count=21):
    """The same empty files on all ranks."""
    if comm.rank == 0:
        for number in range(count):
            (directory / str(number)).touch()
    comm.mpi.Barrier()
    return [File(directory / str(number)) for number in range(count)]


def test_each_is_done_once_and_known_to_all(comm, directory):
    items, mine, steps = files(directory, comm), [], []

    def work(item):
        mine.append(item.id)
        return {"rank": comm.rank}, np.full(3, int(item.id))

    store = open_cache(directory / "x.h5", WorkingRanks(comm, lambda line: None), items)
    records = store.each("work", items, work, steps.append)
    for number, record in enumerate(records):
        assert np.array_equal(record.pixels(), [number] * 3)
    counts = [sum(record.facts["rank"] == rank for record in records) for rank in range(comm.size)]
    assert max(counts) - min(counts) <= 1
    assert len(mine) == counts[comm.rank]
    assert steps == sorted(steps)
    assert steps[-1:] == ([21] if comm.rank == 0 else [])
    assert store.finish(lambda: "written") == ("written" if comm.rank == 0 else None)
    comm.mpi.Barrier()
    assert not store.directory.exists()


def test_bad_input_of_one_rank_is_raised_on_all_and_the_rest_is_kept(comm, directory):
    items = files(directory, comm)

    def work(item, bad="20"):
        if item.id == bad:
            raise InputError(f"file {bad} is bad")
        return {}, None

    for kept in (0, 20):
        store = open_cache(directory / "x.h5", WorkingRanks(comm, lambda line: None), items)
        assert len(store.records) == kept
        with pytest.raises(InputError, match="^file 20 is bad$"):
            store.each("work", items, work, lambda done: None)


def test_text_of_rank_0_and_its_errors_reach_all(comm):
    workers = WorkingRanks(comm, lambda line: None)
    assert workers.broadcast(f"from {comm.rank}") == "from 0"
    assert workers.on_root(lambda: comm.rank) == (0 if comm.rank == 0 else None)

    def fail():
        raise InputError(f"on {comm.rank}")

    with pytest.raises(InputError, match="^on 0$"):
        workers.on_root(fail)
