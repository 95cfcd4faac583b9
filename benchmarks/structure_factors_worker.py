"""One program on one case, run by `structure_factors.py` in that program's own environment.

    python structure_factors_worker.py PROGRAM CASE.npz MODEL.pdb OUT.npz

Each program reads the same PDB file and list of reflections, computes F and, where it can, the gradients of
L = Σ w |F|² for coordinates, B and occupancy. CPU seconds are medians of process time after one warm-up call.
Memory is the peak above what importing and reading took.
"""

import sys
import time
from pathlib import Path

import numpy as np

REPEATS = 7


def timed(call, repeats=REPEATS):
    """(median CPU s, least wall s, last result)."""
    call()
    cpu, wall = [], []
    for _ in range(repeats):
        c, w = time.process_time(), time.perf_counter()
        result = call()
        cpu.append(time.process_time() - c)
        wall.append(time.perf_counter() - w)
    return float(np.median(cpu)), min(wall), result


def megabytes(reset=False):
    """Peak resident memory since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def result(program_call, gradient_call=None):
    """Time both calls; the second returns (F, dxyz, dB, docc)."""
    before = megabytes(reset=True)
    out = {}
    out["cpu_forward"], out["wall_forward"], out["F"] = timed(program_call)
    if gradient_call is not None:
        out["cpu_both"], out["wall_both"], (out["F"], out["xyz"], out["B"], out["occupancy"]) = timed(
            gradient_call
        )
    out["megabytes"] = megabytes() - before
    return out


def bayesref(case, model, rel_error, threads=1):
    from dataclasses import replace

    import torch

    from bayesref.io.structure import read_structure
    from bayesref.structure_factors.calculate import prepare, structure_factors

    torch.set_num_threads(threads)
    crystal = read_structure(model)
    plan = prepare(crystal, torch.from_numpy(case["hkl"]), rel_error)
    weight = torch.from_numpy(case["weight"])

    def forward():
        with torch.no_grad():
            return structure_factors(crystal, plan=plan).numpy()

    def both():
        leaves = [x.clone().requires_grad_() for x in (crystal.xyz, crystal.B, crystal.occupancy)]
        F = structure_factors(replace(crystal, xyz=leaves[0], B=leaves[1], occupancy=leaves[2]), plan=plan)
        (weight * (F.real.double() ** 2 + F.imag.double() ** 2)).sum().backward()
        return F.detach().numpy(), *(x.grad.numpy() for x in leaves)

    return result(forward, both)


def torchref(case, model):
    import torch
    import torchref as _  # noqa: F401
    from torchref.model import ModelFT

    torch.set_num_threads(1)
    crystal = ModelFT(max_res=float(case["d_min"]), verbose=0)
    crystal.load_pdb(model)
    iso, aniso = crystal.get_iso(), crystal.get_aniso()
    hkl, weight = torch.from_numpy(case["hkl"]).to(torch.int32), torch.from_numpy(case["weight"])

    def calculate(parameters):
        return crystal.fft.compute_structure_factors(hkl, *parameters, *iso[3:], *aniso, apply_symmetry=True)[
            0
        ]

    def forward():
        with torch.no_grad():
            return calculate([x.detach() for x in iso[:3]]).numpy()

    def both():
        leaves = [x.detach().clone().requires_grad_() for x in iso[:3]]
        F = calculate(leaves)
        (weight * (F.real.double() ** 2 + F.imag.double() ** 2)).sum().backward()
        return F.detach().numpy(), *(x.grad.numpy() for x in leaves)

    out = result(forward, both)
    # its adp is U or B: told apart by size
    if float(iso[1].median()) < 2.0:
        out["B"] = out["B"] / (8 * np.pi**2)
    return out


def cctbx(case, model, tight):
    import iotbx.pdb
    from cctbx import miller, xray
    from cctbx.array_family import flex

    structure = iotbx.pdb.input(file_name=model).xray_structure_simple(enable_scattering_type_unknown=False)
    structure.scattering_type_registry(table="it1992")
    hkl = flex.miller_index([tuple(int(i) for i in h) for h in case["hkl"]])
    reflections = miller.set(structure.crystal_symmetry(), hkl, anomalous_flag=False)
    setting = {"grid_resolution_factor": 0.25, "wing_cutoff": 1e-5, "quality_factor": 10000} if tight else {}
    manager = xray.structure_factors.from_scatterers(miller_set=reflections, **setting)
    gradient = xray.structure_factors.gradients(miller_set=reflections, **setting)
    xray.set_scatterer_grad_flags(scatterers=structure.scatterers(), site=True, u_iso=True, occupancy=True)
    weight = case["weight"]

    def forward():
        return manager(xray_structure=structure, miller_set=reflections, algorithm="fft").f_calc().data()

    def both():
        F = forward()
        slope = flex.complex_double(list(2 * weight * np.array(F)))
        g = gradient(
            xray_structure=structure,
            u_iso_refinable_params=None,
            miller_set=reflections,
            d_target_d_f_calc=slope,
            n_parameters=0,
            algorithm="fft",
        )
        return F, g.d_target_d_site_cart(), g.d_target_d_u_iso(), g.d_target_d_occupancy()

    out = result(forward, both)
    out["F"], out["occupancy"] = np.array(out["F"]), np.array(out["occupancy"])
    out["xyz"], out["B"] = np.array(list(out["xyz"])), np.array(out["B"]) / (8 * np.pi**2)
    return out


def gemmi(case, model, rate, cutoff):
    import gemmi

    structure = gemmi.read_structure(model)
    calculator = gemmi.DensityCalculatorX()
    calculator.d_min, calculator.rate, calculator.cutoff = float(case["d_min"]), rate, cutoff
    calculator.set_refmac_compatible_blur(structure[0])
    calculator.grid.setup_from(structure)
    reflections = np.ascontiguousarray(case["hkl"], dtype=np.int32)

    def forward():
        calculator.put_model_density_on_grid(structure[0])
        grid = gemmi.transform_map_to_f_phi(calculator.grid, half_l=True)
        return grid.prepare_asu_data(dmin=calculator.d_min * 0.999, unblur=calculator.blur)

    out = result(forward)
    data = out["F"]
    row = {tuple(h): i for i, h in enumerate(data.miller_array.tolist())}
    out["F"] = np.array(data.value_array)[[row[tuple(h)] for h in reflections.tolist()]]
    return out


PROGRAMS = {
    "bayesref 1e-2": lambda c, m: bayesref(c, m, 1e-2),
    "bayesref 1e-3": lambda c, m: bayesref(c, m, 1e-3),
    "bayesref 1e-4": lambda c, m: bayesref(c, m, 1e-4),
    "bayesref 1e-3, 2 threads": lambda c, m: bayesref(c, m, 1e-3, 2),
    "torchref": torchref,
    "cctbx": lambda c, m: cctbx(c, m, False),
    "cctbx tight": lambda c, m: cctbx(c, m, True),
    "gemmi": lambda c, m: gemmi(c, m, 1.5, 1e-5),
    "gemmi tight": lambda c, m: gemmi(c, m, 2.0, 1e-7),
}

if __name__ == "__main__":
    program, case, model, out = sys.argv[1:]
    np.savez(out, **PROGRAMS[program](dict(np.load(case)), model))
