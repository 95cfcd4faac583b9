"""Every example runs, at a small size, and says what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNS = {
    "merge_simulated": (["--dmin", "4.0"], "within 90 % intervals"),
    "structure_factors": (["--dmin", "2.2"], "B found again to"),
    "own_model": (["--dmin", "4.5"], "mine"),
    "place_product": ([], "5 atoms moved"),
    "projection": (["--size", "24", "--images", "60"], "correlation"),
}


def run(name, arguments, folder):
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_examples_are_run_here():
    assert {p.stem for p in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_an_example_is_a_page(path):
    assert len(path.read_text().splitlines()) < 100


@pytest.mark.parametrize("name", RUNS)
def test_example_runs(name, tmp_path):
    arguments, promise = RUNS[name]
    assert promise in run(name, arguments, tmp_path)


def test_structure_factors_find_the_truth(tmp_path):
    out = run("structure_factors", ["--dmin", "2.0"], tmp_path)
    assert float(out.split("found again to ")[1].split()[0]) < 0.1


def test_projection_finds_the_volume(tmp_path):
    out = run("projection", ["--size", "24", "--images", "100"], tmp_path)
    assert float(out.split("correlation ")[1]) > 0.9


def test_a_product_is_placed_where_it_was(tmp_path):
    """Residue 5 of the trial pair: its C-alpha stays, its other atoms are 1 Å away along the dark crystal's x."""
    import gemmi

    folder = tmp_path / "pair"
    folder.mkdir()
    sys.path.insert(0, str(EXAMPLES))
    try:
        import place_product
    finally:
        sys.path.pop(0)
    files = place_product.trial(folder)
    dark, product = (gemmi.read_structure(f) for f in files)
    before = gemmi.read_structure(files[0])
    assert place_product.place(dark, product, ["5"]) == 5
    for a, b in zip(before[0].all(), dark[0].all(), strict=True):
        moved = 1.0 if a.residue.seqid.num == 5 and a.atom.name != "CA" else 0.0
        assert abs((b.atom.pos.x - a.atom.pos.x) - moved) < 0.2
        assert abs(b.atom.pos.y - a.atom.pos.y) < 0.2
