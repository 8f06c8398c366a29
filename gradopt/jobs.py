"""Runs from a config: one Hydra job is one run, a multirun is many, each in its own directory."""

import io
import json
import logging
import math
import os
import re
import secrets
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import hydra
from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gradopt import __version__, hyperparameters, waits
from gradopt.explain import explain
from gradopt.leftovers import clear
from gradopt.mistakes import Mistake, did_you_mean
from gradopt.observers.output import Output
from gradopt.plugins import Entry, config_directory, registry
from gradopt.plurals import counted
from gradopt.result import MAX_LISTED, Result, Results, as_json, whole, write_json
from gradopt.selection import check_names
from gradopt.settings import Settings, check_lists, parse, schema

if TYPE_CHECKING:
    from gradopt.assemble import Assembly
    from gradopt.contracts import Objective
    from gradopt.many.assembly import StartsAssembly

log = logging.getLogger("gradopt")

STAMP = "GRADOPT_STAMP"
JOBS = "GRADOPT_JOBS"
WORDS = "GRADOPT_WORDS"
"""What was said on the command line of a sweep, as JSON. Workers inherit it."""

OUTPUT = "GRADOPT_OUTPUT"
"""What standard output is for: `quiet` or `json`; by default for people. Workers inherit it."""

VOICES = {"quiet": "verdict_line", "json": "json_lines"}
"""The observer that then speaks in the place of `console`."""

CLEARED = "\r\x1b[K"
"""What makes a terminal forget the line that it is in: how far the run has come may stand there."""

GROUPS = ("objective", "optimiser", "schedule")
FAILED = 3

_errors: list[Exception] = []
"""What the runs of this process raised. Hydra is not told: it would end a sweep for it, and print more than a line."""

_unwritten: list[int] = []
"""Exit codes of the runs of this process whose results found no room."""

_told: dict[int, set[int]] = {}
"""By process, that which started the jobs: those that programs have been told of. Workers have none."""


class Interrupted(SystemExit):
    """Ctrl-C or SIGTERM, with the exit code that says which; it ends a sweep too."""


class Terminal(logging.StreamHandler[TextIO]):
    """Writes log lines for people; silent once the reader, such as `head`, has seen enough."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, unless it is for a standard output that is for one voice alone."""
        # Not asked of sys.stdout: while such a run goes on, that is standard error.
        if self.stream is sys.stderr or os.environ.get(OUTPUT) not in VOICES:
            if Output(self.stream).is_terminal:
                self.stream.write(CLEARED)
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the line that nobody reads; report every other error as usual."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class LogFile(logging.FileHandler):
    """Writes the run's log; silent where the disk is full or read-only, which is told for all that writes to it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, unless the file, which the first line opens, cannot be made."""
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the line that finds no room; report every other error as usual."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close, though the last line may find no room."""
        with suppress(OSError):
            super().close()


class PluginConfigs(SearchPathPlugin):
    """Lets Hydra find the YAML presets of plugins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the config paths of plugins; gradopt's own come first and cannot be shadowed."""
        for name, path in registry().config_paths():
            search_path.append(provider=f"gradopt-plugin:{name}", path=path)


