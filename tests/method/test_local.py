from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from ddhpc.config import Local
from ddhpc.errors import InputError
from ddhpc.method.local import LocalProblem, local_outputs, train_local
from ddhpc.method.metrics import accuracy
from ddhpc.method.training import schedule, sgd
from ddhpc.method.windows import Images, hold
from ddhpc.results import checkpoint

SILENT = lambda fraction, accuracy, state: None  # noqa: E731


def images(pixels, core=None):
    core = core or tuple(slice(0, size) for size in pixels.shape[2:])
    mean, std = np.full(pixels.shape[1], 100.0), np.full(pixels.shape[1], 50.0)
    return hold([pixels], len(pixels), core, mean, std, "cpu")


def stripes(samples=256, seed=0):
    """Two classes of 8x8 images, horizontal and vertical stripes under noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, samples)
    pattern = 60 * (np.arange(8) % 2)
    pixels = rng.integers(0, 120, (samples, 1, 8, 8))
    pixels += np.where(labels[:, None, None, None] == 1, pattern[:, None], pattern[None, :])
    return pixels.astype(np.uint8), labels


def small_cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


@pytest.mark.parametrize("name", ["onecycle", "cosine"])
def test_a_local_cnn_learns_what_its_window_shows(name):
    cnn = small_cnn()
    pixels, labels = stripes()
    history = train_local(
        cnn,
        LocalProblem(images=images(pixels), labels=labels, config=Local(epochs=8, batch_size=32, schedule=name)),
        SILENT,
    )
    unseen, their_labels = stripes(seed=1)
    decisions = local_outputs(cnn, images(unseen), "float32")
    assert decisions.dtype == np.float32
    assert np.allclose(decisions.sum(axis=1), 1, atol=1e-5)
    assert accuracy(decisions, their_labels) > 0.95
    assert history.loss[-1] < history.loss[0] / 2
    assert [len(values) for values in vars(history).values()] == [8] * 4
    assert history.learning_rate[-1] < 0.01 * Local().learning_rate


def test_a_step_is_that_of_plain_sgd():
    """One epoch of one full batch against the update rule written out, without a normalisation that hides scales."""
    pixels, labels = stripes(64)
    config = Local(
        epochs=1,
        batch_size=64,
        learning_rate=0.05,
        schedule="cosine",
        momentum=0.0,
        weight_decay=0.01,
        label_smoothing=0.2,
    )
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    reference = deepcopy(cnn)
    train_local(cnn, LocalProblem(images=images(pixels), labels=labels, config=config), SILENT)
    inputs = (torch.tensor(pixels, dtype=torch.float32) - 100) / 50
    target = 0.8 * nn.functional.one_hot(torch.tensor(labels), 2) + 0.2 / 2
    (-(target * reference(inputs).log_softmax(1)).sum(1).mean()).backward()
    for ours, theirs in zip(cnn.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs - 0.05 * (theirs.grad + 0.01 * theirs), atol=1e-6)


def test_a_decision_does_not_depend_on_the_other_images():
    """To the bit with one thread."""
    pixels, _ = stripes(40)
    cnn = small_cnn().train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    every = local_outputs(cnn, images(pixels), "float32")
    for some in (slice(5, 9), slice(39, 40), slice(0, 33)):
        assert np.array_equal(every[some], local_outputs(cnn, images(pixels[some]), "float32"))
    torch.set_num_threads(threads)


def test_progress_reports_every_step():
    pixels, labels = stripes(100)
    seen = []
    train_local(
        small_cnn(),
        LocalProblem(images=images(pixels), labels=labels, config=Local(epochs=2, batch_size=25)),
        lambda *step: seen.append(step[:2]),
    )
    assert [fraction for fraction, _ in seen] == pytest.approx(np.arange(1, 9) / 8)
    assert np.isnan(seen[3][1])
    assert 0 <= seen[4][1] <= 1


class Halt(Exception):
    pass


@pytest.mark.parametrize("steps", [1, 5, 6, 8, 17, 18])
@pytest.mark.parametrize("name", ["onecycle", "cosine"])
def test_a_training_goes_on_from_any_step_with_the_same_bits(steps, name, tmp_path):
    """6 steps an epoch: the stops are within an epoch, at its end, and at the end of the last."""
    pixels, labels = stripes(48)
    config = Local(epochs=3, batch_size=8, shift=1, flip=True, schedule=name)

    def on_step(fraction, accuracy, state):
        if round(18 * fraction) == steps:
            checkpoint.save(tmp_path / "x.pt", state(), "r")
            raise Halt

    undisturbed = small_cnn()
    expected = train_local(undisturbed, LocalProblem(images=images(pixels), labels=labels, config=config), SILENT)
    with pytest.raises(Halt):
        train_local(small_cnn(), LocalProblem(images=images(pixels), labels=labels, config=config), on_step)
    again = small_cnn()
    torch.manual_seed(77)
    saved, damaged = checkpoint.load(tmp_path / "x.pt", "r")
    assert damaged == []
    found = train_local(again, LocalProblem(images=images(pixels), labels=labels, config=config), SILENT, saved)
    for ours, theirs in zip(again.state_dict().values(), undisturbed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    for name in ("loss", "accuracy", "learning_rate"):
        assert getattr(found, name) == getattr(expected, name)


def test_a_diverging_training_says_what_to_change():
    pixels, labels = stripes(64)
    with pytest.raises(InputError, match=r"--local.learning_rate 1e\+30: the loss is not finite"):
        train_local(
            small_cnn(),
            LocalProblem(
                images=images(pixels), labels=labels, config=Local(epochs=3, batch_size=16, learning_rate=1e30)
            ),
            SILENT,
        )


def test_fewer_images_than_a_batch():
    pixels, labels = stripes(10)
    history = train_local(
        small_cnn(), LocalProblem(images=images(pixels), labels=labels, config=Local(epochs=2, batch_size=64)), SILENT
    )
    assert np.isfinite(history.loss).all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_every_dtype_of_packed_files_trains(dtype):
    pixels, labels = stripes(32)
    made = images(pixels.astype(dtype))
    assert isinstance(made, Images)
    train_local(
        small_cnn(), LocalProblem(images=made, labels=labels, config=Local(epochs=1, batch_size=16, shift=1)), SILENT
    )
    assert local_outputs(small_cnn(), made, "float32").shape == (32, 2)


def test_bfloat16_is_close_to_float32():
    pixels, _ = stripes(64)
    cnn = small_cnn()
    low, high = (local_outputs(cnn, images(pixels), precision) for precision in ("bfloat16", "float32"))
    assert not np.array_equal(low, high)
    assert np.abs(low - high).max() < 0.05


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 100])
@pytest.mark.parametrize("name", ["onecycle", "cosine"])
def test_few_steps_have_rates_to_learn_with(steps, name):
    cnn, config = small_cnn(), Local(schedule=name)
    optimizer = sgd(cnn, config)
    rate, rates = schedule(optimizer, config, steps), []
    for _ in range(steps):
        rates.append(rate.get_last_lr()[0])
        optimizer.step()
        rate.step()
    assert min(rates) >= 0
    assert 0.9 * config.learning_rate <= max(rates) <= config.learning_rate
