"""What is expected of overlapped spots: closed forms where nothing is known, draws elsewhere; fits by minibatches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bayesref.models import merge_laue
from scipy.special import ndtri

import bayesref as br
from bayesref._checks import InputError
from bayesref.guides.latents import Latents
from bayesref.inference.laue import LaueCollapsed
from bayesref.inference.overlap_predictions import hold_out_overlaps, predict_overlaps, without
from bayesref.io.simulation import write_simulation
from bayesref.results.overlaps import overlaps_table


@pytest.fixture(scope="module")
def obs(tmp_path_factory):
    simulation = br.simulate_laue(dmin=4.0, images=14, singles=0.3, seed=5)
    spots, _ = write_simulation(simulation, tmp_path_factory.mktemp("laue"))
    return br.read_unmerged(spots, metadata_keys=["X", "Y"], wavelength_range=(0.5, 2.0), dmin=4.0)


def scale_of(obs):
    return br.Product(br.Falloff(obs, n_bumps=0), br.ImageWise(obs), br.Wavelength(obs, n_bumps=6))


@pytest.fixture(scope="module")
def held(obs):
    return hold_out_overlaps(obs, 0.3, seed=2)


@pytest.fixture(scope="module")
def fitted(obs, held):
    seen = without(obs, held)
    return br.fit(merge_laue.model, seen, scale_of(seen))


@pytest.fixture(scope="module")
def found(obs, held, fitted):
    return predict_overlaps(fitted, obs, held)


def test_spot_of_orders_that_nothing_is_known_of(obs, fitted):
    """J is exponential (acentric), χ² (centric): mean ε, variance ε² or 2 ε²; P(I' < I) from draws."""
    spots = obs.overlaps
    acentric = spots.total(obs.asu.centric[spots.orders.hkl_id].double()) == 0
    which = int((acentric & (spots.orders.counts()[spots.orders.hkl_id][spots.first] > 0)).nonzero()[0, 0])
    one = spots.select(spots.spot == which)
    far = ~torch.isin(obs.hkl_id, one.orders.hkl_id)
    few = replace(obs.subset(far), overlaps=one)
    everything = torch.ones(1, dtype=torch.bool)
    p = replace(fitted, obs=without(few, everything))
    assert p.obs.overlaps is None
    found = predict_overlaps(p, few, everything)
    epsilon = few.asu.epsilon[one.orders.hkl_id]
    torch.testing.assert_close(found.order_I, found.K * epsilon, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.order_SIGI, found.K * epsilon, rtol=1e-2, atol=0)
    assert float(found.I) == pytest.approx(float((found.K * epsilon).sum()), rel=1e-3)
    # Draws of both amplitudes and of a measurement.
    pyro_values = fitted.latents.unpack(fitted.mean)
    rng = np.random.default_rng(0)
    s = torch.from_numpy(rng.exponential(size=(200_000, len(epsilon)))) @ (found.K * epsilon)
    c = LaueCollapsed(merge_laue.model, few, fitted.args, fitted.latents, tied=False)
    with torch.no_grad():
        law = c._overlap(pyro_values, s[:, None]).nodes["I_overlap"]["fn"]
        torch.manual_seed(0)
        I = law.sample()[:, 0]
    assert float(found.SIGI) == pytest.approx(float(I.std()), rel=0.03)
    assert float(found.z) == pytest.approx(float(ndtri(float((I < one.I).double().mean()))), abs=0.05)


def test_z_is_unit_normal(obs, held, found):
    z, I = found.z.numpy(), obs.overlaps.I.numpy()
    # Some 250 spots: binomial error 0.02; z² has an error of 0.1.
    assert 0.84 < np.mean(np.abs(z) < 1.645) < 0.97
    assert 0.6 < np.mean(z**2) < 1.4
    assert np.corrcoef(I[held], found.I.numpy()[held])[0, 1] > 0.85
    assert np.corrcoef(I[~held], found.I.numpy()[~held])[0, 1] > 0.98
    torch.testing.assert_close(obs.overlaps.total(found.order_I), found.I)
    assert bool((found.outlier >= 0).all() & (found.outlier <= 1).all())


def test_an_outlier_is_one_when_left_out(obs, held, fitted, found):
    """A spot ten times too strong is far off given the others, whatever it says itself."""
    before = found
    strong = int((before.I * held / before.SIGI).argmax())
    rows = obs.overlaps.spot == strong
    orders = replace(obs.overlaps.orders, I=torch.where(rows, 20 * before.I[strong], obs.overlaps.orders.I))
    after = predict_overlaps(fitted, replace(obs, overlaps=replace(obs.overlaps, orders=orders)), held)
    assert after.z[strong] > 4
    assert after.outlier[strong] > 0.5 > before.outlier[strong]
    others = torch.arange(len(held)) != strong
    torch.testing.assert_close(after.z[others], before.z[others])


def test_nodes_that_a_law_ran_off_do_not_count_as_knowledge(obs, fitted):
    """Parts of the overlapped spots, from scratch: amplitudes stay positive, and no site becomes a spike."""
    g = torch.Generator().manual_seed(1)
    for _ in range(6):
        some = without(obs, torch.rand(len(obs.overlaps), generator=g) < 0.2)
        c = LaueCollapsed(
            merge_laue.model, some, fitted.args, Latents(merge_laue.model, (some, *fitted.args))
        )
        c.refresh(fitted.mean)
        assert float(c.sites.alpha.max()) < 1e6
        assert bool((c.settled.joint.mean > -1e-3).all())


def test_minibatches_end_where_the_deterministic_fit_does(obs, held, fitted):
    seen = without(obs, held)
    svi = br.fit(merge_laue.model, seen, scale_of(seen), method="svi", epochs=8)
    assert svi.converged
    one, other = (p.amplitudes(n_draws=1) for p in (fitted, svi))
    known = one.N > 0
    factor = (one.F * other.F)[known].sum() / (other.F**2)[known].sum()
    assert float(((factor * other.F - one.F)[known] / one.SIGF[known]).abs().max()) < 0.2


def test_table_has_a_row_for_each_order(obs, held, found):
    table = overlaps_table(obs.overlaps, found, obs.image_number, 0, held)
    assert len(table) == len(obs.overlaps.spot)
    spots = table.groupby("SPOT")
    np.testing.assert_allclose(spots["Iorder"].sum().to_numpy(), spots["Ipred"].first().to_numpy(), rtol=1e-5)
    assert spots["test"].first().sum() == int(held.sum())
    # One ray: the orders of a spot are multiples of one index, at wavelengths in inverse ratio.
    hkl, wavelength = table.index.to_frame().to_numpy(int), table["LAMBDA"].to_numpy(float)
    n = np.gcd.reduce(hkl, axis=1)
    for _, rows in list(table.reset_index().groupby("SPOT").indices.items())[:20]:
        assert len({tuple(x) for x in hkl[rows] // n[rows, None]}) == 1
        np.testing.assert_allclose(wavelength[rows] * n[rows], (wavelength * n)[rows[0]], rtol=1e-5)


def test_holding_out_everything_is_refused(obs):
    few = replace(obs, overlaps=obs.overlaps.select(obs.overlaps.spot == 3))
    with pytest.raises(InputError, match="hold out a smaller fraction"):
        hold_out_overlaps(few, 1.0)
    assert len(hold_out_overlaps(replace(obs, overlaps=None), 0.5)) == 0
