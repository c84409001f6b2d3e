from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from ddhpc.config import Local
from ddhpc.errors import InputError
from ddhpc.method.local import LocalProblem, LocalTraining, Validation, local_outputs, train_local
from ddhpc.method.metrics import accuracy
from ddhpc.method.training import learning_rate, new_optimizer
from ddhpc.method.windows import Images, hold
from ddhpc.results import checkpoint

SILENT = lambda fraction, history, state: None  # noqa: E731


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


def unseen(samples=30, swapped=False):
    """Images to validate with, of other noise; with the other label each, a CNN in training gets worse."""
    pixels, labels = stripes(samples, seed=1)
    return Validation(images=images(pixels), labels=1 - labels if swapped else labels)


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
    assert [len(values) for values in vars(history).values()] == [8] * 6
    assert history.learning_rate[-1] < 0.01 * Local().rate


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


@pytest.mark.parametrize("clip", [0.2, None])
def test_steps_of_adamw_with_warm_up_and_clipped_gradients_are_those_of_a_plain_loop(clip):
    """Eight steps, of which the first two warm up; the norm of the gradient is above the limit at first."""
    pixels, labels = stripes(64)
    options = {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup": 0.25, "clip": clip}
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    plain = deepcopy(cnn)
    config = Local(epochs=8, batch_size=64, learning_rate=0.02, **options)
    history = train_local(cnn, LocalProblem(images=images(pixels), labels=labels, config=config), SILENT)
    optimizer = torch.optim.AdamW(plain.parameters(), weight_decay=0.1)
    inputs, norms = (torch.tensor(pixels, dtype=torch.float32) - 100) / 50, []
    rates = [0.02 / 3, 0.04 / 3, *(0.01 * (1 + np.cos(np.pi * step / 6)) for step in range(6))]
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(inputs), torch.tensor(labels)).backward()
        norms.append(torch.cat([weights.grad.flatten() for weights in plain.parameters()]).norm().item())
        for weights in plain.parameters() if clip and norms[-1] > clip else ():
            weights.grad *= clip / norms[-1]
        optimizer.step()
    assert max(norms) > 0.3
    assert history.learning_rate == pytest.approx(rates)
    for ours, theirs in zip(cnn.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_one_cycle_rises_for_the_share_that_is_asked_for():
    rates = [learning_rate(Local(warmup=0.5, learning_rate=1.0), step, 20) for step in range(20)]
    assert rates[0] == pytest.approx(1 / 25)
    assert np.argmax(rates) == 9
    assert rates[-1] < 1e-4


@pytest.mark.parametrize("steps", [5, 20, 101])
@pytest.mark.parametrize("warmup", ["auto", 0.0, 0.3])
@pytest.mark.parametrize("name", ["onecycle", "cosine"])
def test_rates_are_those_of_torch(name, warmup, steps):
    """Its one-cycle to the bit; its cosine, which it makes of the rate before, but for rounding."""
    config = Local(schedule=name, warmup=warmup, learning_rate=0.3)
    optimizer = new_optimizer(small_cnn(), config)
    share = {"onecycle": 0.25, "cosine": 0.0}[name] if warmup == "auto" else warmup
    rising = int(share * steps)
    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, optimizer)
    if share * steps <= 1:
        theirs = cosine(steps)
    elif name == "onecycle":
        theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=steps, pct_start=share)
    else:
        first = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), 1.0, rising)
        theirs = torch.optim.lr_scheduler.SequentialLR(optimizer, [first, cosine(steps - rising)], [rising])
    expected = []
    for _ in range(steps):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    found = [learning_rate(config, step, steps) for step in range(steps)]
    if name == "onecycle" and share * steps > 1:
        assert found == expected
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


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
        lambda fraction, history, state: seen.append((fraction, history.latest()[0])),
    )
    assert [fraction for fraction, _ in seen] == pytest.approx(np.arange(1, 9) / 8)
    assert np.isnan(seen[3][1])
    assert 0 <= seen[4][1] <= 1


class Halt(Exception):
    pass


