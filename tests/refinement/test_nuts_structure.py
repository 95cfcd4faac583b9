"""Markov chains of a structure: right for a known density, and the judge of the Gaussian posterior."""

import pytest
import torch

from bayesref.io.merged import read_merged
from bayesref.io.structure import read_structure
from bayesref.refinement.hamiltonian import Chain, _chain, dense_root, sample_structure
from bayesref.refinement.point_estimate import PointEstimate, fit_atoms, fit_globals
from bayesref.refinement.posterior import structure_posterior
from bayesref.refinement.refine import refine
from bayesref.restraints.dictionary import load_dictionary


@pytest.fixture(scope="module")
def posterior(problem):
    target, z = problem
    z, _ = fit_atoms(target, z, 10, 0.5)
    z = fit_globals(target, z, rounds=1)
    return structure_posterior(PointEstimate(target, z))


def test_a_chain_finds_a_density_that_is_known():
    """exp(-u⁴/4 - u²/2) in each of 20 directions: its variance by quadrature."""
    x = torch.linspace(-5, 5, 4001, dtype=torch.float64)
    p = torch.exp(-0.25 * x**4 - 0.5 * x**2)
    variance = float((p * x**2).sum() / p.sum())

    def density(u):
        return float(-(0.25 * u**4 + 0.5 * u**2).sum()), -(u**3) - u

    g = torch.Generator().manual_seed(0)
    u, share, evaluations = _chain(density, 20, 1500, 100, g, lambda row: None)
    assert float(u.square().mean()) == pytest.approx(variance, rel=0.04)
    assert float(u.mean().abs()) < 0.03
    assert 0.6 < share < 0.98
    assert evaluations > 1600


def test_the_root_is_that_of_the_draws(posterior):
    L, rows = dense_root(posterior)
    draws = posterior.draw(4000, seed=3)[:, rows]
    u = torch.linalg.solve(L, (draws - posterior.mean[rows]).T)
    assert float(u.square().mean()) == pytest.approx(1.0, abs=0.02)
    far = (u @ u.T / 4000 - torch.eye(len(u), dtype=u.dtype)).abs()
    assert float(far.max()) < 8 / 4000**0.5


def test_the_gaussian_of_a_peptide_agrees_with_a_chain(data_dir):
    """Coordinates about their centroid, since P 2₁ has no origin along y; what 80 draws can tell."""
    crystal = read_structure(data_dir / "5e5z" / "5e5z.pdb")
    data = read_merged(data_dir / "5e5z" / "5e5z.mtz")
    library = load_dictionary(sorted({n.split("/")[1].rsplit(" ", 1)[0] for n in crystal.name})).monlib
    posterior = refine(crystal, data, library, hydrogens="none", cycles=5)
    chain = sample_structure(posterior, 80, warmup=30, chains=1)
    where = posterior.target.latents.columns(["xyz"])

    def coordinates(z):
        xyz = z[:, where].reshape(len(z), -1, 3)
        return (xyz - xyz.mean(1, keepdim=True)).flatten(1)

    exact, gauss = coordinates(chain.z[0]), coordinates(posterior.draw(2000))
    shift, ratio = (exact.mean(0) - gauss.mean(0)) / gauss.std(0), exact.std(0) / gauss.std(0)
    assert 0.85 < float(ratio.median()) < 1.25
    assert float(((ratio > 0.7) & (ratio < 1.4)).double().mean()) > 0.8
    assert float(shift.square().mean()) < 0.2**2 + 4 / 80  # draws of a chain are not quite independent
    held = torch.ones(len(posterior.mean), dtype=torch.bool)
    held[chain.rows] = False
    assert bool((chain.z[0][:, held] == posterior.mean[held]).all())


def test_r_hat_sees_chains_that_differ():
    g = torch.Generator().manual_seed(1)
    z = torch.randn(2, 400, 3, generator=g, dtype=torch.float64)
    same = Chain(z, torch.arange(3), 1.0, 0).split_r_hat()
    apart = Chain(z + torch.tensor([0.0, 2.0])[:, None, None], torch.arange(3), 1.0, 0).split_r_hat()
    assert float(same.max()) < 1.03
    assert float(apart.min()) > 1.3