def start(arguments: list[str]) -> int:
    """Hand the overrides to Hydra, and return the exit code."""
    show_traces = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and the message is ours
    # Set anew by each process: a run started from a run must not share its directory.
    os.environ[STAMP] = f"{time.strftime('%Y-%m-%d/%H-%M-%S')}-{secrets.token_hex(2)}"
    os.environ[WORDS] = json.dumps(arguments)
    sys.argv = [sys.argv[0], *arguments]
    _errors.clear()
    _unwritten.clear()
    _told[os.getpid()] = set()
    signal.signal(signal.SIGTERM, _terminate)  # joblib's workers end with their parent only if it unwinds
    multirun = any(word in ("-m", "--multirun", "hydra.mode=MULTIRUN") for word in arguments)
    with tempfile.TemporaryDirectory() as place:
        os.environ[JOBS] = os.fspath(Path(place) / "jobs")
        code = 0
        try:
            register(arguments)
            if "install=" in " ".join(arguments) and Path(sys.argv[0]).name == "__main__.py":
                raise Mistake('completion is of the console script: eval "$(gradopt -sc install=bash)"')
            completes = bool({"-sc", "--shell-completion"}.intersection(arguments))
            if not completes:  # nobody wants to read it behind a prompt
                warn()
            options: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}
            with _completion() if completes else nullcontext():
                hydra.main(config_path=os.fspath(config_root()), config_name="config", **options)(run)()
            if _errors and not multirun:
                raise _errors[0]
        except Exception as error:
            if isinstance(error, OSError) and not isinstance(error, HydraException) and error not in _errors:
                # Hydra makes the directory of the run, and all that reads or writes before it is started.
                error = Mistake(f"the directory of the run cannot be made: {error}; say hydra.run.dir=...")
            code = report(error, show_traces=show_traces)
        except Interrupted as ending:
            code = int(str(ending.code))  # the jobs that are done are shown all the same
        jobs = list(_finished())
    if multirun and jobs:
        code = code if code > 128 else int(bool(code) or any(job["status"] == "error" for job in jobs))
        _show(jobs, code)
        told = _summarised({Path(job["sweep"]) for job in jobs})
        if os.environ.get(OUTPUT) not in VOICES:
            print(told)
        return code
    return code or next((job["exit_code"] for job in jobs), next(iter(_unwritten), 0))


def _show(jobs: Sequence[Mapping[str, Any]], code: int) -> None:
    """What a multirun has done, in the form that is asked for."""
    if os.environ.get(OUTPUT) != "json":
        print(table(jobs).lstrip() if OUTPUT in os.environ else table(jobs))
        return
    for job in jobs:
        if job["job"] not in _told[os.getpid()]:
            _tell("job", **job)
    _tell("multirun", jobs=len(jobs), counts=Counter(job["status"] for job in jobs), exit_code=code)


def _tell(event: str, **content: Any) -> None:
    """A line for programs, where these read standard output."""
    if os.environ.get(OUTPUT) == "json":
        print(as_json({"event": event, **content}), flush=True)


@contextmanager
def _completion() -> Iterator[None]:
    """Leave what no one chooses from out of Hydra's completions: the group of the schemas, which presets inherit."""
    with redirect_stdout(io.StringIO()) as words:
        yield
    for line in words.getvalue().splitlines():
        print(" ".join(word for word in line.split(" ") if not re.match(r"[+~]?schema\b", word)))


def run(config: DictConfig) -> float:
    """One Hydra job: one run. Returns the loss for a sweeper: the worst infinity for a failing verdict or an error."""
    context = HydraConfig.get()
    directory = Path(context.runtime.output_dir)
    multirun = context.mode == RunMode.MULTIRUN
    description: dict[str, Any] = {
        "gradopt": __version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "overrides": list(context.overrides.task),
    }
    clear(directory)
    worst = -math.inf if str(context.sweeper.get("direction")).endswith("maximize") else math.inf
    try:
        for group, name in context.runtime.choices.items():
            registry().check_preset(group, str(name))
        found, minimum = _minimise(
            config, directory, list(context.overrides.task), str(context.sweep.dir) if multirun else None
        )
    except (KeyboardInterrupt, Interrupted) as ending:  # before the first step, or a second time
        code = 128 + signal.SIGINT if isinstance(ending, KeyboardInterrupt) else ending.code
        message = "interrupted before the first step, or a second time: there is no result but what the log holds"
        print(f"gradopt: {message}", file=sys.stderr)
        if not multirun:
            _tell("error", status="interrupted", message=message, exit_code=code)
        _finish(context, {**description, "status": "interrupted", "message": message, "exit_code": code})
        raise Interrupted(code) from None
    except (Exception, SystemExit) as error:
        told = explain(error)
        message, code = (told, 2) if told else (f"{type(error).__name__}: {error}", 1)
        if code == 1:
            log.info("the run ended with an error", exc_info=True)
        _finish(context, {**description, "status": "error", "message": message, "exit_code": code})
        _errors.append(error if isinstance(error, Exception) else RuntimeError(message))
        return worst
    result = found.best_start if isinstance(found, Results) else found
    log.info("%s", found)  # at this level it goes to the run's log file alone
    status = result.status
    signal_number = result.verdict.evidence.get("signal", signal.SIGINT)
    code = FAILED if status.failure else 0
    if status.value == "interrupted":
        code = 128 + int(signal_number)
    from gradopt.description import described  # it needs torch, which is loaded by now

    known = {} if minimum is None else {"minimum": minimum}
    trouble = _save(found, directory)
    trouble = _finish(context, {**description, **described(found), **known, "exit_code": code}) or trouble
    if trouble is not None:
        said = f"the result cannot be written to {_short(os.fspath(directory))}: {trouble.strerror or trouble}"
        if multirun:  # what comes next would find no room either
            raise Mistake(said) from trouble
        print(f"gradopt: warning: {said}", file=sys.stderr)  # the run is worth its verdict all the same
        _unwritten.append(code)
    if multirun and status.value == "interrupted":
        raise Interrupted(code)
    return worst if status.failure else float(result.fun)


