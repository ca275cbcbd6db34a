import numpy as np
import pytest
from conftest import FakeSource

from lewm.errors import UserError
from lewm.probes.features import Table
from lewm.probes.parts import plan
from lewm.probes.quantities import observe, read, read_both, score_constant, score_controls
from lewm.probes.targets import Quantity

ROWS = 30


def world(episodes=120, seed=0):
    """Episodes that walk: a source with their place and speed, and a table in which the place is linear."""
    rng = np.random.default_rng(seed)
    place = rng.normal(size=(episodes, 1, 2)) + 0.2 * rng.normal(size=(episodes, ROWS, 2)).cumsum(1)
    source = FakeSource([ROWS] * episodes, {"place": place.reshape(-1, 2)})
    mixed = place.reshape(-1, 2) @ rng.normal(size=(2, 8)) + 5
    return source, mixed.astype(np.float32)


def table_of(values, features):
    frames = values.needed
    return Table(frames, {name: x[frames.episode * ROWS + frames.row] for name, x in features.items()})


PLACE = Quantity(name="place", column="place", slice=(0, 2), unit="m")


@pytest.mark.parametrize("split", ["test", "val", "train", "all"])
def test_a_linear_place_is_read_on_every_split_in_its_own_unit(split):
    source, x = world()
    how = plan(source, split, 0, 0)
    values = observe(source, PLACE, how, 1000, history=3, frameskip=5)
    reading = read(table_of(values, {"embedding": x}), values, how, "embedding", "linear")
    scores = reading.score()
    assert scores["r"] > 0.9999
    assert scores["error"] < 0.01 < np.std(values.y)
    assert sorted(set(reading.episode.tolist())) == how.test.tolist()
    assert scores["ci_reliable"] == (len(how.test) >= 20)


def test_every_fold_reads_only_what_it_was_not_fitted_on():
    """Each episode's label is noise that the embedding tells exactly: only a leak can read it."""
    source, x = world()
    label = np.random.default_rng(1).normal(size=120).repeat(ROWS)
    x = np.concatenate([x, np.eye(120, dtype=np.float32).repeat(ROWS, axis=0)], axis=1)
    source = FakeSource([ROWS] * 120, {"label": label})
    how = plan(source, "all", 0, 0)
    values = observe(source, Quantity(name="l", column="label", slice=(0, 1)), how, 4000, history=1, frameskip=1)
    scores = read(table_of(values, {"embedding": x}), values, how, "embedding", "linear").score()
    assert scores["r_ci95"][0] < 0.05 and scores["r2"] < 0.1


def test_a_velocity_needs_the_frames_before_and_is_read_from_them():
    source, x = world()
    how = plan(source, "test", 0, 0)
    speed = Quantity(name="v", column="place", slice=(0, 2), kind="velocity", unit="m")
    values = observe(source, speed, how, 3000, history=3, frameskip=2)
    assert values.num_frames == 3 and values.frames.row.min() >= 4
    assert len(values.frames.of(how.folds[0].train)) <= 1000
    table = table_of(values, {"embedding": x})
    assert read(table, values, how, "embedding", "linear").score()["r"] > 0.999
    one = observe(source, Quantity(**{**vars(speed), "frames": 2}), how, 3000, history=3, frameskip=2)
    assert one.num_frames == 2
    blind = observe(source, PLACE, how, 3000, history=3, frameskip=2)
    assert blind.num_frames == 1


def test_the_constant_predictor_has_mse_near_one_and_no_r():
    source, x = world()
    how = plan(source, "test", 0, 0)
    values = observe(source, PLACE, how, 1000, history=1, frameskip=1)
    noise = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    table = table_of(values, {"embedding": x, "untrained/embedding": noise, "pixels": x})
    scores = score_controls(table, values, how, seed=0)
    assert np.isnan(scores["constant"]["r"]) and 0.5 < scores["constant"]["mse"] < 2
    assert scores["constant"]["error"] > 10 * scores["pixels"]["linear"]["error"]
    assert scores["shuffled"]["linear"]["r_ci95"][0] < 0.2
    assert abs(scores["untrained"]["linear"]["r"]) < 0.2


def test_frames_in_which_it_is_unknown_are_counted_and_what_is_never_known_is_refused():
    source, x = world(60)
    source._columns["place"][::3] = np.nan
    how = plan(source, "all", 0, 0)
    values = observe(source, PLACE, how, 10_000, history=1, frameskip=1)
    assert values.dropped == {"all": 600}
    readings = read_both(table_of(values, {"embedding": np.nan_to_num(x)}), values, how, "embedding")
    assert len(readings["mlp"].true) == 1200
    source._columns["place"][::2] = np.nan
    with pytest.raises(UserError, match=r"NaN or infinite in .* of 1800 all frames"):
        observe(source, PLACE, how, 10_000, history=1, frameskip=1)


