"""Several processes: the result of one, to 1e-6, and a clear end where one of them is lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import reciprocalspaceship as rs
import torch

import bayesref as br
from bayesref.cli.app import main
from bayesref.inference import distributed
from bayesref.io.simulation import write_simulation

KEYS = ["--metadata", "BATCH,dHKL,X,Y", "--samples", "4"]


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    simulation = br.simulate_merge(dmin=4.5, multiplicity=5, images=16, seed=5)
    return str(write_simulation(simulation, tmp_path_factory.mktemp("simulated"))[0][0])


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


class Group:
    """`n` processes as torchrun would start them; what each says is kept."""

    def __init__(self, server, folder, words, n=2):
        shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
        self.server, self.logs = server, [folder / f"log-{r}" for r in range(n)]
        jobs = [
            {"words": words, "env": {**shared, "RANK": str(r)}, "log": str(log)}
            for r, log in enumerate(self.logs)
        ]
        print(json.dumps(jobs), file=server.stdin, flush=True)
        self.pids = json.loads(server.stdout.readline())

    def wait(self):
        """Exit codes, and what was said, in one line each."""
        codes = json.loads(self.server.stdout.readline())
        return codes, [" ".join(log.read_text().split()) for log in self.logs]


@pytest.fixture(scope="module")
def server():
    """See `forked_merges.py`."""
    program = [sys.executable, str(Path(__file__).with_name("forked_merges.py"))]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    pipe = subprocess.PIPE
    with subprocess.Popen(program, env=env, stdin=pipe, stdout=pipe, text=True) as server:
        yield server
        server.stdin.close()


def single(words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code


def columns(folder, name="merged_0.mtz"):
    return rs.read_mtz(str(Path(folder) / name))[["F", "SIGF", "I", "SIGI"]].to_numpy(float)


def test_two_processes_give_the_result_of_one(server, spots, tmp_path):
    """Amplitudes of all spots and of halves; only the first process prints."""
    words = ["merge", spots, *KEYS, "--half-datasets", "1"]
    group = Group(server, tmp_path, [*words, "--out", str(tmp_path / "two")])
    single([*words, "--quiet", "--out", str(tmp_path / "one")])
    codes, said = group.wait()
    assert codes == [0, 0], said
    assert "Results in" in said[0]
    assert not said[1]
    for name in ("merged_0.mtz", "halves_0.mtz"):
        one, two = (columns(tmp_path / k, name) for k in ("one", "two"))
        np.testing.assert_allclose(two, one, rtol=1e-6)


def test_a_killed_process_ends_the_run_with_a_checkpoint(server, spots, tmp_path):
    """One process is killed; the other says so; one process alone goes on from the checkpoint."""
    words, out = ["merge", spots, *KEYS, "--checkpoint-every", "1"], tmp_path / "out"
    group = Group(server, tmp_path, [*words, "--out", str(out)])
    while not (out / "checkpoint" / "fit.json").exists():
        time.sleep(0.02)
    os.kill(group.pids[1], signal.SIGKILL)
    codes, said = group.wait()
    assert codes == [1, -signal.SIGKILL], said
    assert "One of the 2 processes of this run has ended" in said[0]
    assert "the same command with --resume continues" in said[0]
    assert "Traceback" not in said[0]
    single([*words, "--quiet", "--out", str(out), "--resume"])
    single([*words, "--quiet", "--out", str(tmp_path / "whole")])
    np.testing.assert_allclose(columns(out), columns(tmp_path / "whole"), rtol=1e-6)


def test_errors_are_told_once(server, spots, tmp_path):
    out = str(tmp_path / "out")
    codes, said = Group(server, tmp_path, ["merge", spots, *KEYS, "--scale", "no", "--out", out]).wait()
    assert codes == [2, 2], said
    assert "'no'" in said[0]
    assert not said[1]


def test_stochastic_fits_share_images(server, spots, tmp_path):
    """Another order of images than in one process, so the same only within the noise of the method."""
    words = ["merge", spots, *KEYS, "--method", "svi", "--epochs", "5", "--out"]
    group = Group(server, tmp_path, [*words, str(tmp_path / "two")])
    single([*words, str(tmp_path / "one"), "--quiet"])
    codes, said = group.wait()
    assert codes == [0, 0], said
    one, two = (columns(tmp_path / k) for k in ("one", "two"))
    assert np.median(np.abs(two[:, 0] - one[:, 0]) / one[:, 1]) < 0.2
    assert np.corrcoef(one[:, 1], two[:, 1])[0, 1] > 0.99


def test_one_process_alone_changes_nothing(simulated):
    x = torch.arange(6.0)
    assert distributed.total(x) is x
    assert distributed.total(2.5) == 2.5
    assert distributed.joined(x) is x
    assert distributed.my_part(x, 6) is x
    assert distributed.my_reflections(simulated.obs) is simulated.obs
    assert (distributed.rank(), distributed.size(), distributed.is_first()) == (0, 1, True)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_every_reflection_belongs_to_one_process(simulated, monkeypatch, n):
    obs, rows = simulated.obs, []
    monkeypatch.setattr(distributed, "size", lambda: n)
    for r in range(n):
        monkeypatch.setattr(distributed, "rank", lambda r=r: r)
        mine = distributed.my_reflections(obs)
        rows.append(mine.row)
        assert abs(len(mine) - len(obs) / n) < obs.counts().max() + 1
    assert torch.equal(torch.cat(rows), obs.row)


def test_more_processes_than_reflections_are_refused(simulated, monkeypatch):
    few = simulated.obs.slice_reflections(0, 3)
    monkeypatch.setattr(distributed, "size", lambda: 4)
    with pytest.raises(br.InputError, match=re.escape("4 processes cannot share 3 reflections")):
        distributed.my_reflections(few)
