from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from lewm.probes import pictures
from lewm.probes.pictures import Panel, PlaneErrors
from lewm.probes.plots import correlations, open_loop
from lewm.probes.probe_figures import component_names, is_place
from lewm.probes.targets import Quantity


def drawn(figure):
    """The figure as its pixels, top row first: everything that may warn or fail does so here."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def panels_of(figure):
    return [ax for ax in figure.axes if ax.get_title(loc="left")]


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def labelled(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def with_marker(ax, marker):
    return [line for line in ax.get_lines() if line.get_marker() == marker]


def panel(n=50, c=2, r=0.9):
    true = np.random.default_rng(0).normal(size=(n, c))
    names = [f"part {i}" for i in range(c)]
    return Panel("q, linear", "m", names, true, true + 0.1, r)


def plane(edges=None, **changes):
    position = np.array([[10.0, 10.0], [10.0, 10.0], [90.0, 10.0]])
    error = np.array([1.0, 3.0, 5.0])
    return PlaneErrors(**{"title": "q", "unit": "m", "position": position, "error": error, "edges": edges} | changes)


def row(h, **changes):
    found = {"h": h, "r": 0.9, "r_ci95": [0.8, 0.95], "error": 2.0, "error_ci95": [1.5, 2.5]}
    for name in ("encoded", "copy_last", "zero_action", "shuffled_action"):
        found |= {f"{name}_r": 0.5, f"{name}_error": 4.0}
    return found | changes


def checkpoint(step, r=0.9, run="a", best=False, as_good=False):
    read = {"r": r, "r_ci95": [None, None] if r is None else [r - 0.1, r + 0.05]}
    targets = {"agent": {"linear": read, "mlp": read}, "block": {"linear": read, "mlp": None}}
    return {"run": run, "step": step, "best": best, "as_good": as_good, "targets": targets}


def target(r, **changes):
    both = {probe: {"r": r, "r_ci95": [r - 0.1, r + 0.05]} for probe in ("linear", "mlp")}
    unknown = {"linear": {"r": None, "r_ci95": [None, None]}, "mlp": {"r": None, "r_ci95": [None, None]}}
    return both | {"controls": {"pixels": unknown, "constant": {"r": None}}} | changes


EXAMPLES = {
    "predicted_against_true": lambda: pictures.predicted_against_true(
        [panel(), panel(c=9), panel(c=11), panel(n=1, c=1)]
    ),
    "error_on_plane": lambda: pictures.error_on_plane([plane(), plane((0.0, 100.0, 0.0, 100.0))]),
    "horizon": lambda: pictures.horizon({"q": [row(1), row(2)]}, {"q": "m"}),
    "correlations": lambda: correlations({"q": target(0.9)}),
    "quality_by_step": lambda: pictures.quality_by_step([checkpoint(10), checkpoint(20)]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_matplotlib_settings_are_left_alone(name):
    before = dict(matplotlib.rcParams)
    drawn(EXAMPLES[name]())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pictures.predicted_against_true([]),
        lambda: pictures.error_on_plane([]),
        lambda: pictures.horizon({}, {}),
        lambda: pictures.quality_by_step([]),
        lambda: correlations({}),
        lambda: open_loop([]),
    ],
)
def test_a_picture_of_nothing_is_drawn(draw):
    assert drawn(draw()).size


# True against predicted


def test_the_identity_line_crosses_a_panel_of_equal_axes():
    (ax,) = panels_of(pictures.predicted_against_true([panel()]))
    (line,) = ax.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    assert ax.get_xlim() == ax.get_ylim() == tuple(line.get_xdata())
    assert ax.get_aspect() == 1


@pytest.mark.parametrize(("n", "shown"), [(7, 7), (2000, 2000), (6001, 2000)])
def test_at_most_2000_frames_are_drawn_each_component_in_its_colour(n, shown):
    (ax,) = panels_of(pictures.predicted_against_true([panel(n=n, c=9)]))
    (points,) = ax.collections
    assert len(points.get_offsets()) == shown * 9
    assert len(np.unique(points.get_facecolors(), axis=0)) == 9


def test_even_strides_reach_from_the_first_frame_to_the_last_ones():
    kept = pictures.strides(7001, 2000)
    assert kept[0] == 0 and kept[-1] >= 6997 and set(np.diff(kept)) == {3, 4}
    assert len(pictures.strides(0, 2000)) == 0


def test_a_point_is_drawn_at_true_and_predicted():
    one = Panel("q", "m", ["x"], np.array([[1.0], [2.0]]), np.array([[3.0], [5.0]]), 1.0)
    (ax,) = panels_of(pictures.predicted_against_true([one]))
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [[1, 3], [2, 5]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true (m)", "predicted (m)")


def test_outliers_do_not_shrink_a_panel_and_are_counted():
    true = np.linspace(0, 1, 1500)[:, None]
    predicted = true.copy()
    predicted[3], predicted[700] = 1e6, -1e6
    (ax,) = panels_of(pictures.predicted_against_true([Panel("q", "m", ["x"], true, predicted, 0.1)]))
    low, high = ax.get_ylim()
    inside = ((predicted >= low) & (predicted <= high)).mean()
    assert -0.2 < low < high < 1.2 and 0.99 <= inside < 1
    assert ax.get_xlabel() == "true (m)\n2 of 1500 points out of view"


def test_few_points_are_all_in_view():
    low, high = pictures.limits(np.array([[0.0], [1.0]]), np.array([[0.0], [100.0]]))
    assert low < 0 and high > 100


@pytest.mark.parametrize(
    ("r", "text"),
    [
        (0.5, "0.500"),
        (0.9994, "0.999"),
        (0.9997, "0.9997"),
        (0.99996, "0.99996"),
        (-0.9997, "-0.9997"),
        (1.0, "1.000"),
        (float("nan"), "undefined"),
        (None, "undefined"),
    ],
)
def test_r_reads_1_only_where_it_is_1(r, text):
    assert pictures.r_text(r) == text
    (ax,) = panels_of(pictures.predicted_against_true([panel(r=r)]))
    assert ax.get_title(loc="left") == f"q, linear, r = {text}"


# Error over the plane


def mesh_of(ax):
    (mesh,) = [found for found in ax.collections if hasattr(found, "get_coordinates")]
    return mesh


def test_bins_hold_mean_errors_and_are_empty_without_frames():
    (ax,) = panels_of(pictures.error_on_plane([plane((0.0, 100.0, 0.0, 100.0))]))
    mean = mesh_of(ax).get_array()
    assert mean.shape == (pictures.BINS, pictures.BINS)
    assert mean.count() == 2
    assert mean[1, 1] == 2.0 and mean[1, 12] == 5.0  # rows by y, columns by x


def test_the_colour_bar_names_the_error_and_its_unit():
    figure = pictures.error_on_plane([plane()])
    (bar,) = [ax for ax in figure.axes if ax not in panels_of(figure)]
    assert bar.get_ylabel() == "mean error (m)"


@pytest.mark.parametrize(
    ("edges", "x_turned", "y_turned"),
    [
        ((0.0, 100.0, 0.0, 100.0), False, True),
        ((0.0, 100.0, 100.0, 0.0), False, False),
        ((100.0, 0.0, 0.0, 100.0), True, True),
    ],
)
def test_axes_are_turned_as_the_picture_is(edges, x_turned, y_turned):
    background = np.zeros((4, 4, 3), np.uint8)
    (ax,) = panels_of(pictures.error_on_plane([plane(edges, background=background)]))
    assert (ax.xaxis_inverted(), ax.yaxis_inverted()) == (x_turned, y_turned)
    left, right, top, bottom = edges
    (x0, y0), (x1, y1) = ax.transData.transform([(left, top), (right, bottom)])
    assert x0 < x1 and y0 > y1  # on screen: left before right, top above bottom


def test_the_background_stands_as_in_the_frame():
    background = np.full((10, 10, 3), 255, np.uint8)
    background[0, 0] = 0  # upper left
    empty = {"position": np.zeros((0, 2)), "error": np.zeros(0), "background": background}
    figure = pictures.error_on_plane([plane((0.0, 100.0, 100.0, 0.0), **empty)])
    pixels = drawn(figure)
    (ax,) = panels_of(figure)
    colours = {}
    for place in ((5, 95), (95, 95), (5, 5)):  # y grows upwards: the upper left corner is at (0, 100)
        column, up = ax.transData.transform(place).astype(int)
        colours[place] = int(pixels[len(pixels) - 1 - up, column, 0])
    assert colours[5, 95] < 150 and colours[95, 95] == colours[5, 5] == 255


def test_positions_outside_the_picture_are_in_view_and_its_border_is_drawn():
    figure = pictures.error_on_plane([plane((20.0, 100.0, 0.0, 60.0))])
    (ax,) = panels_of(figure)
    assert min(ax.get_xlim()) < 10 and mesh_of(ax).get_array().sum() == 7
    (border,) = ax.get_lines()
    assert set(border.get_xdata()) == {20, 100} and set(border.get_ydata()) == {0, 60}
    assert legend_of(figure) == ["border of the picture"]


def test_without_edges_the_axes_are_plain():
    figure = pictures.error_on_plane([plane()])
    (ax,) = panels_of(figure)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("component 0", "component 1")
    assert not ax.get_lines() and not ax.yaxis_inverted() and not legend_of(figure)


@pytest.mark.parametrize("edges", [None, (0.0, 1.0, 0.0, 1.0)])
@pytest.mark.parametrize("n", [0, 1])
def test_a_map_of_hardly_any_frames_is_drawn(edges, n):
    drawn(pictures.error_on_plane([plane(edges, position=np.zeros((n, 2)), error=np.zeros(n))]))


def test_frames_without_an_error_are_left_out():
    errors = plane(error=np.array([1.0, np.nan, 5.0]))
    (ax,) = panels_of(pictures.error_on_plane([errors]))
    assert sorted(mesh_of(ax).get_array().compressed()) == [1, 5]


# By horizon


def test_horizon_draws_r_and_error_of_each_quantity_side_by_side():
    figure = pictures.horizon({"q": [row(1), row(2), row(3)], "p": [row(1)]}, {"q": "m"})
    drawn(figure)
    left, right, *_ = panels_of(figure)
    assert [ax.get_ylabel() for ax in panels_of(figure)] == ["Pearson r", "mean error (m)", "Pearson r", "mean error"]
    np.testing.assert_array_equal(labelled(left, "imagined").get_xydata(), [[1, 0.9], [2, 0.9], [3, 0.9]])
    np.testing.assert_array_equal(labelled(right, "copy last").get_ydata(), [4, 4, 4])
    assert labelled(left, "from the real frame").get_linestyle() == "--"
    names = ["imagined", "from the real frame", "copy last", "actions zeroed", "actions of another window"]
    assert legend_of(figure) == names


def test_horizons_that_were_not_measured_leave_gaps():
    nothing = row(2, r=None, r_ci95=[None, None], error=None, error_ci95=None, copy_last_r=None)
    rows = [row(1), nothing, row(3)]
    for found in rows:
        del found["encoded_r"], found["encoded_error"]
        found["zero_action_r"] = None
    figure = pictures.horizon({"q": rows}, {"q": "m"})
    drawn(figure)
    left, _ = panels_of(figure)
    assert list(np.isnan(labelled(left, "imagined").get_ydata())) == [False, True, False]
    assert {line.get_label() for line in left.get_lines()} == {"imagined", "copy last", "actions of another window"}
    assert "from the real frame" not in legend_of(figure)


@pytest.mark.parametrize("number", [1, 2, 5, 30])
def test_horizons_are_whole_numbers(number):
    figure = pictures.horizon({"q": [row(h + 1) for h in range(number)]}, {"q": "m"})
    drawn(figure)
    for ax in panels_of(figure):
        assert len(ax.get_xticks()) and all(float(tick).is_integer() for tick in ax.get_xticks())


def test_a_long_unit_is_wrapped_so_that_labels_of_two_rows_do_not_meet():
    figure = pictures.horizon(
        {"q": [row(1), row(2)], "p": [row(1)]}, dict.fromkeys("qp", "units of the 512-unit window")
    )
    drawn(figure)
    boxes = [ax.yaxis.label.get_window_extent() for ax in panels_of(figure)[1::2]]
    assert boxes[0].y0 > boxes[1].y1
    assert panels_of(figure)[1].get_ylabel() == "mean error (units of the\n512-unit window)"


def test_only_imagined_and_real_frames_have_a_band():
    rows = [row(h, **{f"{name}r_ci95": [0.4, 0.6] for name in ("encoded_", "copy_last_")}) for h in (1, 2)]
    left, _ = panels_of(pictures.horizon({"q": rows}, {}))
    bands = [found for found in left.collections if isinstance(found, matplotlib.collections.PolyCollection)]
    assert len(bands) == 2


def test_a_horizon_without_neighbours_shows_its_interval_as_a_bar():
    nothing = row(2, r=None, r_ci95=None)
    alone, beside = (pictures.horizon({"q": rows}, {}) for rows in ([row(1), nothing], [row(1), row(2)]))
    bars = [segments(panels_of(figure)[0]) for figure in (alone, beside)]
    assert bars == [[[[1, 0.8], [1, 0.95]]], []]


def segments(ax):
    lines = [found for found in ax.collections if isinstance(found, matplotlib.collections.LineCollection)]
    return [segment.tolist() for found in lines for segment in found.get_segments() if np.isfinite(segment).all()]


# r beside the controls


def test_correlations_share_one_range_and_one_legend():
    seen = {probe: target(0.97)[probe] for probe in ("linear", "mlp")}
    targets = {"q": target(0.9), "p": target(0.1)}
    for probe, scores in seen.items():
        targets["q"][probe]["seen"] = scores
    figure = correlations(targets)
    drawn(figure)
    q, p = panels_of(figure)
    assert q.get_xlim() == p.get_xlim() and q.get_xlim()[1] > 1
    rows = [[label.get_text() for label in ax.get_yticklabels()] for ax in (q, p)]
    assert rows == [["pixels", "embedding, inside\nthe picture", "embedding"], ["pixels", "embedding"]]
    assert legend_of(figure) == ["linear", "MLP"] and q.get_legend() is None
    assert [line.get_xdata()[0] for line in with_marker(p, "o")][2:] == [0.1, 0.1]  # the embedding is the upper row


# Which quantities are shown how


@pytest.mark.parametrize(
    ("quantity", "names"),
    [
        ({"slice": (2, 4), "image": {}}, ["x", "y"]),
        ({"slice": (2, 5), "image": {}}, ["x", "y", "z"]),
        ({"slice": (2, 4)}, ["2", "3"]),
        ({"slice": (2, 6), "image": {}}, ["2", "3", "4", "5"]),
        ({"slice": (4, 5), "kind": "angle"}, ["sin 4", "cos 4"]),
    ],
)
def test_coordinates_of_a_place_in_the_picture_are_named_so(quantity, names):
    assert component_names(Quantity(name="q", column="c", **quantity)) == names


@pytest.mark.parametrize(
    ("quantity", "num_frames", "mapped"),
    [
        ({"slice": (0, 2)}, 1, True),
        ({"slice": (0, 3)}, 1, True),
        ({"slice": (0, 2)}, 3, False),
        ({"slice": (0, 1)}, 1, False),
        ({"slice": (0, 2), "kind": "angle"}, 1, False),
    ],
)
def test_a_map_is_of_places_that_one_frame_tells(quantity, num_frames, mapped):
    values = SimpleNamespace(quantity=Quantity(name="q", column="c", **quantity), num_frames=num_frames)
    assert is_place(SimpleNamespace(values=values)) is mapped


# By checkpoint


def test_a_star_stands_at_the_best_checkpoint_and_rings_at_those_as_good():
    rows = [checkpoint(30, as_good=True), checkpoint(10), checkpoint(20, best=True, as_good=True)]
    figure = pictures.quality_by_step(rows)
    drawn(figure)
    ax, _ = panels_of(figure)
    assert [list(star.get_xdata()) for star in with_marker(ax, "*")] == [[20], [20]]  # one for each probe
    rings = [line for line in with_marker(ax, "o") if line.get_markerfacecolor() == "none"]
    assert [list(ring.get_xdata()) for ring in rings] == [[30], [30]]
    assert list(ax.get_lines()[0].get_xdata()) == [10, 20, 30]
    assert legend_of(figure) == ["linear", "MLP", "best checkpoint", "as good as the best"]


def test_each_run_has_a_line_of_its_own_and_several_are_lighter():
    rows = [checkpoint(step, run=run) for run in "ab" for step in (10, 20)]
    one, two = (panels_of(pictures.quality_by_step(chosen))[0].get_lines() for chosen in (rows[:2], rows))
    assert (len(one), len(two)) == (2, 4)
    assert all(line.get_alpha() == 1 for line in one) and all(line.get_alpha() < 1 for line in two)


def test_checkpoints_without_r_leave_gaps():
    rows = [checkpoint(10), checkpoint(20, r=None, best=True), checkpoint(30)]
    del rows[2]["targets"]["block"]
    figure = pictures.quality_by_step(rows)
    drawn(figure)
    agent, block = panels_of(figure)
    assert list(np.isnan(agent.get_lines()[0].get_ydata())) == [False, True, False]
    assert len(block.get_lines()) == 1 and list(np.isnan(block.get_lines()[0].get_ydata())) == [False, True, True]


@pytest.mark.parametrize("step", [0, 1, 46_000])
def test_a_single_checkpoint_shows_its_interval(step):
    figure = pictures.quality_by_step([checkpoint(step, best=True)])
    drawn(figure)
    for ax in panels_of(figure):
        assert all(float(tick).is_integer() for tick in ax.get_xticks())
        low, high = ax.get_ylim()
        assert low < 0.8 and high > 0.95
