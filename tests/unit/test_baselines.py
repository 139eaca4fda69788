"""The non-federated baselines, on small federations where the right answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from testudo_common.errors import DataError
from testudo_common.learning.tasks import Examples, draw_episode, first_of_each_class
from testudo_common.plan import FederationPlan
from testudo_simulations import baselines
from testudo_simulations.baselines import few_shot, run_baselines
from testudo_simulations.baselines.base import pooled, pooled_rows
from testudo_simulations.baselines.local_regression import best_method, kernel_ridge, ridge
from testudo_simulations.baselines.mixed_model import fit_mixed_model
from testudo_simulations.federations.base import Federation, UnseenClient

TABLE = {"federation": "csv", "client": "client", "target": "target"}


def federation_of(training, unseen, task, model, data=TABLE):
    plan = FederationPlan.model_validate({"name": "test", "data": data, "task": task, "model": model})
    return Federation(plan, training, {name: UnseenClient(*pair) for name, pair in unseen.items()})


def means(arms, metric):
    """(shots, name) -> the metric's mean over clients."""
    return {(arm.shots, arm.name): np.mean([score.metrics[metric] for score in arm.scores]) for arm in arms}


# ---- regression


def linear_federation(clients=40, rows=30, noise=0.3):
    """Every client's intercept and two slopes are a draw around common ones."""
    rng = np.random.default_rng(5)

    def client():
        inputs = rng.normal(3.0, 2.0, size=(rows, 2))
        slopes, level = np.array([2.0, -1.0]) + rng.normal(0, 0.3, size=2), 5.0 + rng.normal(0, 3.0)
        targets = inputs @ slopes + level + rng.normal(0, noise, size=rows)
        return Examples(inputs.astype(np.float32), targets.astype(np.float32))

    training = {f"c{number}": client() for number in range(clients)}
    whole = {f"u{number}": client() for number in range(12)}
    unseen = {name: (rows_.take(slice(0, 10)), rows_.take(slice(10, None))) for name, rows_ in whole.items()}
    splits = {
        shots: {name: [(pair[0].take(slice(0, shots)), pair[1])] for name, pair in unseen.items()}
        for shots in (0, 1, 2, 10, None)
    }
    return federation_of(training, unseen, {"kind": "regression"}, {"outputs": 1}), splits


@pytest.fixture(scope="module")
def linear_arms():
    return run_baselines(*linear_federation(), np.random.default_rng(0))


def test_empirical_bayes_beats_everything_else_on_linear_clients(linear_arms):
    rmse = means(linear_arms, "rmse")
    for shots in (1, 2):
        assert rmse[shots, "empirical_bayes"] < rmse[shots, "pooled_slopes_local_mean"] < rmse[shots, "local_ridge"]
    assert 0.3 < rmse[10, "empirical_bayes"] < rmse[10, "local_ridge"] < 0.45  # 0.3 is the noise
    assert rmse[0, "empirical_bayes"] > 1.0  # the level is the client's own


def test_without_support_only_empirical_bayes_predicts(linear_arms):
    assert {arm.name for arm in linear_arms if arm.shots == 0} == {"empirical_bayes", "empirical_bayes_features"}


def test_arms_say_what_they_are(linear_arms):
    assert {(arm.family, arm.private) for arm in linear_arms} == {("baseline", False)}
    assert all([score.client for score in arm.scores] == [f"u{n}" for n in range(12)] for arm in linear_arms)
    assert len({arm.label for arm in linear_arms}) == len({arm.name for arm in linear_arms}) == 5


def test_the_whole_support_set_is_the_largest_support_size(linear_arms):
    rmse = means(linear_arms, "rmse")
    assert rmse[None, "local_kernel"] == rmse[10, "local_kernel"]


def test_the_unit_of_the_targets_scales_the_errors():
    federation, splits = linear_federation(clients=10)

    def in_cents(examples):
        return Examples(examples.inputs, examples.targets * np.float32(100))

    cents = Federation(federation.plan, {c: in_cents(e) for c, e in federation.training.items()}, {})
    split = {2: {c: [(in_cents(s), in_cents(q)) for s, q in pairs] for c, pairs in splits[2].items()}}
    plain = means(run_baselines(federation, {2: splits[2]}, np.random.default_rng(0)), "rmse")
    scaled = means(run_baselines(cents, split, np.random.default_rng(0)), "rmse")
    assert scaled == pytest.approx({name: 100 * value for name, value in plain.items()}, rel=1e-3)


