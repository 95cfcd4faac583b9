"""posterior.nc, and the same in memory for both kinds of ArviZ."""

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray

from bayesref._checks import InputError
from bayesref.results.inference_data import inference_data, posterior_datasets, write_posterior


@pytest.fixture(scope="module")
def arviz():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own, about versions to come
        return pytest.importorskip("arviz")


def test_file_is_read_by_arviz(results, tmp_path, arviz):
    write_posterior(posterior_datasets(results.posterior, results.amplitudes), tmp_path / "posterior.nc")
    data = arviz.from_netcdf(tmp_path / "posterior.nc")
    asu = results.posterior.obs.asu
    F = data.posterior["F"]
    assert F.dims == ("chain", "draw", "hkl")
    assert F.dtype == np.float32
    assert F.shape == (1, 40, len(asu))
    np.testing.assert_array_equal(F[0], results.amplitudes.draws)
    np.testing.assert_array_equal(np.stack([data.constant_data[k] for k in "HKL"], 1), asu.hkl)
    np.testing.assert_array_equal(data.constant_data["dHKL"], asu.dHKL)
    np.testing.assert_array_equal(data.constant_data["N"], results.amplitudes.N)
    np.testing.assert_array_equal(data.observed_data["I"], results.posterior.obs.I)
    assert data.posterior.attrs["elbo"] == results.posterior.elbo
    assert (
        data.posterior["w"].shape[2] == len(data.constant_data["w_term"]) == len(data.constant_data["w_sd"])
    )
    assert len(data.constant_data["history_elbo"]) == len(results.posterior.history)
    # the mean of the draws is the posterior mean, within their scatter
    error = (F[0].mean("draw").values - results.amplitudes.F.numpy()) / results.amplitudes.SIGF.numpy()
    assert np.sqrt(np.mean(error**2)) < 2 / np.sqrt(40)


def test_draws_of_F_belong_to_the_draws_of_the_sites(results):
    post, a = results.posterior, results.amplitudes
    joint = posterior_datasets(post, a)["posterior"]
    sites = post.sites(16)
    assert joint.sizes["draw"] == 40
    # 40 draws of F from 16 draws of z: three from each, one after the other
    for s in (0, 2, 3, 17, 39):
        np.testing.assert_array_equal(joint["w"][0, s], sites["w"][s // 3])
        assert joint["a"][0, s] == sites["a"][s // 3]


def test_without_draws_of_F(results):
    datasets = posterior_datasets(results.posterior, replace(results.amplitudes, draws=None))
    assert "F" not in datasets["posterior"]
    assert datasets["posterior"].sizes["draw"] == 200


def test_unknown_numbers_are_left_out(results):
    post = replace(results.posterior, elbo_error=float("nan"), history=[])
    attrs = posterior_datasets(post, results.amplitudes)["posterior"].attrs
    assert attrs == {"elbo": post.elbo, "reason": post.reason}


def test_in_memory(results, arviz, monkeypatch):
    data = inference_data(results.posterior, results.amplitudes)
    assert data.posterior["F"].shape[:2] == (1, 40)
    if hasattr(arviz, "InferenceData"):
        assert isinstance(data, arviz.InferenceData)
        monkeypatch.delattr(arviz, "InferenceData")  # as ArviZ 1.0 has it
        data = inference_data(results.posterior, results.amplitudes)
    assert isinstance(data, xarray.DataTree)
    assert set(data.children) == {"posterior", "observed_data", "constant_data"}
    assert data.attrs["elbo"] == results.posterior.elbo


def test_failed_write_leaves_what_was_there(results, tmp_path, monkeypatch):
    path = tmp_path / "posterior.nc"
    path.write_text("before")
    datasets = posterior_datasets(results.posterior, results.amplitudes)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xarray.Dataset, "to_netcdf", full)
    with pytest.raises(InputError, match="the disk is full"):
        write_posterior(datasets, path)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.nc"]


def test_writing_does_not_import_arviz():
    code = (
        "import sys, bayesref.results.write;"
        "print([m for m in ('arviz', 'matplotlib', 'xarray') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_tensors_of_sites_are_not_shared(results):
    """Writing to what came out changes nothing of the posterior."""
    before = results.amplitudes.draws.clone()
    posterior_datasets(results.posterior, results.amplitudes)["posterior"]["F"][:] = 0
    assert torch.equal(results.amplitudes.draws, before)
