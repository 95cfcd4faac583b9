"""`bayesref merge` cut short: by kill -9, Ctrl-C and SIGTERM, and what --resume says and refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import reciprocalspaceship as rs

from bayesref.cli.app import main
from bayesref.data.simulate import simulate_merge
from bayesref.inference import fit_state
from bayesref.io.simulation import write_simulation

KEYS = ["--metadata", "BATCH,dHKL,X,Y", "--samples", "4"]


def run(capsys, *words):
    """Exit code and everything printed, in one line."""
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    out = capsys.readouterr()
    return end.value.code or 0, " ".join((out.out + out.err).split())


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    simulation = simulate_merge(dmin=4.5, multiplicity=5, images=16, seed=5)
    return write_simulation(simulation, tmp_path_factory.mktemp("simulated"))[0][0]


@pytest.fixture(scope="module")
def whole(spots, tmp_path_factory):
    """Results of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("out") / "whole"
    with pytest.raises(SystemExit) as end:
        main(["merge", str(spots), *KEYS, "--half-datasets", "1", "--refit", "--out", str(out), "--quiet"])
    assert not end.value.code
    return out


def same(a, b):
    """Whether the amplitudes of two runs agree to the last bit."""
    return all(
        rs.read_mtz(str(a / name)).equals(rs.read_mtz(str(b / name)))
        for name in ("merged_0.mtz", "halves_0.mtz")
    )


def interrupt_at(monkeypatch, call, exception=KeyboardInterrupt):
    """Raise in the evaluation number `call`."""
    minimize, calls = fit_state.minimize, []

    def interrupted(f, *args, **options):
        def g(u):
            calls.append(0)
            if len(calls) == call:
                raise exception
            return f(u)

        return minimize(g, *args, **options)

    monkeypatch.setattr(fit_state, "minimize", interrupted)


def test_killed_and_resumed(spots, whole, tmp_path, capsys):
    """kill -9 of the program itself, once it has written a checkpoint."""
    out = tmp_path / "out"
    words = ["merge", str(spots), *KEYS, "--half-datasets", "1", "--refit", "--out", str(out)]
    command = [sys.executable, "-m", "bayesref", *words, "--checkpoint-every", "1", "--quiet"]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as program:
        while not (out / "checkpoint" / "fit.json").exists() and program.poll() is None:
            time.sleep(0.02)
        program.kill()
    assert program.returncode == -signal.SIGKILL
    code, said = run(capsys, *words)
    assert code == 2
    assert "--resume continues it" in said
    code, said = run(capsys, *words, "--resume")
    assert (code, "Resumed from" in said) == (0, True)
    assert same(out, whole)


def test_ctrl_c_writes_what_there_is_and_says_how_to_go_on(spots, whole, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    words = ["merge", spots, *KEYS, "--half-datasets", "1", "--refit", "--out", out]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 20)
        code, said = run(capsys, *words)
    assert code == 0
    assert "the same command with --resume continues" in said
    assert json.loads((out / "run.json").read_text())["fit"]["reason"].startswith("interrupted")
    assert not same(out, whole)
    code, said = run(capsys, *words, "--resume")
    assert code == 0
    assert same(out, whole)


def test_sigterm_ends_at_once_with_a_checkpoint(spots, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"

    def terminate(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(fit_state, "minimize", terminate)
    code, said = run(capsys, "merge", spots, *KEYS, "--out", out)
    assert code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command with --resume" in said
    assert [p.name for p in out.iterdir()] == ["checkpoint"]
    assert (out / "checkpoint" / "fit.json").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_resume_refuses_other_options_and_data(spots, whole, tmp_path, capsys):
    words = ["merge", spots, *KEYS, "--half-datasets", "1", "--refit", "--out", whole, "--resume"]
    code, said = run(capsys, *words, "--dmin", "5")
    assert (code, "a fit with --dmin '', not 5" in said or "--dmin not given, not 5.0" in said) == (2, True)
    other = tmp_path / spots.name
    rs.read_mtz(str(spots)).iloc[5:].write_mtz(str(other))
    code, said = run(capsys, "merge", other, *words[2:])
    assert (code, "other data" in said) == (2, True)


def test_resume_without_a_checkpoint_starts(spots, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["merge", spots, *KEYS, "--rounds", "1", "--out", out, "--resume"]
    code, said = run(capsys, *words)
    assert (code, "no checkpoint" in said) == (0, True)
    code, said = run(capsys, *words, "--checkpoint-every", "0")
    assert (code, "leave one of them out" in said) == (2, True)


def test_no_checkpoint_where_none_is_wanted(spots, tmp_path, capsys):
    out = tmp_path / "out"
    code, _ = run(capsys, "merge", spots, *KEYS, "--rounds", "1", "--out", out, "--checkpoint-every", "0")
    assert code == 0
    assert not (out / "checkpoint").exists()
