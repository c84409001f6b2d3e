from itertools import islice

import pytest

from ddhpc.cli.plan import run
from ddhpc.config import Config, Data, Decomposition, Model
from ddhpc.errors import InputError
from ddhpc.method.memory import Memory
from ddhpc.method.network_memory import NetworkMemory
from ddhpc.tables import grids
from ddhpc.tables.grids import GridPlan, candidates, print_grids, with_grid


def test_candidates_halve_the_longest_side():
    first = [(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (4, 2, 2), (4, 4, 2), (4, 4, 4), (8, 4, 4), (8, 8, 4)]
    assert list(islice(candidates((512, 512, 256)), 9)) == first
    assert list(candidates((8, 2))) == [(1, 1), (2, 1), (4, 1), (4, 2), (8, 2)]


@pytest.mark.parametrize(("limit", "verdict"), [(170, "yes"), (169, "if streamed"), (125, "if streamed"), (124, "no")])
def test_what_fits(limit, verdict):
    """A program of 10 bytes, 110 for decisions, 50 for windows or 5 for a few batches."""
    network = NetworkMemory(weights=1, step=100, decisions=110)
    memory = Memory(network=network, windows=50, streamed=5, main=0)
    planned = GridPlan(problem=None, memory=memory, program=10)
    assert planned.total == 170
    assert planned.verdict(limit) == verdict
    assert GridPlan(problem=None, memory=None, program=10).verdict(limit) == "unknown"


def test_the_grid_of_ones_is_the_global_cnn():
    config = Config(decomposition=Decomposition(grid=(4, 4), coarse_image=True), model=Model(width=5))
    alone = with_grid(config, (1, 1))
    assert (alone.decomposition.coarse_image, alone.model.width) == (False, "auto")
    assert with_grid(config, (2, 2)).model.width == 5
    assert with_grid(config, (2, 2)).decomposition.coarse_image


def test_the_table_ends_after_so_many_grids_that_fit_and_has_the_configured_one(small, capsys, monkeypatch):
    config = Config(
        data=Data(file=str(small)),
        decomposition=Decomposition(grid=(1, 2), overlap=2),
        model=Model(name="resnet", global_width=4, depth=8),
    )
    monkeypatch.setattr(grids, "PROGRAM_BYTES", 0)
    monkeypatch.setattr(grids, "SHOWN_FITTING", 4)
    print_grids(config, 1.0)
    out = capsys.readouterr().out
    rows = [line.split("│")[1:-1] for line in out.splitlines() if line.startswith("│")]
    shown = [[row[0].strip(), row[1].strip(), row[2].strip(), row[-1].strip()] for row in rows]
    assert shown == [
        ["global CNN 1x1", "16x14", "4", "yes"],
        ["1x2", "16x9", "3", "yes"],
        ["2x1", "10x14", "3", "yes"],
        ["2x2", "10x9", "2", "yes"],
    ]
    assert "159 images of 16x14; resnet, 64 images a step, float32" in out


def test_memory_of_a_device_is_above_zero(small):
    with pytest.raises(InputError, match=r"--device-memory 0: expected GiB above 0"):
        run(["--data.file", str(small), "--device-memory", "0"], 0.0)
