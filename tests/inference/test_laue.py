"""Overlapped spots taken apart, against integration over all amplitudes of a cluster on a grid."""

from dataclasses import replace

import numpy as np
import pytest
import reciprocalspaceship as rs
import torch
from bayesref.models import merge, merge_laue

import bayesref as br
from bayesref._checks import InputError
from bayesref.guides.latents import Latents
from bayesref.inference.laue import LaueCollapsed
from bayesref.inference.overlap_clusters import Clusters
from bayesref.io.simulation import write_simulation

BAND = (0.5, 2.0)


@pytest.fixture(scope="module")
def laue(tmp_path_factory):
    """Observations with overlaps, about 900 spots, and their truth."""
    simulation = br.simulate_laue(dmin=4.0, images=14, singles=0.3, seed=5)
    spots, truth = write_simulation(simulation, tmp_path_factory.mktemp("laue"))
    obs = br.read_unmerged(spots, metadata_keys=["X", "Y"], wavelength_range=BAND, dmin=4.0)
    return obs, rs.read_mtz(str(truth[0]))


def scale_of(obs):
    return br.Product(br.Falloff(obs, n_bumps=4), br.ImageWise(obs), br.Wavelength(obs, n_bumps=8))


@pytest.fixture(scope="module")
def fitted(laue):
    obs, _ = laue
    return br.fit(merge_laue.model, obs, scale_of(obs))


@pytest.fixture(scope="module")
def collapsed(laue, fitted):
    obs, _ = laue
    c = LaueCollapsed(merge_laue.model, obs, fitted.args, fitted.latents)
    c.refresh(fitted.mean)
    return c


def test_the_fit_converges_and_knows_the_amplitudes(laue, fitted):
    obs, truth = laue
    assert fitted.converged
    amplitudes = fitted.amplitudes(n_draws=8)
    table = truth.loc[[tuple(h) for h in obs.asu.hkl.tolist()]]
    np.testing.assert_array_equal(amplitudes.N, table["N"].to_numpy(int))
    F, s, T = amplitudes.F.numpy(), amplitudes.SIGF.numpy(), table["FTRUE"].to_numpy(float)
    k = np.sum(T * F / s**2) / np.sum(F**2 / s**2)
    z = np.abs((k * F - T) / (k * s))
    single = table["NSINGLE"].to_numpy(int)
    # 298 and 82 amplitudes: binomial errors of 0.02 and 0.03.
    assert 0.84 < np.mean(z[single > 0] < 1.645) < 0.96
    assert 0.82 < np.mean(z[single == 0] < 1.645) < 0.99
    assert np.corrcoef(F[single == 0], T[single == 0])[0, 1] > 0.75


