"""Kinds of quantities: how the stored numbers are probed, and how far off a probe is in units of the world.

| kind | probed as | error |
|---|---|---|
| vector | the numbers themselves | Euclidean distance, in their unit |
| velocity | differences of the numbers over one frameskip, a step | Euclidean distance, unit per step |
| angle | sine and cosine of each number (radians) | mean over the numbers of the turn between the two, degrees |
| quaternion | two columns of its rotation matrix [0] | angle of the rotation between the two, degrees |

A quaternion q and its negative are the same rotation, and no four numbers follow rotations without a jump; the six do.

[0] Y. Zhou et al., On the continuity of rotation representations in neural networks, CVPR 2019, section 4.2.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

KINDS = ("vector", "angle", "quaternion", "velocity")
ORDERS = ("wxyz", "xyzw")  # of a quaternion's numbers; MuJoCo stores the first


def component_names(kind: str, first: int, last: int) -> list[str]:
    """Names of the probed numbers, for a slice `first` to `last` (left out) of a column."""
    numbers = [str(i) for i in range(first, last)]
    if kind == "angle":
        return [f"{f} {i}" for f in ("sin", "cos") for i in numbers]
    if kind == "quaternion":
        return [f"R{row}{column}" for column in (1, 2) for row in (1, 2, 3)]
    return numbers


def encode(kind: str, values: Float[np.ndarray, "n s"], order: str = "wxyz") -> Float[np.ndarray, "n c"]:
    """The numbers to probe; NaN and infinity stay what is not finite."""
    if kind == "angle":
        with np.errstate(invalid="ignore"):  # the sine of infinity
            return np.concatenate([np.sin(values), np.cos(values)], axis=1)
    if kind == "quaternion":
        return two_columns(values, order)
    return values


def two_columns(values: Float[np.ndarray, "n 4"], order: str) -> Float[np.ndarray, "n 6"]:
    """First two columns of each quaternion's rotation matrix; NaN where the quaternion has no length."""
    from scipy.spatial.transform import Rotation

    found = np.full((len(values), 6), np.nan)
    usable = np.isfinite(values).all(axis=1) & (np.linalg.norm(values, axis=1) > 1e-6)
    if usable.any():
        matrices = Rotation.from_quat(values[usable], scalar_first=order == "wxyz").as_matrix()  # (n, 3, 3)
        found[usable] = matrices[:, :, :2].swapaxes(1, 2).reshape(-1, 6)
    return found


def error(kind: str, true: Float[np.ndarray, "n c"], read: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """How far each frame's reading is off; both arguments as `encode` gives them."""
    if kind == "angle":
        return np.abs(turns(angles_of(true), angles_of(read))).mean(axis=1)
    if kind == "quaternion":
        return rotation_between(frames_of(true), frames_of(read))
    return np.linalg.norm(true - read, axis=1)


def error_unit(kind: str, unit: str) -> str:
    """The unit of `error`."""
    if kind in ("angle", "quaternion"):
        return "degrees"
    return f"{unit} per step" if kind == "velocity" else unit


def angles_of(encoded: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n s"]:
    """Radians from sines and cosines, which need not lie on the circle."""
    sines, cosines = np.split(encoded, 2, axis=1)
    return np.arctan2(sines, cosines)


def turns(a: Float[np.ndarray, "n s"], b: Float[np.ndarray, "n s"]) -> Float[np.ndarray, "n s"]:
    """The shorter way round from a to b, in degrees, within -180..180."""
    return np.degrees((b - a + np.pi) % (2 * np.pi) - np.pi)


def frames_of(columns: Float[np.ndarray, "n 6"]) -> Float[np.ndarray, "n 3 3"]:
    """Rotation matrices from two columns that need be neither of unit length nor orthogonal (Gram and Schmidt)."""
    a, b = columns[:, :3], columns[:, 3:]
    x = a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
    b = b - (x * b).sum(axis=1, keepdims=True) * x
    y = b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-12)
    return np.stack([x, y, np.cross(x, y)], axis=2)


def rotation_between(a: Float[np.ndarray, "n 3 3"], b: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
    """Angle of the rotation from a to b, degrees: cos = (trace(a^T b) - 1) / 2."""
    cosine = (np.einsum("nij,nij->n", a, b) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def differences(
    values: Float[np.ndarray, "t s"], frameskip: int, period: float | None = None
) -> Float[np.ndarray, "t s"]:
    """Change since `frameskip` rows before, a step; NaN in the first rows. With a period, the shorter way round."""
    found = np.full(values.shape, np.nan)
    change = values[frameskip:] - values[:-frameskip]
    if period is not None:
        change = (change + period / 2) % period - period / 2
    found[frameskip:] = change / frameskip
    return found
