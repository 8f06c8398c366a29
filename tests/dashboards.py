"""TensorBoard as people meet it: a server of its own process, and a browser that looks at it."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.installed import environment, gradopt

CHROMIUM = Path("/usr/bin/chromium")

SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Chromium as root in a container, which asks nobody outside for anything."""


CAMEL = """
def camel(x):
    a, b = x[0], x[1]
    return (4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (-4 + 4 * b**2) * b**2
"""


def sweep(place: Path) -> Path:
    """Real runs: two optimisers with three seeds, one that fails, many starts, a nasty name; and a broken one."""
    (place / "camel.py").write_text(CAMEL)
    jobs = (
        ("-m", "objective=rosenbrock", "optimiser=adam,lbfgs", "seed=0,1,2", "stop.max_steps=200"),
        ("objective=polynomial", "objective.bounds=null", "hydra.run.dir=runs/failing"),
        (
            *("objective=function", "objective.target=camel.py:camel", "objective.x0=[0.5,0.5]"),
            *("objective.bounds=[[-3,-2],[3,2]]", "optimiser=lbfgs", "starts=400", "hydra.run.dir=runs/many"),
        ),
        (
            *("objective=rosenbrock", "optimiser=sgd", "optimiser.lr=1e-3", "stop.max_steps=100"),
            "hydra.run.dir='runs/<img src=x onerror=window.hacked=1>'",
        ),
    )
    for arguments in jobs:
        done = gradopt(*arguments, "engine=eager", "observers=[tensorboard,history,pictures]", cwd=place)
        assert done.returncode in (0, 3), done.stderr
    shutil.copytree(place / "runs" / "failing", place / "runs" / "torn")
    (place / "runs" / "torn" / "result.json").write_text('{"gradopt": ')
    return place / "runs"


@contextmanager
def server(logdir: Path, *flags: str, path: Path | None = None) -> Iterator[str]:
    """The address of a TensorBoard on a log directory, with what is installed in `path`."""
    arguments = ("--logdir", os.fspath(logdir), "--port", "0", "--host", "127.0.0.1", "--reload_interval", "1", *flags)
    with _started("tensorboard.main", *arguments, cwd=logdir, path=path) as line:
        yield line


@contextmanager
def board(logdir: Path) -> Iterator[str]:
    """The address of `gradopt board` on a log directory."""
    with _started("gradopt", "board", os.fspath(logdir), cwd=logdir, path=None) as address:
        yield address.partition("/?")[0]


@contextmanager
def _started(module: str, *arguments: str, cwd: Path, path: Path | None) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,  # from the checkout, Python would find gradopt there
        env=environment(path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            words = [word for word in line.split() if word.startswith("http://127.0.0.1:")]
            if words:
                yield words[0].rstrip("/")
                return
        raise AssertionError(f"{module} did not start: {''.join(said)}")
    finally:
        process.terminate()
        process.communicate()


def get(address: str, **query: str) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    try:
        with urllib.request.urlopen(f"{address}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def until(read: Callable[[], Any], good: Callable[[Any], Any], seconds: float = 60) -> Any:
    """What is read, as soon as it is good."""
    deadline = time.monotonic() + seconds
    while True:
        found = read()
        if good(found):
            return found
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        time.sleep(0.3)


@contextmanager
def browser(place: Path) -> Iterator[tuple[Any, list[str]]]:
    """A page of Chromium, and the errors of all scripts on it; skips where Chromium or playwright is missing."""
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM} (apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra gradopt[browser]")
    with api.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            os.fspath(place / "profile"),
            executable_path=os.fspath(CHROMIUM),
            headless=True,
            viewport={"width": 1300, "height": 1250},
            args=list(SWITCHES),
        )
        context.set_default_timeout(60_000)
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            yield page, errors
        finally:
            context.close()


def open_tab(page: Any, address: str, tab: str, query: str = "darkMode=false") -> None:
    """Go to a tab afresh: the page does not load again if only the part after the # is another."""
    page.goto("about:blank")
    page.goto(f"{address}/?{query}#{tab}")
