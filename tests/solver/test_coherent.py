"""The settings of the coherent CNN-DNN; its gradients are tested in tests/mpi, its training in tests/jobs."""

import pytest
import torch

from ddhpc.config import Coarse, Coherent, Config, Data, Local
from ddhpc.errors import InputError
from ddhpc.method.problem import open_problem
from ddhpc.solver.coherent import Member, settings
from ddhpc.tables.plan import print_plan, shares


def test_the_rate_is_lower_where_the_networks_are_trained_already():
    rates = {start: settings(Config(coherent=Coherent(start=start))).learning_rate for start in ("scratch", "transfer")}
    assert rates == {"scratch": 0.1, "transfer": pytest.approx(0.01)}
    assert settings(Config(coherent=Coherent(start="transfer", learning_rate=0.5))).learning_rate == 0.5


def test_a_rate_of_its_own_goes_with_each_optimizer():
    local = Local(optimizer="adamw")
    assert (local.rate, Local().rate, Local(optimizer="adamw", learning_rate=0.3).rate) == (0.001, 0.1, 0.3)
    assert settings(Config(local=local, coherent=Coherent(start="transfer"))).rate == pytest.approx(0.0001)


def test_the_gradient_of_each_network_is_clipped_by_itself():
    config = Local(clip=1.0, momentum=0.0, weight_decay=0.0, schedule="cosine")
    networks = [torch.nn.Linear(2, 1, bias=False) for _ in range(2)]
    for network, gradient in zip(networks, ([[3.0, 4.0]], [[0.3, 0.4]]), strict=True):
        torch.nn.init.zeros_(network.weight)
        network.weight.grad = torch.tensor(gradient)
        Member(network, config).step(0.1)
    assert networks[0].weight.flatten().tolist() == pytest.approx([-0.06, -0.08])
    assert networks[1].weight.flatten().tolist() == pytest.approx([-0.03, -0.04])


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
