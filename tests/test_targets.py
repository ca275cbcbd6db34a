import numpy as np
import pytest
from conftest import FakeSource

from lewm.errors import UserError
from lewm.probes.frames import choose_frames
from lewm.probes.targets import SHIPPED, load_quantities, require_spread, usable_rows, values_of


def state(rows, width):
    return np.random.default_rng(0).normal(size=(rows, width))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"state": state(9, 2)}, "two_room"),
        ({"state": state(9, 7)}, "push_t"),
        ({"qpos": state(9, 2), "qvel": state(9, 2), "finger_pos": state(9, 2)}, "reacher"),
        (
            {
                "privileged/block_0_pos": state(9, 3),
                "proprio/effector_pos": state(9, 3),
                "privileged/block_0_quat": state(9, 4),
                "privileged/block_0_yaw": state(9, 1),
                "proprio/effector_yaw": state(9, 1),
            },
            "cube",
        ),
    ],
)
def test_the_shipped_targets_that_fit_are_found(columns, expected):
    name, quantities = load_quantities(None, FakeSource([4, 5], columns))
    assert name == expected
    assert load_quantities(expected, FakeSource([4, 5], columns))[1] == quantities
    assert name in SHIPPED


def test_targets_that_do_not_fit_are_refused_with_the_columns_there_are(tmp_path):
    source = FakeSource([4, 5], {"state": state(9, 4), "other": state(9, 1)})
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
        load_quantities(tmp_path / "t.yaml", FakeSource([4, 5], {"state": state(9, 4)}))


def quantity(tmp_path, source, entry):
    (tmp_path / "t.yaml").write_text(f"- {entry}")
    return load_quantities(tmp_path / "t.yaml", source)[1][0]


def test_values_stand_at_their_frames_and_angles_are_sine_and_cosine(tmp_path):
    angle = np.linspace(-9, 9, 12)
    source = FakeSource([7, 5], {"a": np.stack([angle * 0, angle], axis=1), "scalar": angle})
    chosen = choose_frames(source.lengths, np.array([0, 1]), 5)
    rows = chosen.episode * 7 + chosen.row
    found = quantity(tmp_path, source, "{name: a, column: a, slice: [1, 2], kind: angle}")
    values = values_of(source, found, chosen, 1)
    assert found.components == ["sin 1", "cos 1"]
    assert np.allclose(values, np.stack([np.sin(angle[rows]), np.cos(angle[rows])], axis=1))
    scalar = quantity(tmp_path, source, "{name: s, column: scalar, slice: [0, 1]}")
    assert np.allclose(values_of(source, scalar, chosen, 1)[:, 0], angle[rows])


def test_missing_values_are_counted_and_refused_when_most_are(tmp_path):
    source = FakeSource([10], {"a": state(10, 1)})
    found = quantity(tmp_path, source, "{name: a, column: a, slice: [0, 1]}")
    values = state(10, 1)
    values[:4] = np.nan
    assert usable_rows(values, found, "test").tolist() == [False] * 4 + [True] * 6
    values[:6] = np.inf
    with pytest.raises(UserError, match="in 6 of 10 test frames"):
        usable_rows(values, found, "test")


def test_a_constant_quantity_is_refused(tmp_path):
    source = FakeSource([10], {"a": state(10, 2)})
    found = quantity(tmp_path, source, "{name: a, column: a, slice: [0, 2]}")
    values = state(10, 2)
    require_spread(values, found)
    values[:, 1] = 5.5
    with pytest.raises(UserError, match="component 1, is constant"):
        require_spread(values, found)
