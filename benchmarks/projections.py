"""Projections beside torch-projectors 0.13.1: CPU seconds and truth, both programs in one process.

    python benchmarks/projections.py                 every case: box 64, 128, 256; 100 projections; one thread
    python benchmarks/projections.py --boxes 64 --threads 2
    python benchmarks/projections.py --json out.json

The first run builds torch-projectors from its source distribution against the torch of this environment (its wheel
does not load on torch 2.13) into benchmarks/.envs; that needs a C++ compiler and a minute. Both programs then run
in turn, case by case, and each keeps its best time, so a busy machine slows both. Times are CPU seconds of the
process, all threads together: a shared core does not count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from bayesref.fourier import back_project, fourier_volume, project, to_real

ENVS = Path(__file__).parent / ".envs"
PEER = "torch-projectors==0.13.1"


def peer():
    """The module torch_projectors, built on first use."""
    target, tools = ENVS / "torch-projectors", ENVS / "build-tools"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target"]
    if not (target / "torch_projectors").is_dir():
        subprocess.run([*pip, str(tools), "setuptools", "wheel", "pybind11", "ninja"], check=True)
        env = {**os.environ, "PYTHONPATH": str(tools), "PATH": f"{tools / 'bin'}:{os.environ['PATH']}"}
        source = ["--no-deps", "--no-build-isolation", "--no-binary", "torch-projectors", PEER]
        subprocess.run([*pip, str(target), *source], check=True, env=env)
    sys.path.append(str(target))
    import torch_projectors

    return torch_projectors


def rotations(n):
    """(n, 3, 3) of unit quaternions, and the same in the axis order of torch-projectors."""
    q = torch.randn(n, 4, dtype=torch.float64)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    M = torch.stack([torch.stack(r, -1) for r in rows], -2).float()
    return M, M.flip(-1, -2).contiguous()


def cases(tp, box, kernel, n_poses):
    """name -> (ours, theirs), each a function that runs the case once."""
    V = torch.fft.rfftn(torch.randn(box, box, box), dim=(-3, -2, -1))
    M, R = rotations(n_poses)
    t = torch.randn(n_poses, 2)
    leaves = [a.clone().requires_grad_() for a in (V, M, t)]
    peers = [a.clone().requires_grad_() for a in (V[None], R[None], t[None])]
    images = project(V, M, t, kernel=kernel)
    how, like = {"kernel": kernel}, {"interpolation": kernel}

    def both(n):
        """Forward and backward with the first n arguments as leaves."""
        a = [x if i < n else x.detach() for i, x in enumerate(leaves)]
        b = [x if i < n else x.detach() for i, x in enumerate(peers)]
        return (
            lambda: project(*a, **how).backward(images),
            lambda: tp.project_3d_to_2d_forw(*b, **like).backward(images[None]),
        )

    return {
        "forward": (lambda: project(V, M, **how), lambda: tp.project_3d_to_2d_forw(V[None], R[None], **like)),
        "forward, shifts": (
            lambda: project(V, M, t, **how),
            lambda: tp.project_3d_to_2d_forw(V[None], R[None], t[None], **like),
        ),
        "adjoint, shifts": (
            lambda: back_project(images, M, t, **how),
            lambda: tp.backproject_2d_to_3d_forw(images[None], R[None], None, t[None], **like),
        ),
        "forward+backward V": both(1),
        "forward+backward V, M, t": both(3),
    }


def seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(tp, boxes, n_poses, rounds):
    """Rows of (box, kernel, case, ours, theirs) in CPU seconds."""
    rows = []
    print(f"{'box':>4} {'kernel':7} {'case':26} {'bayesref':>9} {'peer':>9} {'ratio':>6}")
    for box in boxes:
        for kernel in ("linear", "cubic"):
            for name, (ours, theirs) in cases(tp, box, kernel, n_poses).items():
                seconds(ours)  # compiled code is loaded from numba's cache here
                pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
                a, b = (min(times) for times in zip(*pairs, strict=True))
                rows.append((box, kernel, name, a, b))
                print(f"{box:4d} {kernel:7} {name:26} {a:9.4f} {b:9.4f} {b / a:6.1f}", flush=True)
    return rows


def inner(a, b):
    return (a.to(torch.complex128).conj() * b.to(torch.complex128)).sum().real


def adjoint_gap(forward, adjoint, V, images):
    """|Re⟨g, A V⟩ - Re⟨Aᵀ g, V⟩| / (|g| |A V|)."""
    out = forward(V)
    return float((inner(images, out) - inner(adjoint(images), V)).abs() / (images.norm() * out.norm()))


def gradient_errors(tp, box=32, n_poses=8, kernel="linear"):
    """Relative errors of volume, rotation and shift gradients of a loss on real images: ours, theirs."""
    M, R = rotations(n_poses)
    t, rho = torch.randn(n_poses, 2), torch.randn(box, box, box)
    target = torch.randn(n_poses, box, box)
    radius = box / 2 - 2  # beyond, the peer clamps indices where the transform is periodic

    def loss(rho, M, t, backend=None):
        V = fourier_volume(rho, kernel=kernel, oversampling=1.0)
        return (
            (to_real(project(V, M, t, radius=radius, backend=backend), box, 2) - target.to(rho.dtype)) ** 2
        ).sum()

    def peer_loss(rho, R, t):
        V = torch.fft.rfftn(torch.fft.ifftshift(rho), dim=(-3, -2, -1))
        out = tp.project_3d_to_2d_forw(
            V[None], R[None], t[None], interpolation=kernel, fourier_radius_cutoff=radius
        )[0]
        return ((to_real(out, box, 2) - target) ** 2).sum()

    def grads(f, *args, **how):
        leaves = [a.clone().requires_grad_() for a in args]
        return torch.autograd.grad(f(*leaves, **how), leaves)

    truth = grads(loss, rho.double(), M.double(), t.double(), backend="reference")
    ours, theirs = grads(loss, rho, M, t), list(grads(peer_loss, rho, R, t))
    theirs[1] = theirs[1].flip(-1, -2)
    return [
        [float((a.double() - b).norm() / b.norm()) for a, b in zip(g, truth, strict=True)]
        for g in (ours, theirs)
    ]


def same_bits(run):
    """Whether five runs on two threads give the same bits."""
    first = run()
    return all(torch.equal(run(), first) for _ in range(5))


def truth(tp):
    """Print what holds for each program."""
    box, n_poses = 64, 20
    V = torch.fft.rfftn(torch.randn(box, box, box), dim=(-3, -2, -1))
    M, R = rotations(n_poses)
    images = torch.fft.rfft2(torch.randn(n_poses, box, box))
    ours, theirs = (
        project(V, M, radius=box / 2 - 2),
        tp.project_3d_to_2d_forw(V[None], R[None], fourier_radius_cutoff=box / 2 - 2)[0],
    )
    print(
        f"\nForward, relative difference of the two programs: {float((ours - theirs).norm() / ours.norm()):.1e}"
    )
    leaf = V[None].clone().requires_grad_()

    def their_adjoint(g):
        out = tp.project_3d_to_2d_forw(leaf, R[None])
        return torch.autograd.grad(out, leaf, g[None])[0][0]

    ours = adjoint_gap(lambda V: project(V, M), lambda g: back_project(g, M).data, V, images)
    theirs = adjoint_gap(lambda V: tp.project_3d_to_2d_forw(V[None], R[None])[0], their_adjoint, V, images)
    print(f"Adjoint identity, relative gap: {ours:.1e} here, {theirs:.1e} torch-projectors (its backward)")
    theirs = adjoint_gap(
        lambda V: tp.project_3d_to_2d_forw(V[None], R[None])[0],
        lambda g: tp.backproject_2d_to_3d_forw(g[None], R[None])[0][0],
        V,
        images,
    )
    print(f"The same of its back-projection: {theirs:.1e}")
    for kernel in ("linear", "cubic"):
        ours, theirs = gradient_errors(tp, kernel=kernel)
        for name, a, b in zip(("volume", "rotation", "shift"), ours, theirs, strict=True):
            print(f"Gradient of {name}, {kernel}, relative error: {a:.1e} here, {b:.1e} torch-projectors")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    ours = same_bits(lambda: back_project(images, M).data)
    theirs = same_bits(lambda: tp.backproject_2d_to_3d_forw(images[None], R[None])[0])
    torch.set_num_threads(threads)
    print(f"Same bits in repeated runs on two threads: {ours} here, {theirs} torch-projectors")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, nargs="*", default=[64, 128, 256])
    parser.add_argument("--poses", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    tp = peer()
    rows = measure(tp, options.boxes, options.poses, options.rounds)
    ratios = [theirs / ours for *_, ours, theirs in rows]
    middle = statistics.median(ratios)
    print(f"\n{len(rows)} cases: least ratio {min(ratios):.1f} (target 3), median {middle:.1f} (target 5)")
    truth(tp)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
