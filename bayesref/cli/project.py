"""`bayesref project`: the density of a model recovered, with its uncertainty, from simulated particle images."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import gemmi
import numpy as np
import torch
import typer
from rich.progress import track

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal
from bayesref.fourier.particles import ParticleImages, fourier_shell_correlation, shell_sum
from bayesref.fourier.simulate import Simulation, simulate_images
from bayesref.fourier.transform import to_real
from bayesref.io.atomic import atomic_path, prepare_output
from bayesref.io.structure import read_structure
from bayesref.results.difference_maps import write_map
from bayesref.results.plots import write_plot
from bayesref.structure_factors.calculate import structure_factors


def project(
    model: Annotated[Path, typer.Argument(help="Model whose density is imaged: PDB or mmCIF, plain or .gz.")],
    box: Annotated[int, typer.Option(min=8, help="Side of the images and of the volume, pixels.")] = 40,
    pixel: Annotated[float, typer.Option(help="Å per pixel.")] = 2.0,
    images: Annotated[int, typer.Option(min=1, help="Number of images.")] = 200,
    snr: Annotated[
        float, typer.Option(help="Variance of the signal over that of the noise, per pixel.")
    ] = 0.1,
    draws: Annotated[int, typer.Option(min=2, help="Draws of the posterior that are kept.")] = 40,
    warm: Annotated[int, typer.Option(min=0, help="Draws before them.")] = 15,
    seed: Annotated[int, typer.Option(help="Of poses, noise and draws.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("projection"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Simulate images of MODEL in known poses and sample the posterior of its density.

    Prints the Fourier shell correlation with the truth, and the one that the posterior expects; writes fsc.png,
    mean.ccp4, sd.ccp4 and posterior.npz (mean and variance of every Fourier coefficient).
    """
    if not snr > 0:
        raise InputError(f"--snr is {snr:g}; it must be above zero.")
    prepare_output(out, overwrite)
    from bayesref.models.projection import posterior

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    truth = simulate_images(box_density(read_structure(model), box, pixel), images, snr, generator=generator)
    kept = []
    chain = posterior(truth.data, n_draws=draws, n_warm=warm)
    for draw in track(chain, "Sampling (after the warm-up)", total=draws):
        kept.append(draw)
    rho, g, sigma2 = (torch.stack(column) for column in zip(*kept, strict=True))
    table = shell_table(truth, rho, sigma2, pixel)
    typer.echo(f"{model}: {images} images of {box} x {box} pixels of {pixel:g} Å, signal-to-noise {snr:g}")
    typer.echo("shell   d, Å    FSC  expected  |error|²/variance  noise/true")
    for row in table:
        typer.echo("{:5d} {:6.2f} {:6.3f} {:9.3f} {:18.2f} {:11.3f}".format(int(row[0]), *row[1:]))
    write_results(out, truth.data, rho, g, sigma2, table, pixel)
    typer.echo(f"Results in {out}: fsc.png, mean.ccp4, sd.ccp4, posterior.npz")


def box_density(crystal: Crystal, box: int, pixel: float) -> torch.Tensor:
    """Electrons per voxel of the molecule alone, (box,) * 3 float64, centred; InputError where it does not fit."""
    side = box * pixel
    xyz = crystal.xyz.double()
    xyz = xyz - (xyz.amax(0) + xyz.amin(0)) / 2
    reach = float(xyz.norm(dim=-1).max())
    if reach > 0.45 * side:
        raise InputError(
            f"The model reaches {reach:.0f} Å from its centre and the box {side / 2:.0f} Å; "
            "give a larger --box or --pixel."
        )
    cell, P1 = gemmi.UnitCell(side, side, side, 90, 90, 90), gemmi.SpaceGroup("P 1")
    alone = replace(crystal, xyz=xyz, cell=cell, spacegroup=P1, structure=None)
    whole = torch.fft.fftfreq(box, 1 / box).round().long()
    h = torch.stack(torch.meshgrid(whole, whole, torch.arange(box // 2 + 1), indexing="ij"), -1)
    inside = (h**2).sum(-1) <= (box / 2 - 1) ** 2
    F = torch.zeros(h.shape[:-1], dtype=torch.complex128)
    F[inside] = (
        structure_factors(alone, h[inside]).to(F.dtype).conj()
    )  # e^{+2πi h·x} there, e^{-2πi h·r} here
    return to_real(F, box, 3)


def shell_table(truth: Simulation, rho: torch.Tensor, sigma2: torch.Tensor, pixel: float) -> list[tuple]:
    """Rows (shell, resolution, FSC, expected FSC, mean of |error|²/variance, noise over the truth)."""
    data = truth.data
    mean, variance = moments(data, rho)
    fsc = fourier_shell_correlation(rho.mean(0), truth.rho, data)
    spread = shell_sum(variance, data)
    # The truth is one more draw of the posterior; the mean of n draws carries 1/n of the spread.
    signal = (shell_sum(mean.abs().square(), data) - spread / len(rho)).clamp(min=0)
    error = (data.coefficients(truth.rho) - mean).abs().square() / (variance * (1 + 1 / len(rho)))
    _, count = data.volume_power(truth.rho)
    columns = (
        fsc,
        (signal / (signal + spread)).sqrt(),
        shell_sum(error, data) / count,
        sigma2.mean(0) / truth.sigma2,
    )
    side = data.size * pixel
    return [(j, side / (j + 1), *(float(c[j]) for c in columns)) for j in range(data.n_shell)]


def moments(data: ParticleImages, rho: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of every Fourier coefficient over the draws, (N, N, N//2+1)."""
    rho_hat = data.coefficients(rho)
    mean = rho_hat.mean(0)
    variance = (rho_hat - mean).abs().square().sum(0) / (len(rho) - 1)
    return mean, variance.clamp(min=torch.finfo(variance.dtype).tiny)


def write_results(out: Path, data, rho, g, sigma2, table, pixel) -> None:
    """The maps, the numbers and the plot."""
    write_box(out / "mean.ccp4", rho.mean(0), pixel)
    write_box(out / "sd.ccp4", rho.std(0), pixel)
    mean, variance = moments(data, rho)
    arrays = {"mean": mean, "variance": variance, "g": g, "sigma2": sigma2, "voxel_shell": data.voxel_shell}
    with atomic_path(out / "posterior.npz") as temporary:
        np.savez_compressed(temporary, table=np.array(table), **{k: v.numpy() for k, v in arrays.items()})
    plot_fsc(out / "fsc.png", table)


def write_box(path: Path, rho: torch.Tensor, pixel: float) -> None:
    """A CCP4 map in P1 with axes x, y, z of the array."""
    side = rho.shape[0] * pixel
    grid = gemmi.FloatGrid(*rho.shape)
    grid.set_unit_cell(gemmi.UnitCell(side, side, side, 90, 90, 90))
    grid.spacegroup = gemmi.SpaceGroup("P 1")
    write_map(grid, rho.numpy(), path)


def plot_fsc(path: Path, table: list[tuple]) -> None:
    """FSC with the truth and the posterior's own expectation against 1/d."""
    from matplotlib.figure import Figure

    s = [1 / row[1] for row in table]
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(s, [row[2] for row in table], label="with the truth")
    axes.plot(s, [row[3] for row in table], "--", label="expected by the posterior")
    axes.set(xlabel="1/d (1/Å)", ylabel="Fourier shell correlation", ylim=(-0.1, 1.05))
    axes.legend()
    write_plot(figure, path)