def test_episodes_too_short_for_the_frames_a_probe_sees_are_refused():
    source, _ = world(60)
    how = plan(source, "test", 0, 0)
    speed = Quantity(name="v", column="place", slice=(0, 2), kind="velocity")
    with pytest.raises(UserError, match=r"3 frames 15 rows apart.*31 rows"):
        observe(source, speed, how, 1000, history=3, frameskip=15)


def test_scores_inside_the_picture_are_given_beside_those_of_all_frames():
    source, x = world()
    how = plan(source, "test", 0, 0)
    edges = {"left": -1.0, "right": 1.0, "top": 1.0, "bottom": -1.0}
    placed = Quantity(name="p", column="place", slice=(0, 2), image=edges)
    values = observe(source, placed, how, 1000, history=1, frameskip=1)
    hidden = np.where((np.abs(values.y) <= 1).all(axis=1)[:, None], values.y, 0)  # nothing is seen outside
    table = Table(values.needed, {"embedding": x[values.needed.episode * ROWS + values.needed.row]})
    at = table.index(values.frames)
    table.features["embedding"][at] = (hidden @ np.ones((2, 8)) + hidden[:, :1]).astype(np.float32)
    scores = read(table, values, how, "embedding", "mlp").score()
    inside = (np.abs(read(table, values, how, "embedding", "linear").true) <= 1).all(axis=1)
    assert scores["seen"]["n"] == inside.sum() and scores["seen"]["share"] == pytest.approx(inside.mean())
    assert scores["seen"]["error"] < scores["error"]
    assert placed.place(np.array([[-1.0, 1.0], [1.0, -1.0]])).tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("within", ["episode", "frame"])
def test_noise_has_no_negative_r_over_folds(within):
    """Pooled over folds, a probe that reads nothing is anticorrelated: each training mean leaves its own fold out."""
    found, constants = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        label = rng.normal(size=30).repeat(ROWS) if within == "episode" else rng.normal(size=30 * ROWS)
        source = FakeSource([ROWS] * 30, {"label": label})
        how = plan(source, "all", 0, seed)
        values = observe(source, Quantity(name="l", column="label", slice=(0, 1)), how, 300, history=1, frameskip=1)
        x = rng.normal(size=(30 * ROWS, 4)).astype(np.float32)
        table = table_of(values, {"embedding": x, "untrained/embedding": x, "pixels": x})
        found.append(read(table, values, how, "embedding", "linear").score()["r"])
        constants.append(score_constant(values, how)["r"])
    assert abs(np.nanmean(found)) < 0.04
    assert np.isnan(constants).all()


def test_what_turns_in_one_plane_is_read_by_the_parts_that_move():
    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, 60 * ROWS)
    for tilt in (0.0, 1e-6):
        q = np.stack(
            [np.cos(angle / 2), tilt * rng.normal(size=len(angle)), np.zeros_like(angle), np.sin(angle / 2)], axis=1
        )
        source = FakeSource([ROWS] * 60, {"q": q})
        how = plan(source, "test", 0, 0)
        values = observe(
            source, Quantity(name="q", column="q", slice=(0, 4), kind="quaternion"), how, 600, history=1, frameskip=1
        )
        assert values.about["constant_components"] == ["R31", "R32"]
        x = np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
        scores = read(table_of(values, {"embedding": x}), values, how, "embedding", "linear").score()
        assert scores["r"] > 0.999 and scores["error"] < 0.1
        assert [c["name"] for c in scores["per_component"]] == ["R11", "R21", "R12", "R22"]


def test_a_large_number_that_varies_little_is_no_constant():
    source = FakeSource([ROWS] * 60, {"t": 1.7e9 + 10 * np.random.default_rng(0).normal(size=60 * ROWS)})
    how = plan(source, "test", 0, 0)
    values = observe(source, Quantity(name="t", column="t", slice=(0, 1)), how, 600, history=1, frameskip=1)
    assert 0.5 < score_constant(values, how)["mse"] < 2


def test_a_quantity_known_in_too_few_measured_episodes_is_refused():
    lengths = [ROWS] * 60
    how = plan(FakeSource(lengths), "test", 0, 0)
    for e in how.test[2:]:
        lengths[e] = 4  # too short for two frames 5 rows apart
    source = FakeSource(lengths, {"place": np.random.default_rng(0).normal(size=(sum(lengths), 2))})
    speed = Quantity(name="v", column="place", slice=(0, 2), kind="velocity", frames=2)
    with pytest.raises(UserError, match=r"known in 2 of the episodes.*at least 3.*--split all"):
        observe(source, speed, how, 10_000, history=1, frameskip=5)


def test_every_score_says_of_how_many_frames_and_episodes_it_is():
    source, x = world()
    how = plan(source, "test", 0, 0)
    values = observe(source, PLACE, how, 300, history=1, frameskip=1)
    scores = read(table_of(values, {"embedding": x}), values, how, "embedding", "linear").score()
    assert (scores["n"], scores["episodes"]) == (len(values.frames.of(how.test)), len(how.test))
