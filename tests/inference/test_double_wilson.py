"""Related datasets: their families, the likelihood with the amplitudes integrated out, and mistakes."""

from functools import partial

import numpy as np
import pytest
import torch

import bayesref as br
from bayesref import programs
from bayesref.crystal.asu import reciprocal_asu
from bayesref.data.observations import Observations
from bayesref.guides.latents import Latents
from bayesref.inference.tree import TreeCollapsed
from bayesref.inference.tree_curvature import solve_families

CELL = (20.0, 20.0, 30.0, 90.0, 90.0, 90.0)


def observations(hkl, dataset, group="P 4", anomalous=False, seed=0) -> Observations:
    """Spots of some indices, two for each, I about one."""
    rng = np.random.default_rng(seed)
    hkl, dataset = np.repeat(np.array(hkl), 2, axis=0), np.repeat(dataset, 2)
    asu, hkl_id = reciprocal_asu(hkl, CELL, group, anomalous, dataset)
    order = hkl_id.argsort(stable=True)
    I = torch.from_numpy(rng.normal(1.0, 0.5, size=len(hkl)))
    image = torch.from_numpy(dataset)[order]
    return Observations(
        asu=asu, hkl_id=hkl_id[order], image_id=image, file_id=image, I=I, SIGI=torch.full_like(I, 0.4),
        hkl=torch.from_numpy(hkl)[order], metadata=torch.zeros(len(hkl), 0).double(), metadata_keys=(),
        row=torch.arange(len(hkl)), n_image=int(dataset.max()) + 1,
    )  # fmt: skip


HKL = [(1, 2, 3), (2, 1, 3), (0, 0, 4), (1, 2, 3), (3, 1, 0)]
DATASET = np.array([0, 0, 0, 1, 1])


def test_families_are_completed_and_in_order():
    tree = br.DatasetTree((None, 0))
    obs = tree.arrange(observations(HKL, DATASET))
    hkl, dataset, parent = obs.asu.hkl, obs.asu.dataset_id, tree.parent_rows(obs.asu)
    assert len(obs.asu) == 8  # four reflections in two datasets
    assert dataset.tolist() == [0, 1] * 4
    assert parent.tolist() == [x for k in range(0, 8, 2) for x in (-1, k)]
    assert (hkl[0::2] == hkl[1::2]).all()
    assert obs.counts().sum() == len(obs)
    measured = {(*h, int(d)) for h, d, n in zip(hkl.tolist(), dataset, obs.counts(), strict=True) if n}
    assert len(measured) == 5


def test_spots_stay_with_their_reflections():
    before = observations(HKL, DATASET)
    after = br.DatasetTree((None, 0)).arrange(before)

    def found(obs):
        return {
            int(r): (tuple(h), int(d))
            for r, h, d in zip(
                obs.row, obs.asu.hkl[obs.hkl_id].tolist(), obs.asu.dataset_id[obs.hkl_id], strict=True
            )
        }

    assert found(before) == found(after)
    assert (after.hkl_id.diff() >= 0).all()


def test_operators_name_the_same_reflection():
    """y,x,-z takes (1 2 3) of the child to (2 1 -3) of the parent."""
    tree = br.DatasetTree((None, 0), ("x,y,z", "y,x,-z"))
    obs = tree.arrange(observations([(2, 1, -3), (1, 2, 3)], np.array([0, 1])))
    assert len(obs.asu) == 2
    assert tree.parent_rows(obs.asu).tolist() == [-1, 0]


def test_friedel_mates_are_relatives():
    tree = br.DatasetTree((None, 0))
    obs = tree.arrange(
        observations([(1, 2, 3), (-1, -2, -3), (1, 2, 3), (1, 2, 0)], np.array([0, 0, 1, 1]), anomalous=True)
    )
    parent, asu = tree.parent_rows(obs.asu), obs.asu
    assert len(asu) == 6  # four of the acentric family, two of the centric one
    acentric = (~asu.centric).nonzero()[:, 0]
    assert parent[acentric].tolist() == [-1, int(acentric[0]), int(acentric[0]), int(acentric[2])]
    assert tree.names(True) == ("1", "friedel")
    assert tree.pair(asu)[acentric].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("parents", "reindex", "words"),
    [
        ("None,2", None, "parent 2"), ("None,1", None, "own parent"), ("1,0", None, "cycle"), ("None,a", None, "'a'"),
        ("None,0", "x,y,z", "operators for 2"),
    ],
)  # fmt: skip
def test_trees_that_are_none(parents, reindex, words):
    with pytest.raises(br.InputError, match=words):
        br.DatasetTree.parse(parents, reindex)