def test_random_features_learn_the_family_of_sine_waves():
    rng = np.random.default_rng(1)

    def wave():
        x = rng.uniform(-5, 5, size=(30, 1))
        y = rng.uniform(0.5, 3) * np.sin(x[:, 0] + rng.uniform(0, 6))
        return Examples(x.astype(np.float32), y.astype(np.float32))

    training = {f"c{number}": wave() for number in range(60)}
    query = {f"u{number}": wave() for number in range(5)}
    splits = {4: {name: [(whole.take(slice(0, 4)), whole.take(slice(4, None)))] for name, whole in query.items()}}
    federation = federation_of(training, {}, {"kind": "regression"}, {"outputs": 1})
    rmse = means(run_baselines(federation, splits, np.random.default_rng(0)), "rmse")
    assert rmse[4, "empirical_bayes_features"] < 0.1 < rmse[4, "local_kernel"]
    assert rmse[4, "empirical_bayes"] > 0.5  # no line fits a wave


def test_ridge_and_kernel_ridge_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    inputs, targets, query = rng.normal(size=(9, 3)), rng.normal(size=9), rng.normal(size=(4, 3))
    oracle = Ridge(alpha=0.7).fit(inputs, targets).predict(query)
    np.testing.assert_allclose(ridge(inputs, targets, query, penalty=0.7), oracle)
    kernel = KernelRidge(kernel="rbf", gamma=1 / (2 * 3 * 0.5**2), alpha=0.2).fit(inputs, targets - targets.mean())
    expected = kernel.predict(query) + targets.mean()
    np.testing.assert_allclose(kernel_ridge(inputs, targets, query, scale=0.5, penalty=0.2), expected)


def test_one_support_example_is_its_own_prediction():
    one = (np.ones((1, 2)), np.array([4.0]), np.zeros((3, 2)))
    np.testing.assert_array_equal(ridge(*one, penalty=1.0), [4, 4, 4])
    np.testing.assert_array_equal(kernel_ridge(*one, scale=1.0, penalty=1.0), [4, 4, 4])


def identity(inputs):
    return inputs


def test_em_recovers_the_prior_that_clients_were_drawn_from():
    rng = np.random.default_rng(0)
    mean, covariance = np.array([1.0, -2.0]), np.array([[1.0, 0.5], [0.5, 0.6]])
    clients = []
    for coefficients in rng.multivariate_normal(mean, covariance, size=800):
        inputs = rng.normal(size=(6, 2))
        clients.append((inputs, inputs @ coefficients + rng.normal(0, 0.4, size=6)))
    model = fit_mixed_model(clients, identity)
    np.testing.assert_allclose(model.mean, mean, atol=0.1)
    np.testing.assert_allclose(np.linalg.inv(model.precision), covariance, atol=0.12)
    assert model.noise_variance == pytest.approx(0.16, rel=0.1)


def test_posterior_mean_is_that_of_the_joint_normal_distribution():
    rng = np.random.default_rng(2)
    clients = [(rng.normal(size=(5, 3)), rng.normal(size=5)) for _ in range(20)]
    model = fit_mixed_model(clients, identity)
    known, targets, query = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=(2, 3))
    covariance = np.linalg.inv(model.precision)
    among = known @ covariance @ known.T + model.noise_variance * np.eye(4)
    gain = query @ covariance @ known.T @ np.linalg.inv(among)
    expected = query @ model.mean + gain @ (targets - known @ model.mean)
    np.testing.assert_allclose(model.predict(known, targets, query), expected)
    nothing = model.predict(np.empty((0, 3)), np.empty(0), query)
    np.testing.assert_allclose(nothing, query @ model.mean)


def test_tuning_takes_the_method_that_predicts_best_and_survives_tiny_clients():
    def guess(value):
        def method(_inputs, _targets, query):
            return np.full(len(query), value)

        return method

    clients = [(np.zeros((6, 1)), np.full(6, 2.0))] * 3
    methods = [guess(0.0), guess(2.0), guess(9.0)]
    assert [best_method(methods, clients, size) for size in (0, 3, 100)] == [1, 1, 1]
    assert best_method(methods, [], 3) == 0


def test_constant_inputs_and_a_single_training_client_do_no_harm():
    ones = Examples(np.ones((6, 2), dtype=np.float32), np.full(6, 3.0, dtype=np.float32))
    federation = federation_of({"only": ones}, {}, {"kind": "regression"}, {"outputs": 1})
    arms = run_baselines(federation, {2: {"u": [(ones.take(slice(0, 2)), ones)]}}, np.random.default_rng(0))
    assert len(arms) == 5
    assert all(value < 1e-3 for value in means(arms, "rmse").values())


