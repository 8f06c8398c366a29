"""Really installs distributions from their source trees, into a directory of their own, and runs what sees them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
STRANGERS = REPOSITORY / "tests" / "strangers"


def install(target: Path, *sources: Path) -> Path:
    """Install source trees (or wheels) into `target`; on PYTHONPATH its distributions and entry points are found."""
    pip("install", "--target", os.fspath(target), *map(os.fspath, sources))
    return target


def pip(*arguments: str) -> None:
    """Run pip for packages whose dependencies are there already: nothing is downloaded."""
    offline = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    command, *rest = arguments
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, *offline, *rest], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def environment(path: Path | None = None, **variables: str) -> dict[str, str]:
    """The variables of a fresh shell that sees what is installed in `path`; no switches of gradopt are left on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GRADOPT_", "HYDRA_", "COMP_"))}
    kept.pop("PYTHONPATH", None)
    return {**kept, **({} if path is None else {"PYTHONPATH": os.fspath(path)}), **variables}


def python(
    *arguments: str,
    cwd: Path,
    path: Path | None = None,
    variables: Mapping[str, str] | None = None,
    seconds: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run this Python in `cwd`."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(path, **(variables or {})),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def gradopt(
    *arguments: str, cwd: Path, path: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m gradopt` in `cwd`."""
    return python("-m", "gradopt", *arguments, cwd=cwd, path=path, variables=variables)
