"""What gradopt is told about this package. It is imported at every start of gradopt, so it must not import torch."""

from pathlib import Path

from omegaconf import OmegaConf

from gradopt import hookimpl

DATASETS = Path(__file__).resolve().parent / "datasets"


def dataset(name: str) -> str:
    """The path of a data set of this package; in a YAML file `${gradopt_datafit:thurber.csv}`."""
    return str(DATASETS / name)


# A preset cannot know where the package will be installed; the resolver tells it when the config is read.
OmegaConf.register_new_resolver("gradopt_datafit", dataset, replace=True)


@hookimpl
def gradopt_register(registry):  # noqa: ANN001, ANN201
    """Offer `objective=datafit`."""
    registry.objective("datafit", "gradopt_datafit.objective:DataFit")


@hookimpl
def gradopt_config_path() -> str:
    """The presets `objective=datafit_thurber` and `objective=datafit_eckerle4`."""
    return "pkg://gradopt_datafit.configs"
