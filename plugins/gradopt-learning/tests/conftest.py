"""What the tests share. They see the package only as it is installed."""

import os
import subprocess
import sys

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread_and_double_precision():
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(before)
    torch.set_num_threads(threads)


@pytest.fixture
def gradopt(tmp_path):
    """Run `python -m gradopt` in an empty directory."""

    def run(*arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GRADOPT_", "HYDRA_"))}
        return subprocess.run(
            [sys.executable, *python, "-m", "gradopt", *arguments],
            cwd=tmp_path,
            env=kept,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
