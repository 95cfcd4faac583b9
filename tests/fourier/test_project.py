"""Projections against the closed-form transform of Gaussian blobs, and against themselves moved."""

import math

import pytest
import torch
from fourier_truth import Blobs, cube_rotations, error, half_plane, rotations, transform_of_noise

from bayesref._checks import InputError
from bayesref.fourier import back_project, fourier_volume, kaiser_bessel, project, to_fourier, to_real

REAL = torch.float64
ANALYTIC = [  # kernel, oversampling, largest relative error
    ("linear", 1.0, 0.25),
    ("linear", 2.0, 0.08),
    ("cubic", 1.0, 0.1),
    ("cubic", 2.0, 7e-3),
    ("kb4", 1.25, 3e-3),
    ("kb6", 1.25, 5e-5),
    ("kb4", 2.0, 5e-4),
    ("kb6", 2.0, 4e-6),
    ("kb8", 2.0, 1e-6),
]


def inside(k, radius):
    return (k**2).sum(-1) <= radius**2


def pad(k, d):
    """Image indices k (..., dims) as (..., d) with the beam in front."""
    return torch.nn.functional.pad(k, (d - k.shape[-1], 0))


def turned(M, k):
    """M_p k for a plane of indices: (p, *plane, d)."""
    return torch.einsum("pij,...j->p...i", M, k)


def inner(a, b):
    return (a.conj() * b).sum().real


@pytest.mark.parametrize(("kernel", "oversampling", "most"), ANALYTIC)
@pytest.mark.parametrize("N", [48, 49])
def test_projections_of_blobs(N, kernel, oversampling, most):
    blobs, M = Blobs(0.3 * N), rotations(4)
    out = project(fourier_volume(blobs.density(N), kernel=kernel, oversampling=oversampling), M)
    k = half_plane(N)
    truth = blobs.transform(turned(M, pad(k, 3)), N) * inside(k, N / 2)
    assert error(out, truth) < most


def test_the_24_rotations_of_a_cube():
    """Exact turns of the grid: every projection equals the sum over voxels of the turned blobs."""
    N = 31
    blobs, M = Blobs(0.3 * N), cube_rotations()
    assert len(M) == 24
    out = project(fourier_volume(blobs.density(N), kernel="kb8", oversampling=2.0), M, radius=N)
    images = to_real(out, N, 2)
    for image, R in zip(images, M, strict=True):
        flat = Blobs(0.3 * N, dims=2)  # V(M k) is the transform of the object turned by Mᵀ
        flat.c, flat.sigma = (blobs.c @ R)[:, 1:], blobs.sigma
        flat.a = blobs.a * math.sqrt(2 * math.pi) * blobs.sigma
        assert error(image, flat.density(N)) < 5e-5


@pytest.mark.parametrize("kernel", ["nearest", "linear", "cubic", "kb4"])
def test_projections_are_transforms_of_real_images(kernel):
    """Hermitian output: the column k₂ = 0 is its own mirror image."""
    N = 16
    V = transform_of_noise(N, N, N)
    out = project(
        V, rotations(5), kernel=kernel if kernel != "kb4" else kaiser_bessel(4, 2.0), radius=N / 2 - 1
    )
    column = out[..., 0]
    mirrored = torch.roll(column.flip(-1), 1, -1)
    torch.testing.assert_close(column, mirrored.conj(), rtol=0, atol=1e-11 * float(out.abs().max()))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_shift_of_whole_pixels_is_a_roll(dims):
    """An odd box, where it holds for every index; a real image has no shifted Nyquist term."""
    N, d = 17, max(dims, 2)
    blobs = Blobs(0.25 * N, dims=d)
    volume = fourier_volume(blobs.density(N), kernel="kb6", oversampling=1.5, dims=d)
    M = rotations(2) if d == 3 else rotations(2)[:, :2, :2] * 0 + torch.eye(2, dtype=REAL)
    shift = torch.tensor([[3.0, -2.0, 5.0], [0.0, 1.0, -4.0]], dtype=REAL)[:, :dims]
    still = to_real(project(volume, M, dims=dims, radius=2 * N), N, dims)
    moved = to_real(project(volume, M, shift, dims=dims, radius=2 * N), N, dims)
    for p in range(2):
        rolled = torch.roll(still[p], tuple(int(s) for s in shift[p]), tuple(range(dims)))
        torch.testing.assert_close(moved[p], rolled, rtol=0, atol=1e-9 * float(rolled.abs().max()))


