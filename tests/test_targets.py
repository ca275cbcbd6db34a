import numpy as np
import pytest
from conftest import FakeSource
from scipy.spatial.transform import Rotation

from lewm.errors import UserError
from lewm.probes.frames import choose_frames
from lewm.probes.targets import SHIPPED, load_quantities, usable_rows, values_of, varies


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
                "qpos": state(9, 21),  # most of what Reacher asks for
                "qvel": state(9, 20),
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


def test_a_shipped_file_of_which_a_little_is_missing_is_taken_with_a_notice(capsys):
    name, quantities = load_quantities(None, FakeSource([4, 5], {"state": state(9, 5)}))
    assert name == "push_t" and [q.name for q in quantities] == ["agent_position", "block_position", "block_angle"]
    assert "left out: agent_velocity needs numbers [5, 7]" in capsys.readouterr().out
    with pytest.raises(UserError, match="agent_velocity needs"):
        load_quantities("push_t", FakeSource([4, 5], {"state": state(9, 5)}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: a, column: state}", "lacks 'slice'"),
        ("- {name: a, column: state, slice: [0, 1], colour: red}", "unknown key 'colour'"),
        ("- {name: a, column: state, slice: [1, 1]}", "must be"),
        ("- {name: a, column: state, slice: [0, 1], kind: scalar}", "one of vector, angle"),
        ("a: 1", "must be a list"),
        ("- {name: [1], column: state, slice: [0, 1]}", "name of .* must be text"),
        ("- {name: '', column: state, slice: [0, 1]}", "must not be empty"),
        ("- {name: a, column: [state], slice: [0, 1]}", "column of 'a' .* must be text"),
        ("- {name: a, column: state, slice: [false, true]}", "slice of 'a'"),
        ("- {name: a, column: state, slice: [0, 1], unit: 5}", "unit of 'a' .* must be text"),
        ("- {name: a, column: state, slice: [0, 1], kind: angle, unit: deg}", "stored in radians"),
        ("- {name: a, column: state, slice: [0, 1], turned: ninety}", "number of degrees"),
        ("- {name: a, column: state, slice: [0, 1], frames: true}", "a whole number from 1"),
        ("- {name: a, column: state, slice: [0, 1], period: 6.28}", "only a velocity has one"),
        ("- {name: a, column: state, slice: [0, 1], kind: angle, at: b}", "must name a quantity that has an image"),
        ("- {name: a, column: state, slice: [0, 2], image: {1: 0, left: 1, right: 2, top: 3}}", "left, right, top"),
        ("- {name: a, column: state, slice: [0, 2], image: {left: 1, right: 1, top: 3, bottom: 0}}", "different"),
        ("- {name: a, column: state, slice: [0, 4], kind: quaternion, order: xwyz}", "one of wxyz, xyzw"),
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
    assert varies(values, found).tolist() == [True, True]
    values[:, 1] = 5.5
    with pytest.raises(UserError, match="component 1, is constant"):
        varies(values, found)


def test_the_period_and_the_order_of_a_targets_file_are_heeded(tmp_path):
    angle = (0.3 * np.arange(60.0)) % 6.0
    q = Rotation.random(60, random_state=0).as_quat(scalar_first=False)
    source = FakeSource([60], {"angle": angle, "q": q})
    chosen = choose_frames(source.lengths, np.array([0]), 100, first=2)
    turning = quantity(tmp_path, source, "{name: v, column: angle, slice: [0, 1], kind: velocity, period: 6.0}")
    assert np.allclose(values_of(source, turning, chosen, 2), 0.3)
    pose = quantity(tmp_path, source, "{name: q, column: q, slice: [0, 4], kind: quaternion, order: xyzw}")
    expected = Rotation.from_quat(q).as_matrix()[2:, :, 0]
    assert np.allclose(values_of(source, pose, chosen, 1)[:, :3], expected)
    assert pose.components == ["R11", "R21", "R31", "R12", "R22", "R32"]


def test_a_name_that_occurs_twice_and_a_column_of_words_are_refused(tmp_path):
    source = FakeSource([3], {"state": state(3, 2), "word": np.array([b"a", b"b", b"c"])})
    (tmp_path / "t.yaml").write_text("- {name: a, column: state, slice: [0, 1]}\n" * 2)
    with pytest.raises(UserError, match="twice"):
        load_quantities(tmp_path / "t.yaml", source)
    with pytest.raises(UserError, match="not numbers"):
        quantity(tmp_path, source, "{name: w, column: word, slice: [0, 1]}")
