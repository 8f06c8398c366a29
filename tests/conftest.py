"""What every test starts from: no plugins of the machine, one thread."""

import os

import pytest
import torch

os.environ["GRADOPT_PLUGIN_AUTOLOAD"] = "0"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """The log directory of real runs, for looking only."""
    from tests import dashboards  # for the slow tests that look at them

    return dashboards.sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(autouse=True)
def process_is_left_as_it_was():
    """A run leaves the process as it found it: default dtype, threads, random state of others."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()

    yield

    assert torch.get_default_dtype() is dtype
    assert torch.get_num_threads() == threads
