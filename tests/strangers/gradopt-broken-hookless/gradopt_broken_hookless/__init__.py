"""Its author forgot the marker `gradopt.hookimpl`."""


def gradopt_register(registry):
    registry.objective("hookless_thing", "gradopt_broken_hookless:thing")
