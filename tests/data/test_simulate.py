"""The simulation has the statistics that its docstring states."""

import numpy as np
import pytest

from bayesref._checks import InputError
from bayesref.data.simulate import MergeOptions, simulate_merge


def amplitudes(simulation, t=0):
    truth = simulation.truth[t]
    return truth["FTRUE"].to_numpy(float) / np.sqrt(truth["EPS"].to_numpy(float))


def test_amplitudes_follow_wilson():
    sim = simulate_merge(dmin=1.3, seed=4)
    J, centric = amplitudes(sim) ** 2, sim.truth[0]["CENTRIC"].to_numpy(bool)
    for part, second in ((J[~centric], 2.0), (J[centric], 3.0)):  # ⟨J²⟩/⟨J⟩²
        n = len(part)
        assert abs(part.mean() - 1) < 4 * np.sqrt((second - 1) / n)
        assert abs((part**2).mean() / second - 1) < 0.25
    assert 0 < centric.mean() < 0.3


def test_neighbouring_datasets_are_correlated_as_asked():
    sim = simulate_merge(n_datasets=3, r=0.9, dmin=1.3)
    J = np.stack([amplitudes(sim, t) ** 2 for t in range(3)])
    C = np.corrcoef(J)  # r² between intensities
    np.testing.assert_allclose([C[0, 1], C[1, 2], C[0, 2]], [0.81, 0.81, 0.81**2], atol=0.03)
    assert np.array_equal(sim.truth[0].get_hkls(), sim.truth[2].get_hkls())


@pytest.mark.parametrize(
    ("options", "inflation"), [({}, 1), ({"outliers": 0.05}, 1 + 0.05 * 99), ({"tdof": 8}, 8 / 6)]
)
def test_errors_have_the_size_stated(options, inflation):
    sim = simulate_merge(dmin=1.8, sig_mis=0.5, **options)
    spots, truth = sim.observations[0], sim.truth[0].reset_index()
    F = spots.hkl_to_asu().join(truth.set_index(["H", "K", "L"])[["FTRUE"]])["FTRUE"].to_numpy(float)
    mean = sim.scale[0] * F**2
    np.testing.assert_allclose(sim.sd[0] ** 2, 60**2 + 4 * mean + (0.03 * mean) ** 2, rtol=1e-5)
    np.testing.assert_allclose(spots["SIGI"].to_numpy(float), 0.5 * sim.sd[0], rtol=1e-6)
    z = (spots["I"].to_numpy(float) - mean) / sim.sd[0]
    assert abs(z.mean()) < 0.03
    assert (z**2).mean() == pytest.approx(inflation, rel=0.08)


def test_default_statistics():
    """Mean I/sigma, share of negative intensities, multiplicity: another program of the same model gives
    2.707 ± 0.018 and 0.1388 ± 0.0011 over 12 seeds."""
    rows = []
    for seed in range(6):
        sim = simulate_merge(seed=seed)
        I = sim.observations[0]["I"].to_numpy(float)
        rows.append((np.mean(I / sim.sd[0]), np.mean(I < 0), len(I) / len(sim.truth[0])))
    mean = np.mean(rows, axis=0)
    assert (np.abs(mean - [2.707, 0.1388, 8.0]) < [0.1, 0.006, 0.05]).all()
    assert "2,430 reflections (24.2% centric)" in str(sim)


def test_spots_are_on_images_and_detector():
    sim = simulate_merge(images=17, multiplicity=3, seed=2)
    spots = sim.observations[0]
    batch = spots["BATCH"].to_numpy(int)
    assert (np.diff(batch) >= 0).all()
    assert set(batch) == set(range(1, 18))
    radius = np.hypot(spots["X"].to_numpy(float) - 1000, spots["Y"].to_numpy(float) - 1000)
    d = spots.compute_dHKL()["dHKL"].to_numpy(float)
    np.testing.assert_allclose(radius * d, 900 * d.min(), rtol=1e-4)
    N = sim.truth[0]["N"].to_numpy(int)
    assert N.min() >= 1
    assert N.sum() == len(spots)


def test_seed_and_image_noise():
    a, b, c = simulate_merge(seed=5), simulate_merge(seed=5), simulate_merge(MergeOptions(seed=6))
    assert (a.observations[0]["I"] == b.observations[0]["I"]).all()
    assert len(a.observations[0]) != len(c.observations[0])
    noisy = simulate_merge(seed=5, image_noise=0.3)
    ratio = np.log(noisy.scale[0] / a.scale[0])
    batch = a.observations[0]["BATCH"].to_numpy(int)
    per_image = [ratio[batch == j] for j in range(1, 101)]
    assert max(np.ptp(x) for x in per_image) < 1e-9
    assert np.std([x[0] for x in per_image]) == pytest.approx(0.3, rel=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dmin": 0}, "Option dmin is 0; it must be above zero"),
        ({"r": 1.2}, "Option r is 1.2; it must lie between 0 and 1"),
        ({"gain": -1}, "Option gain is -1; it must not be negative"),
        ({"tdof": 0}, "Option tdof is 0"),
        ({"dmin": 100}, "No reflection lies within dmin = 100"),
        ({"spacegroup": "P 99"}, "is not a space group"),
        ({"resolution": 2}, "Option 'resolution' is unknown; options are n_datasets, r, cell"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        simulate_merge(**options)
