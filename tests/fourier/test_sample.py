"""`sample` and `insert`: brute force, the reference, the adjoint identity, threads, batches, errors."""

import math

import pytest
import torch
from fourier_truth import error, transform_of_noise

from bayesref._checks import InputError
from bayesref.fourier import insert, kaiser_bessel, sample, to_fourier

REAL, COMPLEX = torch.float64, torch.complex128


def problem(d, N, kernel, batch=2, dtype=REAL, n_points=150, n_poses=3):
    """V, x, M, t of random points far outside the box too."""
    V = transform_of_noise(batch, *[N] * d, dims=d, dtype=dtype)
    x = (torch.rand(n_points, d, dtype=dtype) - 0.5) * 3 * N
    M = torch.randn(n_poses, d, d, dtype=dtype)
    if kernel == "nearest":  # away from ties, which rounding may settle either way
        x, M = x.round(), torch.randint(-1, 2, (n_poses, d, d)).to(dtype)
    return V, x, M, torch.randn(n_poses, d, dtype=dtype)


def inner(a, b):
    return (a.conj() * b).sum().real


@pytest.mark.parametrize("coherent", [False, True])
@pytest.mark.parametrize("N", [8, 9])
@pytest.mark.parametrize("kernel", ["nearest", "linear", "cubic", "kb6"])
@pytest.mark.parametrize("d", [2, 3])
def test_cpu_equals_reference(d, kernel, N, coherent):
    V, x, M, t = problem(d, N, kernel)
    how = {"kernel": kernel, "coherent": coherent}
    out = sample(V, x, M, t, n_last=N, **how)
    torch.testing.assert_close(
        out, sample(V, x, M, t, n_last=N, backend="reference", **how), rtol=0, atol=1e-11
    )
    g = torch.randn_like(out)
    back = insert(g, x, M, t, shape=(N,) * d, **how)
    truth = insert(g, x, M, t, shape=(N,) * d, backend="reference", **how)
    torch.testing.assert_close(back, truth, rtol=0, atol=1e-11)


@pytest.mark.parametrize("N", [8, 9])
def test_integer_points_are_the_discrete_transform(N):
    """Nearest at whole numbers, inside the box and beyond: Σ ρ exp(-2πi n·r/N)."""
    rho = torch.randn(N, N, N, dtype=REAL)
    V = torch.fft.rfftn(rho)
    x = torch.randint(-2 * N, 2 * N, (200, 3))
    r = torch.stack(torch.meshgrid(*[torch.arange(N, dtype=REAL)] * 3, indexing="ij"), -1).reshape(-1, 3)
    truth = torch.exp(-2j * math.pi * (x.to(REAL) @ r.T) / N) @ rho.reshape(-1).to(COMPLEX)
    torch.testing.assert_close(sample(V, x, kernel="nearest", n_last=N)[0], truth, rtol=0, atol=1e-10)


def test_kaiser_bessel_is_the_transform_between_points():
    """Points anywhere, against the sum over voxels."""
    N, n = 8, 24
    rho = torch.randn(N, N, N, dtype=REAL)
    r = torch.arange(N, dtype=REAL) - N // 2
    kernel = kaiser_bessel(8, 2.0)
    A = torch.from_numpy(kernel.apodisation((r / n).numpy()))
    padded = torch.nn.functional.pad(rho / (A[:, None, None] * A[:, None] * A), (8, 8) * 3)
    x = (torch.rand(100, 3, dtype=REAL) - 0.5) * N
    out = sample(to_fourier(padded, 3), x * (n / N), kernel=kernel)[0]
    phase = torch.exp(-2j * math.pi * x[..., None] * r / N)
    truth = torch.einsum("abc,sa,sb,sc->s", rho.to(COMPLEX), *phase.unbind(1))
    assert error(out, truth) < 1e-6


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_adjoint_identity(kernel, dtype, tolerance):
    """Re⟨g, sample V⟩ = Re⟨insert g, V⟩ for arbitrary stored numbers: DC, plane 0 and Nyquist included."""
    _, x, M, t = problem(3, 12, kernel, dtype=dtype, n_points=900)
    V = torch.view_as_complex(torch.randn(2, 12, 12, 7, 2, dtype=dtype))
    out = sample(V, x, M, t, kernel=kernel)
    g = torch.randn_like(out)
    back = insert(g, x, M, t, shape=(12, 12, 12), kernel=kernel)
    one = inner(g.to(COMPLEX), out.to(COMPLEX))
    other = inner(back.to(COMPLEX), V.to(COMPLEX))
    assert abs(one - other) < tolerance * g.abs().square().sum().sqrt() * out.abs().square().sum().sqrt()


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_the_same_bits_for_any_number_of_threads(kernel):
    V, x, M, t = problem(3, 16, kernel, dtype=torch.float32, n_points=3000)
    g = torch.randn(2, 3, 3000, dtype=torch.complex64)
    before, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3, 5):
            torch.set_num_threads(n)
            out = sample(V, x, M, t, kernel=kernel)
            leaves = [a.clone().requires_grad_() for a in (V, x, M, t)]
            grads = torch.autograd.grad(inner(g, sample(*leaves, kernel=kernel)), leaves)
            results.append((out, insert(g, x, M, t, shape=(16, 16, 16), kernel=kernel), *grads))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_batches_are_loops():
    V, x, _, _ = problem(3, 8, "linear")
    M, t = torch.randn(2, 3, 3, 3, dtype=REAL), torch.randn(2, 3, 3, dtype=REAL)
    out = sample(V, x, M, t)
    for b in range(2):
        for p in range(3):
            one = sample(V[b], x, M[b, p : p + 1], t[b, p : p + 1])
            assert torch.equal(out[b, p], one[0])
    back = insert(out, x, M, t, shape=(8, 8, 8))
    assert torch.equal(back[1], insert(out[1], x, M[1], t[1], shape=(8, 8, 8)))


