"""Occupancies: activation, unreacted molecules, efficiencies, shared structures, experiments, temperatures."""

import math

import pytest
import torch

import bayesref as br
from bayesref.kinetics.temperature import line_through

DOUBLE = torch.float64
T = torch.tensor([-1.0, 0.0, 0.2, 1.0, 1.0, 30.0], dtype=DOUBLE)
CYCLE = {"A->B": 2.0, "B->C": 0.5, "C->A": 0.1}


def test_states_that_share_a_structure():
    plain = br.Kinetics("A->B->C->A").occupancies(CYCLE, T)
    shared = br.Kinetics("A->B->C->A", structures={"B": "light", "C": "light"})
    assert shared.occupied == ("A", "light")
    o = shared.occupancies(CYCLE, T)
    torch.testing.assert_close(o, torch.stack([plain[:, 0], plain[:, 1] + plain[:, 2]], -1))


def test_lost_state_leaves_the_surviving_fraction():
    o = br.Kinetics("A->B->gone", structures={"gone": None}).occupancies({"A->B": 2.0, "B->gone": 0.5}, T)
    gone = br.Kinetics("A->B->gone").occupancies({"A->B": 2.0, "B->gone": 0.5}, T)[:, 2]
    assert o.shape == (6, 2)
    torch.testing.assert_close(o.sum(-1), 1 - gone)


def test_light_acts_once():
    kinetics = br.Kinetics("A->B->A", light_activated=True)
    assert kinetics.states == ("A", "B", "A*")
    assert kinetics.occupied == ("A", "B")
    o = kinetics.occupancies({"A->B": 2.0, "B->A": 1.0}, torch.tensor([1.0, 100.0], dtype=DOUBLE))
    # B of A -> B -> A*, as in a chain that ends there
    torch.testing.assert_close(o[0, 1].item(), 2 * (math.exp(-1) - math.exp(-2)))
    assert o[1, 0] == pytest.approx(1, abs=1e-12)
    again = br.Kinetics("A->B->A").occupancies(
        {"A->B": 2.0, "B->A": 1.0}, torch.tensor([100.0], dtype=DOUBLE)
    )
    assert again[0, 1] == pytest.approx(2 / 3)


def test_start_in_an_excited_state():
    o = br.Kinetics("E->A", ground="A", start="E").occupancies({"E->A": 2.0}, T, activation=0.4)
    excited = torch.where(T < 0, 0.0, 0.4 * torch.exp(-2 * T.clamp(min=0)))
    torch.testing.assert_close(o, torch.stack([excited, 1 - excited], -1))


def test_activation_per_draw_and_per_time():
    kinetics = br.Kinetics("A->B->C->A")
    k = torch.rand(4, 3, dtype=DOUBLE)
    full = kinetics.occupancies(k, T)
    ground = torch.eye(3, dtype=DOUBLE)[0]
    draw, time = torch.rand(4, dtype=DOUBLE), torch.rand(6, dtype=DOUBLE)
    o = kinetics.occupancies(k, T, activation=draw)
    torch.testing.assert_close(o, (1 - draw)[:, None, None] * ground + draw[:, None, None] * full)
    o = kinetics.occupancies(k, T, activation=time.expand(4, 6))
    torch.testing.assert_close(o, (1 - time)[:, None] * ground + time[:, None] * full)


def test_unreacted_occupancies():
    kinetics = br.Kinetics("A->B->C->A")
    u = torch.tensor([0.7, 0.0, 0.3], dtype=DOUBLE, requires_grad=True)
    o = kinetics.occupancies(CYCLE, T, activation=0.25, unreacted=u)
    torch.testing.assert_close(o, 0.75 * u + 0.25 * kinetics.occupancies(CYCLE, T))
    assert (o >= 0).all()
    o[:, 2].sum().backward()
    assert u.grad.tolist() == [0.0, 0.0, 0.75 * len(T)]


@pytest.mark.parametrize("light", [False, True])
def test_efficiency_returns_to_ground(light):
    """The same as a scheme that spells the loss out."""
    kinetics = br.Kinetics("A->B->C", light_activated=light)
    o = kinetics.occupancies({"A->B": 2.0, "B->C": 0.5}, T, efficiencies={"B->C": 0.3})
    spelled = br.Kinetics("A->B->C, B->A", light_activated=light)
    want = spelled.occupancies({"A->B": 2.0, "B->C": 0.15, "B->A": 0.35}, T)
    torch.testing.assert_close(o, want)
    assert (o - kinetics.occupancies({"A->B": 2.0, "B->C": 0.5}, T, factors={"B->C": 0.3})).abs().max() > 0.05


