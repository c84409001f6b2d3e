import re
import shutil
from dataclasses import replace

import pytest

from ddhpc.config import Coarse, Config, Data, Decomposition, Local, Model, Run
from ddhpc.data.packed import SPLITS
from ddhpc.method.decomposition import grow, owned
from ddhpc.method.memory import subdomain_memory
from ddhpc.method.problem import open_problem
from ddhpc.models import parameters
from ddhpc.tables.plan import CONTEXT_BYTES, PROGRAM_BYTES, coarse_image_ranks, print_plan, shares
from ddhpc.wording import mebibytes
from tests.conftest import make_older

LIMIT = 1e-5
"""GiB, between the bytes of the smallest and the largest window."""


@pytest.fixture
def problem(small):
    return open_problem(
        Config(
            data=Data(file=str(small), memory_limit=LIMIT),
            decomposition=Decomposition(grid=(3, 2), overlap=1),
            local=Local(shift=2),
        )
    )


def test_planned_bytes_are_those_that_are_read(problem):
    for n, window in enumerate(problem.decomposition):
        read = 0
        for split in SPLITS:
            margin = 2 if split == "train" else 0
            grown, _ = grow(window, [margin] * 2, problem.packed.image_shape)
            nbytes = problem.packed.read(split, grown).nbytes
            assert problem.window_bytes(n)[split] == nbytes
            read += nbytes
        assert problem.streamed(n) == (read / 2**30 > LIMIT)


def test_planned_ranks_own_every_subdomain_once(problem):
    planned = shares(problem, 4)
    assert [n for share in planned for n in share.subdomains] == list(range(6))
    for share in planned:
        assert share.data_bytes == sum(sum(problem.window_bytes(n).values()) for n in share.subdomains)
        assert share.memory_bytes > PROGRAM_BYTES


def test_the_plan_tells_what_is_streamed(problem, capsys):
    streamed = [n for n in range(problem.subdomains) if problem.streamed(n)]
    assert 0 < len(streamed) < problem.subdomains
    largest = max(sum(problem.window_bytes(n).values()) for n in streamed)
    assert max(share.scratch_bytes for share in shares(problem, 6)) == largest
    assert min(share.scratch_bytes for share in shares(problem, 6)) == 0
    print_plan(problem, 6)
    out = capsys.readouterr().out
    assert "temporary file" in out
    assert mebibytes(largest) in out


def test_a_rank_that_helps_another_needs_as_much_and_owns_nothing(problem):
    owner, helper, *_ = shares(problem, 7)
    assert (list(owner.subdomains), list(helper.subdomains)) == ([0], [])
    assert owner.helps == helper.helps == 0
    assert owner.data_bytes == helper.data_bytes > 0


def test_a_rank_on_a_gpu_needs_memory_there_too(problem, capsys):
    problem = replace(problem, config=replace(problem.config, run=Run(device="cuda")))
    needed = [memory.device for memory in subdomain_memory(problem, "cuda")]
    planned = shares(problem, 2)
    assert [share.device_bytes for share in planned] == [CONTEXT_BYTES + max(needed[n : n + 3]) for n in (0, 3)]
    print_plan(problem, 2)
    most = mebibytes(max(share.device_bytes for share in planned))
    assert f"GPU memory (predicted): {most} a rank at most" in capsys.readouterr().out


def test_the_plan_names_windows_ranks_and_network(problem, capsys):
    print_plan(problem, 2)
    out = capsys.readouterr().out
    assert "6 subdomains (3x2, overlap 1, windows 6x8 to 7x8)" in out
    assert f"a local CNN has {parameters(problem.local_cnn(0)):,} parameters" in out
    assert "4:12, 6:14" in out or "5:12, 6:14" in out
    assert "0 to 2" in out
    one, other = (share.memory_bytes for share in shares(problem, 2))
    assert f"{mebibytes(max(one, other))} a rank at most; {mebibytes(one + other)} on a node that has all 2" in out


