"""The settings of the coherent CNN-DNN; its gradients are tested in tests/mpi, its training in tests/jobs."""

import pytest

from ddhpc.config import Coarse, Coherent, Config, Data
from ddhpc.errors import InputError
from ddhpc.method.problem import open_problem
from ddhpc.solver.coherent import settings
from ddhpc.tables.plan import print_plan, shares


def test_the_rate_is_lower_where_the_networks_are_trained_already():
    rates = {start: settings(Config(coherent=Coherent(start=start))).learning_rate for start in ("scratch", "transfer")}
    assert rates == {"scratch": 0.1, "transfer": pytest.approx(0.01)}
    assert settings(Config(coherent=Coherent(start="transfer", learning_rate=0.5))).learning_rate == 0.5


def test_absent_subdomains_do_not_go_with_it():
    with pytest.raises(InputError, match=r"--coherent.start transfer: expected --coarse.allow_missing 0 with it"):
        Config(coherent=Coherent(start="transfer"), coarse=Coarse(allow_missing=1))


def test_a_configuration_without_the_section_is_read():
    text = Config().to_yaml()
    before, after = text.index("coherent:"), text.index("run:")
    assert Config.from_yaml(text[:before] + text[after:]) == Config()


def test_the_plan_tells_traffic_and_memory(small, capsys):
    plain, coherent = (
        open_problem(Config(data=Data(file=str(small)), coherent=Coherent(start=start)))
        for start in ("none", "scratch")
    )
    print_plan(coherent, 2)
    assert (
        "coherent CNN-DNN (scratch): 10 more epochs of all local CNNs; in each step 140.0 KiB"
        in capsys.readouterr().out
    )
    assert all(
        more.memory_bytes > less.memory_bytes for more, less in zip(shares(coherent, 2), shares(plain, 2), strict=True)
    )