@pytest.mark.parametrize(
    ("operator", "words"),
    [("x/2,y,z", "lattice"), ("x,y", "cannot be read"), ("z,x,y", "lengths"), ("x+y,y,z", "lengths")],
)
def test_operators_that_do_not_fit(operator, words):
    tree = br.DatasetTree((None, 0), ("x,y,z", operator))
    with pytest.raises(br.InputError, match=words):
        tree.arrange(observations(HKL, DATASET))


def test_an_operator_that_breaks_the_symmetry():
    tree = br.DatasetTree((None, 0), ("x,y,z", "y,x,-z"))
    with pytest.raises(br.InputError, match="symmetry"):
        tree.arrange(observations([(1, 2, 3), (1, 2, 3)], np.array([0, 1]), group="P 2"))


def test_another_number_of_datasets():
    with pytest.raises(br.InputError, match="3 parents are named for 2 datasets"):
        br.DatasetTree((None, 0, 0)).arrange(observations(HKL, DATASET))


def test_observations_not_arranged():
    with pytest.raises(br.InputError, match="arrange"):
        br.DatasetTree((1, None)).parent_rows(observations(HKL, DATASET).asu)


@pytest.fixture(scope="module")
def collapsed():
    """A tied likelihood of a chain of three datasets, some of its rows without spots."""
    rng = np.random.default_rng(1)
    hkl = [(h, k, l) for h in range(3) for k in range(1, 3) for l in range(2)]
    rows = [(x, d) for x in hkl for d in range(3) if rng.uniform() < 0.7]
    tree = br.DatasetTree((None, 0, 1))
    obs = tree.arrange(observations([x for x, _ in rows], np.array([d for _, d in rows])))
    model, scale = partial(programs.load("merge_double_wilson"), tree=tree), br.Falloff(obs)
    latents = Latents(model, (obs, scale))
    result = TreeCollapsed(model, obs, (scale,), latents)
    z = latents.initial((scale,))
    result.refresh(z)
    return result, z


def test_likelihood_against_a_grid(collapsed):
    """The matrix product along each chain on 1,500 points of F."""
    c, z = collapsed
    values, m, top = c.latents.unpack(z), 900, 6.0
    F = ((torch.arange(m).double() + 0.5) * top / m)[:, None]
    total = 0.0
    for piece in c.pieces:
        trace = c.run(piece, values, F.expand(m, len(piece.asu)))
        log_L, t = c.log_likelihood(piece, F.expand(m, len(piece.asu)), trace), trace.tree
        for root in (t.parent < 0).nonzero()[:, 0].tolist():
            message = log_L[:, root + 2]
            for child in (root + 2, root + 1):
                G = (t.r[child] * F[:, 0]).expand(m, m)
                V = (t.epsilon[child] * (1 - t.r[child] ** 2)).expand(m, m)
                K = br.dist.RiceWoolfson(G, V, t.centric[child]).log_prob(F.expand(m, m))
                message = (message[:, None] + K).logsumexp(0) + np.log(top / m) + log_L[:, child - 1]
            total += float(
                (message + t.marginal.log_prob(F.expand(m, len(t.r)))[:, root]).logsumexp(0) + np.log(top / m)
            )
    prior = {k: s for k, s in c.run(c.pieces[0], values).nodes.items() if k in values}
    log_prior = c.latents.log_prior(z, values, {k: s["fn"] for k, s in prior.items()})
    assert c.value(z) - float(log_prior) == pytest.approx(total, abs=2e-3)


def test_gradient(collapsed):
    c, z = collapsed
    _, grad = c.exact(z)
    for i in range(len(z)):
        e = torch.zeros_like(z)
        e[i] = 1e-4
        numeric = (c.value(z + e) - c.value(z - e)) / 2e-4
        assert float(grad[i]) == pytest.approx(numeric, abs=2e-3, rel=1e-3)


def test_marginals_come_with_the_likelihood_of_relatives(collapsed):
    """`log_density` of a row integrates to the moments of the messages."""
    c, z = collapsed
    values = c.latents.unpack(z)
    span = c.spans[0]
    F, slope = span.nodes(32)
    p = span.posterior(c.log_density(c.pieces[0], values, F), slope)
    torch.testing.assert_close(p.expectation(F**2), c.moments[0].m2, rtol=2e-3, atol=1e-4)


def test_block_solutions():
    parent = torch.tensor([-1, 0, 1, -1, 3, -1])
    diagonal, across = (
        torch.tensor([3.0, 4.0, 5.0, 2.0, 3.0, 1.5]).double(),
        torch.tensor([0, -1.0, -2.0, 0, -0.5, 0]).double(),
    )
    P = torch.diag(diagonal)
    for c, p in enumerate(parent.tolist()):
        if p >= 0:
            P[c, p] = P[p, c] = across[c]
    right = torch.randn(6, 4).double()
    torch.testing.assert_close(solve_families(parent, diagonal, across, right), torch.linalg.solve(P, right))
