import numpy as np
import pytest
import torch

from ddhpc.config import Coarse
from ddhpc.method import coarse
from ddhpc.method.coarse import epochs, solve, subdomain_dropout
from ddhpc.method.fusions import accuracy_without, by_blocks, mean, vote
from ddhpc.method.metrics import accuracy, margin
from ddhpc.models.dnn import Dnn


def solved(local, labels, config, learned=None):
    """The coarse problem of local decisions without features."""
    return solve(local, labels, local["train"].shape[2], config, "cpu", learned)


def decisions(*shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


def test_mean_is_the_average_probability():
    local = decisions(5, 7, 3)
    assert np.allclose(mean(local), sum(local.astype(np.float64)) / 5)


def test_vote_counts_one_vote_a_subdomain():
    local = decisions(9, 200, 4)
    for sample in range(200):
        counts = np.bincount(local[:, sample].argmax(axis=1), minlength=4)
        assert counts[vote(local)[sample].argmax()] == counts.max()


def test_a_tie_goes_to_the_class_with_the_higher_average_probability():
    local = np.array([[[0.5, 0.4, 0.1]], [[0.1, 0.9, 0.0]]], dtype=np.float32)
    assert vote(local)[0].argmax() == 1


@pytest.mark.parametrize("fusion", [mean, vote])
def test_final_decisions_are_probabilities(fusion):
    final = fusion(decisions(6, 50, 10))
    assert final.dtype == np.float32
    assert (final >= 0).all()
    assert np.allclose(final.sum(axis=1), 1, atol=1e-5)


def informative_subdomain(samples, seed):
    """Two classes, told by subdomain 2 of 8 alone; the others are noise that outvotes it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, samples)
    local = decisions(8, samples, 2, seed=seed + 1)
    right = 0.6 * np.eye(2, dtype=np.float32)[labels] + 0.2
    local[2] = right
    return local, labels


def test_dnn_finds_the_subdomain_that_knows():
    local, labels = {}, {}
    for seed, split in enumerate(("train", "val", "test")):
        local[split], labels[split] = informative_subdomain(600, 10 * seed)
    torch.manual_seed(0)
    solution = solved(local, labels, Coarse(epochs=40))
    final, history = solution.fusions["dnn"], solution.history
    assert accuracy(final["test"], labels["test"]) > 0.97
    assert accuracy(vote(local["test"]), labels["test"]) < 0.9
    assert np.allclose(final["test"].sum(axis=1), 1, atol=1e-5)
    assert len(history.loss) == 40
    assert history.loss[-1] < history.loss[0]


def faint_subdomains(samples, seed):
    """Ten classes; each of 512 subdomains gives the right one a hundredth more on average."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, samples)
    local = rng.random((512, samples, 10), np.float32)
    local[:, np.arange(samples), labels] += 0.05
    return local / local.sum(2, keepdims=True), labels


def test_dnn_learns_from_many_subdomains_that_each_know_little():
    made = {split: faint_subdomains(count, count) for split, count in (("train", 3000), ("val", 100), ("test", 500))}
    local, labels = ({split: pair[which] for split, pair in made.items()} for which in (0, 1))
    torch.manual_seed(0)
    final = solved(local, labels, Coarse(epochs=6)).fusions["dnn"]["test"]
    assert accuracy(final, labels["test"]) > 0.6


def test_an_absent_subdomain_is_one_without_an_opinion():
    local = decisions(3, 20, 4)
    absent, undecided = local.copy(), local.copy()
    absent[1], undecided[1] = 0, 0.25
    torch.manual_seed(0)
    network = Dnn(3, 4, 0, (8,), 0.5)
    torch.nn.init.normal_(network.layers[-1].weight)
    assert np.allclose(coarse.decide(network, absent), coarse.decide(network, undecided), atol=1e-6)
    assert not np.allclose(coarse.decide(network, absent), coarse.decide(network, local), atol=1e-3)


def three_splits(make):
    made = {split: make(400, 10 * seed) for seed, split in enumerate(("train", "val", "test"))}
    return {split: local for split, (local, _) in made.items()}, {split: labels for split, (_, labels) in made.items()}


def test_the_same_seed_gives_the_same_bits():
    local, labels = three_splits(informative_subdomain)
    solutions = []
    for _ in range(2):
        torch.manual_seed(5)
        solutions.append(solved(local, labels, Coarse(epochs=2)))
    assert np.array_equal(solutions[0].fusions["dnn"]["train"], solutions[1].fusions["dnn"]["train"])
    assert solutions[0].history.loss == solutions[1].history.loss


def test_decisions_stored_sample_by_sample_in_blocks_give_the_same_bits(monkeypatch):
    local, labels = three_splits(informative_subdomain)
    by_sample = {split: np.ascontiguousarray(each.swapaxes(0, 1)).swapaxes(0, 1) for split, each in local.items()}
    solutions, config, learned = [], Coarse(epochs=2, allow_missing=1), np.arange(0, 400, 3)
    for decided in (local, by_sample):
        torch.manual_seed(5)
        solutions.append(solved(decided, labels, config, learned))
    for fusion, expected in solutions[0].fusions.items():
        for split in expected:
            assert np.array_equal(solutions[1].fusions[fusion][split], expected[split])
        assert np.array_equal(solutions[0].absent[fusion], solutions[1].absent[fusion])
    assert solutions[0].history.loss == solutions[1].history.loss
    monkeypatch.setattr(coarse, "BLOCK", 7)
    assert np.array_equal(by_blocks(vote, local["test"]), vote(local["test"]))


def redundant_subdomains(samples, seed):
    """Two classes, told by each of 6 subdomains rightly in four cases of five."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, samples)
    told = np.where(rng.random((6, samples)) < 0.8, labels, 1 - labels)
    return (0.6 * np.eye(2)[told] + 0.2).astype(np.float32), labels


def test_absent_subdomains_neither_vote_nor_count_in_the_mean():
    local, _ = redundant_subdomains(50, 0)
    some = local.copy()
    some[[1, 4]] = 0
    assert np.allclose(mean(some), mean(local[[0, 2, 3, 5]]))
    assert np.allclose(vote(some), vote(local[[0, 2, 3, 5]]))


def test_subdomain_dropout_zeroes_whole_subdomains():
    torch.manual_seed(0)
    dropped = subdomain_dropout(torch.ones(2000, 5 * 3), 5, 2).view(2000, 5, 3)
    assert ((dropped == 0).all(2) | (dropped == 1).all(2)).all()
    absent = (dropped[:, :, 0] == 0).sum(1)
    assert set(absent.tolist()) == {0, 1, 2}
    assert 500 < (absent == 1).sum() < 830
    assert all(300 < column < 500 for column in (dropped[:, :, 0] == 0).sum(0).tolist())


def test_accuracy_falls_gently_with_the_number_of_absent_subdomains():
    local, labels = three_splits(redundant_subdomains)
    torch.manual_seed(0)
    solution = solved(local, labels, Coarse(epochs=30, allow_missing=3))
    for name, found in solution.absent.items():
        assert found.shape == (4,)
        assert found[0] == accuracy(solution.fusions[name]["test"], labels["test"])
        assert found[0] > found[3] > 0.75


def test_no_more_subdomains_are_taken_away_than_there_are():
    local, labels = redundant_subdomains(50, 0)
    local[:4] = 0
    found = accuracy_without(mean, local, labels, 3)
    assert np.isfinite(found).tolist() == [True, True, False, False]


def few_of_many_classes(each, seed):
    """Forty classes with `each` images; one subdomain of 16 knows them and is hardly surer than the others."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(40), each)
    logits = rng.normal(size=(16, len(labels), 40))
    logits[3] += 5 * np.eye(40)[labels]
    weights = np.exp(0.4 * logits)
    return (weights / weights.sum(2, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_dnn_is_not_worse_than_mean_on_240_images_of_40_classes(seed):
    each = {"train": 6, "val": 1, "test": 25}
    made = {split: few_of_many_classes(count, 3 * seed + count) for split, count in each.items()}
    local, labels = ({split: pair[which] for split, pair in made.items()} for which in (0, 1))
    torch.manual_seed(seed)
    fusions = solved(local, labels, Coarse()).fusions
    above, error = margin(fusions["dnn"]["test"], fusions["mean"]["test"], labels["test"])
    assert above >= -error


@pytest.mark.parametrize("images", [1, 2, 80, 128, 129, 240, 2184, 6000, 50_000])
@pytest.mark.parametrize("batch_size", [16, 128])
def test_the_least_number_of_steps_does_not_depend_on_the_images(images, batch_size):
    found = epochs(Coarse(batch_size=batch_size), images)
    steps = found * -(-images // batch_size)
    assert steps >= 1000
    assert found == 30 or steps < 1000 + -(-images // batch_size)


def test_epochs_that_are_asked_for_are_made():
    local, labels = three_splits(informative_subdomain)
    assert epochs(Coarse(epochs=3), 400) == 3
    assert len(solved(local, labels, Coarse(epochs=3)).history.loss) == 3
    assert len(solved(local, labels, Coarse(), np.arange(200)).history.loss) == epochs(Coarse(), 200) == 500


def with_features(seed):
    """Local outputs whose decisions know nothing, and whose features of subdomain 1 tell the class."""
    labels = np.random.default_rng(seed).integers(0, 3, 300)
    features = np.random.default_rng(seed + 1).normal(100, 5, (4, 300, 6)).astype(np.float32)
    features[1, np.arange(300), labels] += 20
    features[2, :, 5] = 7  # constant
    return np.concatenate([decisions(4, 300, 3, seed=seed + 2), features], axis=2), labels


def test_features_are_learned_from_standardised_and_what_is_constant_harms_nothing():
    made = {split: with_features(10 * seed) for seed, split in enumerate(("train", "val", "test"))}
    local, labels = ({split: pair[which] for split, pair in made.items()} for which in (0, 1))
    torch.manual_seed(0)
    solution = solve(local, labels, 3, Coarse(), "cpu")
    assert accuracy(solution.fusions["dnn"]["test"], labels["test"]) > 0.9
    assert accuracy(solution.fusions["mean"]["test"], labels["test"]) < 0.5
    network = solution.network
    expected = local["train"][:, :, 3:].astype(float)
    assert np.allclose(network.feature_mean.numpy(), expected.mean(axis=1), rtol=1e-5)
    assert network.feature_scale[2, 5] == 0
    assert np.allclose(network.feature_scale.numpy()[:2], 1 / expected[:2].std(axis=1), rtol=1e-4)


def test_before_training_the_dnn_is_the_average_log_probability():
    local = decisions(5, 40, 3)
    final = coarse.decide(Dnn(5, 3, 0, (8,), 0.5), local)
    average = np.exp(np.log(local.astype(float).clip(1e-4)).mean(axis=0))
    assert np.allclose(final, average / average.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_features_of_an_absent_subdomain_count_as_their_mean():
    local, _ = with_features(0)
    network = Dnn(4, 3, 6, (8,), 0.5)
    torch.nn.init.normal_(network.layers[-1].weight)
    network.standardise(*coarse.moments(local[:, :, 3:], np.arange(300)))
    absent, usual = local.copy(), local.copy()
    absent[1] = 0
    usual[1, :, :3], usual[1, :, 3:] = 1 / 3, local[1, :, 3:].mean(axis=0)
    assert np.allclose(coarse.decide(network, absent), coarse.decide(network, usual), atol=1e-4)
    assert not np.allclose(coarse.decide(network, absent), coarse.decide(network, local), atol=1e-2)


def unsure(samples, rare, seed):
    """Two classes, `rare` images of the second; each of 4 subdomains is a little surer of the right one."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation((np.arange(samples) < rare).astype(np.int64))
    shares = np.clip(0.5 + 0.08 * (2 * labels - 1) + rng.normal(0, 0.15, (4, samples)), 0.01, 0.99)
    return np.stack([1 - shares, shares], 2).astype(np.float32), labels


@pytest.mark.parametrize("way", [{"class_weight": "balanced"}, {"sampling": "balanced"}])
def test_the_dnn_finds_a_rare_class(way):
    made = {split: unsure(400, rare, n) for n, (split, rare) in enumerate((("train", 20), ("val", 20), ("test", 200)))}
    local, labels = ({split: each[part] for split, each in made.items()} for part in (0, 1))
    found = []
    for options in ({"class_weight": "none"}, way):
        torch.manual_seed(0)
        final = solved(local, labels, Coarse(epochs=20, **options)).fusions["dnn"]["test"]
        found.append(accuracy(final[labels["test"] == 1], np.ones(200)))
    assert found[0] < 0.5
    assert found[1] > found[0] + 0.3


def trained(local, labels, **options):
    """The coarse DNN that is trained, and looked at, on local outputs of two classes, and its history."""
    torch.manual_seed(0)
    both = {"train": local, "val": local}, {"train": labels, "val": labels}
    return coarse.train_dnn(*both, 2, Coarse(**options), "cpu")


@pytest.mark.parametrize("way", [{"class_weight": "sqrt"}, {"class_weight": "balanced"}, {"sampling": "balanced"}])
def test_on_classes_of_equal_size_all_ways_have_the_same_bits(way):
    local, _ = unsure(90, 0, 0)
    labels, weights = np.resize([0, 1], 90), []
    for options in ({"class_weight": "none"}, way):
        torch.manual_seed(0)
        weights.append(trained(local, labels, epochs=2, **options)[0].state_dict())
    assert all(torch.equal(values, weights[1][name]) for name, values in weights[0].items())


def test_by_default_the_dnn_weighs_by_the_square_root_unless_draws_are_balanced():
    assert coarse.class_weight(Coarse()) == "sqrt"
    assert coarse.class_weight(Coarse(sampling="balanced")) == "none"
    assert coarse.class_weight(Coarse(class_weight="none")) == "none"
    local, labels = unsure(90, 10, 0)
    weights = {}
    for kind in ("auto", "none", "sqrt"):
        torch.manual_seed(0)
        network, _ = trained(local, labels, epochs=2, class_weight=kind)
        weights[kind] = network.layers[-1].bias
    assert torch.equal(weights["auto"], weights["sqrt"])
    assert not torch.equal(weights["auto"], weights["none"])


def overfitting():
    """Few noisy decisions to learn from, whose labels say little, and as many others to be looked at with."""
    rng = np.random.default_rng(3)
    labels = {split: rng.integers(0, 2, 80) for split in ("train", "val")}
    right = {split: 0.2 * np.eye(2, dtype=np.float32)[each] for split, each in labels.items()}
    local = {split: 0.8 * decisions(12, 80, 2, seed=seed) + right[split] for seed, split in enumerate(labels)}
    return local, labels


def fit(**options):
    local, labels = overfitting()
    torch.manual_seed(0)
    return coarse.train_dnn(
        local, labels, 2, Coarse(epochs=40, learning_rate=0.03, dropout=0.0, class_weight="none", **options), "cpu"
    )


def val_loss(network):
    local, labels = overfitting()
    final = coarse.decide(network, local["val"])
    return float(-np.log(final[np.arange(80), labels["val"]]).mean())


def test_the_best_epoch_is_kept_where_that_is_asked_for():
    last, history = fit()
    best, same = fit(keep="best")
    assert same.val_loss == history.val_loss
    assert history.loss[-1] < history.loss[0]
    assert 1 <= history.best < 40, "it overfits"
    assert val_loss(last) == pytest.approx(history.val_loss[-1], rel=1e-5)
    assert val_loss(best) == pytest.approx(min(history.val_loss), rel=1e-5)


def test_it_stops_when_its_patience_ends():
    _, whole = fit()
    stopped, history = fit(patience=3)
    assert len(history) == history.best + 3 < 40
    assert history.loss == whole.loss[: len(history)]
    assert val_loss(stopped) == pytest.approx(history.val_loss[-1], rel=1e-5)