def test_efficiency_returns_to_a_named_state():
    kinetics = br.Kinetics("A->B->C, D", returns={"B->C": "D"})
    o = kinetics.occupancies({"A->B": 2.0, "B->C": 0.5}, T, efficiencies={"B->C": 0.3})
    torch.testing.assert_close(0.7 * o[:, 2], 0.3 * o[:, 3])


def test_efficiency_and_rate_are_both_identified():
    k = torch.tensor([2.0, 0.5, 0.6], dtype=DOUBLE)

    def curves(x):
        rates = {"A->B": x[0], "B->C": x[1]}
        return br.Kinetics("A->B->C", light_activated=True).occupancies(rates, T, efficiencies={"B->C": x[2]})

    J = torch.autograd.functional.jacobian(curves, k).flatten(0, 1)
    assert torch.linalg.matrix_rank(J, rtol=1e-6) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: br.Kinetics("A->B", ground="Z"), "no state 'Z'"),
        (lambda: br.Kinetics("A->B", structures={"Z": "A"}), "no state 'Z'"),
        (lambda: br.Kinetics("A->B", structures={"A": None, "B": None}), "at least one"),
        (lambda: br.Kinetics("A->B", returns={"B->A": "A"}), "no transition 'B->A'"),
        (lambda: br.Kinetics("A->B").occupancies({"A->B": 1.0}, T, activation=1.2), "from 0 to 1"),
        (lambda: br.Kinetics("A->B").occupancies({"A->B": 1.0}, T, unreacted=[0.5, 0.6]), "sum to one"),
        (lambda: br.Kinetics("A->B").occupancies({"A->B": 1.0}, T, unreacted=[1.5, -0.5]), "at least zero"),
        (lambda: br.Kinetics("A->B").occupancies({"A->B": 1.0}, T, unreacted=[1.0]), "expected"),
        (lambda: br.Kinetics("A->B").occupancies({"A->B": 1.0}, 3.0), "expected finite times"),
        (
            lambda: br.Kinetics("A->B").occupancies({"A->B": 1.0}, T, efficiencies={"A->B": 0.5}),
            "use factors",
        ),
        (lambda: br.Kinetics("A->B").occupancies({"A->C": 1.0}, T), "no transition 'A->C'"),
    ],
)
def test_refused(make, message):
    with pytest.raises(br.InputError, match=message):
        make()


def test_experiments_share_rates():
    scheme = br.Scheme("A->B->C")
    a = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    b = torch.tensor([0.1, 0.2, 0.4], dtype=DOUBLE, requires_grad=True)
    each = br.experiment_rates(scheme, {"A->B": a, "B->C": b}, 3, shared=["A->B"])
    assert all(e["A->B"] is a for e in each)
    assert [e["B->C"].item() for e in each] == [0.1, 0.2, 0.4]
    sum(br.Kinetics(scheme).occupancies(e, T)[:, 2].sum() for e in each).backward()
    assert a.grad != 0
    assert (b.grad != 0).all()
    for shared, rates, message in [
        (["A->C"], {"A->B": a, "B->C": b}, "no transition 'A->C'"),
        ([], {"A->B": a, "B->C": b}, "expected"),
        (["A->B"], {"A->B": a}, "no rate for B->C"),
    ]:
        with pytest.raises(br.InputError, match=message):
            br.experiment_rates(scheme, rates, 3, shared)


