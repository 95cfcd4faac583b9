"""Projection: images of one object in known poses, and what they say about its density.

    P_j, σ²_j ~ InverseGamma                               shell j: power of the object, variance of the noise
    ρ̂_h = √P_j F[z]_h,   z ~ white                         Wilson: coefficients are Gaussian and independent
    D_p(k) = √N e^{-2πi k·s_p/N} ρ̂(M_p (0, k)) + n_p(k)    image p in pose (M_p, s_p): a central slice
    Re n, Im n ~ Normal(0, σ²_j / 2)

`posterior` draws from it by Gibbs sampling, without approximation: given P and σ² the density is Gaussian and
is drawn by conjugate gradients; given the density, each P_j and σ²_j is inverse gamma again.
Wilson (1949), Acta Cryst. 2, 318.
"""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch

import bayesref as br


@dataclass(frozen=True)
class Priors:
    """Inverse gamma priors of the power and of the noise of a shell: shape and scale, nearly flat in the log."""

    power: tuple = (1e-2, 1e-6)
    noise: tuple = (1e-2, 1e-6)


def inverse_gamma(shape, scale, like):
    return dist.InverseGamma(torch.as_tensor(shape).to(like), torch.as_tensor(scale).to(like))


def model(data: br.ParticleImages, priors: Priors = Priors()):
    like = data.M
    with pyro.plate("shell", data.n_shell):
        P = pyro.sample("P", inverse_gamma(*priors.power, like))
        sigma2 = pyro.sample("sigma2", inverse_gamma(*priors.noise, like))
    z = pyro.sample("z", dist.Normal(like.new_zeros(()), 1.0).expand([data.size] * 3).to_event(3))
    rho = pyro.deterministic("rho", data.colour(z, P))
    D = torch.view_as_real(data.predict(rho))
    sd = (sigma2[data.shell_id] / 2).sqrt()[:, None]
    with pyro.plate("image", len(data)):
        pyro.sample("D", dist.Normal(D, sd).to_event(2), obs=torch.view_as_real(data.D))


def posterior(data: br.ParticleImages, priors: Priors = Priors(), n_draws: int = 60, n_warm: int = 20):
    """Draws (rho, P, sigma2), one after the other; the first `n_warm` are not given out."""
    like = data.M
    sigma2 = torch.ones_like(like[0, 0, 0]).expand(data.n_shell) * data.D.abs().square().mean()
    P = sigma2 / data.size
    rho = None
    for sweep in range(n_warm + n_draws):
        rho = br.draw_density(data, P, sigma2, start=rho)
        total, n = data.volume_power(rho)
        P = inverse_gamma(priors.power[0] + n / 2, priors.power[1] + total / 2, like).sample()
        total, n = data.residual_power(rho)
        sigma2 = inverse_gamma(priors.noise[0] + n, priors.noise[1] + total, like).sample()
        if sweep >= n_warm:
            yield rho, P, sigma2
