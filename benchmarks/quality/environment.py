"""The environment the peers are installed into, apart from the one gradopt runs in."""

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.peers import PACKAGES


def python_of(directory: Path, packages: Sequence[str] = PACKAGES) -> str:
    """The interpreter of the environment in `directory`, which is made where there is none.

    It sees the packages of this one, so that torch is not installed again. What does not install is said and left out:
    its rows say so too.
    """
    python = directory / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(directory, with_pip=True)
        _see_ours(python)
        for package in packages:
            done = subprocess.run(
                [python, "-m", "pip", "install", "--quiet", package], capture_output=True, text=True, check=False
            )
            print(f"peers: {package} {'is there' if done.returncode == 0 else 'does not install'}", file=sys.stderr)
    return os.fspath(python)


def _see_ours(python: Path) -> None:
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    place = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (place / "zz_gradopt.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")
