import io
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from lewm.datasets.violation import Clip
from lewm.probes.plots import BLUE, ORANGE
from lewm.probes.surprise import Steps, depth_name
from lewm.probes.surprise_curves import typical
from lewm.probes.surprise_figures import depths, extremes, plain_scores, roc, roc_points, scores, surprise_figures
from lewm.probes.surprise_strips import MOST, Strip, clips_of, shown
from lewm.probes.trials import Trial, Trials, Version

NAMES = ["curves", "roc", "scores", "extremes", "depths", "sheet"]
CLASSIC = {"visual": "visual", "physical": "physical"}
THREE = {"teleport": "physical", "exchanged_actions": "physical", "recolour": "visual"}
MANY = {f"physical_{i}": "physical" for i in range(4)} | {f"visual_{i}": "visual" for i in range(2)}
EVENT = 6


def made(natures, n=8, t=10, channels=3, depth=3, calibrated=True, missing=(), constant=False, event=EVENT):
    """Trials whose frames tell them apart (grey level 10 x trial + kind), and surprise that peaks at the event."""
    kinds = list(natures)
    events = np.array([[-1 if kind in missing else event for kind in kinds] for _ in range(n)])

    def clip(i, v):
        pixels = np.full((t, 8, 8, channels), 10 * i + v, dtype=np.uint8)
        return Clip(pixels, np.zeros((t - 1, 1, 2), dtype=np.float32))

    class Each:
        seen = 0

        def __iter__(self):
            for i in range(n):
                self.seen = max(self.seen, i + 1)
                has = [(v, kind) for v, kind in enumerate(kinds, start=1) if kind not in missing]
                yield Trial(clip(i, 0), {kind: Version(clip(i, v), event) for v, kind in has}, i)

    rng = np.random.default_rng(0)
    names = ["model", "untrained", "pixel_difference", "copy_last"] + ["calibrated"] * calibrated
    forms = ["model"] + ["calibrated"] * calibrated
    names += [depth_name(form, d) for form in forms for d in range(2, depth + 1)]
    by_scorer = {}
    for name in names:
        s = rng.uniform(0.1, 0.2, (n, 1 + len(kinds), t - 1))
        s[:, 1:, event] += np.linspace(0.05, 1, n * len(kinds)).reshape(n, len(kinds))
        s = np.full_like(s, 0.5) if constant else s
        s[:, 1:][events < 0] = np.nan
        s[..., : int(name[-1]) - 1 if "depth" in name else 0] = np.nan
        by_scorer[name] = s
    return Steps(natures, by_scorer, events, np.arange(n)), Trials(natures, Each(), "f", "synthetic", "test")


def drawn(figures):
    for figure in figures.values():
        figure.savefig(io.BytesIO(), format="png", dpi=40)


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


@pytest.mark.parametrize("natures", [CLASSIC, THREE, MANY])
def test_every_result_gets_the_same_pictures(natures):
    figures = surprise_figures(*made(natures))
    assert list(figures) == NAMES
    drawn(figures)


@pytest.mark.parametrize(
    "case",
    [
        {"natures": CLASSIC, "n": 1},
        {"natures": MANY, "n": 1, "channels": 1},
        {"natures": {"recolour": "visual"}, "calibrated": False, "depth": 1},
        {"natures": {"teleport": "physical"}},
        {"natures": THREE, "missing": ("teleport",)},
        {"natures": THREE, "missing": tuple(THREE)},
        {"natures": MANY, "constant": True},
        {"natures": CLASSIC, "t": 2, "event": 0, "depth": 1},
    ],
)
def test_no_picture_fails_where_there_is_little_to_show(case):
    drawn(surprise_figures(*made(**case)))


