"""A model of one's own: copy a page, change a prior, fit both and compare their evidence.

    python examples/own_model.py

Evidence is E_q[log p(I, z) - log q(z)], a lower bound of log p(I): the higher, the better the model foresees the
data. Here the error model of the page `merge` is told beforehand that SIGI is too small by a factor of three.
"""

import argparse
import tempfile
from pathlib import Path

from bayesref.models import merge

import bayesref as br
from bayesref.programs import copy, load


def observations(folder, dmin: float):
    from bayesref.io.simulation import write_simulation

    spots, _ = write_simulation(br.simulate_merge(dmin=dmin, multiplicity=5, images=20, seed=3), folder)
    return br.read_unmerged([spots[0]], metadata_keys=["BATCH", "X", "Y"])


def edited(folder) -> Path:
    """The page `merge` with another prior of a, as one would change it in an editor."""
    page = copy("merge", Path(folder) / "mine.py")
    text = page.read_text(encoding="utf-8")
    was = "a: tuple = (1.0, 0.7)"
    if was not in text:
        raise SystemExit("the page has changed: look at its priors")
    page.write_text(text.replace(was, "a: tuple = (3.0, 0.05)"), encoding="utf-8")
    return page


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dmin", type=float, default=3.2, help="resolution, Å")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        obs = observations(folder, a.dmin)
        mine = load(str(edited(folder)))
        for name, model in (("merge", merge.model), ("mine", mine)):
            posterior = br.fit(model, obs, br.Product(br.Falloff(obs), br.ImageWise(obs)))
            factor = posterior.sites(100)["a"]
            print(
                f"{name:6s} evidence {posterior.elbo:10.1f} ± {posterior.elbo_error:.1f}   "
                f"a = {float(factor.mean()):.2f} ± {float(factor.std()):.2f}"
            )


if __name__ == "__main__":
    main()
