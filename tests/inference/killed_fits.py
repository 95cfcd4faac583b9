"""Run fits that are killed at random, as a program: `killed_fits.py METHOD N_KILLS FOLDER [DMIN]`.

Each attempt is a fork of this process, so that only the fit takes time; it is killed by SIGKILL and resumed by the
next one. The last is left alone. Prints one line of JSON: the result in hexadecimal, with that of an unkilled fit.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from bayesref.models import merge

import bayesref as br
from bayesref.inference.checkpoint import Checkpoint
from bayesref.io.simulation import write_simulation

OPTIONS = {"deterministic": {}, "svi": {"epochs": 6}}


def observations(folder, dmin):
    simulation = br.simulate_merge(dmin=dmin, multiplicity=5, images=20, seed=11)
    spots, _ = write_simulation(simulation, Path(folder) / "simulated")
    return br.read_unmerged([spots[0]], metadata_keys=["BATCH", "X", "Y"])


def run_fit(obs, method, checkpoint=None):
    """Every bit of the result that files are made of."""
    scale = br.Product(br.Falloff(obs, n_bumps=4), br.Additive(obs, n_single=6, n_pair=0), br.ImageWise(obs))
    p = br.fit(merge.model, obs, scale, method=method, checkpoint=checkpoint, **OPTIONS[method])
    F = p.amplitudes(n_draws=2).F
    return {
        "mean": p.mean.numpy().tobytes().hex(),
        "F": F.numpy().tobytes().hex(),
        "elbo": p.elbo.hex(),
        "history": [{k: v for k, v in row.items() if k != "seconds"} for row in p.history],
    }


def attempt(obs, method, folder, delay):
    """Fork, fit, kill after `delay` seconds; None = let it finish. Returns whether it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            checkpoint = Checkpoint(Path(folder) / "checkpoint", every=1, resume=True)
            result = run_fit(obs, method, checkpoint)
            (Path(folder) / "result.json").write_text(json.dumps(result))
            code = 0
        finally:
            os._exit(code)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit("the fit failed")
    return os.WIFSIGNALED(status)


def main(method, n_kills, folder, dmin=4.0):
    torch.set_num_threads(1)
    obs, rng = observations(folder, dmin), random.Random(1)
    start = time.monotonic()
    whole = run_fit(obs, method)
    length = time.monotonic() - start
    kills, positions = 0, []
    while kills < n_kills:
        done = Path(folder) / "checkpoint" / "fit.json"
        if not attempt(obs, method, folder, rng.uniform(0, 0.7 * length)):
            done.unlink()  # finished before it could be killed: begin again
            continue
        kills += 1
        positions.append(len(json.loads(done.read_text())["state"]["journal"]) if done.exists() else -1)
    attempt(obs, method, folder, None)
    resumed = json.loads((Path(folder) / "result.json").read_text())
    print(json.dumps({"whole": whole, "resumed": resumed, "kills": kills, "positions": positions}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(float, sys.argv[4:]))