def test_few_kinds_share_a_panel_over_frames_and_many_have_one_each():
    few, many = (surprise_figures(*made(natures))["curves"] for natures in (THREE, MANY))
    assert titles(few) == ["Surprise around the event"]
    frames = [image.get_array()[0, 0, 0] for ax in few.axes for image in ax.get_images()]
    assert len(frames) == 4 * 8  # four clips, steps -5 to +2
    assert sorted({int(level) % 10 for level in frames}) == [0, 1, 2, 3]
    assert len({int(level) // 10 for level in frames}) == 1  # all of one trial
    assert titles(many) == [f"{kind} (n = 8)" for kind in MANY]
    ranges = {ax.get_ylim() for ax in many.axes if ax.get_title(loc="left")}
    assert len(ranges) == 1


def test_a_kind_has_the_colour_of_its_nature_where_there_are_few():
    figure = surprise_figures(*made(CLASSIC))["curves"]
    (panel,) = (ax for ax in figure.axes if ax.get_title(loc="left"))
    colours = {line.get_label(): line.get_color() for line in panel.get_lines()}
    assert (colours["physical"], colours["visual"]) == (BLUE, ORANGE)


def test_the_typical_trial_is_in_the_middle_and_has_all_kinds():
    steps, _ = made(CLASSIC, n=9)
    assert typical(steps, list(CLASSIC)) in (3, 4, 5)
    steps.event[2:, 0] = -1  # now only the first two have both
    assert typical(steps, list(CLASSIC)) in (0, 1)


def test_roc_curves_are_those_of_scikit_learn_with_ties_too():
    rng = np.random.default_rng(1)
    positive, negative = (rng.integers(low, low + 6, 30).astype(float) for low in (2, 0))
    false, true = roc_points(positive, negative)
    labels = np.r_[np.ones(30), np.zeros(30)]
    expected = roc_curve(labels, np.concatenate([positive, negative]), drop_intermediate=False)
    np.testing.assert_allclose(false, expected[0])
    np.testing.assert_allclose(true, expected[1])


def test_roc_pools_the_kinds_of_a_nature_and_counts_each_undisturbed_clip_once():
    steps, _ = made(THREE)
    figure = roc(steps)
    assert titles(figure) == ["physical against unperturbed", "physical against visual"]
    assert plain_scores(steps, "model", ["teleport", "exchanged_actions"]).shape == (8,)
    labels = [text.get_text().split(":")[0] for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["model", "model, calibrated", "untrained network", "pixel difference", "copy last"]
    one = roc(made({"recolour": "visual"}, calibrated=False)[0])
    assert titles(one) == ["visual against unperturbed"]


def test_every_scorer_has_a_panel_of_scores():
    assert titles(scores(made(THREE)[0])) == [
        "model",
        "model, calibrated",
        "untrained network",
        "pixel difference",
        "copy last",
    ]
    figure = scores(made(THREE, calibrated=False)[0])
    assert len(titles(figure)) == 4
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks == ["unperturbed", *THREE]


def test_extremes_are_the_highest_and_lowest_physical_clips_and_false_alarms():
    steps, trials = made(THREE)
    words = [text for text in texts(extremes(steps, trials)) if "clip" in text]
    where = [text.split(", score")[0] for text in words]
    assert where[:4] == [
        "highest physical: exchanged_actions, clip 8",
        "highest physical: teleport, clip 8",
        "lowest physical: exchanged_actions, clip 1",
        "lowest physical: teleport, clip 1",
    ]
    first, second = np.argsort(-steps.by_scorer["model"][:, 0].max(axis=1))[:2] + 1
    assert where[4:] == [f"highest unperturbed: clip {number}" for number in (first, second)]


def test_no_clip_is_shown_twice_where_there_are_few():
    words = [text for text in texts(extremes(*made(CLASSIC, n=1))) if "clip" in text]
    assert [text.split(":")[0] for text in words] == ["highest physical", "highest unperturbed"]


def test_trials_after_the_last_that_is_shown_are_not_made():
    _, trials = made(CLASSIC)
    found = clips_of(trials, [(1, "physical"), (3, "unperturbed")])
    assert {key: int(clip.pixels[0, 0, 0, 0]) for key, clip in found.items()} == {
        (1, "physical"): 12,
        (3, "unperturbed"): 30,
    }
    assert trials.each.seen == 4
    assert clips_of(trials, []) == {}


@pytest.mark.parametrize("event", [None, 0, 20, 48])
@pytest.mark.parametrize("largest", [0, 18, 25, 48])
def test_a_long_strip_shows_the_event_and_the_largest_step_if_they_are_near(event, largest):
    surprise = np.zeros(49)
    surprise[largest] = 1
    clip = Clip(np.zeros((50, 4, 4, 3), dtype=np.uint8), np.zeros((49, 1, 1), dtype=np.float32))
    start, stop = shown(Strip("", BLUE, clip, surprise, event))
    assert stop - start == MOST and start >= 0 and stop <= 50
    if event is None or abs(event - largest) < MOST - 1:
        assert start <= largest + 1 < stop
    if event is not None:
        assert start <= event + 1 < stop


def test_depths_have_a_panel_for_each_nature_and_many_kinds_one_more_row_for_calibrated():
    both = ["physical against unperturbed", "visual against unperturbed"]
    assert titles(depths(made(THREE)[0])) == both
    assert titles(depths(made({"recolour": "visual"})[0])) == both[1:]
    rows = [f"{form}: {title}" for form in ("model", "model, calibrated") for title in both]
    assert titles(depths(made(MANY)[0])) == rows
    lines = depths(made(THREE, depth=1)[0]).axes[0].get_lines()
    assert [list(line.get_xdata()) for line in lines[:4]] == [[1]] * 4  # two kinds, plain and calibrated


@pytest.mark.parametrize(
    ("low", "high"),
    [(low, ratio * low) for low in (2e-6, 0.0011, 0.9, 1200.0) for ratio in (1.5, 3.8, 11, 60, 300, 3000, 1.2e6)],
)
def test_tick_labels_of_scores_stand_apart(low, high):
    steps, _ = made(CLASSIC, n=30)
    rng = np.random.default_rng(0)
    for values in steps.by_scorer.values():
        values[:] = rng.uniform(low, high, values.shape)
        values[0], values[1] = low, high
    figure = scores(steps)
    figure.canvas.draw()
    for ax in figure.axes:
        seen = [label.get_window_extent() for label in ax.get_xticklabels() if shown_on(ax, label)]
        assert len(seen) >= 2
        assert all(left.x1 + 2 < right.x0 for left, right in pairwise(seen))


def shown_on(ax, label):
    return label.get_text() and min(ax.get_xlim()) <= label.get_position()[0] <= max(ax.get_xlim())
