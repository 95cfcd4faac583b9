"""`bayesref kinetics` on series at two temperatures: rates and energy found, links, mistakes in one sentence."""

import json

import numpy as np
import pandas as pd
import pytest

from bayesref.cli.app import main

EA, RATE = 60.0, 300.0
R = 8.31446261815324e-3  # kJ/(mol K)


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code or 0


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    out = tmp_path_factory.mktemp("series") / "s"
    assert run("simulate", "kinetics", "--out", out, "--scheme", "B -> A", "--rates", RATE, "--seed", 4,
               "--delays", "100us,1.5ms,5ms", "--temperature", "277,297", "--activation-energy", f"B->A={EA}",
               "--dmin", 3.8, "--atoms", 60) == 0  # fmt: skip
    return out


@pytest.fixture(scope="module")
def results(series, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "k"
    assert run("kinetics", series / "series.toml", "--out", out, "--starts", 1, "--draws", 150) == 0
    return out


def test_the_truth_is_of_the_law(series):
    truth = json.loads((series / "truth.json").read_text())
    k = [e["rates"]["B->A"] for e in truth["experiments"]]
    assert np.log(k[1] / k[0]) / (1 / 277 - 1 / 297) * R == pytest.approx(EA)
    assert truth["T_ref"] == pytest.approx(2 / (1 / 277 + 1 / 297))
    assert truth["rates"]["B->A"] == RATE
    assert np.sqrt(k[0] * k[1]) == pytest.approx(RATE)


def test_the_energy_is_found(results):
    table = pd.read_csv(results / "rates.csv", keep_default_na=False)
    table = table.set_index(["parameter", "experiment"])
    Ea = table.loc[("Ea B->A", "")]
    assert abs(Ea["mean"] - EA) < 3.5 * Ea.sd
    assert Ea.sd < 15  # the prior has 30
    assert Ea.unit == "kJ/mol"
    for name, true in (("", RATE), ("277 K", None), ("297 K", None)):
        row = table.loc[("k B->A", name)]
        T = float(row.temperature)
        true = true or RATE * np.exp(-EA / R * (1 / T - 0.5 * (1 / 277 + 1 / 297)))
        assert abs(np.log(row["median"] / true)) < 3.5 * (np.log(row.high) - np.log(row.low)) / 3.29
    assert float(table.loc[("k B->A", ""), "temperature"]) == pytest.approx(2 / (1 / 277 + 1 / 297))


def test_files(results):
    occupancies = pd.read_csv(results / "occupancies.csv")
    assert set(occupancies.experiment) == {"277 K", "297 K"}
    assert set(occupancies.model) == {"scheme", "unrestrained"}
    assert set(pd.read_csv(results / "predictive.csv").experiment) == {"277 K", "297 K"}
    for name in (
        "arrhenius.png",
        "kinetics.png",
        "rates.png",
        "scheme.png",
        "277_K/kinetics.png",
        "297_K/state_B.cif",
    ):
        assert (results / name).stat().st_size > 1000
    record = json.loads((results / "run.json").read_text())
    assert {r["model"] for r in record["comparison"]} == {"B -> A", "each by itself"}
    assert record["law"] == "arrhenius"
    assert record["departures"] == []  # any two rates lie on a line
    alone = pd.read_csv(results / "separate.csv").set_index(["parameter", "experiment"])
    both = [alone.loc[("k B->A", e), "mean"] for e in ("277 K", "297 K")]
    assert 1.5 < both[1] / both[0] < 20
    assert "Ea B->A" in {r["parameter"] for r in record["prior_sensitivity"]}
    one = pd.read_csv(results / "277_K" / "rates.csv").set_index("parameter")
    all_of_them = pd.read_csv(results / "rates.csv").set_index(["parameter", "experiment"])
    assert one.loc["k B->A", "median"] == pytest.approx(all_of_them.loc[("k B->A", "277 K"), "median"])


def test_draws_of_all_and_of_each(results):
    import xarray

    with xarray.open_dataset(results / "posterior.nc", group="posterior") as draws:
        assert draws["activation"].dims == ("chain", "draw", "experiment")
        assert list(draws["experiment"].values) == ["277 K", "297 K"]
        assert draws["Ea_B_to_A"].dims == ("chain", "draw")
        k, Ea = draws["k_B_to_A_of_each"].values, draws["Ea_B_to_A"].values
        np.testing.assert_allclose(np.log(k[..., 1] / k[..., 0]), Ea / R * (1 / 277 - 1 / 297))
        np.testing.assert_allclose(np.sqrt(k[..., 0] * k[..., 1]), draws["k_B_to_A"].values)
    n = 0
    for name in ("277_K", "297_K"):
        with xarray.open_dataset(results / name / "posterior.nc", group="posterior") as draws:
            assert draws["occupancy"].dims == ("chain", "draw", "delay", "state")
        with xarray.open_dataset(results / name / "posterior.nc", group="log_likelihood") as ll:
            n += ll.sizes["hkl"]
    with xarray.open_dataset(results / "posterior.nc", group="log_likelihood") as ll:
        assert ll.sizes["hkl"] == n


def quick(series, out, *more):
    return run("kinetics", series / "series.toml", "--out", out, "--starts", 1, "--draws", 50, "--quiet", "--dmin", 5,
               "--no-free-occupancies", "--no-separate", *more)  # fmt: skip


def test_eyring_and_numbers_that_are_known(series, tmp_path):
    fixed = ("--fix", "activation=0.25", "--fix", "log_common 277 K=0", "--fix", "dH B -> A=57.6")
    assert quick(series, tmp_path / "k", "--temperature-law", "eyring", *fixed) == 0
    table = pd.read_csv(tmp_path / "k" / "rates.csv", keep_default_na=False)
    assert set(table.parameter) == {"k B->A", "dS B->A", "log_common"}
    assert list(table[table.parameter == "log_common"].experiment) == ["297 K"]
    k = table[(table.parameter == "k B->A") & (table.experiment == "")].iloc[0]
    dS = table[table.parameter == "dS B->A"].iloc[0]
    T = float(k.temperature)
    per_T = 1.380649e-23 * T / 6.62607015e-34
    assert dS["median"] == pytest.approx(1e3 * R * (np.log(k["median"] / per_T) + 57.6 / (R * T)), abs=0.1)


def test_own_rates_without_a_law(series, tmp_path):
    text = (series / "series.toml").read_text().replace('temperature_law = "arrhenius"', 'own = ["B -> A"]')
    (series / "own.toml").write_text(text)
    code = run("kinetics", series / "own.toml", "--out", tmp_path / "k", "--starts", 1, "--draws", 50, "--quiet",
               "--dmin", 5, "--no-free-occupancies", "--no-separate", "--move", "B=A/4:3",
               "--unrestrained", "UNK")  # fmt: skip
    assert code == 0
    table = pd.read_csv(tmp_path / "k" / "rates.csv", keep_default_na=False)
    k = table[table.parameter == "k B->A"].set_index("experiment")["median"]
    assert set(k.index) == {"277 K", "297 K"}
    assert k["297 K"] > 2 * k["277 K"]
    assert {"state", "sd_x"} <= set(pd.read_csv(tmp_path / "k" / "shifts.csv").columns)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (("temperature = 297\n", ""), [], "297 K has no temperature, which the law arrhenius needs"),
        (("temperature = 297\n", "temperature = 277\n"), [], "All experiments are at 277 K"),
        (("arrhenius", "vogel"), [], "no law 'vogel' of temperature; expected arrhenius or eyring"),
        (("[kinetics]\n", '[kinetics]\nown = ["A->B"]\n'), [], "--own-rate A->B: there is no such reaction"),
        (("[kinetics]\n", '[kinetics]\nown = "A->B"\n'), [], "--own-rate A->B: there is no such reaction"),
        (("[kinetics]\n", '[kinetics]\nonw = ["A->B"]\n'), [], "unknown key onw"),
        (("scheme = ", "ground = "), [], "not TOML"),
        (('scheme = "B -> A"\n', ""), [], "Experiments share rates; give their reactions"),
        (("297 K", "277 K"), [], "two experiments named 277 K"),
        (("[kinetics]", "[series]\ndark = 'x'\n[kinetics]"), [], "both [[experiment]] and [series]"),
        (("", ""), ["--dark", "{s}/277_K/dark.mtz"], "describes the experiments; leave out --dark"),
        (("", ""), ["--state", "A={s}/277_K/A.pdb"], "mean nothing"),
        (("", ""), ["--shared-rate", "A->B"], "--shared-rate A->B: there is no such reaction"),
        (("", ""), ["--shared-rate", "B->A", "--own-rate", "B->A"], "both shared and each experiment's own"),
        (('temperature_law = "arrhenius"', ""), ["--shared-rate", "B->A"], "without a temperature law"),
        (("", ""), ["--fix", "k A->B=1/s"], "--fix k A->B: there is no such reaction"),
        (("", ""), ["--fix", "k B->A 277 K=1/s", "--dmin", "5"], "has no such number; it has k B->A, Ea B->A"),
        (("", ""), ["--fix", "dH B->A=30", "--dmin", "5"], "has no such number"),
        (("", ""), ["--metadata", "X"], "--metadata is about spots"),
        (("", ""), ["--move-sd", "0.4"], "--move-sd is about states that move"),
        (("", ""), ["--page", "kinetic", "--dmin", "5"], "experiments need model(experiments, kinetics, links"),
        (("297_K/B.pdb", "297_K/none.pdb"), [], "none.pdb"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes(series, tmp_path, capsys, change, arguments, message):
    text = (series / "series.toml").read_text()
    assert change[0] in text
    path = series / "changed.toml"
    path.write_text(text.replace(*change, 1) if change[0] != "297 K" else text.replace(*change))
    code = run(
        "kinetics", path, *(a.replace("{s}", str(series)) for a in arguments), "--out", tmp_path / "out"
    )
    error = capsys.readouterr().err
    assert code == 2
    assert message in " ".join(error.split())
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature-law", "arrhenius"], "--temperature-law is about several experiments"),
        (["--own-rate", "B->A"], "--own-rate is about several experiments"),
        (["--no-separate"], "--no-separate is about several experiments"),
    ],
)
def test_links_of_one_series(series, tmp_path, capsys, arguments, message):
    folder = series / "277_K"
    files = ["--dark", folder / "dark.mtz", "--light", f"1ms={folder / 'light_2.mtz'}"]
    assert run("kinetics", *files, *arguments, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "277"], "two or more"),
        (["--temperature", "277,277"], "of different names"),
        (["--temperature", "277,warm"], "--temperature has warm"),
        (["--temperature", "277,-3"], "above 0 K"),
        (["--temperature", "277,293", "--activation-energy", "C->B=3"], "no such reaction; there are B->C, C->A"),
        (["--temperature", "277,293", "--activation-energy", "B->C=high"], "--activation-energy has high"),
        (["--activation-energy", "B->C=40"], "add --temperature 277,293"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_of_the_simulation(tmp_path, capsys, arguments, message):
    assert run("simulate", "kinetics", "--out", tmp_path / "s", *arguments) == 2
    assert message in capsys.readouterr().err
