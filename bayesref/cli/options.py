"""Options of `bayesref merge`, in the groups that its help shows."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from bayesref.io.default_metadata import AUTO

INPUT = partial(typer.Option, rich_help_panel="Input")
CRYSTAL = partial(typer.Option, rich_help_panel="Crystal")
SCALE = partial(typer.Option, rich_help_panel="Scale model")
PRIOR = partial(typer.Option, rich_help_panel="Prior of the amplitudes")
ERROR = partial(typer.Option, rich_help_panel="Error model")
INFERENCE = partial(typer.Option, rich_help_panel="Inference")
STILLS = partial(typer.Option, rich_help_panel="Serial stills")
CROSS = partial(typer.Option, rich_help_panel="Cross-validation")
OUTPUT = partial(typer.Option, rich_help_panel="Output")

Files = Annotated[
    list[Path],
    typer.Argument(
        help="Unmerged data: MTZ, XDS_ASCII.HKL, INTEGRATE.HKL, CrystFEL .stream, DIALS .refl with its .expt.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
Method = Literal["deterministic", "svi"]


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """What `bayesref merge` is asked to do; each field is an option and says what it is."""

    files: Files

    metadata: Annotated[
        str,
        INPUT(
            "--metadata",
            "-m",
            metavar="KEYS",
            help="Columns that the scale depends on, separated by commas: any numeric column, and dHKL, Hobs, "
            "Kobs, Lobs, file_id, image_id; auto: those that matter for the kind of data; '' = none.",
        ),
    ] = AUTO
    positional_keys: Annotated[
        str, INPUT(metavar="KEYS", help="Columns to add as sines and cosines of increasing frequency.")
    ] = ""
    n_frequencies: Annotated[int, INPUT(min=1, help="Octaves of sines and cosines.")] = 4
    intensity_key: Annotated[str | None, INPUT(help="Column of intensities.")] = None
    sigma_key: Annotated[str | None, INPUT(help="Column of their standard deviations.")] = None
    image_key: Annotated[str | None, INPUT(help="Column of image numbers.")] = None
    wavelength_key: Annotated[
        str | None, INPUT(help="Column of wavelengths of polychromatic (Laue) data; '' = monochromatic.")
    ] = None
    keep_harmonics: Annotated[
        bool, INPUT("--keep-harmonics", help="Keep Laue spots that several harmonics share.")
    ] = False
    wavelength_range: Annotated[
        str | None,
        INPUT(
            metavar="LOW,HIGH|auto",
            help="Wavelengths of a Laue beam, Å (auto: those of the file): spots that several harmonics share are "
            "taken apart. Without it they are left out.",
        ),
    ] = None
    separate_files: Annotated[
        bool, INPUT("--separate-files", help="One merged dataset for each file, scaled together.")
    ] = False

    spacegroup: Annotated[
        str | None, CRYSTAL(metavar="SYMBOL", help="Space group to use instead of the files'.")
    ] = None
    cell: Annotated[
        str | None, CRYSTAL(metavar="a,b,c,α,β,γ", help="Cell to use instead of the files', Å and degrees.")
    ] = None
    anomalous: Annotated[bool, CRYSTAL("--anomalous", help="Keep Friedel mates apart.")] = False
    dmin: Annotated[float | None, CRYSTAL("--dmin", "-d", help="High-resolution limit, Å.")] = None
    dmax: Annotated[float | None, CRYSTAL(help="Low-resolution limit, Å.")] = None
    isigi_cutoff: Annotated[
        float | None, CRYSTAL(help="Smallest I/SIGI of a spot; weak spots are data, so rarely of use.")
    ] = None

    scale: Annotated[
        str,
        SCALE(
            metavar="TERMS",
            help="Terms of log K: falloff (with resolution), additive (smooth functions of the metadata), image (k "
            "and B of each image), amortised (read from each image), rocking (width of each still), tilt (its "
            "orientation), anisotropy (B by direction), physical (smooth in image number, absorption surface, "
            "anisotropic B), neural; of Laue data wavelength (a curve), lorentz (λ⁴/sin²θ), polarisation.",
        ),
    ] = "falloff,additive,image"
    surface: Annotated[
        str | None,
        SCALE(
            metavar="X,Y",
            help="Detector position columns for the absorption surface of 'physical', and for 'polarisation'.",
        ),
    ] = None
    polarised: Annotated[
        float,
        SCALE(min=0.0, max=1.0, help="Share of the beam polarised along the first of these; 0.5 = none."),
    ] = 0.5
    beam_centre: Annotated[
        str | None, SCALE(metavar="X,Y", help="Direct beam, in units of these columns, for 'polarisation'.")
    ] = None
    network_width: Annotated[int, SCALE(min=1, help="Units in a layer of 'neural'.")] = 12
    network_depth: Annotated[int, SCALE(min=1, help="Residual layers of 'neural'.")] = 2

    prior: Annotated[
        Literal["wilson", "normal", "laplace", "student-t", "rice"] | None,
        PRIOR(
            help="wilson: nothing is known; about a reference: normal, laplace, student-t; correlated with it: rice. "
            "[default: wilson, or rice with --prior-model]"
        ),
    ] = None
    prior_mtz: Annotated[
        Path | None, PRIOR(metavar="FILE", help="Reference amplitudes: merged MTZ or structure-factor mmCIF.")
    ] = None
    prior_columns: Annotated[
        str | None,
        PRIOR(metavar="F[,SIGF]", help="Columns of --prior-mtz, amplitudes or intensities; else found."),
    ] = None
    prior_model: Annotated[
        Path | None, PRIOR(metavar="FILE", help="Reference calculated from a model, PDB or mmCIF.")
    ] = None
    double_wilson_parents: Annotated[
        str | None,
        PRIOR(
            metavar="None,0,...",
            help="Related files: for each, the number of the one that it resembles, from 0, or None (with "
            "--separate-files). Also writes differences_k.mtz.",
        ),
    ] = None
    double_wilson_r: Annotated[
        str | None,
        PRIOR(
            "--double-wilson-r",
            "-r",
            metavar="None,0.95,...",
            help="Correlation of each with its parent, to hold; None = learned, as are all by default.",
        ),
    ] = None
    double_wilson_reindex: Annotated[
        str | None,
        PRIOR(
            metavar="x,y,z;y,x,-z;...",
            help="Operator from the setting of each file to that of its parent, separated by semicolons.",
        ),
    ] = None
    double_wilson_orders: Annotated[
        int, PRIOR(min=0, max=4, help="Orders in 1/d² with which the correlation changes; 0 = constant.")
    ] = 0

    model: Annotated[
        str,
        ERROR(metavar="NAME|FILE", help="Model page: see `bayesref models list`, or a .py file of yours."),
    ] = "merge"
    studentt_dof: Annotated[
        float | None,
        ERROR(metavar="NU", help="Degrees of freedom of the errors, above 2; learned where not given."),
    ] = None
    no_blanks: Annotated[
        bool, ERROR("--no-blanks", help="Every spot is there: none was predicted but is missing.")
    ] = False
    fix: Annotated[
        list[str] | None,
        ERROR(metavar="SITE=VALUE", help="Hold a number of the model at a value; may be repeated."),
    ] = None

    method: Annotated[
        Method,
        INFERENCE(
            help="deterministic: L-BFGS over all spots; svi: minibatches of images, for very large data."
        ),
    ] = "deterministic"
    tolerance: Annotated[
        float | None, INFERENCE(help="Stop when no more than this is to be gained, log units.")
    ] = None
    rounds: Annotated[int | None, INFERENCE(min=1, help="Most rounds of the deterministic method.")] = None
    epochs: Annotated[int | None, INFERENCE(min=1, help="Most passes over the data, svi.")] = None
    batch_images: Annotated[int | None, INFERENCE(min=1, help="Images in a minibatch, svi.")] = None
    learning_rate: Annotated[float | None, INFERENCE(help="Of Adam, svi.")] = None
    seed: Annotated[int, INFERENCE(help="Of all random numbers.")] = 0
    threads: Annotated[
        int,
        INFERENCE(min=1, help="Threads to use; more than one shortens large runs at the cost of CPU time."),
    ] = 1

    resume: Annotated[
        bool,
        INFERENCE("--resume", help="Continue from the checkpoint in --out; start where there is none yet."),
    ] = False
    checkpoint_every: Annotated[
        int | None,
        INFERENCE(
            min=0,
            metavar="N",
            help="Write the checkpoint after every N evaluations, with svi epochs; 0 = never. By default as often as "
            "costs at most 5 % of the time.",
        ),
    ] = None

    posterior: Annotated[
        Literal["exact", "truncated-normal", "folded-normal", "rice", "gamma"],
        INFERENCE(help="Law of the amplitudes: exact, or the closest of a parametric family, to compare."),
    ] = "exact"

    cell_tolerance: Annotated[
        float | None,
        STILLS(help="Leave out images whose cell axes differ from the median by more than this fraction."),
    ] = None
    image_resolution: Annotated[
        float | None,
        STILLS(
            help="Leave out spots beyond the image's own limit of 1/d plus this, Å⁻¹ (of CrystFEL streams)."
        ),
    ] = None
    reindex: Annotated[
        str | None,
        STILLS(
            metavar="auto|OPERATORS",
            help="Find out how each image is indexed: auto = all ways of the lattice, or h' as 'k,h,-l;...'.",
        ),
    ] = None
    image_outliers: Annotated[
        bool, STILLS("--image-outliers", help="Images that have nothing to do with the others count less.")
    ] = False
    image_quality: Annotated[
        bool, STILLS("--image-quality", help="Images count as their own residuals deserve.")
    ] = False
    on_disk: Annotated[
        bool, STILLS("--on-disk", help="Keep spots in files under --out during the fit, not in memory.")
    ] = False
    batch_memory: Annotated[
        Literal["shares", "running"] | None,
        STILLS(
            help="What is kept between minibatches: the share of each spot in its amplitude, or running means of "
            "amplitudes alone. [default: shares]"
        ),
    ] = None

    half_datasets: Annotated[
        int,
        CROSS(metavar="N", min=0, help="Merge random halves of the images, N times: CC1/2 and calibration."),
    ] = 0
    refit: Annotated[
        bool, CROSS("--refit", help="Fit the scale to each half; by default it is that of all data.")
    ] = False
    test_fraction: Annotated[
        float, CROSS(min=0.0, max=0.9, help="Fraction of spots to leave out and predict: CCpred.")
    ] = 0.0

    out: Annotated[Path, OUTPUT("--out", "-o", help="Directory for the results.", show_default=False)]
    samples: Annotated[int, OUTPUT(min=0, help="Draws of every amplitude to keep in posterior.nc.")] = 64
    scaled: Annotated[bool, OUTPUT("--scaled", help="Write scaled_k.mtz: each spot over its scale.")] = False
    e_values: Annotated[bool, OUTPUT("--e-values", help="Columns E and SIGE.")] = False
    wilson_b: Annotated[
        str | None,
        OUTPUT(
            "--wilson-b",
            metavar="B|data",
            help="Give merged amplitudes, which are flat, this B: F exp(-B s²), Å²; or the fall-off that data have.",
        ),
    ] = None
    free_fraction: Annotated[
        float | None, OUTPUT(help="Make FreeR_flag, 0 = free: the same for all datasets of one lattice.")
    ] = None
    free_seed: Annotated[int, OUTPUT(min=0, help="Of the flags made.")] = 0
    free_flags: Annotated[
        Path | None,
        OUTPUT(metavar="FILE", help="Copy FreeR_flag from this MTZ; new reflections get new flags."),
    ] = None
    overwrite: Annotated[bool, OUTPUT("--overwrite", help="Replace results that are there already.")] = False
    quiet: Annotated[bool, OUTPUT("--quiet", "-q", help="Print nothing but errors.")] = False
