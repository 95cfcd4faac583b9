"""What all tests share: the device, real data where there are any, fixed seeds."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="torch device that tests run on (cpu, cuda)")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def device(request) -> torch.device:
    """The device of `--device`."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data: $BAYESREF_DATA, else shared/data beside the repository."""
    path = Path(os.environ.get("BAYESREF_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set BAYESREF_DATA (see docs/data.md)")
    return path


@pytest.fixture(autouse=True)
def fixed_seed():
    """The same random numbers in every test, whatever ran before."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _argument_checks():
    """torch.compile switches the argument checks of distributions off for the rest of the process."""
    torch.distributions.Distribution.set_default_validate_args(True)
