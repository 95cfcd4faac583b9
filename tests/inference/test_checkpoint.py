"""Checkpoints: fits cut short anywhere give the uninterrupted result, and what cannot be used is refused."""

import json
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import bayesref as br
from bayesref.inference.checkpoint import Checkpoint, fingerprint
from bayesref.inference.journal import Journal

KILLED_FITS = Path(__file__).with_name("killed_fits.py")
TENSORS = {"z": torch.arange(5, dtype=torch.float64), "n": torch.arange(3)}


def scale_of(obs):
    return br.Product(br.Falloff(obs, n_bumps=4), br.Additive(obs, n_single=6, n_pair=0), br.ImageWise(obs))


@pytest.mark.parametrize(("method", "kills"), [("deterministic", 4), ("svi", 2)])
def test_killed_fits_give_the_uninterrupted_result(method, kills, tmp_path):
    """SIGKILL at random times; every bit of latents, amplitudes, ELBO and history. (benchmarks/checkpoints.py: 20)"""
    words = [sys.executable, str(KILLED_FITS), method, str(kills), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == kills
    assert result["whole"] == result["resumed"]


@pytest.mark.parametrize("method", ["deterministic", "svi"])
def test_interrupted_fits_are_resumed(simulated, tmp_path, method):
    """Ctrl-C gives the best so far; resumed, the fit takes no step twice and ends where it would have ended."""
    options = {"method": method, **({"epochs": 4} if method == "svi" else {})}
    whole = br.fit(simulated.merge, simulated.obs, scale_of(simulated.obs), **options)

    def interrupt(row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    first = br.fit(
        simulated.merge, simulated.obs, scale_of(simulated.obs), checkpoint=Checkpoint(tmp_path, every=10_000),
        report=interrupt, **options,
    )  # fmt: skip
    assert first.reason.startswith("interrupted")
    assert not first.converged
    seen, said = [], []
    again = br.fit(
        simulated.merge, simulated.obs, scale_of(simulated.obs), report=lambda row: seen.append(row["step"]),
        checkpoint=Checkpoint(tmp_path, resume=True, notify=said.append), **options,
    )  # fmt: skip
    assert seen == [row["step"] for row in whole.history]
    assert said[0].startswith(f"Resumed from {tmp_path / 'fit.json'}")
    assert torch.equal(again.mean, whole.mean)
    assert again.elbo == whole.elbo
    assert [r["evaluations"] for r in again.history] == [r["evaluations"] for r in whole.history]


def test_other_data_options_and_models_are_refused(simulated, tmp_path):
    obs = simulated.obs
    few = {"rounds": 1, "polish": 1}
    br.fit(simulated.normal, obs, scale_of(obs), checkpoint=Checkpoint(tmp_path), **few)
    resumed = Checkpoint(tmp_path, resume=True)
    other = obs.subset(torch.arange(len(obs)) > 3)
    with pytest.raises(br.InputError, match="other data"):
        br.fit(simulated.normal, other, scale_of(obs), checkpoint=resumed, **few)
    with pytest.raises(br.InputError, match="other model"):
        br.fit(simulated.merge, obs, scale_of(obs), checkpoint=resumed, **few)
    with pytest.raises(br.InputError, match="other model"):
        br.fit(
            simulated.normal, obs, scale_of(obs), checkpoint=resumed, fixed={"a": torch.tensor(1.0)}, **few
        )
    with pytest.raises(br.InputError, match="rounds 1, not 2"):
        br.fit(simulated.normal, obs, scale_of(obs), checkpoint=resumed, rounds=2, polish=1)


def test_the_earlier_checkpoint_survives_a_full_disk(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(TENSORS, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # as a full disk: the write breaks off half-way
    try:
        with pytest.raises(br.InputError, match=r"cannot be written.*intact: resume from there"):
            checkpoint.save({"z": torch.zeros(100_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    tensors, state = checkpoint.load()
    assert state == {"step": 1}
    assert all(torch.equal(tensors[k], x) for k, x in TENSORS.items())
    assert len(list(tmp_path.iterdir())) == 2, "nothing half-written is left"
    checkpoint.save(TENSORS, {"step": 3})
    assert checkpoint.load()[1] == {"step": 3}
    assert len(list(tmp_path.iterdir())) == 2


def truncate(folder):
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-8])


def lose(folder):
    next(folder.glob("*.safetensors")).unlink()


def scribble(folder):
    (folder / "fit.json").write_text('{"format": 1, "opt')


def empty(folder):
    (folder / "fit.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "why"), [(truncate, "has changed"), (lose, "missing"), (scribble, "JSON"), (empty, "JSON")]
)
def test_damaged_checkpoints_are_told(tmp_path, damage, why):
    Checkpoint(tmp_path).save(TENSORS, {})
    damage(tmp_path)
    with pytest.raises(br.InputError, match=why):
        Checkpoint(tmp_path, resume=True).load()


def test_a_checkpoint_of_another_format_is_told(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(TENSORS, {})
    facts = json.loads(checkpoint.path.read_text())
    checkpoint.path.write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(br.InputError, match="format 99"):
        checkpoint.load()


def test_numbers_survive_to_the_last_bit(tmp_path):
    state = {"a": 0.1 + 0.2, "b": float("inf"), "c": float("nan"), "d": [1e-310, -0.0]}
    Checkpoint(tmp_path).save({}, state)
    _, back = Checkpoint(tmp_path).load()
    assert repr(back) == repr(state)


def test_fits_in_one_folder_do_not_meet(tmp_path):
    one, two = Checkpoint(tmp_path, name="half"), Checkpoint(tmp_path, name="half-1")
    one.save(TENSORS, {"n": 1})
    two.save(TENSORS, {"n": 2})
    one.save(TENSORS, {"n": 3})
    assert (one.load()[1]["n"], two.load()[1]["n"]) == (3, 2)
    one.remove()
    assert one.load() is None
    assert two.load() is not None


def test_fingerprints_differ_where_the_data_do(simulated):
    obs = simulated.obs
    assert fingerprint(obs) == fingerprint(obs.subset(slice(None)))
    changed = obs.I.clone()
    changed[7] = np.nextafter(float(changed[7]), np.inf)
    others = [obs.subset(slice(1, None)), obs._map_spots(lambda x: x, I=changed)]
    assert len({fingerprint(x) for x in (obs, *others)}) == 3


def test_steps_done_are_not_done_again(tmp_path):
    """The journal alone: what a step returned, the state after it, and the tape of the next."""

    def run(checkpoint, stop_after):
        state, calls = {"x": 0.0}, []
        journal = Journal(
            checkpoint,
            lambda: ({"x": torch.tensor([state["x"]]).double()}, {"evaluations": 0}),
        )

        def evaluate(u):
            def f():
                calls.append(float(u[0]))
                if len(calls) > stop_after:
                    raise InterruptedError
                return 2.0 * float(u[0]), torch.tensor([2.0]).double()

            return journal.evaluate(u, f)[0]

        def step():
            state["x"] += sum(evaluate(np.array([state["x"] + i])) for i in range(3))
            return state["x"]

        journal.open(lambda tensors, _: state.update(x=float(tensors["x"])))
        return [journal.do(step) for _ in range(3)], calls

    whole, every_call = run(None, 99)
    assert len(every_call) == 9
    with pytest.raises(InterruptedError):
        run(Checkpoint(tmp_path, every=1), 5)
    again, calls = run(Checkpoint(tmp_path, every=1, resume=True), 99)
    assert again == whole
    assert calls == every_call[5:]


def test_fingerprints_hold_what_a_model_was_given():
    def page(obs, scale, prior=None):
        return prior

    def closure(x):
        return lambda obs: x

    one, two = (partial(page, prior=torch.tensor([1.0, x])) for x in (2.0, 3.0))
    assert fingerprint(one) == fingerprint(partial(page, prior=torch.tensor([1.0, 2.0])))
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(closure(1)) == fingerprint(closure(1)) != fingerprint(closure(2))
