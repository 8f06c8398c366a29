"""TensorBoard's HPARAMS tab with the columns that tell runs apart. The tab ticks the first five hyperparameters and the
first five metrics in the order that it is given, and draws no line for a run without a value in one of them.
"""

# The protocol buffers make their classes when they are imported: the type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import backend_context, hparams_plugin, metadata, plugin_data_pb2

FIRST = ("final/loss", "final/success", "final/evaluations", "final/steps", "final/seconds")
"""The metrics that every run has, in the order of their columns: the others are behind them."""

NONE = "-"
"""In a column of what was chosen for other runs."""

FAMILIES = ("objective", "optimiser")


class HParams(hparams_plugin.HParamsPlugin):
    """The tab, of columns that vary, where any does."""

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._context = Context(context)


class Context(backend_context.Context):
    """What the tab asks for."""

    def hparams_metadata(self, *arguments: Any, **options: Any) -> dict[str, dict[str, bytes]]:
        """The hyperparameters of all runs, by run and tag."""
        content = super().hparams_metadata(*arguments, **options)
        if any(metadata.EXPERIMENT_TAG in tags for tags in content.values()):
            return content  # another program has said which columns there are
        sessions = {
            run: metadata.parse_session_start_info_plugin_data(tags[metadata.SESSION_START_INFO_TAG])
            for run, tags in content.items()
            if metadata.SESSION_START_INFO_TAG in tags
        }
        tell_apart(list(sessions.values()))
        told = {run: {metadata.SESSION_START_INFO_TAG: _packed(session)} for run, session in sessions.items()}
        return {run: {**tags, **told.get(run, {})} for run, tags in content.items()}

    def experiment_from_metadata(self, *arguments: Any, **options: Any) -> Any:
        """Which columns there are."""
        experiment = super().experiment_from_metadata(*arguments, **options)
        places = {tag: place for place, tag in enumerate(FIRST)}
        experiment.metric_infos.sort(key=lambda info: places.get(info.name.tag, len(FIRST)))
        return experiment


def tell_apart(sessions: Sequence[Any]) -> None:
    """Leave the hyperparameters in which the sessions differ, or all where they do not. Options that only some
    objectives or optimisers have go into the name, as in `lbfgs history_size=3`: most of their columns would be empty.
    """
    for family in FAMILIES:
        _fold([session for session in sessions if family in session.hparams], family)
    names = {name for session in sessions for name in session.hparams}
    varying = {name for name in names if _varies(name, sessions)}
    for session in sessions if varying else ():
        for name in names - varying:
            session.hparams.pop(name, None)
    for name in varying:
        if any(name not in session.hparams for session in sessions):
            for session in sessions:  # one that is a word makes the numbers of a column words, too
                session.hparams[name].string_value = _word(session.hparams.get(name))


def _fold(sessions: Sequence[Any], family: str) -> None:
    options = {name for session in sessions for name in session.hparams if name.startswith(f"{family}.")}
    partial = sorted(name for name in options if any(name not in session.hparams for session in sessions))
    named: dict[str, list[Any]] = defaultdict(list)
    for session in sessions:
        named[session.hparams[family].string_value].append(session)
    for its in named.values():
        told = [name for name in partial if _varies(name, its)]
        for session in its:
            words = [
                f" {name[len(family) + 1 :]}={_word(session.hparams[name])}" for name in told if name in session.hparams
            ]
            session.hparams[family].string_value += "".join(words)
    for session in sessions:
        for name in partial:
            session.hparams.pop(name, None)


def _varies(name: str, sessions: Sequence[Any]) -> bool:
    values = [session.hparams.get(name) for session in sessions]
    return any(value != values[0] for value in values)


def _word(value: Any) -> str:
    if value is None:
        return NONE
    if value.HasField("number_value"):
        return f"{value.number_value:g}"
    return str(value.bool_value).lower() if value.HasField("bool_value") else value.string_value


def _packed(session: Any) -> bytes:
    return plugin_data_pb2.HParamsPluginData(
        session_start_info=session, version=metadata.PLUGIN_DATA_VERSION
    ).SerializeToString()
