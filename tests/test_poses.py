import matplotlib
import numpy as np
import pytest
from test_pictures import drawn, legend_of, with_marker

from lewm.probes.poses import Mark, poses


def test_matplotlib_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    drawn(poses(np.zeros((2, 8, 8, 3), np.uint8), [Mark("q", np.ones((2, 2)), np.ones((2, 2)))]))
    assert dict(matplotlib.rcParams) == before


def test_no_frames_are_an_empty_sheet():
    none = np.zeros((0, 2))
    figure = poses(np.zeros((0, 8, 8, 3), np.uint8), [Mark("q", none, none)])
    drawn(figure)
    assert not any(ax.get_images() for ax in figure.axes)


def test_frames_without_marks_have_no_legend():
    figure = poses(np.zeros((2, 8, 8, 3), np.uint8), [])
    drawn(figure)
    assert not figure.legends


def test_a_place_lands_on_its_pixel():
    frames = np.zeros((1, 8, 12, 3), np.uint8)
    frames[0, 5, 9] = 255  # its middle is (9.5, 5.5)
    *_, ring = with_marker(poses(frames, [Mark("q", *np.array([[[9.5, 5.5]], [[2, 3]]]))]).axes[0], "o")
    figure = poses(frames, [])  # without marks over it
    pixels = drawn(figure)
    levels = []
    for shift in (0, -1):
        (place,) = figure.axes[0].transData.transform(ring.get_xydata() + np.array([shift, 0])).astype(int)
        levels.append(int(pixels[len(pixels) - 1 - place[1], place[0], 0]))
    assert levels == [255, 0]


def test_directions_grow_clockwise_as_seen_in_the_picture():
    place = np.array([[4.0, 4.0]])
    mark = Mark("q", place, place, true_angle=np.array([np.pi / 2]), probed_angle=np.array([0.0]))
    ax = poses(np.zeros((1, 8, 8, 3), np.uint8), [mark]).axes[0]
    by_style = {line.get_linestyle(): line.get_xydata() for line in ax.get_lines()[1:] if line.get_color() != "white"}
    (x0, y0), (x1, y1) = by_style["-"]  # a quarter turn: down, where y grows
    assert x1 == pytest.approx(x0) and y1 > y0 and ax.yaxis_inverted()
    (x0, y0), (x1, y1) = by_style[":"]
    assert x1 > x0 and y1 == pytest.approx(y0)


def test_a_place_far_outside_is_drawn_pale_beside_its_picture():
    marks = [Mark("q", np.array([[4.0, 4.0]]), np.array([[500.0, -500.0]]))]
    figure = poses(np.zeros((1, 8, 8, 3), np.uint8), marks)
    drawn(figure)
    ax = figure.axes[0]
    *_, cross = with_marker(ax, "x")
    *_, ring = with_marker(ax, "o")
    assert 8 < cross.get_xdata()[0] < ax.get_xlim()[1] and ax.get_ylim()[1] < cross.get_ydata()[0] < 0
    assert cross.get_alpha() < 1 == ring.get_alpha()
    assert legend_of(figure) == ["q, true", "q, probed", "pale: outside the picture"]


def test_a_place_that_is_unknown_is_left_out():
    unknown = np.full((1, 2), np.nan)
    figure = poses(np.zeros((1, 8, 8, 3), np.uint8), [Mark("q", unknown, unknown, np.array([np.nan]))])
    drawn(figure)
    assert legend_of(figure) == ["q, true", "q, probed"]


@pytest.mark.parametrize(("n", "c"), [(1, 1), (7, 1), (13, 3)])
def test_grey_and_coloured_frames_are_drawn_as_they_are(n, c):
    frames = np.random.default_rng(0).integers(0, 255, (n, 6, 8, c), dtype=np.uint8)
    place = np.full((n, 2), 3.0)
    figure = poses(frames, [Mark("q", place, place), Mark("p", place, place)])
    drawn(figure)
    tiles = [ax for ax in figure.axes if ax.get_images()]
    assert len(tiles) == n
    for ax, frame in zip(tiles, frames, strict=True):
        (image,) = ax.get_images()
        np.testing.assert_array_equal(image.get_array(), frame.squeeze(-1) if c == 1 else frame)
        assert image.get_interpolation() == "nearest"
    assert len({line.get_color() for line in with_marker(tiles[0], "o")} - {"white"}) == 2
