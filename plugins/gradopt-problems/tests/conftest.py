"""What the tests share. They see the package only as it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def write(tmp_path):
    """Write a file of a few lines, and return its path."""

    def write(text: str, name: str = "my.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        return path

    return write


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