def test_even_boxes_shift_too():
    """Below the Nyquist index a roll and a phase are the same."""
    N, shift = 16, torch.tensor([[3.0, -2.0]], dtype=REAL)
    V, M = transform_of_noise(N, N, N), rotations(1)
    still, moved = (to_real(project(V, M, s, radius=N / 2 - 1), N, 2) for s in (None, shift))
    torch.testing.assert_close(moved[0], torch.roll(still[0], (3, -2), (0, 1)), rtol=0, atol=1e-12)


def test_rotating_a_volume():
    """3-D to 3-D with a 3-D shift."""
    N = 32
    blobs, M = Blobs(0.2 * N), rotations(2)
    shift = torch.tensor([[1.5, -2.0, 0.5], [0.0, 0.0, 3.25]], dtype=REAL)
    out = project(fourier_volume(blobs.density(N), kernel="kb6", oversampling=2.0), M, shift, dims=3)
    k = half_plane(N, 3)
    phase = torch.exp(-2j * math.pi * torch.einsum("...i,pi->p...", k, shift) / N)
    truth = blobs.transform(turned(M, k), N) * phase * inside(k, N / 2)
    assert error(out, truth) < 1e-4


def test_an_image_projected_to_lines():
    N = 32
    blobs = Blobs(0.2 * N, dims=2)
    angle = torch.tensor([0.3, 1.2, 2.5], dtype=REAL)
    c, s = angle.cos(), angle.sin()
    M = torch.stack((torch.stack((c, -s), -1), torch.stack((s, c), -1)), -2)
    volume = fourier_volume(blobs.density(N), kernel="kb6", oversampling=2.0, dims=2)
    k = half_plane(N, 1)
    truth = blobs.transform(turned(M, pad(k, 2)), N)
    assert error(project(volume, M), truth) < 1e-4


def test_a_curved_slice():
    """Points of the Ewald sphere; along its beam a shift turns phases, too."""
    N, curvature = 32, 0.03
    blobs, M = Blobs(0.2 * N), rotations(2)
    shift = torch.tensor([[4.0, 1.0, -1.0], [0.0, 2.0, 0.5]], dtype=REAL)
    volume = fourier_volume(blobs.density(N), kernel="kb6", oversampling=2.0)
    out = project(volume, M, shift, curvature=curvature)
    whole = torch.fft.fftfreq(N, 1 / N, dtype=REAL).round()
    k = torch.stack(torch.meshgrid(whole, whole, indexing="ij"), -1)
    x = torch.cat((0.5 * curvature * (k**2).sum(-1, keepdim=True), k), -1)
    phase = torch.exp(-2j * math.pi * torch.einsum("...i,pi->p...", x, shift) / N)
    truth = blobs.transform(turned(M, x), N) * phase * inside(k, N / 2)
    assert error(out, truth) < 1e-4


def test_a_smaller_output_crops_the_transform():
    V, M = transform_of_noise(16, 16, 16), rotations(3)
    whole, crop = project(V, M, radius=4), project(V, M, size=8)
    torch.testing.assert_close(crop[:, :5, :5][:, [0, 1, 2, 3]], whole[:, :4, :5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "dims"), [(2, 1), (3, 2), (3, 3)])
def test_back_projection_is_the_adjoint(d, dims, dtype):
    N, n = 12, 18
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    V = transform_of_noise(2, *[n] * d, dims=d, dtype=dtype)
    M, shift = rotations(3).to(dtype)[:, :d, :d], torch.randn(3, dims, dtype=dtype)
    how = {"kernel": "cubic", "oversampling": 1.5, "radius": 2.0 * N}
    out = project(V, M, shift, size=N, dims=dims, **how)
    g = torch.randn_like(out)
    weights = torch.rand_like(out.real)
    back = back_project(g, M, shift, weights, dims=dims, n=n, **how)
    gap = inner(g, out) - inner(back.data, V)
    assert abs(gap) < tolerance * g.norm() * out.norm()
    # Weights are inserted like data without shifts: the same adjoint on real numbers.
    gap = inner(weights.to(V.dtype), project(V, M, size=N, dims=dims, **how)) - inner(
        back.weight.to(V.dtype), V
    )
    assert abs(gap) < tolerance * weights.norm() * out.norm()


