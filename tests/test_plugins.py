"""The registry: what is said of names that it does not have."""

import pytest

from gradopt.mistakes import Mistake
from gradopt.plugins import PACKAGES, Registry, Staged


@pytest.mark.parametrize("package", PACKAGES)
def test_an_objective_of_a_package_of_ours_is_missed_by_the_name_of_the_package(package):
    offered = Staged(package)
    pytest.importorskip(package.replace("-", "_")).gradopt_register(registry=offered)
    names = [entry.name for entry in offered.entries if entry.kind == "objective"]
    without = Registry(autoload=False)

    assert {name.partition("/")[0] for name in names} == set(PACKAGES[package])
    for name in (names[0], f"{names[0]}_variant"):
        with pytest.raises(Mistake, match=rf"It belongs to the package {package}, which is not loaded\."):
            without.find("objective", name)


def test_an_objective_of_nobody_is_of_no_package():
    assert "belongs" not in Registry(autoload=False).excuse("objective", "valley")
