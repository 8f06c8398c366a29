"""`gradopt check`: a config composed as for a run, and examined instead."""

import os

import hydra
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from gradopt.jobs import FAILED, assembled, config_root, register, report, warn
from gradopt.mistakes import Mistake
from gradopt.plugins import registry
from gradopt.selection import check_names
from gradopt.settings import Settings, parse


def check(arguments: list[str]) -> int:
    """Print what `gradopt.check` finds for a config, and return the exit code: 3 if a check failed."""
    show_traces = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    try:
        settings = _settings(arguments)
        # Only now, when the config is known to be good: importing torch takes longer than all of the above.
        from gradopt import devices, preflight

        assembly = assembled(settings)[0]
        with devices.threads(settings.threads, assembly.oracle.read().numel()):
            found = preflight.examine(assembly)
    except Exception as error:
        return report(error, show_traces=show_traces)
    print(found)
    return 0 if found.passed else FAILED


def _settings(arguments: list[str]) -> Settings:
    for word in arguments:
        if word.startswith("-"):
            raise Mistake(f"gradopt check takes key=value only, got {word}")
    register(arguments)
    warn()
    options = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}
    with initialize_config_dir(config_dir=os.fspath(config_root()), job_name="gradopt", **options):
        config = compose("config", overrides=arguments, return_hydra_config=True)
    for group, name in config.hydra.runtime.choices.items():
        registry().check_preset(group, str(name))
    with open_dict(config):
        del config["hydra"]
    settings = parse(OmegaConf.create(config))
    check_names(settings)
    return settings
