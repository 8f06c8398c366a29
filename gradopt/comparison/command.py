"""`gradopt compare`: runs in, a table on the terminal and pictures on disk out."""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradopt.comparison import curves, profiles, table
from gradopt.comparison.groups import SOLVED, Group, grouped
from gradopt.comparison.looks import Looks, looks
from gradopt.comparison.records import CONFIG, ERROR, NO_GOAL, TORN, UNFINISHED, Record, find
from gradopt.mistakes import Mistake, did_you_mean
from gradopt.plurals import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MESSAGES = 5


def compare(arguments: Sequence[str]) -> int:
    """Print the table of the runs that the arguments name, draw them, and return the exit code.

    The table goes to stdout; what is said about it, to stderr.
    """
    try:
        given = _parser().parse_args(arguments)
        if given.csv and given.markdown:
            raise Mistake("gradopt compare: --csv and --markdown exclude each other: say one of them")
        form = table.comma_separated if given.csv else table.markdown if given.markdown else table.text
        places = [Path(place) for place in given.places] or [Path("runs")]
        groups = grouped(find(places), given.tolerance)
    except Mistake as mistake:
        print(f"gradopt: error: {mistake}", file=sys.stderr)
        return 2
    print(form(groups), end="", flush=True)
    output = Path(given.output) if given.output else places[0] if len(places) == 1 else Path("compare")
    notes = [*_troubles(groups)]
    if given.summary:
        notes.append(_summary(groups, output))
    if given.pictures:
        notes += _pictures(groups, output)
    print("".join(f"{line}\n" for line in notes), end="", file=sys.stderr)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - it raises
        """Say it as every other mistake."""
        word = message.rpartition(" ")[2]
        known = [option for action in self._actions for option in action.option_strings]
        raise Mistake(f"gradopt compare: {message}.{did_you_mean(word, known)} See: gradopt compare --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradopt compare",
        description="A table of runs, best first, and pictures of how they converge.",
        epilog="Runs that differ in their seed alone are one row: median, and 10-90 % in brackets.",
        allow_abbrev=False,
    )
    parser.add_argument("places", nargs="*", metavar="RUNS", help="directories of runs or of sweeps (default: runs)")
    parser.add_argument("--markdown", action="store_true", help="the table in Markdown")
    parser.add_argument("--csv", action="store_true", help="the table as CSV, all digits")
    parser.add_argument(
        "--output", metavar="DIR", help="where the pictures go (default: the directory given, or ./compare for several)"
    )
    parser.add_argument(
        "--tolerance",
        type=_share,
        default=SOLVED,
        metavar="T",
        help="a problem is solved by a loss that misses the lowest one by this share of the way from the start "
        "(default 1e-6; for noisy ones take 1e-2)",
    )
    parser.add_argument("--no-pictures", dest="pictures", action="store_false", help="the table alone")
    parser.add_argument(
        "--summary", action="store_true", help="write medians and bands over seeds for TensorBoard, in _summary"
    )
    return parser