def test_arrhenius_and_eyring():
    """Ea and A by finite differences and by the definitions; Ea = ΔH + RT."""
    Ts = torch.tensor([280.0, 300.0, 320.0], dtype=DOUBLE)
    k = br.arrhenius(30.0, 60.0, Ts)
    torch.testing.assert_close(k.log(), 30 - 60e3 / (8.31446261815324 * Ts))
    torch.testing.assert_close(br.arrhenius(k[1].log(), 60.0, Ts, T_ref=300.0), k)
    assert line_through(Ts, k) == pytest.approx((30.0, 60.0))
    # 298.15 K, no entropy, 68.3 kJ/mol: k_B T/h = 6.2124e12 /s by hand
    assert float(br.eyring(68.3, 0.0, 298.15)) == pytest.approx(
        6.2124e12 * math.exp(-68.3e3 / 2478.957), rel=1e-4
    )
    near = br.eyring(50.0, -20.0, torch.tensor([299.99, 300.01], dtype=DOUBLE)).log()
    slope = float(near.diff()) / (1 / 300.01 - 1 / 299.99)
    assert -8.31446e-3 * slope == pytest.approx(50.0 + 8.31446e-3 * 300, rel=1e-5)
    with pytest.raises(br.InputError, match="temperature"):
        br.arrhenius(30.0, 60.0, -5.0)
    with pytest.raises(br.InputError, match="two temperatures"):
        line_through([300.0], [1.0])


def test_simplex_occupancies():
    free = br.SimplexOccupancies(("dark", "light"), 3)
    prior = free.prior()
    assert prior.batch_shape == (3,)
    assert prior.event_shape == (2,)
    o = free.occupancies(torch.randn(5, 3, 1, dtype=DOUBLE))
    assert o.shape == (5, 3, 2)
    torch.testing.assert_close(o.sum(-1), torch.ones(5, 3, dtype=DOUBLE))
    again = torch.randn(3, 1, dtype=DOUBLE)  # free numbers are log ratios to the first state
    o_1 = free.occupancies(again)
    torch.testing.assert_close((o_1[:, 1:] / o_1[:, :1]).log(), again)
    torch.testing.assert_close(prior.log_prob(o), torch.zeros(5, 3, dtype=DOUBLE))  # uniform, Γ(2) = 1
    for bad in ((("A",), 3), (("A", "A"), 3), (("A", "B"), 0)):
        with pytest.raises(br.InputError, match=r"Found|give two"):
            br.SimplexOccupancies(*bad)


def test_priors():
    k = br.rate_prior("10us", factor=3.0)
    assert float(k.icdf(torch.tensor(0.5))) == pytest.approx(1e5, rel=1e-6)
    one_sd = float(k.icdf(torch.special.ndtr(torch.tensor(1.0, dtype=DOUBLE))))
    assert one_sd == pytest.approx(3e5, rel=1e-6)
    assert float(br.width_prior("100fs").icdf(torch.tensor(0.5))) == pytest.approx(1e-13, rel=1e-6)
    eta = br.fraction_prior(0.3, 10.0)
    assert float(eta.mean) == pytest.approx(0.3)
    assert float(eta.variance) == pytest.approx(0.3 * 0.7 / 11)
    for bad in (lambda: br.rate_prior(0.0), lambda: br.rate_prior(1.0, 1.0), lambda: br.fraction_prior(1.0)):
        with pytest.raises(br.InputError, match="Found"):
            bad()


def test_swaps():
    (swap,) = br.swaps("A->B->C")
    assert swap.rates == ("A->B", "B->C")
    assert swap.unchanged == ("C",)
    assert br.swaps("A->B") == ()
    # known structures of B and C in one: A(t) and 1 - A(t) fix the first rate
    merged = br.Kinetics("A->B->C", structures={"B": "light", "C": "light"})
    assert br.swaps(merged) == ()


def test_swap_of_a_chain_fits_equally_well():
    """Curves with exchanged rates are a linear map of the others, to rounding."""
    kinetics, t = br.Kinetics("A->B->C"), torch.linspace(0, 9, 40, dtype=DOUBLE)
    x = kinetics.occupancies({"A->B": 2.0, "B->C": 0.5}, t)
    y = kinetics.occupancies({"A->B": 0.5, "B->C": 2.0}, t)
    fit = torch.linalg.lstsq(x, y).solution
    torch.testing.assert_close(x @ fit, y)
    assert (x - y).abs().max() > 0.1


def test_a_diverged_draw_is_nan_and_leaves_the_others():
    kinetics = br.Kinetics("A->B->C")
    k = torch.tensor([[2.0, 0.5], [math.inf, 0.5], [math.nan, 0.5]], dtype=DOUBLE)
    for response in (br.NoResponse(), br.GaussianResponse(0.3), br.BoxResponse(0.3)):
        o = kinetics.occupancies(k, T, response=response)
        torch.testing.assert_close(o[0], kinetics.occupancies(k[0], T, response=response))
        assert torch.isnan(o[1:, -1]).all()


