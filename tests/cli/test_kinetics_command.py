"""`bayesref kinetics` on a simulated series: known rates found, mistakes in one sentence."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bayesref._checks import InputError
from bayesref.cli.app import main
from bayesref.cli.kinetics_design import check_distinct
from bayesref.refinement.toy_crystal import toy_crystal

BOTH = ["--state", "A={s}/A.pdb", "--state", "B={s}/B.pdb"]
ONE = ("--dark", "{s}/dark.mtz", "--light", "1ms={s}/light_1.mtz")
SCHEME, RATE = "B -> A", 300.0


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code or 0


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    out = tmp_path_factory.mktemp("series") / "s"
    delays = "100us,1ms,3ms,10ms"
    assert run("simulate", "kinetics", "--out", out, "--scheme", SCHEME, "--rates", RATE, "--delays", delays,
               "--dmin", 3.0, "--atoms", 80, "--seed", 4) == 0  # fmt: skip
    return out


@pytest.fixture(scope="module")
def results(series, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "k"
    assert run("kinetics", series / "series.toml", "--out", out, "--starts", 2, "--draws", 200) == 0
    return out


def test_the_rate_is_found(results):
    table = pd.read_csv(results / "rates.csv").set_index("parameter")
    rate = table.loc["k B->A"]
    assert 0.5 < rate["median"] / RATE < 2
    spread = (np.log(rate.high) - np.log(rate.low)) / 3.29
    assert abs(np.log(rate["median"] / RATE)) < 3.5 * spread
    assert abs(table.loc["activation", "mean"] - 0.25) < 3.5 * table.loc["activation", "sd"]


def test_occupancies_by_scheme_and_without(results):
    table = pd.read_csv(results / "occupancies.csv")
    assert set(table.model) == {"scheme", "unrestrained"}
    total = table.groupby(["model", "delay"])["mean"].sum()
    np.testing.assert_allclose(total, 1, atol=1e-6)
    B = table[table.state == "B"].pivot_table(index="delay", columns="model", values=["mean", "sd"])
    gap = (B["mean"]["scheme"] - B["mean"]["unrestrained"]).abs()
    assert (gap < 4 * B["sd"]["unrestrained"] + 0.02).all()
    assert B["mean"]["scheme"].is_monotonic_decreasing


def test_files(results):
    record = json.loads((results / "run.json").read_text())
    assert record["comparison"][0]["verdict"] == "best"
    for name in ("kinetics.png", "rates.png", "scheme.png", "predictive.png", "posterior.nc", "state_B.cif"):
        assert (results / name).stat().st_size > 1000
    assert all(0.01 < row["p"] < 0.99 for row in record["predictive_checks"])
    assert not any(row["matters"] for row in record["prior_sensitivity"] if row["parameter"] == "k B->A")


def test_draws_are_named_by_delay_state_and_transition(results):
    import xarray

    with xarray.open_dataset(results / "posterior.nc", group="posterior") as draws:
        assert list(draws["state"].values) == ["B", "A"]
        assert draws["rate"].dims == ("chain", "draw", "transition")
        assert draws["transition"].values[0] == "B->A"
        assert draws["log_own"].dims == ("chain", "draw", "delay")
    with xarray.open_dataset(results / "posterior.nc", group="log_likelihood") as ll:
        assert ll["F_obs"].dims == ("chain", "draw", "hkl")


def test_the_design_of_an_experiment(series, tmp_path):
    code = run("kinetics", series / "series.toml", "--out", tmp_path / "k", "--starts", 1, "--draws", 60,
               "--no-free-occupancies", "--quiet", "--response", "gaussian=50us*1.5", "--efficiency", "B->A",
               "--uneven-light", "--unreacted", "B=0.0", "--fix", "activation=0.25",
               "--expected-time", "3ms*10")  # fmt: skip
    assert code == 0
    table = pd.read_csv(tmp_path / "k" / "rates.csv").set_index("parameter")
    assert "activation" not in table.index
    assert {"width", "efficiency B->A", "unevenness"} <= set(table.index)
    assert 0.5 < table.loc["k B->A", "median"] / RATE < 2


def test_by_options_instead_of_a_file(series, tmp_path):
    light = [f"--light={t}={series / f'light_{i}.mtz'}" for i, t in ((1, "100us"), (3, "3ms"))]
    states = [f"--state={n}={series / f'{n}.pdb'}" for n in "AB"]
    code = run("kinetics", "--dark", series / "dark.mtz", *light, *states, "--scheme", SCHEME, "--out", tmp_path / "k",
               "--starts", 1, "--draws", 60, "--no-free-occupancies", "--quiet")  # fmt: skip
    assert code == 0
    assert set(pd.read_csv(tmp_path / "k" / "occupancies.csv").model) == {"scheme"}


def test_shares_without_a_scheme(series, results, tmp_path):
    light = [
        x
        for i, t in enumerate(("100us", "1ms", "3ms", "10ms"))
        for x in ("--light", f"{t}={series}/light_{i + 1}.mtz")
    ]
    files = ("--dark", series / "dark.mtz", *light, *(x.replace("{s}", str(series)) for x in BOTH))
    assert run("kinetics", *files, "--out", tmp_path / "k", "--starts", 1, "--draws", 200, "--quiet") == 0
    mean = {}
    for name, folder in (("here", tmp_path / "k"), ("there", results)):
        table = pd.read_csv(folder / "occupancies.csv")
        mean[name] = table[(table.model == "unrestrained") & (table.state == "B")].set_index("delay")
    gap = mean["here"]["mean"] - mean["there"]["mean"]
    assert (gap.abs() < 0.5 * mean["there"]["sd"]).all()  # one model, two times 200 weighted draws
    assert (tmp_path / "k" / "kinetics.png").is_file()
    assert not (tmp_path / "k" / "rates.csv").exists()
    code = run(
        "kinetics",
        *files,
        "--out",
        tmp_path / "f",
        "--fix",
        "B=0.15",
        "--starts",
        1,
        "--draws",
        60,
        "--quiet",
    )
    assert code == 0
    table = pd.read_csv(tmp_path / "f" / "occupancies.csv").set_index("state")
    np.testing.assert_allclose(table.loc["B", ["mean", "low", "high"]].to_numpy(float), 0.15, atol=1e-9)
    evidence = [json.loads((tmp_path / x / "run.json").read_text())["log_evidence"] for x in "kf"]
    assert evidence[1] < evidence[0] - 10  # the share falls from 0.22 to zero


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs --dark"),
        (["--dark", "{s}/dark.mtz", "--light", "{s}/light_1.mtz"], "DELAY=FILE"),
        (["--dark", "{s}/dark.mtz", "--light", "soon={s}/light_1.mtz"], "soon"),
        (["{s}/none.toml"], "no series file"),
        (["{s}/series.toml", "--response", "gaussian"], "takes width"),
        (["{s}/series.toml", "--response", "gaussian=soon"], "soon"),
        (["{s}/series.toml", "--efficiency", "A->B"], "no such reaction"),
        (["{s}/series.toml", "--fix", "activation"], "NAME=VALUE"),
        (["{s}/series.toml", "--dark", "{s}/dark.mtz"], "not both"),
        (["{s}/series.toml", "--scheme", "B -> X"], "state X without a structure"),
        (["{s}/series.toml", "--scheme", "B -> "], "the arrow after 'B' has no target"),
        (["--dark", "{s}/none.mtz", "--light", "1ms={s}/light_1.mtz", *BOTH, "--scheme", "B -> A"], "no data file"),
        (["--dark", "{s}/dark.mtz", "--light", "1ms={s}/light_1.mtz", "--state", "A={s}/A.pdb"], "Found 1 states"),
        ([*ONE, *BOTH, "--response", "box=1ms"], "--response is about reactions; give them"),
        ([*ONE, *BOTH, "--compare", "B -> A"], "--compare is about reactions; give them"),
        ([*ONE, *BOTH, "--fix", "C=0.2"], "holds shares of B"),
        ([*ONE, *BOTH, "--fix", "B=1.2"], "at most 1"),
        ([*ONE, *BOTH, "--move", "B=HEM:3"], "no residue HEM"),
        ([*ONE, *BOTH, "--move", "B=UNK:far"], "far is no distance"),
        ([*ONE, *BOTH, "--state", "A={s}/B.pdb"], "--state names A twice"),
        ([*ONE, *BOTH, "--move-sd", "0.5"], "--move-sd is about states that move"),
        ([*ONE, *BOTH, "--restraints", "{s}/none.cif"], "--restraints is about states that move"),
        ([*ONE, *BOTH, "--metadata", "X"], "--metadata is about spots"),
        (["{s}/series.toml", "--structure", "Z=A"], "--structure Z=A: the scheme has no such state"),
        (["{s}/series.toml", "--fix", "k A->B=2/s"], "there is no such reaction; there are B->A"),
        (["{s}/series.toml", "--fix", "activatoin=0.2", "--dmin", "5"], "has no such number; it has k B->A"),
        (["{s}/series.toml", "--fix", "activation=0.2", "--fix", "activation=0.3"], "--fix names activation twice"),
        (["{s}/series.toml", "--page", "merge", "--dmin", "5"], "choose another with --page"),
        (["{s}/series.toml", "--page", "kinetic_experiments", "--dmin", "5"], "a series needs model(series"),
        (["{s}/A.pdb"], "is not TOML"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes(series, tmp_path, capsys, arguments, message):
    code = run("kinetics", *(a.replace("{s}", str(series)) for a in arguments), "--out", tmp_path / "out")
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_a_broken_series_file(tmp_path, capsys):
    path = tmp_path / "series.toml"
    for text, message in (
        ("[series\n", "not TOML"),
        ("[series]\n", "needs dark"),
        (b"\x82\xff", "not TOML"),
        ("[serie]\ndark=1\n", "unknown table"),
    ):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert run("kinetics", path, "--out", tmp_path / "out") == 2
        assert message in capsys.readouterr().err


def test_spots_are_merged_first(tmp_path):
    out = tmp_path / "s"
    assert run("simulate", "kinetics", "--out", out, "--scheme", SCHEME, "--rates", RATE, "--delays", "1ms,5ms",
               "--dmin", 3.5, "--atoms", 80, "--multiplicity", 6, "--seed", 4) == 0  # fmt: skip
    code = run("kinetics", out / "series.toml", "--out", tmp_path / "k", "--starts", 1, "--draws", 60, "--quiet",
               "--no-free-occupancies")  # fmt: skip
    assert code == 0
    assert (tmp_path / "k" / "merged" / "merged_2.mtz").is_file()
    rate = pd.read_csv(tmp_path / "k" / "rates.csv").set_index("parameter").loc["k B->A"]
    assert 0.3 < rate["median"] / RATE < 3


def test_spots_and_merged_data_do_not_mix(series, tmp_path, capsys):
    out = tmp_path / "s"
    run("simulate", "kinetics", "--out", out, "--scheme", SCHEME, "--rates", RATE, "--delays", "1ms", "--dmin", 4,
        "--atoms", 80, "--multiplicity", 3)  # fmt: skip
    code = run("kinetics", "--dark", out / "dark.mtz", "--light", f"1ms={series / 'light_2.mtz'}", "--scheme", SCHEME,
               *(a.replace("{s}", str(series)) for a in BOTH), "--out", tmp_path / "k")  # fmt: skip
    assert code == 2
    assert "holds spots" in capsys.readouterr().err


def test_states_of_one_structure_are_refused():
    crystal, moved = toy_crystal(), toy_crystal()
    moved = replace(moved, xyz=moved.xyz + 0.1)
    check_distinct({"A": crystal, "B": moved}, {})
    check_distinct({"A": crystal, "B": crystal}, {"B": None})
    with pytest.raises(InputError, match="A and B have the same structure, so that no data"):
        check_distinct({"A": crystal, "B": crystal}, {})
