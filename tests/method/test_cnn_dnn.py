"""The CNN-DNN as one network against what the training computes subdomain by subdomain."""

import numpy as np
import pytest
import torch

from ddhpc.config import Coarse, Config, Data, Decomposition, Model
from ddhpc.data.packed import SPLITS
from ddhpc.method import coarse
from ddhpc.method.cnn_dnn import CnnDnn, Restriction
from ddhpc.method.coarse_images import coarse_image
from ddhpc.method.local import local_outputs
from ddhpc.method.problem import open_problem
from ddhpc.method.trained import trained
from ddhpc.method.windows import load_windows
from tests.conftest import pack_small


def config(file, grid, inputs="auto", model="resnet", coarse_image=False):
    return Config(
        data=Data(file=str(file)),
        decomposition=Decomposition(grid=grid, overlap=1, coarse_image=coarse_image),
        model=Model(name=model, global_width=8),
        coarse=Coarse(inputs=inputs, hidden=(16,)),
    )


def untrained(problem, absent):
    """Networks with weights and statistics that matter, None for absent subdomains; and the coarse DNN."""
    torch.manual_seed(1)
    local = [None if n in absent else problem.local_cnn(n) for n in range(problem.subdomains)]
    for n, cnn in enumerate(local):
        for weights in cnn.parameters() if cnn else ():
            weights.data += 0.1 * torch.randn_like(weights)
        for _ in range(10 if cnn else 0):  # statistics, without which nothing of an image is left at the end
            cnn(torch.randn(32, problem.packed.channels, *problem.extent(n)))
    classes = len(problem.packed.classes)
    dnn = None
    if problem.subdomains > 1:
        dnn = coarse.coarse_dnn(problem.subdomains, classes, problem.features, problem.config.coarse)
        for weights in dnn.parameters():
            torch.nn.init.normal_(weights, std=0.2)
        for values in dnn.buffers():
            values.uniform_(0.5, 2)
    return local, dnn


def expected(problem, local, dnn, split):
    """As in training."""
    outputs = []
    for n, cnn in enumerate(local):
        images = load_windows(problem.images(n), split, *problem.padded("val", n), "cpu", streamed=False)
        width = len(problem.packed.classes) + problem.features
        absent = np.zeros((len(images), width), np.float32)
        outputs.append(absent if cnn is None else local_outputs(cnn, images, "float32", problem.features))
    return outputs[0] if dnn is None else coarse.decide(dnn, np.stack(outputs))


CASES = {
    "decisions": {"grid": (2, 2), "inputs": "decisions"},
    "features": {"grid": (2, 3)},
    "vgg": {"grid": (1, 2), "model": "vgg"},
    "coarse image": {"grid": (2, 2), "coarse_image": True},
    "global": {"grid": (1, 1)},
}


@pytest.mark.parametrize("absent", [(), (1,)])
@pytest.mark.parametrize("case", CASES)
def test_it_gives_what_the_training_gives(case, absent, small, check):
    if case != "global" or not absent:
        check(config(small, **CASES[case]), absent)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("shape", [(17, 13), (12, 10, 9)])
def test_volumes_and_other_types(shape, dtype, tmp_path, check):
    """Odd extents, where the level of the pyramid is rounded."""
    file = pack_small(tmp_path / "x.h5", shape, dtype)
    check(config(file, (2, 2, 1)[: len(shape)], coarse_image=True), ())


@pytest.fixture
def check():
    def compare(config, absent):
        problem = open_problem(config)
        local, dnn = untrained(problem, absent)
        present = np.array([cnn is not None for cnn in local])
        network = CnnDnn(trained(problem, present), local, dnn)
        whole = tuple(slice(None) for _ in problem.packed.image_shape)
        for split in SPLITS[1:]:
            pixels = problem.packed.read(split, whole)
            with torch.inference_mode():
                final = network(torch.from_numpy(pixels))
            wanted = expected(problem, local, dnn, split)
            assert final.dtype == torch.float32
            assert final.sum(1).numpy() == pytest.approx(1, abs=1e-5)
            assert np.abs(final.numpy() - wanted).max() < 5e-6
            assert wanted.std(axis=0).min() > 1e-3, "images matter"

    return compare


def test_restriction_is_that_of_the_training():
    """To the bit, where the level is rounded and where it is not."""
    rng = np.random.default_rng(0)
    for dtype in ("uint8", "int16", "uint16", "float32"):
        pixels = rng.integers(0, 200, (3, 2, 44, 31)).astype(dtype)
        for shape in ((11, 8), (9, 8), (44, 31), (22, 16), (40, 31)):
            made = Restriction((44, 31), shape, np.dtype(dtype).kind != "f")(torch.from_numpy(pixels))
            assert np.array_equal(made.numpy(), coarse_image(pixels, shape))


@pytest.mark.parametrize("case", ["features", "coarse image"])
def test_it_can_be_exported(case, small):
    problem = open_problem(config(small, **CASES[case]))
    local, dnn = untrained(problem, (1,))
    network = CnnDnn(trained(problem, np.array([cnn is not None for cnn in local])), local, dnn)
    images = torch.randint(0, 255, (2, 1, 16, 14), dtype=torch.uint8)
    exported = torch.export.export(network, (images,)).module()
    with torch.inference_mode():
        assert torch.equal(exported(images), network(images))
