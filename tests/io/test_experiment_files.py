"""Several experiments in one file: what is read, and each mistake in one sentence."""

import pytest

from bayesref._checks import InputError
from bayesref.io.experiments import describes_experiments, read_experiments_file

ONE = """
[[experiment]]
name = "{name}"
temperature = {T}
dark = "{T}/off.mtz"
light = [{{delay = "10 us", file = "{T}/a.mtz"}}, {{delay = "1 ms", file = "{T}/b.mtz"}}]
"""
COLD, WARM = ONE.format(name="277 K", T=277), ONE.format(name="warm", T=293)
STATES = '[states]\nA = "A.pdb"\nB = "B.pdb"\n'
OWN = 'states = {A = "w/A.pdb", B = "w/B.pdb"}\n'
KINETICS = '[kinetics]\nscheme = "B -> A"\n'


def write(tmp_path, text):
    path = tmp_path / "series.toml"
    path.write_text(text)
    return path


def test_what_is_read(tmp_path):
    path = write(tmp_path, COLD + WARM + 'labels = ["I", "SIGI"]\n' + OWN + STATES + KINETICS)
    assert describes_experiments(path)
    (cold, warm), kinetics = read_experiments_file(path)
    assert (cold.name, cold.folder, cold.temperature) == ("277 K", "277_K", 277.0)
    assert cold.files.dark == tmp_path / "277" / "off.mtz"
    assert list(cold.files.light) == pytest.approx([1e-5, 1e-3])
    assert list(cold.files.light.values()) == [tmp_path / "277" / "a.mtz", tmp_path / "277" / "b.mtz"]
    assert cold.files.states == {"A": tmp_path / "A.pdb", "B": tmp_path / "B.pdb"}
    assert cold.files.labels is None
    assert warm.files.labels == ("I", "SIGI")
    assert warm.files.states["B"] == tmp_path / "w" / "B.pdb"
    assert kinetics == {"scheme": "B -> A"}


def test_tables_of_light_and_temperatures_in_celsius(tmp_path):
    text = '[[experiment]]\ntemperature = "4 °C"\ndark = "d.mtz"\n[[experiment.light]]\ndelay = 0.5\nfile = "a.mtz"\n'
    (first, second), _ = read_experiments_file(write(tmp_path, text + COLD + STATES))
    assert first.temperature == pytest.approx(277.15)
    assert first.name == "277.15 K"
    assert list(first.files.light) == [0.5]
    assert second.name == "277 K"


def test_a_series_is_none_of_these(tmp_path):
    assert not describes_experiments(write(tmp_path, '[series]\ndark = "a.mtz"\n'))
    assert not describes_experiments(tmp_path / "none.toml")
    assert not describes_experiments(None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (COLD + STATES, "has one experiment; give two"),
        ("experiment = 3\n", "has one experiment"),
        (COLD + WARM + STATES + '[series]\ndark = "a.mtz"\n', r"both \[\[experiment\]\] and \[series\]"),
        (COLD + WARM + STATES + '[[light]]\ndelay = "1s"\n', r"both \[\[experiment\]\] and \[light\]"),
        (COLD + WARM + "[state]\n", r"unknown table \[state\]"),
        (COLD + WARM.replace("warm", "277 K") + STATES, "two experiments named 277 K"),
        (COLD + WARM.replace("warm", "277_K") + STATES, "two experiments named 277_K"),
        (COLD + WARM.replace("warm", "../up") + STATES, "2 has the name '../up'"),
        (COLD + "[[experiment]]\ndark = 'a.mtz'\n" + STATES, "2 has the name ''"),
        (COLD + WARM.replace("dark", "drak") + STATES, "2 has an unknown key drak"),
        (COLD + '[[experiment]]\nname = "w"\nlight = []\n' + STATES, "experiment w needs dark"),
        (COLD + WARM.replace("delay", "dealy") + STATES, "a light of warm has the keys dealy, file"),
        (COLD + WARM.replace("= 293\n", "= -4\n") + STATES, "temperature of warm is -4"),
        (COLD + WARM.replace("= 293\n", '= "hot"\n') + STATES, "temperature of warm is hot"),
        ("experiment = [1, 2]\n", "an experiment that is no table"),
        (COLD + WARM.replace('"293/off.mtz"', "293") + STATES, "experiment warm needs dark"),
        (
            COLD + '[[experiment]]\nname = "w"\ndark = "a"\nlight = "b.mtz"\n' + STATES,
            "experiment w needs dark",
        ),
        (COLD + WARM + 'states = "A.pdb"\n' + STATES, "the states of warm are A.pdb; expected"),
        (COLD + WARM + OWN, "277 K has the states none, warm has A, B"),
        (COLD + WARM + 'states = {A = "A.pdb"}\n' + STATES, "277 K has the states A, B, warm has A"),
        (COLD + WARM + 'states = {B = "B.pdb", A = "A.pdb"}\n' + STATES, "name the dark one first"),
        (COLD + OWN + WARM + OWN + STATES, r"those of all \(A, B\) mean nothing"),
        (COLD + WARM.replace('"1 ms"', '"10us"') + STATES, "delay 10us is given twice"),
    ],
    ids=range(23),
)
def test_mistakes(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_experiments_file(write(tmp_path, text))
