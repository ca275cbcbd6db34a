import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lewm.probes import kinds


def test_an_angle_survives_its_sine_and_cosine_and_errs_by_the_shorter_way_round():
    true, read = np.array([[3.1], [0.0], [-7.0]]), np.array([[-3.1], [np.pi / 2], [-7.0 + 4 * np.pi]])
    found = kinds.error("angle", kinds.encode("angle", true), 0.3 * kinds.encode("angle", read))
    assert found == pytest.approx([np.degrees(2 * np.pi - 6.2), 90, 0], abs=1e-9)
    assert kinds.component_names("angle", 2, 4) == ["sin 2", "sin 3", "cos 2", "cos 3"]


@pytest.mark.parametrize("order", kinds.ORDERS)
def test_a_quaternion_and_its_negative_are_one_rotation(order):
    rotations = Rotation.random(50, random_state=0)
    q = rotations.as_quat(scalar_first=order == "wxyz")
    encoded = kinds.encode("quaternion", q, order)
    assert np.allclose(encoded, kinds.encode("quaternion", -2 * q, order))
    assert np.allclose(kinds.frames_of(encoded), rotations.as_matrix())


def test_a_rotations_error_is_its_angle_whatever_the_length_of_the_columns():
    base = Rotation.random(20, random_state=1)
    angle = np.linspace(0, 180, 20)
    turned = base * Rotation.from_rotvec(angle[:, None] * np.array([[0.6, 0.8, 0.0]]), degrees=True)
    true, read = (kinds.encode("quaternion", r.as_quat(scalar_first=True)) for r in (base, turned))
    read[:, :3], read[:, 3:] = 2 * read[:, :3], 0.5 * read[:, 3:] + 0.7 * read[:, :3]
    assert kinds.error("quaternion", true, read) == pytest.approx(angle, abs=1e-4)


def test_a_quaternion_without_length_or_with_nan_is_unknown():
    found = kinds.encode("quaternion", np.array([[0, 0, 0, 0], [np.nan, 0, 0, 1], [1, 0, 0, 0.0]]))
    assert np.isnan(found[:2]).all() and np.isfinite(found[2]).all()


def test_a_velocity_is_the_change_over_one_frameskip_a_step():
    values = np.arange(10.0)[:, None] ** 2 * [[1, -1]]
    found = kinds.differences(values, 3)
    assert np.isnan(found[:3]).all()
    assert np.allclose(found[3:], (values[3:] - values[:-3]) / 3)
    assert np.isnan(kinds.differences(values, 30)).all()


def test_a_wrapped_numbers_velocity_takes_the_shorter_way():
    angle = 0.3 * np.arange(60.0)[:, None]
    found = kinds.differences(angle % (2 * np.pi), 2, 2 * np.pi)
    assert np.allclose(found[2:], 0.3)


def test_units_of_errors():
    assert [kinds.error_unit(kind, "m") for kind in kinds.KINDS] == ["m", "degrees", "degrees", "m per step"]
    assert kinds.error("vector", np.zeros((1, 2)), np.array([[3.0, 4.0]])) == pytest.approx([5])


def test_of_several_angles_the_error_is_the_mean():
    true = np.array([[0.0, 1.0]])
    read = true + np.radians([[10.0, 30.0]])
    assert kinds.error("angle", kinds.encode("angle", true), kinds.encode("angle", read)) == pytest.approx([20])
