"""One small merge, fitted once: two datasets of about 1,700 spots each."""

import bayesref.models.merge as merge
import pytest
import torch

import bayesref as br
from bayesref.inference.cross_validation import half_datasets, hold_out, predict
from bayesref.io.simulation import write_simulation
from bayesref.results.write import MergeResults
from bayesref.validation.merging import completeness, half_statistics, half_z


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Threads that wait for work spin, which costs small arrays on shared cores ten times the time."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="session")
def observations(tmp_path_factory):
    """Two files, merged apart."""
    made = br.simulate_merge(n_datasets=2, dmin=4.0, multiplicity=4.0, images=12, seed=11)
    files, _ = write_simulation(made, tmp_path_factory.mktemp("simulated") / "files")
    return br.read_unmerged(files, metadata_keys=["BATCH", "X", "Y", "dHKL"], separate=True)


@pytest.fixture(scope="session")
def results(observations):
    """Everything `write_all` takes."""
    obs = observations
    held_out = hold_out(obs, 0.1, seed=1)
    posterior = br.fit(merge.model, obs.subset(~held_out), br.Product(br.Falloff(obs), br.Additive(obs)))
    amplitudes, asu = posterior.amplitudes(n_samples=40), obs.asu
    halves, predictions = half_datasets(posterior, 2), predict(posterior, obs)
    tables = {f"data_{k}": completeness(asu, amplitudes, dataset=k) for k in range(2)}
    tables |= {f"halves_{k}": half_statistics(asu, halves, dataset=k) for k in range(2)}
    figures = {name: dict(t.iloc[-1]) for name, t in tables.items()}
    return MergeResults(
        posterior, amplitudes, predictions, obs, held_out, halves, tables, half_z(halves), "z", figures
    )
