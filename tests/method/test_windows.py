"""Held and streamed images: the same pixels, the same bits of training, in 2D and 3D, and from any step on."""

import tempfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from ddhpc.config import Config, Data, Decomposition, Local
from ddhpc.data.packed import SPLITS, open_packed
from ddhpc.errors import InputError
from ddhpc.method.decomposition import extent, grow
from ddhpc.method.local import LocalProblem, Validation, local_outputs, train_local
from ddhpc.method.problem import open_problem
from ddhpc.method.windows import AHEAD, Held, Streamed, load_windows
from ddhpc.models import build
from ddhpc.results import checkpoint, identity
from tests.conftest import make_older, pack_small

SILENT = lambda fraction, history, state: None  # noqa: E731
AUGMENTED = Local(epochs=2, batch_size=16, shift=1, flip=True, rotate=10, intensity=0.1)


KINDS = [((16, 14), "uint8", 3), ((16, 14), "float32", 1), ((12, 10, 8), "int16", 1), ((12, 10, 8), "uint16", 3)]


@pytest.fixture(params=KINDS)
def packed(request, tmp_path):
    shape, dtype, channels = request.param
    grey = open_packed(pack_small(tmp_path / "grey.h5", shape, dtype))
    return grey if channels == 1 else in_colour(tmp_path / "colour.h5", grey, samples=25)


def in_colour(path, source, samples):
    """The packed file again, in three channels that differ, and with so many images in a chunk."""
    path.write_bytes(source.path.read_bytes())
    with h5py.File(path, "r+") as file:
        for split in SPLITS:
            pixels = file[f"{split}/image"][...]
            del file[f"{split}/image"]
            shape = (samples, 3, *[4] * source.dimensions)
            file.create_dataset(
                f"{split}/image", data=np.concatenate([pixels, pixels // 2, 3 * pixels], 1), chunks=shape
            )
        for name in ("mean", "std"):
            del file[f"statistics/{name}"]
            file[f"statistics/{name}"] = np.array([60.0, 30.0, 90.0])
    return open_packed(make_older(path))


def both(packed, split="train", margin=2):
    """The same images held and streamed."""
    window = tuple(slice(0, size // 2 + 1) for size in packed.image_shape)
    grown, core = grow(window, [margin] * len(window), packed.image_shape)
    held, streamed = (load_windows(packed, split, grown, core, "cpu", streamed=streamed) for streamed in (False, True))
    assert isinstance(held, Held)
    assert isinstance(streamed, Streamed)
    return held, streamed


def network(packed, window):
    torch.manual_seed(4)
    return build("resnet", channels=packed.channels, classes=3, window=window, width=4, depth=None)


@pytest.mark.parametrize("split", SPLITS)
def test_streamed_batches_are_those_that_are_held(packed, split):
    held, streamed = both(packed, split)
    assert len(held) == len(streamed) == packed.samples[split]
    order = torch.randperm(len(held)).split(7)
    found = list(streamed.batches(order))
    for batch, ours, theirs in zip(order, found, held.batches(order), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        assert len(ours) == len(batch)
    grown = tuple(slice(0, size // 2 + 3) for size in packed.image_shape)
    assert np.array_equal(held.pixels.numpy(), packed.read(split, grown))


@pytest.mark.parametrize("margin", [0, 4])
def test_streamed_training_has_the_bits_of_held(packed, margin):
    config = AUGMENTED if margin else Local(epochs=2, batch_size=16)
    results = []
    for images in both(packed, margin=margin):
        cnn = network(packed, extent(images.core))
        seen = Validation(images=images, labels=packed.labels["train"])
        problem = LocalProblem(images=images, labels=packed.labels["train"], config=config, validation=seen)
        history = train_local(cnn, problem, SILENT)
        results.append((cnn.state_dict(), history, local_outputs(cnn, images, "float32")))
    (ours, history, decisions), (theirs, other_history, other_decisions) = results
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (history.loss, history.accuracy) == (other_history.loss, other_history.accuracy)
    assert history.val_loss[-1] == other_history.val_loss[-1] > 0
    assert np.array_equal(decisions, other_decisions)


class Halt(Exception):
    pass


@pytest.mark.parametrize("streams", [(True, False), (False, True), (True, True)])
def test_a_checkpoint_of_one_continues_with_the_other(packed, streams, tmp_path):
    """6 steps an epoch; stopped in the middle of the second."""
    images = dict(zip((False, True), both(packed, margin=4), strict=True))
    labels, window = packed.labels["train"], extent(images[False].core)
    undisturbed = network(packed, window)
    train_local(undisturbed, LocalProblem(images=images[False], labels=labels, config=AUGMENTED), SILENT)

    def on_step(fraction, history, state):
        if round(12 * fraction) == 9:
            checkpoint.save(tmp_path / "x.pt", state(), "r")
            raise Halt

    before, after = streams
    with pytest.raises(Halt):
        train_local(
            network(packed, window), LocalProblem(images=images[before], labels=labels, config=AUGMENTED), on_step
        )
    torch.manual_seed(77)
    saved, _ = checkpoint.load(tmp_path / "x.pt", "r")
    again = network(packed, window)
    train_local(again, LocalProblem(images=images[after], labels=labels, config=AUGMENTED), SILENT, saved)
    for ours, theirs in zip(again.state_dict().values(), undisturbed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_batches_are_read_ahead_and_no_farther(packed):
    _, streamed = both(packed)
    asked = []
    batches = streamed.batches(asked.append(batch) or batch for batch in torch.arange(90).split(9))
    next(batches)
    assert len(asked) == AHEAD + 1
    next(batches)
    assert len(asked) == AHEAD + 2
    batches.close()


def test_the_temporary_file_goes_where_tmpdir_says_and_vanishes(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with pytest.raises(InputError, match=r"--data.memory_limit: no temporary file in .*scratch: .* TMPDIR"):
        both(packed)
    (tmp_path / "scratch").mkdir()
    both(packed)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(("gib", "expected"), [(None, False), (0.0, True), (1.0, False)])
def test_the_limit_decides(small, gib, expected):
    config = Config(data=Data(file=str(small), memory_limit=gib), decomposition=Decomposition(grid=(2, 2)))
    problem = open_problem(config)
    assert [problem.streamed(n) for n in range(4)] == [expected] * 4


def test_a_run_may_continue_with_another_limit(small):
    config = Config(data=Data(file=str(small)), decomposition=Decomposition(grid=(2, 2)))
    limited = replace(config, data=Data(file=str(small), memory_limit=0.5))
    digest = open_problem(config).packed.digest
    assert open_problem(limited).packed.digest == digest
    assert identity(config, digest) == identity(limited, digest)
