"""Leave-one-out by importance sampling, against the exact thing for a normal mean."""

import numpy as np
import pytest
from scipy.stats import norm

from bayesref.validation.loo import LeaveOneOut, compare, leave_one_out


def test_normal_mean():
    g = np.random.default_rng(0)
    y = g.normal(1.0, 1.0, 30)
    draws = g.normal(y.mean(), 30**-0.5, 20_000)  # posterior under a flat prior
    found = leave_one_out(norm.logpdf(y, draws[:, None], 1.0))
    exact = [norm.logpdf(y[i], np.delete(y, i).mean(), (1 + 1 / 29) ** 0.5) for i in range(30)]
    np.testing.assert_allclose(found.each, exact, atol=0.02)
    assert found.untrusted == 0.0
    assert found.elpd == pytest.approx(sum(exact), abs=0.05)


def test_the_verdict():
    g = np.random.default_rng(1)
    base = g.normal(-2, 1, 500)
    rows = compare({
        "worse": LeaveOneOut(base - 0.2 + 0.1 * g.standard_normal(500), 0.0),
        "best": LeaveOneOut(base, 0.0),
        "like it": LeaveOneOut(base - 0.001 + 0.2 * g.standard_normal(500), 0.0),
    })  # fmt: skip
    verdict = {r["model"]: r["verdict"] for r in rows}
    assert verdict["worse"] == "worse"
    assert set(verdict.values()) == {"best", "cannot tell", "worse"}
    assert rows[0]["difference"] == 0
