"""Derivatives: of any argument against the reference, of any order in V, under compile and torch.func."""

import pytest
import torch
from fourier_truth import transform_of_noise

from bayesref.fourier import NotOffered, insert, sample

REAL = torch.float64
# torch's own doing: forward mode uses torch.jit, and torch.compile instantiates the functions it traces.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


@pytest.fixture
def problem():
    V = transform_of_noise(2, 8, 8, 8)
    x, M, t = torch.randn(40, 3, dtype=REAL), torch.randn(3, 3, 3, dtype=REAL), torch.randn(3, 3, dtype=REAL)
    return V, x, M, t


def inner(a, b):
    return (a.conj() * b).sum().real


@pytest.mark.parametrize("coherent", [False, True])
@pytest.mark.parametrize("kernel", ["linear", "cubic", "kb6"])
@pytest.mark.parametrize("per_volume", [False, True])
def test_gradients_equal_autograd_of_the_reference(problem, kernel, coherent, per_volume):
    V, x, M, t = problem
    if per_volume:
        M, t = torch.stack((M, -0.5 * M)), torch.stack((t, 2 * t))
    g = torch.randn_like(sample(V, x, M, t, kernel=kernel, coherent=coherent))
    U = transform_of_noise(2, 8, 8, 8)
    grads = []
    for backend in (None, "reference"):
        leaves = [a.clone().requires_grad_() for a in (V, x, M, t, g)]
        out = sample(*leaves[:4], kernel=kernel, coherent=coherent, backend=backend)
        back = insert(
            leaves[4], *leaves[1:4], shape=(8, 8, 8), kernel=kernel, coherent=coherent, backend=backend
        )
        grads.append(torch.autograd.grad(inner(g, out) + 0.3 * inner(U, back), leaves))
    for ours, truth in zip(*grads, strict=True):
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-11 * float(truth.abs().max()))


def test_images_of_one_axis_less():
    V = transform_of_noise(9, 9, dims=2)
    leaves = [V, *(torch.randn(*s, dtype=REAL) for s in ((20, 2), (3, 2, 2), (3, 2)))]
    leaves = [a.requires_grad_() for a in leaves]
    g = torch.randn(3, 20, dtype=torch.complex128)
    grads = [
        torch.autograd.grad(inner(g, sample(*leaves, kernel="cubic", n_last=9, backend=b)), leaves)
        for b in (None, "reference")
    ]
    for ours, truth in zip(*grads, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-10, atol=1e-11)


def test_hessian_vector_products_in_the_volume(problem):
    """H v of |sample V|⁴ against the reference."""
    V, x, M, t = problem
    v = torch.randn_like(V)
    products = []
    for backend in (None, "reference"):
        leaf = V.clone().requires_grad_()
        loss = sample(leaf, x, M, t, backend=backend).abs().pow(4).sum()
        (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
        products.append(torch.autograd.grad(inner(v, grad), leaf)[0])
    torch.testing.assert_close(*products, rtol=1e-10, atol=1e-8)


def test_functional_gradient_and_forward_derivative(problem):
    V, x, M, t = problem
    loss = lambda V, M, t: sample(V, x, M, t).abs().square().sum()  # noqa: E731
    ours = torch.func.grad(loss, (0, 1, 2))(V, M, t)
    leaves = [a.clone().requires_grad_() for a in (V, M, t)]
    for a, b in zip(ours, torch.autograd.grad(loss(*leaves), leaves), strict=True):
        torch.testing.assert_close(a, b)
    dV = torch.randn_like(V)
    out, tangent = torch.func.jvp(lambda V: sample(V, x, M, t), (V,), (dV,))
    assert torch.equal(out, sample(V, x, M, t))
    assert torch.equal(tangent, sample(dV, x, M, t))
    g = torch.randn_like(out)
    _, tangent = torch.func.jvp(lambda g: insert(g, x, M, t, shape=(8, 8, 8)), (g,), (g,))
    assert torch.equal(tangent, insert(g, x, M, t, shape=(8, 8, 8)))


@pytest.mark.parametrize("mapped", ["V", "M", "x", "VM", "VMt", "Mt", "VxMt"])
@pytest.mark.parametrize("coherent", [False, True])
def test_vmap_is_a_loop(problem, mapped, coherent):
    V, x, M, t = problem
    n, batch, dims = 3, [], []
    for name, a in zip("VxMt", (V, x, M, t), strict=True):
        batch.append(torch.stack([a * (1 + 0.1 * i) for i in range(n)]) if name in mapped else a)
        dims.append(0 if name in mapped else None)

    def value(V, x, M, t):
        return sample(V, x, M, t, coherent=coherent)

    def poses(V, x, M, t):
        return torch.func.grad(lambda *a: value(*a).abs().square().sum(), (0, 2, 3))(V, x, M, t)

    def back(V, x, M, t):
        return insert(value(V, x, M, t), x, M, t, shape=(8, 8, 8), coherent=coherent)

    for f in (value, poses, back):
        got = torch.vmap(f, tuple(dims))(*batch)
        loop = [f(*(a if d is None else a[i] for a, d in zip(batch, dims, strict=True))) for i in range(n)]
        got, loop = (got, list(zip(*loop, strict=True))) if isinstance(got, tuple) else ((got,), [loop])
        for a, b in zip(got, loop, strict=True):
            torch.testing.assert_close(a, torch.stack(b), rtol=1e-12, atol=1e-12)


def test_compiled_without_a_graph_break(problem):
    V, x, M, t = problem

    def loss(V, x, M, t):
        return sample(V * 2, x, M, t, kernel="cubic").abs().square().sum()

    leaves = [a.clone().requires_grad_() for a in (V, x, M, t)]
    truth = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for a, b in zip(torch.autograd.grad(compiled(*leaves), leaves), truth, strict=True):
        torch.testing.assert_close(a, b)


def test_what_is_not_offered_says_so(problem):
    V, x, M, t = problem
    with pytest.raises(NotOffered, match="reference"):
        torch.func.jvp(lambda M: sample(V, x, M, t), (M,), (M,))
    leaf = M.clone().requires_grad_()
    (grad,) = torch.autograd.grad(sample(V, x, leaf, t).abs().square().sum(), leaf, create_graph=True)
    with pytest.raises(NotOffered, match="reference"):
        grad.square().sum().backward()
    leaf = M.clone().requires_grad_()
    loss = sample(V, x, leaf, t, backend="reference").abs().square().sum()
    (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
    grad.square().sum().backward()
    assert leaf.grad.isfinite().all()


def test_operators_are_registered_soundly(problem):
    """Fake shapes, schema and aliasing as torch's own checker sees them."""
    V, x, M, t = problem
    table = torch.tensor(((0.5, -1.0), (0.5, 1.0)), dtype=REAL)
    ops = torch.ops.bayesref
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        ops.fourier_sample, (V, x, M[None], t[None], None, table, 8, 40, False), test_utils=tests
    )
    g = torch.randn(2, 3, 40, dtype=torch.complex128)
    torch.library.opcheck(
        ops.fourier_insert, (g, x, M[None], t[None], None, table, [8, 8, 8], False), test_utils=tests
    )
    arguments = (V, g, x, M[None], t[None], None, table, 8, False, True)
    torch.library.opcheck(ops.fourier_pose_gradient, arguments, test_utils=tests)
