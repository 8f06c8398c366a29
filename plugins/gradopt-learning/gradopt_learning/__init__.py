"""What gradopt is told about this package. It is imported at every start of gradopt: no torch, no scikit-learn."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):  # noqa: ANN001, ANN201
    """Offer `objective=logistic_regression` and `objective=mlp`."""
    registry.objective("logistic_regression", "gradopt_learning.classifiers:LogisticRegression")
    registry.objective("mlp", "gradopt_learning.classifiers:MLP")


@hookimpl
def gradopt_config_path() -> str:
    """The presets of objectives, and whole experiments for `+experiment=NAME`."""
    return "pkg://gradopt_learning.configs"
