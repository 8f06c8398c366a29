"""`gradopt board`: TensorBoard with what suits runs of gradopt, and an address that opens on the useful view."""

import argparse
import contextlib
import io
import json
import math
import signal
import socket
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gradopt.comparison.records import SUMMARY, Record, find
from gradopt.mistakes import Mistake, did_you_mean
from gradopt.plurals import counted

HOST = "127.0.0.1"
"""Nobody else on the network sees the runs."""

PORT = 6006
"""TensorBoard's own; where it is taken, the next free one."""

ATTEMPTS = 100
RELOAD_SECONDS = 2
SAMPLES = "scalars=5000,images=200"
"""Points and pictures shown of a curve: TensorBoard's own limits leave out most of a run."""

PINNED = ("opt/loss", "opt/log10_gap", "opt/log10_best", "opt/log10_gradient_norm")
"""The loss itself, by which one that diverges is seen, and its lowest on a logarithmic scale. Curves that not all runs
have are passed over.
"""

COLOURS = r"^(?:.*/)?(?:\d+-|(?:\d\d-){3}[0-9a-f]{4}-|_summary/(?:.*, )?)([A-Za-z_]\w*)[^/]*$|^(.+)$"
"""Runs are called by their time, or in a sweep by their number, and by their optimiser, and coloured by that, as is the
summary of their seeds. TensorBoard knows runs by their names alone: those that were given one are coloured one by one.
"""


MOST_TICKED = 40
"""Runs up to which TensorBoard's older tabs tick all of them; of more they tick, and so show, none."""


def board(arguments: Sequence[str]) -> int:
    """Serve the runs in a directory until Ctrl-C or SIGTERM, and return the exit code."""
    try:
        given = _parser().parse_args(arguments)
        runs = find([Path(given.directory)])
        port = _free_port(given.port)
    except Mistake as mistake:
        print(f"gradopt: error: {mistake}", file=sys.stderr)
        return 2
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with contextlib.ExitStack() as stack:
        try:
            address = _serve(stack.enter_context(_named(Path(given.directory), runs)), port)
        except Exception as error:  # TensorBoard's own are no more than a sentence each
            print(f"gradopt: error: TensorBoard does not start: {error}", file=sys.stderr)
            return 1
        if given.port is None and port != PORT:
            print(f"port {PORT} is taken: {port} instead", file=sys.stderr)
        print(f"{counted(len(runs), 'run')} in {given.directory}; Ctrl-C ends it\n{link(address, runs)}", flush=True)
        ended.wait()
    return 0  # the data server of TensorBoard ends with its standard input, which is this process


def link(address: str, runs: Sequence[Record]) -> str:
    """An address that opens on the curves: not smoothed there nor in the older tabs (which read another word), the
    important ones pinned, coloured by optimiser where there are several. Of many runs the older tabs show summaries.
    """
    cards = [{"plugin": "scalars", "tag": tag} for tag in _pinned(runs)]
    view = {"smoothing": "0", "pinnedCards": json.dumps(cards, separators=(",", ":"))}
    if len({record.config.get("optimiser.name") for record in runs}) > 1:
        view["runColorGroup"] = f"regex:{COLOURS}"
    older = "_smoothingWeight=0"
    if len(runs) > MOST_TICKED and any((run.directory.parent / SUMMARY).is_dir() for run in runs):
        older += f"&regexInput={SUMMARY}"  # the bands over seeds, which are few enough
    return f"{address}?{urllib.parse.urlencode(view, quote_via=urllib.parse.quote)}#timeseries&{older}"


def _pinned(runs: Sequence[Record]) -> Iterator[str]:
    """Without the logarithm of a loss that has gone below zero, where its curve ends: the loss itself is there, too."""
    unknown = [run.loss for run in runs if math.isnan(run.minimum)]
    for tag in PINNED:
        if tag != "opt/log10_best" or not any(loss < 0 for loss in unknown):
            yield tag


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - it raises
        """Say it as every other mistake."""
        known = [option for action in self._actions for option in action.option_strings]
        word = message.rpartition(" ")[2]
        raise Mistake(f"gradopt board: {message}.{did_you_mean(word, known)} See: gradopt board --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradopt board", description="Serve runs by TensorBoard, to this machine alone.", allow_abbrev=False
    )
    parser.add_argument(
        "directory", nargs="?", default="runs", metavar="DIR", help="of runs or a sweep (default: runs)"
    )
    parser.add_argument("--port", type=_port, metavar="N", help=f"(default: {PORT}, or the next free one)")
    return parser


def _port(word: str) -> int:
    if not word.isdigit() or not 0 < int(word) < 65536:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, got {word!r}")
    return int(word)


def _free_port(wanted: int | None) -> int:
    ports = range(PORT, PORT + ATTEMPTS) if wanted is None else [wanted]
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no hindrance
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    if wanted is None:
        raise Mistake(f"gradopt board: ports {PORT} to {PORT + ATTEMPTS - 1} are all taken; say --port N")
    raise Mistake(f"gradopt board: port {wanted} is taken or not allowed; leave --port away for a free one")


@contextlib.contextmanager
def _named(directory: Path, runs: Sequence[Record]) -> Iterator[Path]:
    """The directory to serve. One that is a run is linked to from a temporary one: served itself it would be called
    `.`, by which the HPARAMS tab finds no metrics.
    """
    place = directory.resolve()
    if all(run.directory.resolve() != place for run in runs):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="gradopt-board-") as parent:
        (Path(parent) / place.name).symlink_to(place, target_is_directory=True)
        yield Path(parent)


def _serve(directory: Path, port: int) -> str:
    """Start TensorBoard in a thread of this process, and return its address."""
    # Here, where the arguments are good: it takes a second to import.
    from tensorboard import default, program

    from gradopt.hparams_tab import HParams

    plugins = [
        HParams if getattr(one, "plugin_name", "") == HParams.plugin_name else one for one in default.get_plugins()
    ]
    server: Any = program.TensorBoard(plugins)
    said = io.StringIO()  # advice on its own switches
    with contextlib.redirect_stderr(said):
        server.configure(
            argv=[
                "tensorboard",
                *("--logdir", str(directory), "--host", HOST, "--port", str(port)),
                *("--samples_per_plugin", SAMPLES, "--reload_interval", str(RELOAD_SECONDS)),
            ]
        )
        return server.launch()
