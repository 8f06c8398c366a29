"""Its dependency is not installed."""

import a_module_that_nobody_has  # noqa: F401

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("import_thing", "gradopt_broken_import:thing")