def _voiced(nodes: Sequence[Any], *, multirun: bool) -> list[Any]:
    """The observers of a config with the one in the place of `console` that the command line asks for; none in a
    multirun, whose jobs are told of together.
    """
    voice = os.environ.get(OUTPUT)
    if voice not in VOICES:
        return list(nodes)
    silent = [node for node in nodes if (node.get("name") if isinstance(node, Mapping) else node) != "console"]
    return silent if multirun else [VOICES[voice], *silent]


def _minimise(
    config: DictConfig, directory: Path, overrides: Sequence[str], sweep: str | None
) -> tuple[Result | Results, float | None]:
    """The ending of the run, and the lowest loss there is, where the objective knows it."""
    settings = parse(config)
    check_names(settings)
    # Only now, when the config is known to be good: importing torch takes longer than all of the above.
    from gradopt import assemble, conclusion, execution
    from gradopt.contracts import Attempt
    from gradopt.many import execution as many_execution

    observers = assemble.listed("observer", _voiced(settings.observers, multirun=sweep is not None))
    plain: Any = OmegaConf.to_container(config, resolve=True)
    watched: dict[str, Any] = {
        "directory": os.fspath(directory),
        "config": plain,
        "chosen": _chosen(plain, overrides, multirun=sweep is not None),
        "sweep": sweep,
    }
    # The observers have their stream: what else is printed must not get between the lines of one that is alone on it.
    with redirect_stdout(sys.stderr) if os.environ.get(OUTPUT) in VOICES else nullcontext(), ExitStack() as stack:
        for show in (one.wait for one in observers if hasattr(one, "wait")):
            stack.enter_context(waits.shown(show))
        run: Any = execution.execute if settings.starts is None else many_execution.execute
        with execution.attempted(observers, Attempt(**watched)):
            parts, target = (assembled if settings.starts is None else _assembled_starts)(settings)
        found = run(parts, observers, conclusion.form_of(target), **watched, thread_count=settings.threads)
        return found, conclusion.known_minimum(target)


def _chosen(config: Mapping[str, Any], overrides: Iterable[str], *, multirun: bool) -> dict[str, Any]:
    """What tells the run from others: what was said on the command line, or, of the jobs of a sweep, what is in none of
    the words it was asked for with, whichever sweeper has put it there.
    """
    words = json.loads(os.environ.get(WORDS, "[]")) if multirun else []
    keys = (word.lstrip("+").partition("=")[0] for word in overrides if word not in words)
    return hyperparameters.chosen(config, (key for key in keys if not (multirun and key == "seed")))


def _assembled_starts(settings: Settings) -> "tuple[StartsAssembly, Objective]":
    from gradopt import assemble
    from gradopt.many import assembly  # here for the same reason

    target = objective(settings)
    parts = assembly.assemble_starts(
        target,
        assembly.drawn(target, settings.starts),
        settings.optimiser,
        schedule=settings.schedule,
        stop=settings.stop,
        on_saddle=settings.on_saddle,
        engine=settings.engine,
        extra_criteria=assemble.listed("criterion", settings.criteria),
    )
    return parts, target


