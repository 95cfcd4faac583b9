"""Fits of simulated spots: exact integrals, honest intervals, the same answer from different methods."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.optimize import approx_fprime

import bayesref as br
from bayesref.guides.latents import Latents
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.curvature import gauss_newton, inverse_root, precision, scale_sites


def collapsed_of(model, obs, *args):
    return Collapsed(model, obs, args, Latents(model, (obs, *args)))


def test_exact_is_a_fine_grid(fitted, simulated):
    c = collapsed_of(simulated.merge, simulated.obs, *fitted.args)
    c.refresh(fitted.mean)
    values = c.latents.unpack(fitted.mean)
    F = (torch.arange(20_000, dtype=torch.float64)[:, None] + 0.5) * (6 / 20_000)
    for piece in c.pieces:
        part = piece.slice_reflections(0, 40)
        F_grid = F.expand(-1, len(part.asu))
        grid = c.log_density(part, values, F_grid).logsumexp(0) + torch.tensor(6 / 20_000).log()
        span = c.find_span(part, values)
        nodes, slope = span.nodes(20)
        exact = span.posterior(c.log_density(part, values, nodes), slope).log_normalizer
        torch.testing.assert_close(exact, grid, atol=2e-5, rtol=0)


def test_gradient_of_the_exact_likelihood(fitted):
    c = collapsed_of(fitted.model, fitted.obs, *fitted.args)
    c.refresh(fitted.mean)
    z = fitted.mean.clone()
    _, grad = c.exact(z)
    some = [0, 5, len(z) - 5, len(z) - 4, len(z) - 3, len(z) - 2, len(z) - 1]

    def value(x):
        y = z.clone()
        y[some] = torch.from_numpy(x)
        return c.value(y)

    numeric = approx_fprime(z[some].numpy(), value, 1e-5)
    torch.testing.assert_close(grad[some], torch.from_numpy(numeric), rtol=1e-3, atol=0.05)


def test_fixed_sites_have_no_gradient(fitted):
    c = collapsed_of(fitted.model, fitted.obs, *fitted.args)
    c.refresh(fitted.mean)
    w = c.latents.unpack(fitted.mean)["w"]
    _, all_of_it = c.exact(fitted.mean)
    value, grad = c.exact(fitted.mean, {"w": w})
    assert (grad[c.latents.sites["w"].where] == 0).all()
    rest = slice(c.latents.sites["w"].where.stop, None)
    torch.testing.assert_close(grad[rest], all_of_it[rest])
    assert value == pytest.approx(c.value(fitted.mean), rel=1e-12)


def known_variance(obs, scale):
    with pyro.plate("hkl", len(obs.asu)):
        F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
    w = pyro.sample("w", scale.prior())
    with pyro.plate("spot", len(obs)):
        I_pred = torch.exp(scale(w, obs)) * F[..., obs.hkl_id] ** 2
        pyro.sample("I", dist.Normal(I_pred, obs.SIGI), obs=obs.I)


def test_surrogate_is_exact_for_known_variances(simulated):
    scale = br.Falloff(simulated.obs, n_bumps=0)
    c = collapsed_of(known_variance, simulated.obs, scale)
    z = torch.tensor([0.1, -0.05], dtype=torch.float64)
    c.refresh(z)
    log_p, grad = c.exact(z, n_node=48)
    constant = sum(
        float((-0.5 * (p.I / p.SIGI) ** 2 - p.SIGI.log()).sum()) - 0.9189385332046727 * len(p)
        for p in c.pieces
    )
    value, surrogate_grad = c.surrogate(z)
    assert value + constant == pytest.approx(log_p, rel=1e-7)
    torch.testing.assert_close(surrogate_grad, grad, rtol=1e-5, atol=1e-3)


def test_gauss_newton_is_the_hessian_on_average(simulated):
    scale = br.Falloff(simulated.obs, n_bumps=0)
    posterior = br.fit(known_variance, simulated.obs, scale)
    c = collapsed_of(known_variance, simulated.obs, scale)
    c.refresh(posterior.mean)
    H = gauss_newton(c, posterior.mean, scale_sites(c, posterior.mean))
    h = 1e-3
    rows = []
    for i in range(2):
        e = torch.zeros(2, dtype=torch.float64)
        e[i] = h
        rows.append((c.exact(posterior.mean - e)[1] - c.exact(posterior.mean + e)[1]) / (2 * h))
    observed = torch.stack(rows) - torch.eye(2).double()
    # Expected against observed information of some 580 reflections: equal to a few per cent.
    torch.testing.assert_close(H, observed, rtol=0.1, atol=0.05 * float(observed.diagonal().max()))


def test_deterministic_fit_is_honest(fitted, z_scores):
    assert fitted.converged
    z = z_scores(fitted.amplitudes())
    # 580 reflections: two binomial sd are 0.025; the errors of the scale, which they share, take as much again.
    assert 0.85 < float((z.abs() < 1.645).double().mean()) < 0.95
    assert 0.8 < float((z**2).mean()) < 1.25


def test_same_seed_same_posterior(fitted, simulated):
    again = br.fit(simulated.merge, simulated.obs, simulated.scale_of(simulated.obs))
    assert (again.mean == fitted.mean).all()
    assert again.elbo == fitted.elbo


def test_stochastic_fit_agrees(fitted, simulated):
    svi = br.fit(simulated.merge, simulated.obs, simulated.scale_of(simulated.obs), method="svi", epochs=30)
    a, b = fitted.amplitudes(), svi.amplitudes()
    near = ((a.F - b.F).abs() < a.SIGF).double().mean()
    assert float(near) > 0.95
    assert abs(svi.elbo - fitted.elbo) < 0.01 * len(simulated.obs)


def test_interrupt_leaves_a_posterior(simulated):
    def report(row):
        if row["step"] == 3:
            raise KeyboardInterrupt

    posterior = br.fit(simulated.merge, simulated.obs, simulated.scale_of(simulated.obs), report=report)
    assert "interrupted" in posterior.reason
    assert not posterior.converged
    assert torch.isfinite(posterior.amplitudes(n_draws=2).SIGF).all()


def test_a_fixed_site_stays(simulated):
    posterior = br.fit(
        simulated.merge,
        simulated.obs,
        simulated.scale_of(simulated.obs),
        fixed={"nu": torch.tensor(6.0).double()},
    )
    assert "nu" not in posterior.sites(2)


def test_unknown_method(simulated):
    with pytest.raises(br.InputError, match="deterministic"):
        br.fit(simulated.merge, simulated.obs, method="magic")


def test_nuts_agrees(simulated):
    """Hamiltonian Monte Carlo on the collapsed likelihood of two scale weights and the error model's factor."""
    obs = simulated.obs

    def model(obs, scale):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        w = pyro.sample("w", scale.prior())
        a = pyro.sample("a", dist.LogNormal(torch.zeros(()).double(), torch.ones(()).double()))
        with pyro.plate("spot", len(obs)):
            pyro.sample(
                "I", dist.Normal(torch.exp(scale(w, obs)) * F[..., obs.hkl_id] ** 2, a * obs.SIGI), obs=obs.I
            )

    scale = br.Falloff(obs, n_bumps=0)
    posterior = br.fit(model, obs, scale)
    c = collapsed_of(model, obs, scale)
    c.refresh(posterior.mean)

    class Potential(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            with torch.enable_grad():
                value, grad = c.exact(z)
            ctx.save_for_backward(-grad)
            return z.new_tensor(-value)

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0]

    pyro.set_rng_seed(0)
    kernel = pyro.infer.NUTS(
        potential_fn=lambda z: Potential.apply(posterior.mean + posterior.root @ z["u"]), max_tree_depth=4
    )
    mcmc = pyro.infer.MCMC(
        kernel, 250, 50, initial_params={"u": torch.zeros(3).double()}, disable_progbar=True
    )
    mcmc.run()
    u = mcmc.get_samples()["u"]  # in units of the Gaussian posterior: mean 0, sd 1
    assert (u.mean(0).abs() < 0.3).all()
    assert ((u.std(0) > 0.75) & (u.std(0) < 1.33)).all()


def test_root_of_an_indefinite_matrix():
    H = torch.tensor([[2.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    L = inverse_root(H)
    torch.testing.assert_close(L @ L.T, torch.tensor([[0.5, 0.0], [0.0, 1.0]], dtype=torch.float64))


def test_precision_is_symmetric_and_positive(fitted):
    c = collapsed_of(fitted.model, fitted.obs, *fitted.args)
    c.refresh(fitted.mean)
    H = precision(c, fitted.mean, scale_sites(c, fitted.mean))
    torch.testing.assert_close(H, H.T, rtol=1e-6, atol=1e-6)
    assert (torch.linalg.eigvalsh(H) > 0).all()
