"""The tab: what it serves to its page, for TensorBoard's frame.

It reads the files of runs, not TensorBoard's data: verdicts, counts, losses in float64, every step and where starts
ended are in no event file, or only as float32 and a random thousand of the points; and files are the same whichever
loader (`--load_fast`) TensorBoard runs.
"""

import json
import logging
import mimetypes
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import Response, wrappers

from gradopt.board_tab.basins import basins
from gradopt.board_tab.leaderboard import board
from gradopt.board_tab.runs import RunDirectories, roots
from gradopt.comparison.records import Record
from gradopt.result import plain

log = logging.getLogger("gradopt")

STATIC = Path(__file__).with_name("static")


class Tab(base_plugin.TBPlugin):
    """The tab `gradopt`, active where there are runs of gradopt under the log directory.

    Args:
        context: TensorBoard's; its flags say where runs are.
    """

    plugin_name = "gradopt"

    def __init__(self, context: base_plugin.TBContext) -> None:
        spec = str(getattr(context.flags, "logdir_spec", "") or "")
        self._directories = RunDirectories(roots(str(context.logdir or ""), spec))
        self._last: tuple[dict[str, Record], str] | None = None

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """The page's files, `/runs` and `/basins?run=...`."""
        files = {f"/{file.name}": _application(partial(_file, file)) for file in STATIC.iterdir()}
        return {**files, "/runs": _application(self._runs), "/basins": _application(self._basins)}

    def is_active(self) -> bool:
        """Whether there is a run."""
        return self._directories.exist()

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """A page in a frame, which reloads by itself."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="gradopt")

    def _runs(self, request: wrappers.Request) -> Response:
        records = self._directories.read()
        last = self._last
        if (
            last is None
            or records.keys() != last[0].keys()
            or any(records[name] is not last[0][name] for name in records)
        ):
            last = self._last = records, _json(board(records))
        return http_util.Respond(request, last[1], "application/json")

    def _basins(self, request: wrappers.Request) -> Response:
        name = request.args.get("run", "")
        record = self._directories.read().get(name)
        if record is None:
            return _error(request, f"there is no run {name!r}", 404)
        return http_util.Respond(request, _json(basins(record)), "application/json")


def _application(answer: Callable[[wrappers.Request], Response]) -> Callable[..., Any]:
    """A WSGI application that tells its errors to the page."""

    def guarded(request: wrappers.Request) -> Response:
        try:
            return answer(request)
        except Exception as error:
            log.warning("the gradopt tab failed at %s", request.path, exc_info=True)
            return _error(request, f"{type(error).__name__}: {error}", 500)

    return wrappers.Request.application(guarded)


def _file(file: Path, request: wrappers.Request) -> Response:
    kind = "text/javascript" if file.suffix == ".js" else mimetypes.guess_type(file.name)[0] or "text/plain"
    return http_util.Respond(request, file.read_bytes(), kind)


def _error(request: wrappers.Request, message: str, code: int) -> Response:
    return http_util.Respond(request, _json({"error": message}), "application/json", code=code)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(plain(content), allow_nan=False, separators=(",", ":"))
