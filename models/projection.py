"""Projection: images of one object in known poses, and what they say about its density.

    g_j ~ Normal(0, s),   σ²_j ~ InverseGamma              shell j: amplitude of the object, variance of the noise
    ρ̂_h = g_j F[z]_h,   z ~ white                          Wilson: coefficients are Gaussian and independent
    D_p(k) = √N e^{-2πi k·s_p/N} ρ̂(M_p (0, k)) + n_p(k)    image p in pose (M_p, s_p): a central slice
    Re n, Im n ~ Normal(0, σ²_j / 2)

`posterior` draws from it by Gibbs sampling, without approximation, because every conditional is known: the density
is Gaussian (drawn by conjugate gradients), so is g given z, and σ² is inverse gamma. g is drawn twice, given ρ and
given z, so that shells with strong and with weak data both mix (Yu & Meng, 2011, J. Comput. Graph. Stat. 20, 531).
Wilson (1949), Acta Cryst. 2, 318.
"""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch

import bayesref as br


@dataclass(frozen=True)
class Priors:
    """Priors of a shell. The sign of g is that of z, so it means nothing."""

    g: float = 3.0  # spread of g, in units of what the strongest shell of the images would need without noise
    noise: tuple = (1e-2, 1e-6)  # shape and scale of σ²: nearly flat in its logarithm


def spread(data: br.ParticleImages, priors: Priors):
    total, n = data.residual_power(data.M.new_zeros([data.size] * 3))
    return priors.g * (total / n / data.size).max().sqrt()


def model(data: br.ParticleImages, priors: Priors = Priors()):
    one = torch.ones_like(data.M[0, 0, 0])
    with pyro.plate("shell", data.n_shell):
        g = pyro.sample("g", dist.Normal(0 * one, spread(data, priors)))
        sigma2 = pyro.sample("sigma2", dist.InverseGamma(priors.noise[0] * one, priors.noise[1] * one))
    z = pyro.sample("z", dist.Normal(0 * one, one).expand([data.size] * 3).to_event(3))
    D = torch.view_as_real(data.predict(data.colour(z, g)))
    sd = (sigma2[data.shell_id] / 2).sqrt()[:, None]
    with pyro.plate("image", len(data)):
        pyro.sample("D", dist.Normal(D, sd).to_event(2), obs=torch.view_as_real(data.D))


def posterior(data: br.ParticleImages, priors: Priors = Priors(), n_draws: int = 60, n_warm: int = 20):
    """Draws (rho, g, sigma2), one after the other; the first `n_warm` are not given out."""
    total, n = data.residual_power(data.M.new_zeros([data.size] * 3))
    sigma2, g, rho = total / n, (0.1 * total / n / data.size).sqrt(), None
    for sweep in range(n_warm + n_draws):
        rho = br.draw_density(data, g, sigma2, start=rho)
        g = g_given_density(data, g, rho, spread(data, priors))
        z = data.colour(rho, 1 / g)
        g = g_given_white(data, z, sigma2, spread(data, priors))
        rho = data.colour(z, g)
        total, n = data.residual_power(rho)
        sigma2 = dist.InverseGamma(priors.noise[0] + n, priors.noise[1] + total).sample()
        if sweep >= n_warm:
            yield rho, g, sigma2


def g_given_density(data, g, rho, s):
    """p(g² | ρ) is inverse gamma but for the prior of g, which decides whether a draw is kept."""
    total, n = data.volume_power(rho)
    new = dist.InverseGamma((n - 1) / 2, total / 2).sample()
    keep = torch.rand_like(new).log() < (g**2 - new) / (2 * s**2)
    return torch.where(keep, new.sqrt(), g.abs())


def g_given_white(data, z, sigma2, s):
    """p(g | z, D): the images are linear in g."""
    A = torch.view_as_real(data.shell_images(z) * (2 / sigma2[data.shell_id]).sqrt()).flatten(1)
    D = torch.view_as_real(data.D * (2 / sigma2[data.shell_id]).sqrt()).flatten()
    H = A @ A.T + torch.eye(len(A)).to(A) / s**2
    return dist.MultivariateNormal(torch.linalg.solve(H, A @ D), precision_matrix=H).sample()
