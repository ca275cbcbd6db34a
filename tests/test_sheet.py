import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from lewm.datasets.violation import Clip
from lewm.probes.plots import BLUE, GREY, ORANGE
from lewm.probes.sheet import EDGE, contact_sheet
from lewm.probes.trials import Trial, Trials, Version

NATURES = {"teleport": "physical", "exchanged_actions": "physical", "recolour": "visual"}


def clip(value, frames=9, size=(16, 16), channels=3):
    """A clip whose frame i is all of grey level value + i."""
    pixels = np.broadcast_to(
        (value + np.arange(frames, dtype=np.uint8))[:, None, None, None], (frames, *size, channels)
    )
    return Clip(pixels, np.zeros((frames - 1, 1, 1), dtype=np.float32))


def trials(*each, natures=NATURES):
    return Trials(natures, each, "f", "made for this test", "all")


def trial(value=0, kinds=NATURES, event=4, **look):
    plain = clip(value, **look)
    versions = {
        n: plain if n == "exchanged_actions" else clip(value + 50 + 50 * i, **look) for i, n in enumerate(kinds)
    }
    return Trial(plain, {name: Version(version, event) for name, version in versions.items()}, 0)


def drawn(figure):
    """The figure as its pixels, top row first: everything that may warn or fail does so here."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def rows_of(figure):
    """Grey levels of the frames shown, row by row from the top, each from the left."""
    rows = {}
    for ax in figure.axes:
        box = ax.get_position()
        rows.setdefault(-round(box.y0, 4), []).append((box.x0, int(ax.get_images()[0].get_array().ravel()[0])))
    return [[value for _, value in sorted(found)] for _, found in sorted(rows.items())]


def titles_of(figure):
    return [text.get_text() for text in figure.texts if text.get_fontweight() == "bold"]


def notes_of(figure):
    return [text.get_text() for text in figure.texts if text.get_fontweight() != "bold" and text.get_text()]


def borders(figure):
    return [to_hex(ax.spines["top"].get_edgecolor()).upper() for ax in figure.axes]


def test_each_kind_has_a_row_of_the_frames_around_its_event_below_the_plain_clip():
    figure = contact_sheet(trials(trial()))
    drawn(figure)
    assert rows_of(figure) == [[v + i for i in range(3, 9)] for v in (0, 50, 0, 150)]
    assert titles_of(figure) == [
        "plain: as it happened",
        "teleport (physical)",
        "exchanged_actions (physical): frames are real, actions are not",
        "recolour (visual)",
    ]
    assert notes_of(figure) == ["-2", "-1", "event", "+1", "+2", "+3"]


def test_the_first_wrong_frame_has_a_border_in_the_colour_of_its_nature():
    found = np.array(borders(contact_sheet(trials(trial())))).reshape(4, 6)
    assert found[:, 2].tolist() == [GREY, BLUE, BLUE, ORANGE]
    assert (np.delete(found, 2, axis=1) == EDGE).all()


def test_a_kind_is_shown_by_the_first_trial_that_has_it():
    figure = contact_sheet(trials(trial(0, ["teleport"]), trial(10, ["recolour", "teleport"]), trial(20)))
    assert [row[0] - 3 for row in rows_of(figure)] == [0, 50, 20, 60]


def test_no_more_trials_are_made_than_are_looked_at():
    def each():
        yield trial()
        raise AssertionError("every kind was found")

    assert len(rows_of(contact_sheet(Trials(NATURES, each(), "f", "w", "all")))) == 4


def test_kinds_that_happen_in_no_clip_are_named_below():
    figure = contact_sheet(trials(trial(kinds=["teleport"])))
    drawn(figure)
    assert len(rows_of(figure)) == 2 and notes_of(figure)[-1] == "in no clip: exchanged_actions, recolour"
    natures = {f"some_kind_of_event_{i}": "physical" for i in range(30)}
    figure = contact_sheet(trials(trial(kinds=[]), natures=natures))
    height = drawn(figure).shape[0]
    box = figure.texts[-1].get_window_extent()
    assert box.y0 > 0 and box.x1 < figure.bbox.width and box.y1 < height / 2
    assert not any(box.overlaps(ax.get_window_extent()) for ax in figure.axes)


@pytest.mark.parametrize(("event", "around", "shown"), [(7, (-2, 3), [6, 7, 8]), (0, (-3, 1), [0, 1, 2])])
def test_frames_outside_the_clip_are_left_out(event, around, shown):
    figure = contact_sheet(trials(trial(event=event)), frames_around=around)
    assert rows_of(figure)[0] == shown
    assert notes_of(figure) == [f"{f - event - 1:+d}".replace("+0", "event") for f in shown]


@pytest.mark.parametrize("size", [(2, 2), (32, 32), (64, 64), (64, 96), (224, 224)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_of_a_frame_is_drawn_as_a_square_of_whole_pixels(size, channels):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, *size, channels), dtype=np.uint8)
    plain = Clip(pixels, np.zeros((5, 1, 1), dtype=np.float32))
    figure = contact_sheet(trials(Trial(plain, {}, 0)))
    picture = drawn(figure)
    for i, ax in enumerate(figure.axes):
        box = ax.get_window_extent()
        x0, y0, x1, y1 = (round(v) for v in (box.x0, picture.shape[0] - box.y1, box.x1, picture.shape[0] - box.y0))
        zoom = (x1 - x0) // size[1]
        assert (y1 - y0, x1 - x0) == (zoom * size[0], zoom * size[1])
        expected = np.broadcast_to(pixels[1 + i], (*size, 3)).repeat(zoom, axis=0).repeat(zoom, axis=1)
        inner = np.s_[4:-4, 4:-4]  # within the border
        np.testing.assert_allclose(picture[y0:y1, x0:x1][inner].astype(int), expected[inner].astype(int), atol=1)


@pytest.mark.parametrize("size", [(2, 2), (32, 32), (64, 64)])
def test_titles_lie_on_the_sheet_and_over_no_frame(size):
    figure = contact_sheet(trials(trial(size=size)))
    drawn(figure)
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height
        assert not any(box.overlaps(ax.get_window_extent()) for ax in figure.axes)


def test_a_sheet_of_nothing_is_drawn():
    figure = contact_sheet(trials())
    assert drawn(figure).size and notes_of(figure) == [f"in no clip: {', '.join(NATURES)}"]


def test_matplotlib_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    drawn(contact_sheet(trials(trial())))
    assert dict(matplotlib.rcParams) == before