def test_columns_leave_the_rest_zero():
    V, x, M, t = problem(3, 8, "linear", n_points=20)
    columns = torch.arange(20) * 2 + 1
    out = sample(V, x, M, t, columns=columns, n_columns=50)
    torch.testing.assert_close(out[..., columns], sample(V, x, M, t))
    assert out[..., ::2].abs().max() == 0
    back = insert(out, x, M, t, shape=(8, 8, 8), columns=columns)
    torch.testing.assert_close(back, insert(out[..., columns], x, M, t, shape=(8, 8, 8)))


def test_no_points_and_no_poses():
    V = transform_of_noise(8, 8, 8)
    assert sample(V, torch.zeros(0, 3, dtype=REAL)).shape == (1, 0)
    assert sample(V, torch.zeros(4, 3, dtype=REAL), torch.zeros(0, 3, 3, dtype=REAL)).shape == (0, 4)
    g = torch.zeros(0, 4, dtype=COMPLEX)
    assert (
        insert(g, torch.zeros(4, 3, dtype=REAL), torch.zeros(0, 3, 3, dtype=REAL), shape=(8, 8, 8)).norm()
        == 0
    )


def bad(V, x, M, t):
    """Calls that must be refused, with a word of each message."""
    return [
        (lambda: sample(V.real, x), "complex64"),
        (lambda: sample(V, x[:, :1]), "points, 2"),
        (lambda: sample(V, x, M.float()), "float64"),
        (lambda: sample(V, x, M[0]), "expected"),
        (lambda: sample(V, x, M, t[:2]), "agree"),
        (lambda: sample(V, x, M[None, None]), "leading"),
        (lambda: sample(V, x, n_last=11), "n_last"),
        (lambda: sample(V[:, :6], x, kernel="kb8"), "too small"),
        (lambda: sample(V[:3], x, kernel="cubic"), "too small"),
        (lambda: sample(V, x * math.nan), "finite"),
        (lambda: sample(V, x * 1e9), "grid units"),
        (lambda: sample(V, x, backend="cuda"), "backend"),
        (lambda: sample(V, x, columns=torch.arange(4), n_columns=9), "columns"),
        (lambda: sample(V, x, columns=torch.arange(len(x)) + 1, n_columns=len(x)), "columns"),
        (lambda: sample(V, x, columns=torch.zeros(len(x)).long(), n_columns=len(x)), "rise"),
        (lambda: insert(torch.zeros(3, 5, dtype=COMPLEX), x, M, shape=(8, 8, 8)), "points"),
        (lambda: insert(torch.zeros(2, len(x), dtype=COMPLEX), x, M, shape=(8, 8, 8)), "g has shape"),
        (lambda: insert(torch.zeros(3, len(x), dtype=COMPLEX), x, M, shape=(8, 8)), "axes"),
    ]


@pytest.mark.parametrize("case", range(18))
def test_what_does_not_fit_is_refused(case):
    V, x, M, t = problem(3, 8, "linear", batch=1)
    call, message = bad(V[0], x, M, t)[case]
    with pytest.raises(InputError, match=message):
        call()
