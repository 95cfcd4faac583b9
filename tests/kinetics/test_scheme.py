"""The parser and the rate matrix."""

import re

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import bayesref as br


@pytest.mark.parametrize(
    ("text", "states", "rates"),
    [
        ("A->B", "AB", "A->B"),
        (" A -> B ,\n B->C;C <-> A", "ABC", "A->B B->C C->A A->C"),
        ("A -> B -> C", "ABC", "A->B B->C"),
        ("A<->B", "AB", "A->B B->A"),
        ("A -> B, D", "ABD", "A->B"),
        ("A -> B,\n", "AB", "A->B"),
    ],
)
def test_text(text, states, rates):
    scheme = br.Scheme(text)
    assert scheme.states == tuple(states)
    assert scheme.rates == tuple(rates.split())


@pytest.mark.parametrize(
    ("text", "line", "column", "remedy"),
    [
        ("A -> A", 1, 6, "name another state"),
        ("A => B", 1, 3, "'->'"),
        ("A -> B,\nA -> ", 2, 6, "name the state"),
        ("-> B", 1, 1, "write 'A -> B'"),
        ("A B", 1, 3, "write '->'"),
        ("A <- B", 1, 3, "turn the transition round"),
        ("A - B", 1, 3, "write '->'"),
        ("A -> -> B", 1, 6, "name a state"),
        ("A -> B,\n  A -> B", 2, 8, "keep one"),
        ("A <-> B, B -> A", 1, 15, "keep one"),
        ("A* -> B", 1, 2, "names are letters"),
    ],
)
def test_error_says_where_and_what_to_do(text, line, column, remedy):
    with pytest.raises(br.InputError, match=f"line {line}, column {column}: ") as caught:
        br.Scheme(text)
    assert remedy in str(caught.value)


def test_empty():
    with pytest.raises(br.InputError, match="empty; write"):
        br.Scheme(" \n")


@given(st.text("AB ->,<\n;*=", max_size=12))
def test_text_is_parsed_or_refused(text):
    try:
        states = br.Scheme(text).states
    except br.InputError as caught:
        message, states = str(caught), None
    if states is None:
        assert re.search(r"column \d+: .+[;,] |empty; write", message)
    else:
        assert {*"".join(states)} == {*text} & {*"AB"}


def test_rate_matrix_by_hand():
    Q = br.Scheme("A -> B, B <-> C").rate_matrix({"A->B": 3.0, "B->C": 0.5, "C->B": "2 /s"})
    want = [[-3.0, 0.0, 0.0], [3.0, -0.5, 2.0], [0.0, 0.5, -2.0]]
    torch.testing.assert_close(Q, torch.tensor(want, dtype=torch.float64), rtol=0, atol=0)


def test_efficiency_is_a_branching_fraction():
    scheme = br.Scheme("A -> B, B -> C")
    k = {"A->B": 3.0, "B->C": 2.0}
    Q = scheme.rate_matrix(k, {"B->C": 0.25}, {"B->C": "A"})
    assert Q[:, 1].tolist() == [1.5, -2.0, 0.5]
    assert scheme.rate_matrix(k, factors={"B->C": 0.25})[:, 1].tolist() == [0.0, -0.5, 0.5]


def test_batches_and_tensor():
    scheme = br.Scheme("A -> B -> C")
    k = torch.rand(4, 1, 2, dtype=torch.float64)
    Q = scheme.rate_matrix(k)
    assert Q.shape == (4, 1, 3, 3)
    named = scheme.rate_matrix({"A->B": k[..., 0], "B->C": k[..., 1]})
    torch.testing.assert_close(Q, named, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"A->B": 1.0, "B->D": 1.0},), "no transition 'B->D'"),
        (({"A->B": 1.0},), "no rate for B->C"),
        (({"A->B": -1.0, "B->C": 1.0},), "at least zero"),
        (({"A->B": 1.0, "B->C": 1.0}, {"B->C": 1.5}, {"B->C": "A"}), "fraction from 0 to 1"),
        (({"A->B": 1.0, "B->C": 1.0}, {"B->C": 0.5}), "returns to"),
        (({"A->B": 1.0, "B->C": 1.0}, {"A->B": 0.5}, {"A->B": "A"}), "use factors"),
        (({"A->B": 1.0, "B->C": 1.0}, {"B->C": 0.5}, {"B->C": "Z"}), "no state 'Z'"),
        ((torch.ones(3),), r"expected \(\.\.\., 2\)"),
    ],
)
def test_bad_rates(arguments, message):
    with pytest.raises(br.InputError, match=message):
        br.Scheme("A -> B -> C").rate_matrix(*arguments)


def test_light_activation_keeps_names():
    scheme = br.Scheme("A -> B, B -> A").light_activated()
    assert scheme.states == ("A", "B", "A*")
    assert scheme.rates == ("A->B", "B->A")
    Q = scheme.rate_matrix({"A->B": 1.0, "B->A": 2.0})
    assert Q[:, 1].tolist() == [0.0, -2.0, 2.0]


@pytest.mark.parametrize(
    ("text", "value"), [("10us", 1e-5), ("2 ms", 2e-3), ("3", 3.0), ("1e2 fs", 1e-13), ("5 min", 300.0)]
)
def test_times(text, value):
    assert br.seconds(text) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1/ps", 1e12),
        ("/ns", 1e9),
        ("2 /ms", 2e3),
        ("3e4", 3e4),
        ("4 1/s", 4.0),
        ("1/10us", 1e5),
        ("5 ns^-1", 5e9),
    ],
)
def test_rates(text, value):
    assert br.per_second(text) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("text", ["10 parsec", "fast", "", "1 s s"])
def test_bad_units(text):
    with pytest.raises(br.InputError, match="write"):
        br.seconds(text)
    with pytest.raises(br.InputError, match="write"):
        br.per_second(text)