def test_device(device):
    t = T.to(device)
    rates = {"A->B": torch.tensor(2.0, dtype=DOUBLE, device=device), "B->C": 0.5}
    for response in (br.NoResponse(), br.GaussianResponse(0.3), br.ExponentialGaussianResponse(0.3, 0.1)):
        o = br.Kinetics("A->B->C").occupancies(rates, t, response=response)
        want = br.Kinetics("A->B->C").occupancies({"A->B": 2.0, "B->C": 0.5}, T, response=response)
        assert o.device.type == device.type
        torch.testing.assert_close(o.cpu(), want)


def decay(t, k, w):
    """exp(-k s), s > 0, seen through a Gaussian of standard deviation w."""
    return torch.exp((k * w) ** 2 / 2 - k * t) * torch.special.erfc((k * w - t / w) / math.sqrt(2)) / 2


def box_decay(t, k, w):
    a, b = (t - w / 2).clamp(min=0), (t + w / 2).clamp(min=0)
    return (torch.exp(-k * a) - torch.exp(-k * b)) / (k * w)


@pytest.mark.parametrize(
    ("response", "excited"),
    [
        (br.GaussianResponse(0.3), lambda t: decay(t, 2.0, 0.3)),
        (br.GaussianResponse("300 ms"), lambda t: decay(t, 2.0, 0.3)),
        (
            br.ExponentialGaussianResponse(0.3, 0.2),
            lambda t: (decay(t, 2.0, 0.3) - decay(t, 5.0, 0.3)) / (1 - 2.0 * 0.2),
        ),
        (br.BoxResponse(0.6), lambda t: box_decay(t, 2.0, 0.6)),
        (br.HistogramResponse([-0.3, 0.3], [4.0]), lambda t: box_decay(t, 2.0, 0.6)),
    ],
    ids=["gaussian", "text", "emg", "box", "histogram"],
)
def test_responses_where_the_start_is_not_the_ground(response, excited):
    """Before t = 0 all molecules are in A; a response that mixes up the two sides of the step would see E there."""
    t = torch.tensor([-2.0, -0.2, 0.0, 0.1, 1.0], dtype=DOUBLE)
    o = br.Kinetics("E->A", ground="A", start="E").occupancies({"E->A": 2.0}, t, response=response)
    torch.testing.assert_close(o[:, 0], excited(t), rtol=0, atol=1e-10)


def test_stiff_gradient_closed_form():
    """B(t) of A -> B -> C, 12 decades apart, by both log rates; slopes round beside populations near one."""
    a, b = 1e6, 1e-6
    t = torch.tensor([1e-6, 1.0, 1e6], dtype=DOUBLE)
    J = torch.autograd.functional.jacobian(
        lambda x: br.Kinetics("A->B->C").occupancies(x.exp(), t)[:, 1],
        torch.tensor([a, b], dtype=DOUBLE).log(),
    )
    r = a / (a - b)
    ea, eb = torch.exp(-a * t), torch.exp(-b * t)
    by_a = -a * b / (a - b) ** 2 * (eb - ea) + r * a * t * ea
    by_b = a * b / (a - b) ** 2 * (eb - ea) - r * b * t * eb
    torch.testing.assert_close(
        J, torch.stack([by_a, by_b], -1), rtol=1e-9, atol=1e-15
    )  # absolute: of populations near one


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda k: k.occupancies(torch.ones(4, 2), T, activation=torch.rand(3)), "activation has shape"),
        (lambda k: k.occupancies(torch.ones(2), T, activation=torch.rand(5)), "activation has shape"),
        (
            lambda k: k.occupancies(torch.ones(3, 2), T, response=br.GaussianResponse(torch.ones(4))),
            "width of the response has shape",
        ),
        (lambda k: k.occupancies({"A->B": "1/0s", "B->C": 1.0}, T), "divides by zero"),
        (lambda k: br.Kinetics(k.scheme.light_activated(), light_activated=True), "already"),
        (lambda k: br.Kinetics(k.scheme, structures={"A": ""}), "empty name"),
    ],
)
def test_refused_in_words(make, message):
    with pytest.raises(br.InputError, match=message):
        make(br.Kinetics("A->B->C"))
