import numpy as np
import pytest

from lewm.probes.seams import Scale


def rows(n=100, d=5, dtype: type = np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * rng.uniform(0.1, 50, d) + rng.normal(size=d) * 10).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 7, 100, 4096])
def test_the_scale_is_mean_and_standard_deviation_whatever_the_block(monkeypatch, dtype, block):
    monkeypatch.setattr(Scale, "BLOCK", block)
    values = rows(dtype=dtype)
    scale = Scale.of(values)
    np.testing.assert_allclose(scale.mean, values.astype(np.float64).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(scale.std, values.astype(np.float64).std(axis=0), rtol=1e-13)
    expected = (values - scale.mean) / scale.std
    np.testing.assert_array_equal(scale(values), expected)
    np.testing.assert_array_equal(np.concatenate(list(scale.blocks(values))), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_a_constant_column_is_exactly_zero(dtype, constant):
    values = rows(n=30_000, dtype=dtype)
    values[:, 2] = constant
    scale = Scale.of(values)
    assert scale.std[2] == 1
    assert not scale(values)[:, 2].any()


def test_a_far_mean_loses_no_digits():
    values = np.random.default_rng(1).normal(size=(50_000, 3)) + 1e4
    exact = values.astype(np.longdouble)
    scale = Scale.of(values)
    np.testing.assert_allclose(scale.mean, exact.mean(axis=0).astype(np.float64), rtol=1e-15)
    np.testing.assert_allclose(scale.std, exact.std(axis=0).astype(np.float64), rtol=1e-13)


def test_undo_takes_standardised_rows_back_to_their_own_units():
    values = rows(dtype=np.float64)
    values[:, 1] = 3.0
    scale = Scale.of(values)
    np.testing.assert_allclose(scale.undo(scale(values)), values, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(scale.undo(np.zeros((1, 5)))[0], scale.mean)


def test_standardising_leaves_its_rows_alone():
    values = rows(dtype=np.float64)
    kept = values.copy()
    Scale.of(values)(values)
    np.testing.assert_array_equal(values, kept)


def test_no_rows_are_one_empty_block():
    (block,) = Scale.of(rows()).blocks(np.empty((0, 5), np.float32))
    assert block.shape == (0, 5)
