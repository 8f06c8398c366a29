"""Our own plugin packages, installed as anybody's are, pass their own tests."""

import os

import pytest

from tests.installed import REPOSITORY, install, python

pytestmark = pytest.mark.slow

PACKAGES = sorted(path.parent for path in (REPOSITORY / "plugins").glob("*/pyproject.toml"))


def test_every_folder_of_plugins_is_a_complete_distribution():
    folders = [path for path in (REPOSITORY / "plugins").iterdir() if path.is_dir() and any(path.rglob("*.py"))]

    assert {folder.name for folder in folders} >= {"gradopt-datafit", "gradopt-learning", "gradopt-problems"}
    for folder in folders:
        presets = () if folder.name == "gradopt-problems" else ("**/objective/*.yaml",)  # its names are the presets
        for part in ("pyproject.toml", "README.md", "LICENSE", "tests/test_*.py", *presets):
            assert list(folder.glob(part)), f"{folder.name} has no {part}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_first_party_package_passes_its_own_tests_when_installed(package, tmp_path):
    place = install(tmp_path / "installed", package)

    listed = python("-m", "gradopt", "plugins", cwd=tmp_path, path=place)
    tested = python(
        *("-m", "pytest", "-q", "-rs", "--rootdir", os.fspath(package), "-p", "no:cacheprovider"),
        *("-m", "", os.fspath(package / "tests")),  # no test is left out by a marker
        cwd=tmp_path,
        path=place,
        seconds=600,
    )

    assert f"({package.name} " in listed.stdout
    assert "BROKEN" not in listed.stdout
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "passed" in tested.stdout
    assert "skipped" not in tested.stdout, tested.stdout
