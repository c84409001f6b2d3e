from dataclasses import replace

from ddhpc.config import Config, Data, Decomposition, Local, Model
from ddhpc.method.memory import subdomain_memory
from ddhpc.method.problem import open_problem
from ddhpc.method.windows import AHEAD


def test_windows_are_held_or_read_ahead(small):
    config = Config(data=Data(file=str(small)), decomposition=Decomposition(grid=(2, 2)), local=Local(batch_size=40))
    held = open_problem(config)
    streamed = replace(held, config=replace(config, data=Data(file=str(small), memory_limit=0)))
    one, images = 10 * 9, 96 + 30 + 33
    block = held.packed.chunk_samples * one
    for kind, batch in (("cpu", 40), ("cuda", 512)):
        (all_held, *_), (ahead, *_) = (subdomain_memory(problem, kind) for problem in (held, streamed))
        on_device = (AHEAD + 1) * batch * one if kind == "cpu" else 0
        assert (all_held.windows, all_held.streamed) == (images * one, on_device)
        assert (ahead.windows, ahead.streamed, ahead.network) == (on_device, on_device, all_held.network)
        assert ahead.main == (ahead.device if kind == "cpu" else max(block, (AHEAD + 1) * 512 * one))
        assert all_held.main == (max(all_held.device, images * one + block) if kind == "cpu" else block)


def test_a_network_that_reads_values_cannot_be_followed(small, tmp_path, monkeypatch):
    (tmp_path / "reading.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) * (2 if x.sum().item() > 0 else 1)\n"
        "def make(*, channels, classes, dimensions, width, depth):\n"
        "    return Net(nn.Flatten(), nn.LazyLinear(classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    config = Config(
        data=Data(file=str(small)), model=Model(name="reading:make"), decomposition=Decomposition(grid=(2, 2))
    )
    assert subdomain_memory(open_problem(config), "cpu") is None