def test_of_a_large_federation_a_sample_is_pooled_and_labels_say_so(monkeypatch):
    federation, splits = linear_federation(clients=12, rows=12)
    asked = []

    class Noted(dict):
        def __getitem__(self, client):
            asked.append(client)
            return super().__getitem__(client)

    large = replace(federation, training=Noted(federation.training))
    monkeypatch.setattr(baselines, "MAX_CLIENTS", 8)
    arms = run_baselines(large, {2: splits[2]}, np.random.default_rng(0))
    assert len(asked) == len(set(asked)) == 8
    assert {arm.name for arm in arms if arm.label.endswith(", of 8 clients")} == {
        "pooled_slopes_local_mean", "empirical_bayes", "empirical_bayes_features"
    }  # fmt: skip
    monkeypatch.setattr(baselines, "MAX_CLIENTS", 12)
    whole = run_baselines(large, {2: splits[2]}, np.random.default_rng(0))
    assert set(asked) == set(federation.training)
    assert not any("clients" in arm.label for arm in whole)


def test_rows_are_pooled_client_by_client_as_from_all_at_once():
    rng = np.random.default_rng(3)
    sizes = {"b": 4, "a": 7, "c": 0, "d": 1}
    training = {
        name: Examples(rng.normal(size=(size, 2, 3)).astype(np.float32), rng.integers(0, 9, size))
        for name, size in sizes.items()
    }
    rows = np.sort(rng.permutation(12)[:6])
    everything, _ = pooled(training)
    inputs, targets = pooled_rows(training, rows)
    np.testing.assert_array_equal(inputs, everything[rows])
    assert targets.tolist() == np.concatenate([training[name].targets for name in sorted(sizes)])[rows].tolist()
    assert (inputs.shape, targets.dtype) == ((6, 6), np.int64)


# ---- classification


def blobs(rng, labels, flip=False):
    """One Gaussian blob a class; ``flip`` exchanges the names of classes 0 and 1."""
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0], [6.0, 6.0]])
    targets = np.repeat(labels, 15)
    inputs = centres[targets] + rng.normal(size=(len(targets), 2))
    if flip:
        targets = np.array([1, 0, 2, 3])[targets]
    order = rng.permutation(len(targets))
    return Examples(inputs[order].astype(np.float32), targets[order].astype(np.int64))


def forest_arms(support, query, shots=3, seed=0):
    """Training clients know classes 0, 1 and 2 of the four."""
    rng = np.random.default_rng(7)
    training = {f"c{number}": blobs(rng, [0, 1, 2]) for number in range(4)}
    federation = federation_of(training, {}, {"kind": "classification"}, {"outputs": 4})
    return run_baselines(federation, {shots: {"u": [(support, query)]}}, np.random.default_rng(seed))


def test_a_client_like_all_others_needs_no_support():
    query = blobs(np.random.default_rng(0), [0, 1, 2])
    arms = forest_arms(query.take(slice(0, 0)), query, shots=0)
    assert [arm.name for arm in arms] == ["pooled_forest"]
    assert means(arms, "accuracy")[0, "pooled_forest"] > 0.95


def test_a_client_with_other_names_for_classes_is_understood_from_its_support():
    rng = np.random.default_rng(0)
    query = blobs(rng, [0, 1, 2], flip=True)
    found = means(forest_arms(first_of_each_class(blobs(rng, [0, 1, 2], flip=True), 10), query, 10), "accuracy")
    assert found[10, "pooled_forest"] < 0.4
    assert found[10, "pooled_forest_upweighted"] > 0.8
    assert found[10, "pooled_and_local_forest"] > 0.9
    assert found[10, "local_forest"] > 0.9


def test_a_class_that_nobody_trained_on_is_learned_from_the_support():
    rng = np.random.default_rng(0)
    support, query = first_of_each_class(blobs(rng, [0, 3]), 10), blobs(rng, [0, 3])
    found = means(forest_arms(support, query), "accuracy")
    assert found[3, "pooled_forest"] <= 0.5
    assert min(found[3, name] for name in ("local_forest", "pooled_forest_upweighted")) > 0.9


def test_a_support_of_one_class_predicts_that_class():
    rng = np.random.default_rng(0)
    support = blobs(rng, [2]).take(slice(0, 3))
    arms = forest_arms(support, blobs(rng, [0, 1, 2]))
    local = next(arm for arm in arms if arm.name == "local_forest").scores[0].metrics
    assert local["accuracy"] == pytest.approx(1 / 3)
    assert local["brier"] == pytest.approx(2 * 2 / 3)  # all certain, two in three wrong
    assert len(arms) == 4