def assembled(settings: Settings) -> "tuple[Assembly, Objective]":
    """The parts of the run that checked settings describe, and its objective, on its device. Random numbers are
    seeded.
    """
    from gradopt import assemble  # here, where the settings are good: torch takes longer to import than all of them

    target = objective(settings)
    assembly = assemble.assemble(
        target,
        settings.optimiser,
        schedule=settings.schedule,
        stop=settings.stop,
        on_saddle=settings.on_saddle,
        engine=settings.engine,
        extra_criteria=assemble.listed("criterion", settings.criteria),
    )
    return assembly, target


def objective(settings: Settings) -> "Objective":
    """The objective that checked settings describe, on its device. Random numbers are seeded."""
    import torch  # here, where the settings are good: it takes longer than all of them

    from gradopt import assemble, devices

    device, dtype = devices.resolve(settings.device, settings.dtype)
    torch.manual_seed(settings.seed)
    with devices.defaults(device, dtype):
        return assemble.objective(settings.objective).to(device)


def table(jobs: Sequence[Mapping[str, Any]]) -> str:
    """The jobs of a multirun, one line each: what was chosen, how it ended, and the loss. Failures are rows."""
    rows = [("job", "overrides", "status", "loss", "steps", "directory")]
    for job in jobs:
        loss = job.get("fun", "")
        rows.append(
            (
                str(job["job"]),
                ",".join(job.get("overrides", ())),
                job["status"],
                f"{loss:.8g}" if isinstance(loss, float | int) else str(loss),
                str(job.get("nit", "")),
                job["directory"],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    errors = [f"  job {job['job']}: {job['message']}" for job in jobs if job["status"] == "error"]
    return "\n".join(["", *lines, *errors])


def _save(found: Result | Results, directory: Path) -> OSError | None:
    """Write what `result.json` only names: the unknowns where they are many, and all starts; or return why not."""
    import torch  # it is loaded by now: a result holds tensors

    from gradopt.description import num_unknowns  # here for the same reason
    from gradopt.many import record

    result = found.best_start if isinstance(found, Results) else found
    try:
        if num_unknowns(result.x) > MAX_LISTED:
            with whole(directory / "x.pt") as file:
                torch.save(result.x, file)
        if isinstance(found, Results):
            record.write(found, directory)
        else:
            record.write_searches(found, directory)
    except OSError as error:
        return error
    return None


def _finish(context: HydraConf, content: Mapping[str, Any]) -> OSError | None:
    """Write `result.json`, and tell the process that started the job where it is, and whoever watches a multirun how
    the job ended; or return why it cannot be written.
    """
    directory, multirun = context.runtime.output_dir, context.mode == RunMode.MULTIRUN
    number = context.job.num if multirun else 0
    sweep = os.path.join(context.runtime.cwd, str(context.sweep.dir))
    try:
        write_json(Path(directory) / "result.json", content)
        if JOBS in os.environ:
            with Path(os.environ[JOBS]).open("a", encoding="utf-8") as file:  # one short write: lines do not mix
                file.write(json.dumps([number, directory, sweep]) + "\n")
    except OSError as error:
        return error
    if multirun:
        _announce(_job(number, directory, sweep, content))
    return None


def _job(number: int, directory: str, sweep: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {**content, "job": number, "directory": _short(directory), "sweep": _short(sweep)}


def _announce(job: Mapping[str, Any]) -> None:
    """A line on a job that has ended; where programs read, only from the process that started it, as long lines of
    several would mix.
    """
    voice, told = os.environ.get(OUTPUT), _told.get(os.getpid())
    if voice == "json" and told is not None:
        _tell("job", **job)
        told.add(job["job"])
    elif voice not in VOICES:
        Output().line(f"job {job['job']}: {job['status']}{_worth(job)}")


def _worth(job: Mapping[str, Any]) -> str:
    """What has become of the loss, or of a run that has none."""
    if "fun" not in job:
        return f": {job['message']}"
    return f", loss {float(job['fun']):.8g} after {counted(job['nit'], 'step')}"


def _finished() -> Iterator[dict[str, Any]]:
    place = Path(os.environ.pop(JOBS))
    lines = place.read_text(encoding="utf-8").splitlines() if place.is_file() else []
    for number, directory, sweep in sorted(map(json.loads, lines)):
        content = json.loads((Path(directory) / "result.json").read_text(encoding="utf-8"))
        yield _job(number, directory, sweep, content)


def _summarised(sweeps: set[Path]) -> str:
    """Log what the seeds of a sweep have done together, where some runs differ in their seed alone; how to see it."""
    from gradopt.comparison import summary  # of a sweep only

    lines: list[str] = []
    for sweep in sweeps:
        try:
            told = summary.of_sweep(sweep)
        except (OSError, Mistake) as error:  # the runs are worth more than their summary
            told = f"no summary of the seeds: {error}"
        lines += ["", f"side by side: gradopt compare {shlex.quote(os.fspath(sweep))}", *([told] if told else [])]
    return "\n".join(lines)


def _short(directory: str) -> str:
    return os.path.relpath(directory) if Path(directory).is_relative_to(Path.cwd()) else directory


def report(error: Exception, *, show_traces: bool) -> int:
    """Print the mistake in one line and return 2; or a bug's trace, and return 1."""
    group, _, name = str(getattr(error, "missing_cfg_file", None) or "").partition("/")
    names = [entry.name for entry in registry().entries(group)]
    message = None if show_traces else explain(error, registry().excuse(group, name), names)
    if message is None:
        traceback.print_exception(error)
        _tell("error", message=f"{type(error).__name__}: {error}", exit_code=1)
        return 1
    print(f"gradopt: error: {message}", file=sys.stderr)
    _tell("error", message=message, exit_code=2)
    return 2


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Interrupted(128 + number)


def warn() -> None:
    """Say which plugins are left out, and which that are to be switched off are not there."""
    broken = registry().broken
    if broken:
        names = ", ".join(f"{one.name} ({one.distribution})" for one in broken)
        print(f"gradopt: warning: broken plugins are left out: {names}; see: gradopt plugins", file=sys.stderr)
    for name in registry().never_met():
        known = [plugin.name for plugin in registry().plugins[1:]] + [one.name for one in broken]
        text = f"no plugin {name!r} is there to be switched off.{did_you_mean(name, known)}"
        print(f"gradopt: warning: {text}", file=sys.stderr)


def register(arguments: Sequence[str]) -> None:
    """Make what plugins offer known to Hydra: their presets, and typed nodes made from their signatures.

    A family may have hundreds of members: those that the arguments do not mention get a node that takes any option, and
    are checked like all others if a config selects one.

    Raises:
        Mistake: The arguments give something else than a list where there must be one.
    """
    check_lists(arguments)
    mentioned = " ".join(arguments)
    Plugins.instance().register(PluginConfigs)
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Settings, package="_global_", provider="gradopt")
    presets = [config_root(), *(config_directory(path) for _, path in registry().config_paths())]
    for kind in GROUPS:
        offered = Counter(entry.name for entry in registry().entries(kind))
        for entry in registry().entries(kind):
            # A YAML preset of the same name takes the node's place, and inherits from the schema.
            preset = any((place / kind / f"{entry.name}.yaml").is_file() for place in presets)
            family, _, name = entry.name.rpartition("/")
            if family and entry.name not in mentioned and not preset:
                node, groups = _untyped(entry), [kind]
            else:
                node = _untyped(entry) if offered[entry.name] > 1 else _typed(entry)
                groups = [f"schema/{kind}", *([] if preset else [kind])]
            for group in groups:
                place = f"{group}/{family}" if family else group
                store.store(group=place, name=name, node=node, package=kind, provider=entry.plugin)


def _typed(entry: Entry) -> DictConfig:
    """The options of an entry with their types and defaults; any option where they cannot be read, which is of a
    plugin's making: selecting it then says what is wrong.
    """
    try:
        node = OmegaConf.structured(schema(entry.kind, entry.name, entry.signature()))
    except Exception:
        return _untyped(entry)
    for key in node:
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):  # whose keys are the user's own
            OmegaConf.set_struct(node[key], False)
    return node


def _untyped(entry: Entry) -> DictConfig:
    return OmegaConf.create({"name": entry.name}, flags={"struct": False})


def config_root() -> Path:
    """The directory of gradopt's own configs: of the checkout, or inside the installed package."""
    here = Path(__file__).resolve().parent
    for place in (here.parent / "configs", here / "configs"):
        if (place / "config.yaml").is_file():
            return place
    raise FileNotFoundError(f"gradopt's configs are missing beside {here}; install gradopt again")
