import pytest
import torch
from torch.nn.functional import cross_entropy

from ddhpc.method import optimizers

OPTIONS = {"SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}, "AdamW": {"weight_decay": 0.1}}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_steps_are_those_of_torch(name):
    weights = {}
    for module in (optimizers, torch.optim):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
        optimizer = getattr(module, name)(network.parameters(), lr=0.1, fused=True, **OPTIONS[name])
        for step in range(6):
            if step == 3:  # as a checkpoint does
                optimizer.load_state_dict(optimizer.state_dict())
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(network(torch.randn(8, 5)), torch.randint(0, 3, (8,))).backward()
            optimizer.step()
        weights[module] = [values.detach() for values in network.parameters()]
    assert all(map(torch.equal, weights[optimizers], weights[torch.optim]))