def test_the_plan_tells_how_long_the_coarse_dnn_learns_and_that_few_steps_are_few(small, capsys):
    """96 images; of each class of 32 a fifth is held out, 18 in all, for the coarse DNN."""
    grid = Decomposition(grid=(2, 2))
    config = Config(data=Data(file=str(small)), decomposition=grid, coarse=Coarse(decisions="held_out", batch_size=10))
    problem = open_problem(config)
    assert (len(problem.learned), len(problem.fits[0].images)) == (18, 78)
    assert problem.local_steps == 10
    print_plan(problem, None)
    out = capsys.readouterr().out
    assert "only 10 steps for each local CNN: try" in out
    assert "coarse DNN: 500 epochs on 18 images" in out
    more = replace(config, local=Local(epochs=30, batch_size=16), coarse=Coarse(epochs=7))
    print_plan(open_problem(more), None)
    out = capsys.readouterr().out
    assert "steps for each local CNN" not in out
    assert "coarse DNN: 7 epochs on 96 images" in out
    print_plan(open_problem(replace(more, decomposition=Decomposition(grid=(1, 1)))), None)
    assert "coarse DNN" not in capsys.readouterr().out


def test_the_plan_tells_of_the_coarse_image_and_what_the_coarse_dnn_takes(small, capsys):
    decomposition = Decomposition(grid=(2, 2), overlap=1, coarse_image=True, coarse_shape=(10, 7))
    model = Model(global_width=8, coarse_width=6)
    problem = open_problem(Config(data=Data(file=str(small)), decomposition=decomposition, model=model))
    count = parameters(problem.local_cnn(4))
    print_plan(problem, 4)
    out = capsys.readouterr().out
    assert "5 subdomains (2x2, overlap 1, windows 9x8 and the coarse image 10x7)" in out
    coarse = "subdomain 4 is the coarse image: all 16x14 pixels restricted to 10x7, width 6, "
    assert f"{coarse}{count:,} parameters" in out
    assert f"all together {4 * parameters(problem.local_cnn(0)) + count:,}" in out
    count, images = 96 + 30 + 33, "it is computed from whole images, {}, since it is finer than half of them"
    assert images.format(mebibytes(count * 16 * 14)) in out
    assert "With 4 ranks, rank 3 owns the coarse image. With 4 ranks, rank 0 owns two" in " ".join(out.split())
    assert "takes 3 probabilities and 24 local features of each subdomain" in out


def test_the_plan_tells_where_the_coarse_image_is_read(small, tmp_path, capsys):
    path = tmp_path / "older.h5"
    shutil.copy(small, path)
    config = Config(data=Data(file=str(small)), decomposition=Decomposition(grid=(2, 2), coarse_image=True))
    stored, computed = (open_problem(replace(config, data=Data(file=str(f)))) for f in (small, make_older(path)))
    print_plan(stored, 5)
    small_bytes, whole_bytes = 159 * 8 * 7, 159 * 16 * 14
    told = f"it is read from images that the packed file holds restricted to 8x7, {mebibytes(small_bytes)}"
    assert told in capsys.readouterr().out
    print_plan(computed, 5)
    told = f"it is computed from whole images, {mebibytes(whole_bytes)}, since the packed file is of format version 1"
    assert told in capsys.readouterr().out
    coarse_bytes, read_bytes = 4 * 8 * 7, 8 * 16 * 14
    assert subdomain_memory(computed, "cuda")[4].main == computed.packed.chunk_samples * (coarse_bytes + read_bytes)


@pytest.mark.parametrize("parts", [2, 3, 4, 16, 31])
def test_the_plan_tells_which_rank_owns_the_coarse_image(parts):
    """What it says of N and N + 1 ranks, and of any number, against the ranks that own and train subdomains."""
    for ranks in range(1, 3 * parts + 3):
        said, always = coarse_image_ranks(parts + 1, ranks)
        owners = [[*owned(parts + 1, ranks, rank)] for rank in range(ranks)]
        (owner,) = (rank for rank, mine in enumerate(owners) if parts in mine)
        assert f"ranks, rank {owner} owns the coarse image" in said.replace("1 rank,", "1 ranks,")
        span = re.search(r"coarse image(?: and subdomains? (\d+)(?: to (\d+))?)?\.$", said)
        shown = range(int(span[1]), int(span[2] or span[1]) + 1) if span[1] else []
        assert [*shown, parts] == owners[owner]
        assert f"With {parts} ranks, rank 0 owns two" in always
        assert always.endswith(f"with {parts + 1} each owns one.")
    assert [len(owned(parts + 1, parts, rank)) for rank in range(parts)] == [2] + [1] * (parts - 1)
    assert {len(owned(parts + 1, parts + 1, rank)) for rank in range(parts + 1)} == {1}
