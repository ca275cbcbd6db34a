from pathlib import Path

import numpy as np
import pytest
import torch

from lewm.datasets.schema import Column
from lewm.errors import UserError
from lewm.probes.features import choose_frames, extract, model_reader, require_finite, together
from lewm.probes.parts import grouped, parts_of
from lewm.probes.targets import SHIPPED, load_quantities, require_spread, usable_rows, values_of


class Source:
    """Frames show episode and row; columns as given."""

    path = Path("fake.h5")
    frame_shape = (2, 2, 3)

    def __init__(self, lengths, columns=None):
        self.lengths, self.keys = np.array(lengths), [f"k{e}" for e in range(len(lengths))]
        self._columns = columns or {}
        self.columns = {name: Column(values.dtype, values.shape[1:]) for name, values in self._columns.items()}

    def frames(self, episode, rows):
        out = np.zeros((len(rows), 2, 2, 3), dtype=np.uint8)
        out[..., 0], out[..., 1] = episode, np.asarray(rows)[:, None, None]
        return out

    def column(self, name, episode):
        low = int(self.lengths[:episode].sum())
        return self._columns[name][low : low + int(self.lengths[episode])]


def read(pixels):
    return {"mean": pixels.float().mean(dim=(1, 2))}


class Layered:
    def encode_layers(self, pixels):
        return {"embedding": pixels.float().mean(dim=(2, 3)), "cls": pixels.float().mean(dim=(2, 3)) + 1}


@pytest.mark.parametrize("max_frames", [1, 7, 19, 20, 1000])
def test_frames_are_chosen_evenly_and_inside_their_episodes(max_frames):
    lengths = np.array([5, 1, 9, 40, 6])
    frames = choose_frames(lengths, np.array([0, 2, 4]), max_frames)
    assert len(frames.row) == min(max_frames, 20)
    assert (frames.row < lengths[frames.episode]).all()
    assert set(frames.episode) <= {0, 2, 4}
    assert len(set(zip(frames.episode, frames.row, strict=True))) == len(frames.row)
    assert frames.describe()["frames_available"] == 20


def test_features_stand_at_the_frames_they_are_of():
    source = Source([700, 3, 50])
    frames = choose_frames(source.lengths, np.array([0, 1, 2]), 400)
    found = extract(source, frames, together(read, model_reader(Layered(), ("cls",), prefix="other/")))
    assert np.array_equal(found["mean"][:, 0], frames.episode)
    assert np.array_equal(found["mean"][:, 1], frames.row % 256)
    assert np.array_equal(found["other/cls"], found["mean"] + 1)


def test_an_unknown_layer_and_a_diverged_model_are_named():
    source = Source([4])
    frames = choose_frames(source.lengths, np.array([0]), 4)
    with pytest.raises(UserError, match="'blocks' to probe; one of embedding, cls"):
        extract(source, frames, model_reader(Layered(), ("blocks",)))
    with pytest.raises(UserError, match="diverged"):
        require_finite(extract(source, frames, lambda pixels: {"z": torch.full((len(pixels), 2), torch.inf)}))


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_the_probes_parts_are_disjoint_episodes(split):
    parts = parts_of(Source([3] * 300), split, 0, 0)
    together_ = np.concatenate([parts.train, parts.val, parts.test])
    assert len(np.unique(together_)) == len(together_)
    assert min(len(parts.train), len(parts.val), len(parts.test)) > 10


def test_an_empty_part_is_refused_and_split_all_is_named():
    with pytest.raises(UserError, match=r"part of fake.h5 is empty \(2 episodes.*--split all"):
        parts_of(Source([3, 3]), "test", 0, 0)
    parts = parts_of(Source([3] * 5), "all", 0, 0)
    assert [len(parts.train), len(parts.val), len(parts.test)] == [3, 1, 1]


def test_grouping_depends_on_keys_and_seed_only():
    keys = [f"e{i}" for i in range(20)]
    first = grouped(np.arange(20), keys, (0.5, 0.5), 0)
    back = grouped(np.arange(20), keys[::-1], (0.5, 0.5), 0)
    assert sorted(19 - back[0]) == first[0].tolist()
    assert grouped(np.arange(20), keys, (0.5, 0.5), 1)[0].tolist() != first[0].tolist()