@pytest.mark.parametrize("steps", [1, 5, 6, 8, 17, 18])
@pytest.mark.parametrize(
    "options",
    [{}, {"schedule": "cosine"}, {"schedule": "cosine", "warmup": 0.4, "optimizer": "adamw", "clip": 0.1}],
    ids=["onecycle", "cosine", "adamw"],
)
def test_a_training_goes_on_from_any_step_with_the_same_bits(steps, options, tmp_path):
    """6 steps an epoch: the stops are within an epoch, at its end, and at the end of the last. Epoch 1 is the best."""
    pixels, labels = stripes(48)
    config = Local(epochs=3, batch_size=8, shift=1, flip=True, validate_every=1, keep="best", **options)
    problem = LocalProblem(images=images(pixels), labels=labels, config=config, validation=unseen(swapped=True))

    def on_step(fraction, history, state):
        if round(18 * fraction) == steps:
            checkpoint.save(tmp_path / "x.pt", state(), "r")
            raise Halt

    undisturbed = small_cnn()
    expected = train_local(undisturbed, problem, SILENT)
    with pytest.raises(Halt):
        train_local(small_cnn(), problem, on_step)
    again = small_cnn()
    torch.manual_seed(77)
    saved, damaged = checkpoint.load(tmp_path / "x.pt", "r")
    assert damaged == []
    found = train_local(again, problem, SILENT, saved)
    assert expected.best == 1 or options.get("optimizer")
    for ours, theirs in zip(again.state_dict().values(), undisturbed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    for name in ("loss", "accuracy", "learning_rate", "val_loss", "val_accuracy"):
        assert np.array_equal(getattr(found, name), getattr(expected, name), equal_nan=True), name


@pytest.mark.parametrize("way", [{}, {"class_weight": "balanced", "label_smoothing": 0.1}])
def test_validation_gives_the_loss_on_val_and_leaves_the_bits_of_the_training(way):
    """After epochs 3 and 5 of 5, for weights kept at their last steps: torch's own loss of the logits."""
    pixels, labels = unequal(60)
    config = Local(epochs=5, batch_size=20, shift=1, flip=True, **way)
    found, kept, numbers = [], [], []

    def on_step(fraction, history, state):
        if round(15 * fraction) in (9, 15):
            kept.append(deepcopy(state()["cnn"]))

    for every, step in ((None, SILENT), (3, on_step)):
        cnn = small_cnn().insert(2, nn.Dropout(0.2))
        own = replace(config, validate_every=every)
        problem = LocalProblem(images=images(pixels), labels=labels, config=own, validation=unseen())
        found.append((train_local(cnn, problem, step), cnn.state_dict()))
        numbers.append(torch.rand(3).tolist())
    (without, its_weights), (history, weights) = found
    assert numbers[0] == numbers[1]
    assert (without.loss, without.accuracy) == (history.loss, history.accuracy)
    assert all(torch.equal(values, its_weights[name]) for name, values in weights.items())
    assert np.isnan(without.val_loss).all()
    assert np.isnan(history.val_loss).tolist() == [True, True, False, True, False]
    assert np.isnan(history.val_accuracy).tolist() == [True, True, False, True, False]
    counts = np.bincount(labels)
    weight = torch.tensor(60 / (2 * counts) if way else [1.0, 1.0], dtype=torch.float32)
    for epoch, state in zip((2, 4), kept, strict=True):
        cnn = small_cnn().insert(2, nn.Dropout(0.2)).eval()
        cnn.load_state_dict(state)
        pixels, target = stripes(30, seed=1)
        logits = cnn((torch.tensor(pixels, dtype=torch.float32) - 100) / 50)
        loss = nn.functional.cross_entropy(logits, torch.tensor(target), weight, reduction="sum") / 30
        assert history.val_loss[epoch] == pytest.approx(loss.item(), rel=1e-5)
        assert history.val_accuracy[epoch] == (logits.argmax(1).numpy() == target).mean()


@pytest.mark.parametrize(
    ("options", "epochs", "kept"),
    [
        ({"keep": "last"}, 12, 12),
        ({"keep": "best"}, 12, 4),
        ({"keep": "best", "patience": 3}, 7, 4),
        ({"keep": "last", "patience": 3}, 7, 7),
        ({"keep": "best", "patience": 8, "validate_every": 3}, 12, 3),
        ({"keep": "best", "patience": 3, "validate_every": 3}, 6, 3),
    ],
)
def test_the_epoch_with_the_lowest_loss_on_val_is_kept(options, epochs, kept):
    """By hand: of images that show nothing a CNN learns the share of the classes, 9 to 1, and of val it is 7 to 3.

    On its way it passes that: the loss on val falls and then rises.
    """
    grey = np.full((10, 1, 8, 8), 100, np.uint8)
    labels, seen = np.repeat([0, 1], [9, 1]), np.repeat([0, 1], [7, 3])
    config = replace(
        Local(epochs=12, batch_size=10, learning_rate=0.35, schedule="cosine", momentum=0.0, weight_decay=0.0),
        **{"validate_every": 1, **options},
    )
    cnn = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.zeros_(cnn[1].bias)
    bias, expected, losses = np.zeros(2), [], []
    for epoch in range(12):
        share = np.exp(bias) / np.exp(bias).sum()
        bias = bias - 0.175 * (1 + np.cos(np.pi * epoch / 12)) * (share - (0.9, 0.1))
        expected.append(bias)
        losses.append(-np.dot((0.7, 0.3), bias - np.log(np.exp(bias).sum())))
    assert np.argmin(losses) + 1 == 4
    validation = Validation(images=images(grey), labels=seen)
    history = train_local(
        cnn, LocalProblem(images=images(grey), labels=labels, config=config, validation=validation), SILENT
    )
    assert len(history) == epochs
    assert cnn[1].bias.detach().numpy() == pytest.approx(expected[kept - 1], rel=1e-4)
    every = config.validate_every
    assert history.val_loss[every - 1 :: every] == pytest.approx(losses[every - 1 : epochs : every], rel=1e-5)


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
    config = Local(schedule=name)
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert min(rates) >= 0
    assert 0.9 * config.rate <= max(rates) <= config.rate


def unequal(samples=60):
    """Stripes of which every tenth image is vertical."""
    pixels, labels = stripes(4 * samples)
    first, second = (np.flatnonzero(labels == kind) for kind in (0, 1))
    chosen = np.sort(np.concatenate([first[: samples - samples // 10], second[: samples // 10]]))
    return pixels[chosen], labels[chosen]


def test_a_weighted_step_is_that_of_the_weighted_images():
    """As `test_a_step_is_that_of_plain_sgd`; the classes weigh n / (K n_k)."""
    pixels, labels = unequal(60)
    config = Local(epochs=1, batch_size=60, learning_rate=0.05, schedule="cosine", momentum=0.0, weight_decay=0.0)
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    reference = deepcopy(cnn)
    problem = LocalProblem(images=images(pixels), labels=labels, config=replace(config, class_weight="balanced"))
    train_local(cnn, problem, SILENT)
    losses = -reference((torch.tensor(pixels, dtype=torch.float32) - 100) / 50).log_softmax(1)[range(60), labels]
    (losses[labels == 0].mean() / 2 + losses[labels == 1].mean() / 2).backward()
    for ours, theirs in zip(cnn.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs - 0.05 * theirs.grad, atol=1e-6)


@pytest.mark.parametrize("way", [{"class_weight": "sqrt"}, {"class_weight": "balanced"}, {"sampling": "balanced"}])
def test_on_classes_of_equal_size_all_ways_have_the_same_bits(way):
    pixels, _ = stripes(48)
    found = []
    for options in ({}, way):
        cnn, config = small_cnn(), Local(epochs=2, batch_size=8, shift=1, **options)
        train_local(cnn, LocalProblem(images=images(pixels), labels=np.resize([0, 1], 48), config=config), SILENT)
        found.append(cnn.state_dict())
    assert all(torch.equal(values, found[1][name]) for name, values in found[0].items())


def test_balanced_draws_are_the_same_on_all_subdomains_in_other_orders():
    pixels, labels = unequal(60)
    config = Local(epochs=1, batch_size=60, sampling="balanced")
    fitted = np.arange(0, 60, 2) if len(set(labels[::2])) == 2 else np.arange(60)
    orders = []
    for subdomain in range(2):
        problem = LocalProblem(images=images(pixels), labels=labels, config=config, fitted=fitted, seed=5)
        torch.manual_seed(subdomain)
        training = LocalTraining(small_cnn(), problem)
        torch.manual_seed(subdomain)
        training.start_epoch()
        orders.append(training.order.tolist())
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert set(orders[0]) <= set(fitted.tolist())
    assert np.bincount(labels[orders[0]]).tolist() == [len(fitted) // 2] * 2


@pytest.mark.parametrize("way", [{"class_weight": "balanced"}, {"sampling": "balanced"}])
def test_a_rare_class_is_learned(way):
    """With natural draws and no weights the CNN has all but given it up after so few steps."""
    pixels, labels = unequal(120)
    unseen, their_labels = stripes(seed=1)
    rare, found = their_labels == 1, []
    for options in ({}, way):
        cnn, config = small_cnn(), Local(epochs=3, batch_size=24, learning_rate=0.05, **options)
        train_local(cnn, LocalProblem(images=images(pixels), labels=labels, config=config), SILENT)
        found.append(local_outputs(cnn, images(unseen), "float32")[rare].argmax(1).mean())
    assert found[0] < 0.2
    assert found[1] > 0.8


@pytest.mark.parametrize("steps", [3, 7, 12])
def test_balanced_draws_go_on_with_the_same_bits(steps, tmp_path):
    """7 steps an epoch."""
    pixels, labels = unequal(60)
    config = Local(epochs=3, batch_size=8, sampling="balanced")
    problem = LocalProblem(images=images(pixels), labels=labels, config=config, seed=5)
    kept = []

    def halt(fraction, history, state):
        kept.append(0)
        if len(kept) == steps:
            checkpoint.save(tmp_path / "0.pt", state(), "run")
            raise Halt

    undisturbed = small_cnn()  # which seeds
    train_local(undisturbed, problem, SILENT)
    with pytest.raises(Halt):
        train_local(small_cnn(), problem, halt)
    again = small_cnn()
    torch.manual_seed(77)
    saved, _ = checkpoint.load(tmp_path / "0.pt", "run")
    train_local(again, problem, SILENT, saved)
    for name, values in undisturbed.state_dict().items():
        assert torch.equal(values, again.state_dict()[name]), name