def _share(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 1, got {word!r}")
    return value


def _troubles(groups: Sequence[Group]) -> Iterator[str]:
    """What became of runs that have no verdict, and what cannot be compared."""
    records = [record for group in groups for record in group.records]
    errors = [record for record in records if record.status == ERROR]
    for record in errors[:MOST_MESSAGES]:
        yield f"{record.directory}: {record.message}"
    if len(errors) > MOST_MESSAGES:
        yield f"... and {counted(len(errors) - MOST_MESSAGES, 'more error')}: see their result.json"
    if any(record.status == UNFINISHED for record in records):
        yield f"{UNFINISHED}: the run was killed, goes on still, or was made from Python; its numbers are those so far"
    if any(record.status == TORN for record in records):
        yield f"{TORN}: result.json cannot be read; the numbers are those of the history"
    if any(not record.config for record in records):
        yield "?: no config that can be read was kept: its objective is not known, and each such run is one of its own"
    partial = _partial(groups)
    for record in partial[:MOST_MESSAGES]:
        yield f"{record.directory}: {CONFIG} is missing or broken: only what the command line said is known of it"
    if len(partial) > MOST_MESSAGES:
        yield f"... and {len(partial) - MOST_MESSAGES} more without a {CONFIG} that can be read"
    problems = {group.problem.name for group in groups}
    if len(problems) > 1:
        yield f"{len(problems)} objectives: losses, curves and ranks of different ones have nothing in common"


def _partial(groups: Sequence[Group]) -> list[Record]:
    return [record for group in groups for record in group.records if record.is_partial]


def _summary(groups: Sequence[Group], output: Path) -> str:
    from gradopt.comparison import summary  # TensorBoard's protocol buffers

    try:
        written = summary.write(groups, output)
    except OSError as error:
        return f"no summary: {error}; say --output DIR"
    return written or "no summary: no two runs with a history differ in their seed alone"


def _pictures(groups: Sequence[Group], output: Path) -> Iterator[str]:
    """Draw what can be drawn; a line for each file, and for what could not be."""
    if lacking := _lacking():
        yield f"no pictures: {lacking}"
        return
    lines = looks(dict.fromkeys(group.solver for group in groups))  # the same in both pictures
    try:
        output.mkdir(parents=True, exist_ok=True)
        yield from _curves(groups, lines, output / "curves.png")
        yield from _profiles(groups, lines, output / "profiles.png")
    except OSError as error:
        yield f"no pictures: {error}; say --output DIR"


def _lacking() -> str | None:
    """What keeps pictures from being drawn, and what to do about it."""
    try:
        import matplotlib.backends.backend_agg  # noqa: F401 - an optional package, and slow to import
    except Exception as error:  # whatever a broken one raises
        if isinstance(error, ModuleNotFoundError) and error.name == "matplotlib":
            return 'they need matplotlib: pip install "gradopt[pictures]"'
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        return f"matplotlib cannot be imported ({said}): pip install --force-reinstall matplotlib"
    return None


def _curves(groups: Sequence[Group], lines: Looks, file: Path) -> Iterator[str]:
    found = curves.drawable(groups)
    without = Counter(_curveless(group) for group in groups if not curves.traces(group))
    for cause, number in without.items():
        yield f"no curve for {number} of {counted(len(groups), 'row')}: {cause}"
    if not found:
        return
    shown = dict(list(found.items())[: curves.MOST_PROBLEMS])
    if len(shown) < len(found):
        yield f"curves of the first {len(shown)} of {len(found)} objectives: name some runs to see others"
    most = max(sum(group.problem == problem for group in groups) for problem in shown)
    if most > curves.MOST_SOLVERS:
        yield f"curves of the best {curves.MOST_SOLVERS} of {most} optimisers"
    yield from _write(curves.picture(shown, lines), file)


def _curveless(group: Group) -> str:
    """Why a group has no curve."""
    if all(record.status in NO_GOAL for record in group.records):
        return "unbounded, infeasible or ended by an error"
    if any((record.directory / "history.npy").exists() for record in group.records):
        return "history.npy cannot be read, or holds no loss that counts"
    return "without history.npy"


def _profiles(groups: Sequence[Group], lines: Looks, file: Path) -> Iterator[str]:
    cases = profiles.common(groups)
    if cases is None:
        partial = len(_partial(groups))
        unknown = f"; {counted(partial, 'run')} whose config cannot be read may belong to them" * bool(partial)
        yield f"no profiles: they need two optimisers that have run on the same two objectives or seeds{unknown}"
        return
    for solver, number in cases.left_out.items():
        has = f"has run on {counted(number, 'case')}, and not on all {cases.number} of others"
        yield f"not in the profiles: {solver}, which {has}"
    if not any(math.isfinite(cost) for costs in cases.costs.values() for cost in costs):
        yield "no profiles: no run came near a minimum"
        return
    shown = profiles.foremost(cases.costs, curves.MOST_SOLVERS)
    if len(shown) < len(cases.costs):
        yield f"profiles of the best {len(shown)} of {len(cases.costs)} optimisers"
    tolerance = groups[0].problem.tolerance
    title = (
        f"{counted(cases.problems, 'objective')}, {counted(cases.number, 'case')}; "
        f"solved: a loss within {tolerance:g} of the way from the start to the lowest"
    )
    yield from _write(profiles.picture(shown, {solver: lines[solver] for solver in shown}, title, "evaluations"), file)


def _write(figure: "Figure", file: Path) -> Iterator[str]:
    figure.savefig(file, dpi=120)
    yield f"wrote {file}"
