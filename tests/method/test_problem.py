"""A configuration applied to a packed file."""

import numpy as np

from ddhpc.config import Config, Data, Decomposition, Model
from ddhpc.method.problem import open_problem


def test_auto_width_is_that_of_the_rule(small):
    config = Config(data=Data(file=str(small)), decomposition=Decomposition(grid=(2, 2)), model=Model(global_width=20))
    assert open_problem(config).width == 10
    fixed = Config(data=Data(file=str(small)), decomposition=Decomposition(grid=(2, 2)), model=Model(width=3))
    assert open_problem(fixed).width == 3


def test_the_networks_of_two_subdomains_start_differently(small):
    problem = open_problem(Config(data=Data(file=str(small)), decomposition=Decomposition(grid=(2, 2))))
    first, again, other = (next(problem.local_cnn(n).parameters()).detach().numpy() for n in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