def state(rows, width):
    return np.random.default_rng(0).normal(size=(rows, width))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"state": state(9, 2)}, "two_room"),
        ({"state": state(9, 7)}, "push_t"),
        ({"qpos": state(9, 2), "finger_pos": state(9, 2)}, "reacher"),
        (
            {
                "privileged/block_0_pos": state(9, 3),
                "proprio/effector_pos": state(9, 3),
                "privileged/block_0_yaw": state(9, 1),
                "proprio/effector_yaw": state(9, 1),
            },
            "cube",
        ),
    ],
)
def test_the_shipped_targets_that_fit_are_found(columns, expected):
    name, quantities = load_quantities(None, Source([4, 5], columns))
    assert name == expected
    assert load_quantities(expected, Source([4, 5], columns))[1] == quantities
    assert name in SHIPPED


def test_targets_that_do_not_fit_are_refused_with_the_columns_there_are(tmp_path):
    source = Source([4, 5], {"state": state(9, 4), "other": state(9, 1)})
    with pytest.raises(UserError, match=r"none of the shipped.*other \[1\], state \[4\]"):
        load_quantities(None, source)
    with pytest.raises(UserError, match="'state', which has 4"):
        load_quantities("two_room", source)
    with pytest.raises(UserError, match="no shipped targets 'maze'; one of push_t"):
        load_quantities("maze", source)
    path = tmp_path / "t.yaml"
    path.write_text("- {name: a, column: missing, slice: [0, 1]}")
    with pytest.raises(UserError, match=r"no column 'missing'.*other, state"):
        load_quantities(path, source)
    path.write_text("- {name: a, column: state, slice: [3, 6]}")
    with pytest.raises(UserError, match=r"numbers \[3, 6\].*has 4"):
        load_quantities(path, source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: a, column: state}", "lacks 'slice'"),
        ("- {name: a, column: state, slice: [0, 1], colour: red}", "unknown key 'colour'"),
        ("- {name: a, column: state, slice: [1, 1]}", "must be"),
        ("- {name: a, column: state, slice: [0, 1], kind: scalar}", "one of vector, angle"),
        ("a: 1", "must be a list"),
        ("[", "not yaml"),
    ],
)
def test_a_wrong_targets_file_is_refused(tmp_path, text, message):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_quantities(tmp_path / "t.yaml", Source([4, 5], {"state": state(9, 4)}))


def quantity(tmp_path, source, entry):
    (tmp_path / "t.yaml").write_text(f"- {entry}")
    return load_quantities(tmp_path / "t.yaml", source)[1][0]


def test_values_stand_at_their_frames_and_angles_are_sine_and_cosine(tmp_path):
    angle = np.linspace(-9, 9, 12)
    source = Source([7, 5], {"a": np.stack([angle * 0, angle], axis=1), "scalar": angle})
    chosen = choose_frames(source.lengths, np.array([0, 1]), 5)
    rows = chosen.episode * 7 + chosen.row
    found = quantity(tmp_path, source, "{name: a, column: a, slice: [1, 2], kind: angle}")
    values = values_of(source, found, chosen)
    assert found.components == ["sin 1", "cos 1"]
    assert np.allclose(values, np.stack([np.sin(angle[rows]), np.cos(angle[rows])], axis=1))
    scalar = quantity(tmp_path, source, "{name: s, column: scalar, slice: [0, 1]}")
    assert np.allclose(values_of(source, scalar, chosen)[:, 0], angle[rows])


def test_missing_values_are_counted_and_refused_when_most_are(tmp_path):
    source = Source([10], {"a": state(10, 1)})
    found = quantity(tmp_path, source, "{name: a, column: a, slice: [0, 1]}")
    values = state(10, 1)
    values[:4] = np.nan
    assert usable_rows(values, found, "test").tolist() == [False] * 4 + [True] * 6
    values[:6] = np.inf
    with pytest.raises(UserError, match="in 6 of 10 test frames"):
        usable_rows(values, found, "test")


def test_a_constant_quantity_is_refused(tmp_path):
    source = Source([10], {"a": state(10, 2)})
    found = quantity(tmp_path, source, "{name: a, column: a, slice: [0, 2]}")
    values = state(10, 2)
    require_spread(values, found)
    values[:, 1] = 5.5
    with pytest.raises(UserError, match="component 1, is constant"):
        require_spread(values, found)
