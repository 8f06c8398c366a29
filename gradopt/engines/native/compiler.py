"""The compiler of C on this machine, and the objects it has made, kept across processes."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FLAGS = (
    "-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-fopenmp-simd",
    "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-w",
)  # fmt: skip
"""No fast-math: NaN and infinities must be seen. No contraction: it would change the last bit; where torch fuses a
multiplication and an addition the source says so. Sums may be cut into lanes, by a pragma at each."""

NAMES = ("gcc", "cc", "clang")


class NoCompiler(Exception):
    """There is none, or it refuses; the message says why."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler of C.

    Attributes:
        path: Of the program.
        directory: Where objects are kept.
    """

    path: str
    directory: Path

    def load(self, source: str) -> ctypes.CDLL:
        """The shared object of a source: from the directory, or made now.

        Raises:
            NoCompiler: The compiler refuses.
        """
        target = self.directory / f"{self._digest(source)}.so"
        if target.exists():
            try:
                return ctypes.CDLL(str(target))
            except OSError:  # damaged: made again
                target.unlink(missing_ok=True)
        self._compile(source, target)
        return ctypes.CDLL(str(target))

    def _digest(self, source: str) -> str:
        binary = Path(self.path).resolve()
        status = binary.stat()
        parts = (source, *FLAGS, str(binary), str(status.st_size), str(status.st_mtime_ns), processor())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def _compile(self, source: str, target: Path) -> None:
        """Into a file of its own, moved to its place when it is whole: other processes see all of it or nothing."""
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            code, made = Path(scratch) / "program.c", Path(scratch) / "program.so"
            code.write_text(source)
            command = [self.path, *FLAGS, "-o", str(made), str(code), "-lm"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NoCompiler(f"{self.path} does not work: {error}") from error
            if done.returncode:
                complaint = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
                raise NoCompiler(f"{self.path} refuses the program: {complaint}")
            os.replace(made, target)


def find_compiler() -> Compiler:
    """The one in the environment variable CC, or the first of gcc, cc and clang.

    Raises:
        NoCompiler: None is found.
    """
    names = [os.environ["CC"]] if os.environ.get("CC") else list(NAMES)
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return Compiler(path, cache_directory())
    raise NoCompiler(f"no C compiler is found (tried {', '.join(names)}); install gcc, or name one in CC")


def cache_directory() -> Path:
    """Of this user: under XDG_CACHE_HOME or ~/.cache; a temporary one where that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    directory = Path(base) / "gradopt" / "native"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(directory, os.W_OK):
            return directory
    except OSError:
        pass
    return _temporary()


@cache
def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="gradopt-native-"))


@cache
def processor() -> str:
    """What -march=native depends on: a home directory may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    described = [line for line in lines if line.startswith(("model", "flags", "Features", "CPU part"))]
    return f"{platform.machine()} {sorted(set(described))}"
