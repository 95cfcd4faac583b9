"""Standardisation and positional encoding."""

import numpy as np
import pandas as pd
import pytest

from bayesref._checks import InputError
from bayesref.data.metadata import encode, fit_transform, metadata_matrix


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return {"X": rng.normal(1000, 300, 500), "dHKL": rng.uniform(0.01, 0.3, 500), "flat": np.ones(500)}


def test_columns_have_mean_zero_and_unit_deviation(table):
    z, transform = metadata_matrix(table, ["X", "dHKL"])
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(0, correction=0), 1)
    back = z.numpy() * transform.sd + transform.mean
    np.testing.assert_allclose(back, np.stack([table["X"], table["dHKL"]], 1))
    assert transform.columns == ("X", "dHKL")


def test_the_same_transform_on_other_spots(table):
    transform = fit_transform(table, ["X"], positional_keys=["dHKL"])
    half = {k: v[:100] for k, v in table.items()}
    np.testing.assert_array_equal(transform(half), transform(table)[:100])


def test_no_keys_give_no_columns(table):
    z, transform = metadata_matrix(table, [])
    assert z.shape == (500, 0)
    assert transform.columns == ()
    assert metadata_matrix(pd.DataFrame(table), ["X"])[0].shape == (500, 1)


def test_encode_by_hand():
    x = np.array([[-1.0, 0.25], [0.5, 1.0]])
    e = encode(x, 2)
    assert e.shape == (2, 8)
    for i in range(2):
        for j in range(2):
            t = np.pi * x[i, j]
            expected = [np.sin(t), np.sin(2 * t), np.cos(t), np.cos(2 * t)]
            np.testing.assert_allclose(e[i, 4 * j : 4 * j + 4], expected, atol=1e-15)
    assert encode(x[:, 0], 3).shape == (2, 6)


def test_positional_keys_are_scaled_to_their_range(table):
    z, transform = metadata_matrix(table, ["X"], positional_keys=["X"], n_frequencies=1)
    assert transform.columns == ("X", "sin(2^0 pi X)", "cos(2^0 pi X)")
    low, high = table["X"].argmin(), table["X"].argmax()
    np.testing.assert_allclose(z[[low, high], 2], -1)  # cos(±π)
    np.testing.assert_allclose(z[[low, high], 1], 0, atol=1e-12)


def test_keys_that_cannot_serve(table):
    with pytest.raises(InputError, match="'Y' is unknown; available: X, dHKL, flat"):
        fit_transform(table, ["Y"])
    with pytest.raises(InputError, match="'flat' has the value 1 for every spot"):
        fit_transform(table, ["X"], positional_keys=["flat"])
    with pytest.raises(InputError, match="'name' is not numeric"):
        fit_transform(table | {"name": np.array(["a", "b"])}, ["name"])
