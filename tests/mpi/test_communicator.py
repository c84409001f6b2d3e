import time

import numpy as np
import pytest

from ddhpc.config import Coarse, Config, Data, Run
from ddhpc.errors import InputError
from ddhpc.method.decomposition import owned
from ddhpc.parallel import communicator, placement
from ddhpc.parallel.progress import Progress
from ddhpc.parallel.standing import Accuracy
from ddhpc.results import check_alike

pytestmark = pytest.mark.mpi


def test_together_gives_each_rank_its_value(comm):
    assert comm.together(lambda: comm.rank * 10) == comm.rank * 10


def test_an_error_on_one_rank_is_raised_on_all(comm):
    def fail_on_last():
        if comm.rank == comm.size - 1:
            raise InputError(f"rank {comm.rank} cannot: ü")

    with pytest.raises(InputError, match=f"^rank {comm.size - 1} cannot: ü$"):
        comm.together(fail_on_last)


@pytest.mark.parametrize(
    ("config", "digest", "told"),
    [
        (Config(), "b" * 64, f"data_digest is {'b' * 12}, on rank 0 {'a' * 12}; expected"),
        (Config(run=Run(seed=1)), "a" * 64, "run.seed is 1, on rank 0 0; expected"),
        (Config(coarse=Coarse(memory_limit=1)), "a" * 64, "coarse.memory_limit is 1, on rank 0 None; expected"),
    ],
)
def test_all_ranks_have_to_see_the_same(config, digest, told, comm):
    """Also options of which no result depends: rank 0 alone would skip the gathering that the others wait in."""
    last = comm.size - 1
    check_alike(comm, "here", Config(data=Data(file=f"/node{comm.rank}/x.h5")), "a" * 64)
    if last == 0:
        return
    with pytest.raises(InputError) as error:
        check_alike(comm, f"host{comm.rank}", *((config, digest) if comm.rank == last else (Config(), "a" * 64)))
    assert str(error.value).startswith(f"rank {last} on host{last} does not see what rank 0 sees: {told}")


def test_the_lowest_failing_rank_speaks(comm):
    def fail():
        raise InputError(f"from {comm.rank}")

    with pytest.raises(InputError, match="^from 0$"):
        comm.together(fail)


@pytest.mark.parametrize("text", ["", "a", "runs/größe"])
def test_broadcast_text(comm, text):
    assert comm.broadcast(text if comm.rank == 0 else "something else, longer") == text


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "S5"])
@pytest.mark.parametrize("row", [(), (3,), (2, 3)])
def test_gather_puts_rows_in_the_order_of_the_subdomains(comm, dtype, row):
    subdomains = 2 * comm.size + 1
    everything = np.arange(subdomains * int(np.prod(row))).reshape(subdomains, *row).astype(dtype)
    mine = owned(subdomains, comm.size, comm.rank)
    gathered = comm.gather(everything[mine.start : mine.stop], subdomains)
    if comm.rank == 0:
        assert gathered.dtype == everything.dtype
        assert np.array_equal(gathered, everything)
    else:
        assert len(gathered) == 0


def test_flags_and_values_of_all_ranks(comm):
    last = comm.rank == comm.size - 1
    assert comm.any(last, False, True) == [True, False, True]
    assert comm.lowest(7 - comm.rank) == 8 - comm.size


def test_waiting_does_not_burn_the_core(comm):
    ticks = []
    if comm.rank == 0:
        time.sleep(0.5)
    started = time.process_time()
    communicator.wait(comm.mpi.Ibarrier(), lambda: ticks.append(1))
    if comm.rank != 0:
        assert len(ticks) > 5
        assert time.process_time() - started < 0.3


def test_place_shares_the_cores_out(comm, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    place = placement.place(comm, Run(device="cpu"))
    assert place.device == "cpu"
    assert place.local_rank == comm.rank
    assert place.local_ranks == comm.size
    assert place.threads >= 1
    assert place.threads * comm.size <= max(place.cores, comm.size)


def test_threads_that_the_user_set_are_taken(comm, monkeypatch):
    """`--run.threads`, else OMP_NUM_THREADS where OpenMP would obey it."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert placement.place(comm, Run(device="cpu")).threads == 3
    assert torch.get_num_threads() == 3
    assert placement.place(comm, Run(device="cpu", threads=2)).threads == 2
    for nothing in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        place = placement.place(comm, Run(device="cpu"))
        assert 1 <= place.threads * comm.size <= max(place.cores, comm.size)
    torch.set_num_threads(1)


def test_threads_can_be_set(comm):
    import torch

    assert placement.place(comm, Run(device="cpu", threads=2)).threads == 2
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_all_progress_arrives_at_rank_0(comm):
    subdomains = 2 * comm.size
    shares = [owned(subdomains, comm.size, rank) for rank in range(comm.size)]
    with Progress(comm, shares, epochs=3) as progress:
        for subdomain in shares[comm.rank]:
            for step in range(1, 31):
                progress.step(subdomain, step / 30, Accuracy(subdomain / 100, subdomain / 50))
        comm.together(lambda: None, tick=progress.show)
        progress.finish()
    if comm.rank == 0:
        assert progress.standing.done
        assert progress.standing.accuracy == pytest.approx(np.outer(np.arange(subdomains), (0.01, 0.02)))
    assert not comm.mpi.Iprobe()