def test_scores_of_a_client_pool_its_pairs_and_skip_empty_queries():
    rng = np.random.default_rng(0)
    easy, hard = blobs(rng, [0, 1]), blobs(rng, [0, 1], flip=True)
    support = easy.take(slice(0, 0))
    training = {f"c{number}": blobs(rng, [0, 1]) for number in range(3)}
    federation = federation_of(training, {}, {"kind": "classification"}, {"outputs": 4})
    pairs = [(support, easy), (support, hard), (support, support)]
    arms = run_baselines(federation, {0: {"u": pairs, "nothing": pairs[2:]}}, rng)
    assert [score.client for score in arms[0].scores] == ["u"]
    assert arms[0].scores[0].metrics["accuracy"] == pytest.approx(0.5, abs=0.05)


def test_the_same_seed_gives_the_same_arms():
    rng = np.random.default_rng(0)
    support, query = blobs(rng, [0, 1]).take(slice(0, 4)), blobs(rng, [0, 1])
    assert forest_arms(support, query, seed=3) == forest_arms(support, query, seed=3)


# ---- few shot


def glyphs(rng, classes, drawings=8, side=10):
    """Every class a random glyph of 4 x 4 pixels; every drawing of it elsewhere in the image, and noisy."""
    images = np.zeros((classes * drawings, 1, side, side), dtype=np.float32)
    targets = np.repeat(np.arange(classes), drawings)
    shapes = rng.random((classes, 4, 4)) < 0.5
    for place, label in enumerate(targets):
        down, right = rng.integers(0, side - 4, size=2)
        ink = shapes[label] * rng.uniform(0.7, 1.0, size=(4, 4))
        images[place, 0, down : down + 4, right : right + 4] = ink
    return Examples(images, targets)


FEW_SHOT = {"kind": "few_shot", "ways": 3, "shots": 1}


def few_shot_federation(training):
    return federation_of(training, {}, FEW_SHOT, {"outputs": 3}, {"federation": "omniglot"})


def test_unseen_glyphs_are_told_apart_wherever_they_stand():
    rng = np.random.default_rng(0)
    training = {f"c{number}": glyphs(rng, 8) for number in range(3)}
    pool = glyphs(rng, 8)
    splits = {shots: {"u": [draw_episode(pool, 3, shots, 3, rng) for _ in range(20)]} for shots in (0, 1, 5)}
    arms = run_baselines(few_shot_federation(training), splits, np.random.default_rng(0))
    found = means(arms, "accuracy")
    assert set(found) == {(s, name) for s in (1, 5) for name in ("nearest_neighbour_1", "pooled_cnn_centroid")}
    assert found[1, "nearest_neighbour_1"] > 0.75
    assert found[5, "nearest_neighbour_1"] > 0.85
    assert found[1, "pooled_cnn_centroid"] > 0.7
    assert means(arms, "ece")[5, "nearest_neighbour_1"] < 0.2  # the temperature was tuned


def test_a_shifted_image_is_the_same_after_centring_and_a_blank_one_is_no_fault():
    image = np.zeros((1, 1, 14, 14), dtype=np.float32)
    image[0, 0, 4:8, 5:9] = np.random.default_rng(0).random((4, 4))
    moved = np.roll(image, (2, -3), axis=(2, 3))
    both = few_shot.centred_and_blurred(np.concatenate([image, moved]))
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)
    assert not few_shot.centred_and_blurred(np.zeros_like(image)).any()
    assert few_shot.centred_and_blurred(image[:0]).shape == (0, 1, 14, 14)


def test_similarities_by_hand():
    support, labels = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 0, 2])
    query = np.array([[0.6, 0.8]])
    np.testing.assert_allclose(few_shot.nearest_neighbour(support, labels, query, 3), [[0.8, -1, 0.6]])
    diagonal = (0.6 + 0.8) / np.sqrt(2)
    np.testing.assert_allclose(few_shot.nearest_centroid(support, labels, query, 3), [[diagonal, -1, 0.6]])


def test_few_shot_baselines_refuse_tables():
    table = Examples(np.zeros((4, 3), dtype=np.float32), np.arange(4))
    with pytest.raises(DataError, match="images"):
        run_baselines(few_shot_federation({"c": table}), {}, np.random.default_rng(0))