def test_diagonal_weights_are_the_diagonal_of_the_normal_operator():
    N = 6
    M, weights = rotations(2), torch.rand(2, N, N // 2 + 1, dtype=REAL)
    images = torch.zeros(2, N, N // 2 + 1, dtype=torch.complex128)
    got = back_project(images, M, weights=weights, diagonal=True).weight
    n0, n1, n2 = 1, 2, 2  # away from planes whose stored elements mirror each other
    unit = torch.zeros(N, N, N // 2 + 1, dtype=torch.complex128)
    unit[n0, n1, n2] = 1
    column = back_project(weights * project(unit, M), M).data
    torch.testing.assert_close(got[n0, n1, n2], column[n0, n1, n2].real)


@pytest.mark.parametrize("kernel", ["linear", "cubic", "kb4"])
def test_gradients_through_a_loss_on_real_images(kernel):
    """Volume, rotation and shift gradients in float32 against float64 autograd of the reference."""
    N = 16
    rho, M, shift = Blobs(0.3 * N).density(N), rotations(3), torch.randn(3, 2, dtype=REAL)
    target = to_real(project(fourier_volume(rho, kernel=kernel), rotations(3, seed=1)), N, 2)

    def loss(rho, M, shift, backend=None):
        out = project(fourier_volume(rho, kernel=kernel), M, shift, backend=backend)
        return (to_real(out, N, 2) - target.to(rho.dtype)).square().sum()

    grads = []
    for dtype, backend in ((torch.float32, None), (REAL, "reference")):
        leaves = [a.to(dtype).requires_grad_() for a in (rho, M, shift)]
        grads.append(torch.autograd.grad(loss(*leaves, backend=backend), leaves))
    for ours, truth in zip(*grads, strict=True):
        assert error(ours.to(REAL), truth) < 1e-4


def test_volumes_and_poses_in_batches():
    V = transform_of_noise(2, 12, 12, 12)
    M = torch.stack((rotations(3), rotations(3, seed=1)))
    shift = torch.randn(2, 3, 2, dtype=REAL)
    out = project(V, M, shift)
    assert out.shape == (2, 3, 12, 7)
    for b in range(2):
        for p in range(3):
            assert torch.equal(out[b, p], project(V[b], M[b, p : p + 1], shift[b, p : p + 1])[0])


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # by torch.compile itself
def test_projecting_under_compile_and_vmap():
    V, M = transform_of_noise(12, 12, 12), rotations(3)
    compiled = torch.compile(lambda V, M: project(V, M, kernel="cubic"), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(V, M), project(V, M, kernel="cubic"))
    got = torch.vmap(lambda R: project(V, R[None])[0])(M)
    assert torch.equal(got, project(V, M))


@pytest.mark.parametrize("N", [8, 9])
def test_centred_transforms_invert_each_other(N):
    rho = torch.randn(2, N, N, N, dtype=REAL)
    torch.testing.assert_close(to_real(to_fourier(rho, 3), N, 3), rho)
    delta = torch.zeros(N, N, dtype=REAL)
    delta[N // 2, N // 2] = 1
    torch.testing.assert_close(to_fourier(delta, 2).real, torch.ones(N, N // 2 + 1, dtype=REAL))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda V, M: project(V, M[0]), "expected"),
        (lambda V, M: project(V, M[:, :2]), "expected"),
        (lambda V, M: project(V[:, :6], M), "equal sides"),
        (lambda V, M: project(V, M, torch.zeros(3, 1, dtype=REAL)), "components"),
        (lambda V, M: project(V, M, torch.zeros(2, 2, dtype=REAL)), "agree"),
        (lambda V, M: project(V, M, dims=1, curvature=0.1), "projected"),
        (lambda V, M: project(V, M, oversampling=0.0), "above zero"),
        (lambda V, M: back_project(torch.zeros(3, 8, 4, dtype=V.dtype), M), "last axes"),
        (
            lambda V, M: back_project(torch.zeros(3, 8, 5, dtype=V.dtype), M, weights=torch.ones(3, 8)),
            "weights",
        ),
        (lambda V, M: fourier_volume(torch.zeros(4, 4, 5)), "equal"),
        (lambda V, M: fourier_volume(torch.zeros(4, 4, 4), oversampling=0.5), "1 or more"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(transform_of_noise(8, 8, 8), rotations(3))
