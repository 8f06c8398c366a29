"""Devices, and what a run changes in the process: it is put back afterwards."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from gradopt.evaluations import LARGE
from gradopt.mistakes import Mistake

SMALL = 100_000
"""Unknowns below which one thread is used: a second one, on a busy machine, makes a small step 40 times slower."""

LARGE_BLOCK = 32 << 20
"""Bytes from which glibc asks the system for a block by itself, at most."""

MALLOPT = {"M_TRIM_THRESHOLD": -1, "M_MMAP_THRESHOLD": -3, "M_MMAP_MAX": -4}
"""The parameters of glibc's mallopt(3), by their numbers in malloc.h."""


def resolve(name: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The device and dtype of a run. "auto" takes a GPU if there is one.

    Raises:
        Mistake: The device is not there, or cannot hold the dtype. There is no silent fall-back.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        number = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if number == 0:
            built = "" if torch.version.cuda else f" (torch {torch.__version__} is built without CUDA)"
            raise Mistake(f"device={name}: there is no CUDA device here{built}; use device=cpu or device=auto")
        if device.index is not None and device.index >= number:
            raise Mistake(f"device={name}: there are {number} CUDA devices, cuda:0 to cuda:{number - 1}")
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise Mistake(f"device={name}: there is no MPS device here; use device=cpu or device=auto")
        if dtype == "float64":
            raise Mistake("device=mps has no float64; use dtype=float32")
    return device, getattr(torch, dtype)


@contextmanager
def defaults(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """New tensors are made on `device` in `dtype`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def threads(number: int | str, size: int) -> Iterator[int]:
    """Run with a number of threads; "auto": one for fewer than `SMALL` unknowns, else as many as there were."""
    before = torch.get_num_threads()
    wanted = (1 if size < SMALL else before) if number == "auto" else int(number)
    if wanted != before:
        torch.set_num_threads(wanted)
    try:
        yield wanted
    finally:
        if wanted != before:
            torch.set_num_threads(before)


@contextmanager
def kept_memory(size: int) -> Iterator[AbstractContextManager[None] | None]:
    """With many unknowns on the CPU, a context for steps, in which freed memory is kept for the next one; what is freed
    outside of it the system gets back, and at the end all. None: there is nothing to do.

    Each step makes a gradient, and frees it. glibc asks the system for each block of more than 32 MB and gives it back,
    and filling the new pages takes ten times as long as computing what is in them. What a criterion asks now and then
    is another matter: kept, it would add up to several times what the steps need. With another C library nothing
    changes.
    """
    mallopt = _mallopt() if size >= LARGE else None
    if mallopt is None:
        yield None
        return
    # Thresholds that glibc itself comes to in a process that frees large blocks: it does not once it has been told.
    mallopt(MALLOPT["M_MMAP_THRESHOLD"], LARGE_BLOCK)
    mallopt(MALLOPT["M_TRIM_THRESHOLD"], -1)
    try:
        yield _OneHeap(mallopt)
    finally:
        mallopt(MALLOPT["M_TRIM_THRESHOLD"], 2 * LARGE_BLOCK)
        ctypes.CDLL(None).malloc_trim(0)


class _OneHeap:
    """No block comes from the system by itself."""

    def __init__(self, mallopt: Callable[[int, int], int]) -> None:
        self._mallopt = mallopt

    def __enter__(self) -> None:
        self._mallopt(MALLOPT["M_MMAP_MAX"], 0)

    def __exit__(self, *error: object) -> None:
        self._mallopt(MALLOPT["M_MMAP_MAX"], 65536)


def _mallopt() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return None
    return ctypes.CDLL(None).mallopt
