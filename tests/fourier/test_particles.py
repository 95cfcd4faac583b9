"""Particle images, exact Gaussian draws, and the model page built on them."""

import pytest
import torch
from fourier_truth import Blobs, rotations

import bayesref as br
from bayesref._checks import InputError
from bayesref.fourier import fourier_volume, project, to_fourier, to_real
from bayesref.fourier.draw import draw_density, gaussian_draw
from bayesref.fourier.particles import fourier_shell_correlation, particle_images, shell_sum
from bayesref.fourier.simulate import simulate_images

REAL = torch.float64
needs_names = pytest.mark.skipif(
    not hasattr(br, "ParticleImages"), reason="bayesref does not list these names"
)


def simulation(N=16, n_images=40, snr=0.5):
    torch.manual_seed(0)
    return simulate_images(Blobs(0.2 * N).density(N), n_images, snr)


@pytest.mark.parametrize("N", [12, 13])
def test_predictions_are_the_transforms_of_projections(N):
    rho, M, shifts = Blobs(0.2 * N).density(N), rotations(3), torch.randn(3, 2, dtype=REAL)
    images = to_real(project(fourier_volume(rho), M, shifts), N, 2)
    data = particle_images(images, M, shifts)
    torch.testing.assert_close(data.predict(rho), data.D, rtol=0, atol=1e-12 * float(data.D.abs().max()))


@pytest.mark.parametrize("N", [12, 13])
def test_shells_count_every_coefficient_once(N):
    data = particle_images(torch.zeros(1, N, N, dtype=REAL), rotations(1))
    k = data.k.tolist()
    assert len({(a, b) for a, b in k} | {(-a, -b) for a, b in k}) == 2 * len(k)
    rho = torch.randn(N, N, N, dtype=REAL)
    total, count = data.volume_power(rho)
    whole = torch.fft.fftn(rho).abs().square() / N**3
    h = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(N, 1 / N, dtype=REAL)] * 3, indexing="ij"), -1)
    shell = h.norm(dim=-1).round().clamp(min=1) - 1
    for j in range(data.n_shell):
        torch.testing.assert_close(total[j], whole[shell == j].sum())
        assert count[j] == (shell == j).sum()


def test_white_noise_has_its_variance_in_every_shell():
    N = 24
    data = particle_images(3 * torch.randn(300, N, N, dtype=REAL), rotations(300))
    total, n = data.residual_power(torch.zeros(N, N, N, dtype=REAL))
    assert ((total / n / 9 - 1).abs() < 5 / n.sqrt()).all()


def test_coloured_noise_has_its_power():
    N, g = 16, torch.linspace(3, 1, 7, dtype=REAL)
    data = particle_images(torch.zeros(1, N, N, dtype=REAL), rotations(1))
    total, n = data.volume_power(data.colour(torch.randn(N, N, N, dtype=REAL), g))
    assert ((total / n / g**2 - 1).abs() < 5 * (2 / n).sqrt()).all()


def test_draws_have_the_mean_and_covariance_of_the_dense_solution():
    A = torch.randn(6, 4, dtype=torch.complex128)
    d, noise = torch.randn(6, dtype=torch.complex128), torch.rand(6, dtype=REAL) + 0.5
    Q = torch.eye(4, dtype=REAL) + (A.conj().T @ (2 / noise[:, None] * A)).real
    mean = torch.linalg.solve(Q, (A.conj().T @ (2 / noise * d)).real)
    start = torch.zeros(4, dtype=REAL)

    def apply(z):
        return A @ z.to(A.dtype)

    got = gaussian_draw(apply, d, noise, start, mean=True, tolerance=1e-12)
    torch.testing.assert_close(got.z, mean)
    draws = torch.stack([gaussian_draw(apply, d, noise, start, tolerance=1e-10).z for _ in range(4000)])
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(draws.T), torch.linalg.inv(Q), rtol=0, atol=0.01)


def test_the_mean_density_resembles_the_truth():
    truth = simulation()
    total, n = truth.data.volume_power(truth.rho)
    g = (total / n).sqrt()
    mean = draw_density(truth.data, g, truth.sigma2, mean=True)
    fsc = fourier_shell_correlation(mean, truth.rho, truth.data)
    assert fsc[0] > 0.98
    assert fsc[1] > 0.85
    residual, n = truth.data.residual_power(truth.rho)
    assert ((residual / n / truth.sigma2 - 1).abs() < 5 / n.sqrt()).all()


@needs_names
def test_the_draw_is_the_posterior_of_the_page():
    """At the conditional mean the log density of the Pyro model is stationary in z."""
    import pyro.poutine as poutine
    from bayesref.models.projection import model

    truth = simulation()
    total, n = truth.data.volume_power(truth.rho)
    g = (total / n).sqrt()
    mean = draw_density(truth.data, g, truth.sigma2, mean=True, tolerance=1e-10)
    gradients = []
    for z in (truth.data.colour(mean, 1 / g), torch.zeros_like(mean)):
        z = z.requires_grad_()
        sites = {"g": g, "sigma2": truth.sigma2, "z": z}
        trace = poutine.trace(poutine.condition(model, data=sites)).get_trace(truth.data)
        gradients.append(torch.autograd.grad(trace.log_prob_sum(), z)[0].norm())
    assert gradients[0] < 1e-8 * gradients[1]


@needs_names
def test_the_posterior_knows_its_errors():
    from bayesref.models.projection import posterior

    truth = simulation(N=12, n_images=30, snr=1.0)
    draws = list(posterior(truth.data, n_draws=16, n_warm=6))
    rho_hat = truth.data.coefficients(torch.stack([d[0] for d in draws]))
    mean, variance = rho_hat.mean(0), rho_hat.var(0)
    error = (truth.data.coefficients(truth.rho) - mean).abs().square() / variance.clamp(min=1e-30)
    # Shells that the images determine; in the others the posterior is the prior of g.
    z2 = shell_sum(error, truth.data)[:2].sum() / shell_sum(torch.ones_like(error), truth.data)[:2].sum()
    assert 0.5 < z2 < 2
    sigma2 = torch.stack([d[2] for d in draws]).mean(0)
    assert ((sigma2 / truth.sigma2 - 1).abs() < 0.3).all()


@needs_names
def test_the_command(tmp_path, data_dir):
    import typer
    from typer.testing import CliRunner

    from bayesref.cli.project import project as command

    app = typer.Typer()
    app.command()(command)
    model = str(data_dir / "1dur" / "1dur.pdb")
    options = ["--box", "16", "--pixel", "4", "--images", "20", "--draws", "3", "--warm", "2"]
    run = CliRunner().invoke(app, [model, *options, "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    assert "FSC" in run.output
    for name in ("fsc.png", "mean.ccp4", "sd.ccp4", "posterior.npz"):
        assert (tmp_path / name).stat().st_size > 100
    small = CliRunner().invoke(app, [model, "--box", "8", "--pixel", "1", "--out", str(tmp_path)])
    assert isinstance(small.exception, InputError)


def test_errors():
    images, M = torch.zeros(2, 8, 8, dtype=REAL), rotations(2)
    with pytest.raises(InputError, match="images"):
        particle_images(images[:, :7], M)
    with pytest.raises(InputError, match="M has shape"):
        particle_images(images, M[:1])
    with pytest.raises(InputError, match="not finite"):
        particle_images(images * float("nan"), M)
    with pytest.raises(InputError, match="radius"):
        particle_images(images, M, radius=4)
    assert to_fourier(images, 2).shape == (2, 8, 5)