def grid_posterior(collapsed, values, members, span, n=90):
    """Mean and sd of F of two amplitudes that only each other's overlapped spots tie, on a grid of both."""
    obs, clusters = collapsed.overlaps, collapsed.clusters
    lo, hi = (x[members] for x in (span["lo"], span["hi"]))
    room = 0.3 * (hi - lo)
    lo, hi = (lo - room).clamp(min=0), hi + room
    F = lo + (hi - lo) * (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n  # (node, member)
    where = torch.ones(n, len(clusters.core), dtype=torch.float64)
    where[:, members] = F
    log_g = collapsed.log_density(collapsed.core, values, where)[:, members]
    log_p = log_g[:, :1] + log_g[:, 1]  # (F of the first, F of the second)
    K, J = collapsed._order_K(values), F**2
    spots = (clusters.spot_label == clusters.label[members[0]]).nonzero()[:, 0]
    s = torch.ones(n * n, len(obs), dtype=torch.float64)
    for i in spots.tolist():
        k = [K[(clusters.spot == i) & (clusters.row == m)].sum() for m in members]
        s[:, i] = (k[0] * J[:, :1] + k[1] * J[:, 1]).reshape(-1)
    law = collapsed._overlap(values, s).nodes["I_overlap"]["fn"].log_prob(obs.I)[:, spots].sum(1)
    p = (log_p + law.reshape(n, n)).reshape(-1).softmax(0).reshape(n, n)
    result = []
    for m, w, f in zip(members, (p.sum(1), p.sum(0)), F.T, strict=True):
        mean = (w * f).sum()
        result.append((m, float(mean), float((w * (f - mean) ** 2).sum().sqrt())))
    return result


def test_pairs_against_integration_in_two_dimensions(collapsed, fitted):
    values = fitted.latents.unpack(fitted.mean)
    label, core = collapsed.clusters.label, collapsed.clusters.core
    count = torch.bincount(label)
    errors, ratios, moments = [], [], []
    with torch.no_grad():
        for piece, span in zip(collapsed.pieces, collapsed.spans, strict=True):
            F, slope = span.nodes(24)
            p = span.posterior(collapsed.log_density(piece, values, F), slope)
            moments.append(torch.stack([p.expectation(F), p.central(F).sqrt()]))
        mean, sd = torch.cat(moments, 1)[:, core]
        span = {k: torch.cat([getattr(s, k) for s in collapsed.spans])[core] for k in ("lo", "hi")}
        for c in (count == 2).nonzero()[:20, 0].tolist():
            members = (label == c).nonzero()[:, 0].tolist()
            for m, exact, exact_sd in grid_posterior(collapsed, values, members, span):
                errors.append(float(mean[m] - exact) / exact_sd)
                ratios.append(float(sd[m]) / exact_sd)
    errors, ratios = np.abs(errors), np.array(ratios)
    assert len(errors) == 40
    # A pair seen once has a posterior with two edges, which no Gaussian message has exactly.
    assert np.median(errors) < 0.01
    assert np.quantile(errors, 0.9) < 0.1
    assert np.abs(np.log(np.median(ratios))) < 0.01
    assert np.all((ratios > 0.7) & (ratios < 1.4))


def test_gradient_is_that_of_the_evidence(collapsed, fitted):
    z = fitted.mean + 0.02
    collapsed.refresh(z)
    _, grad = collapsed.exact(z)
    for name in ("w", "a"):
        at = fitted.latents.sites[name].where.start
        step = torch.zeros_like(z)
        step[at] = 1e-3
        slope = (collapsed.value(z + step) - collapsed.value(z - step)) / 2e-3
        # Convex priors (centric amplitudes) get the nearest proper Gaussian, which is not quite a fixed point.
        assert float(grad[at]) == pytest.approx(slope, rel=0.2, abs=1.0)
    collapsed.refresh(fitted.mean)


def test_evidence_of_one_pair(collapsed, laue, fitted):
    """With nothing but one overlapped spot, log Z is an integral over the plane."""
    obs, _ = laue
    values = fitted.latents.unpack(fitted.mean)
    pairs = obs.overlaps.spot.bincount()
    which = next(
        i for i in (pairs == 2).nonzero()[:, 0].tolist() if obs.overlaps.I[i] > 3 * obs.overlaps.SIGI[i]
    )
    only = obs.overlaps.select(obs.overlaps.spot == which)
    far = ~torch.isin(obs.hkl_id, only.orders.hkl_id)
    few = replace(obs.subset(far.nonzero()[:50, 0]), overlaps=only)
    latents = Latents(merge_laue.model, (few, *fitted.args))
    c = LaueCollapsed(merge_laue.model, few, fitted.args, latents)
    with_spot = c.refresh(fitted.mean)
    alone = LaueCollapsed(merge_laue.model, few, fitted.args, latents, tied=False).refresh(fitted.mean)
    n = 500
    F = torch.linspace(1e-4, 5, n, dtype=torch.float64)
    with torch.no_grad():
        log_g = c.run(c.core, values).nodes["F"]["fn"].log_prob(F[:, None].expand(n, 2))
        K = c._order_K(values)
        s = (K[0] * F[:, None] ** 2 + K[1] * F[None] ** 2).reshape(-1, 1)
        law = c._overlap(values, s).nodes["I_overlap"]["fn"].log_prob(only.I)[:, 0].reshape(n, n)
        first, second = c.clusters.row.tolist()
        log_p = log_g[:, first, None] + log_g[None, :, second] + law
        exact = float(log_p.logsumexp((0, 1))) + 2 * np.log(float(F[1] - F[0]))
    assert with_spot - alone == pytest.approx(exact, abs=0.15)  # two edges again


def test_clusters_are_the_connected_reflections():
    hkl_id = torch.tensor([4, 7, 7, 9, 2, 1, 20, 4])
    spot = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    c = Clusters(hkl_id, spot)
    assert c.core.tolist() == [1, 2, 4, 7, 9, 20]
    groups = {frozenset(c.core[c.label == k].tolist()) for k in range(c.n)}
    assert groups == {frozenset({4, 7, 9, 20}), frozenset({1, 2})}


def test_joint_gaussian_against_dense_algebra():
    g = torch.Generator().manual_seed(0)
    hkl_id, spot = torch.tensor([4, 7, 7, 9, 2, 1, 20, 4]), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    c = Clusters(hkl_id, spot)
    alpha, beta, tau, eta, K = (
        torch.rand(n, generator=g, dtype=torch.float64) + 0.1 for n in (6, 6, 4, 4, 8)
    )
    A = torch.zeros(4, 6, dtype=torch.float64)
    A[spot, c.row] = K
    P, h = torch.diag(alpha) + A.T @ (tau[:, None] * A), beta + A.T @ eta
    S = torch.linalg.inv(P)
    joint = c.joint(alpha, beta, tau, eta, K)
    torch.testing.assert_close(joint.mean, S @ h)
    torch.testing.assert_close(joint.variance, S.diagonal())
    torch.testing.assert_close(joint.s_mean, A @ S @ h)
    torch.testing.assert_close(joint.s_variance, (A @ S @ A.T).diagonal())
    torch.testing.assert_close(joint.along, (A @ S)[spot, c.row])
    log_Z = 0.5 * (h @ S @ h) - 0.5 * torch.logdet(P) + 3 * np.log(2 * np.pi)
    assert joint.log_normalizer == pytest.approx(float(log_Z))


def test_curvature_is_that_of_the_evidence(collapsed, fitted):
    """Along one direction of the scale: expected information, so within a third of the observed one."""
    at = fitted.latents.sites["w"].where
    d = torch.zeros_like(fitted.mean)
    d[at] = torch.randn(at.stop - at.start, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    H = collapsed.gauss_newton(fitted.mean, ["w"])
    collapsed.refresh(fitted.mean)
    step = 0.02
    slope = [collapsed.exact(fitted.mean + s * step * d)[1] @ d for s in (1, -1)]
    observed = float(slope[1] - slope[0]) / (2 * step) - float(d @ d)
    assert float(d[at] @ H @ d[at]) == pytest.approx(observed, rel=0.33)


def test_pages_that_cannot(laue):
    obs, _ = laue
    scale = scale_of(obs)
    with pytest.raises(InputError, match=r"no site 'I_overlap'.*merge_laue"):
        br.fit(merge.model, obs, scale, rounds=1)
    nothing = replace(obs.subset(slice(0, 0)), overlaps=obs.overlaps)
    with pytest.raises(InputError, match="Every spot holds several harmonics"):
        LaueCollapsed(merge_laue.model, nothing, (scale,), Latents(merge_laue.model, (obs, scale)))
