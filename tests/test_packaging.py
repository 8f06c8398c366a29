"""The package as others get it: built, installed elsewhere, and run far from the checkout."""

import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.installed import REPOSITORY, install, pip, python

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built straight from the checkout."""
    return wheel_of(REPOSITORY, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """Where that wheel is installed."""
    return install(tmp_path_factory.mktemp("elsewhere"), wheel)


def wheel_of(source: Path, place: Path) -> Path:
    pip("wheel", "--wheel-dir", os.fspath(place), os.fspath(source))
    (found,) = place.glob("gradopt-*.whl")
    return found


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_config_and_the_licence_and_nothing_else(wheel):
    modules = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "gradopt").rglob("*.py")}
    typed = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "gradopt").rglob("py.typed")}
    page = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "gradopt").rglob("static/*")}
    configs = {
        f"gradopt/{path.relative_to(REPOSITORY).as_posix()}" for path in (REPOSITORY / "configs").rglob("*.yaml")
    }

    names = names_in(wheel)

    assert "gradopt/configs/config.yaml" in configs
    information = {name for name in names if ".dist-info/" in name}
    assert "gradopt/board_tab/static/index.js" in page
    assert names - information == modules | typed | configs | page
    assert any(name.endswith("/licenses/LICENSE") for name in information)


def test_a_wheel_built_by_way_of_the_source_distribution_holds_the_same(wheel, tmp_path):
    built = python("-m", "hatchling", "build", "-t", "sdist", "-d", os.fspath(tmp_path), cwd=REPOSITORY)
    assert built.returncode == 0, built.stderr
    (archive,) = tmp_path.glob("gradopt-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()

    again = wheel_of(source, tmp_path / "again")

    assert names_in(again) == names_in(wheel)
    assert (source / "tests").is_dir()
    assert (source / "constraints.txt").is_file()


def test_the_installed_package_runs_the_main_job_from_anywhere_with_its_own_configs(elsewhere, tmp_path):
    where = python("-c", "from gradopt import jobs; print(jobs.config_root())", cwd=tmp_path, path=elsewhere)
    done = python("-m", "gradopt", "objective=polynomial", cwd=tmp_path, path=elsewhere)

    assert where.stdout.strip() == os.fspath(elsewhere / "gradopt" / "configs"), where.stderr
    assert (done.returncode, done.stderr) == (0, "")
    (result,) = tmp_path.glob("runs/*/*/result.json")
    content = json.loads(result.read_text(encoding="utf-8"))
    assert (content["status"], content["fun"], content["x"]) == ("converged", -32.0, {"x": -2.0})


def test_the_installed_package_does_not_need_the_checkout(elsewhere, tmp_path):
    program = (
        f"import sys\nsys.path = [entry for entry in sys.path if entry != {os.fspath(REPOSITORY)!r}]\n"
        "sys.argv = ['gradopt', '--help']\nfrom gradopt.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    assert all({os.fspath(REPOSITORY / 'gradopt')!r} not in str(getattr(module, '__file__', ''))\n"
        "               for module in list(sys.modules.values())), 'a module came from the checkout'\n"
    )

    done = python("-c", program, cwd=tmp_path, path=elsewhere)

    assert (done.returncode, done.stderr) == (0, "")
    assert "objective=NAME" in done.stdout


def test_the_console_script_and_the_module_say_the_same(elsewhere, tmp_path):
    script = elsewhere / "bin" / "gradopt"
    assert script.is_file()

    by_script = python(os.fspath(script), "plugins", cwd=tmp_path, path=elsewhere)
    by_module = python("-m", "gradopt", "plugins", cwd=tmp_path, path=elsewhere)

    assert by_script.returncode == 0, by_script.stderr
    assert by_script.stdout == by_module.stdout


def test_the_editable_install_of_the_checkout_uses_the_configs_of_the_checkout(tmp_path):
    where = python("-c", "from gradopt import jobs; print(jobs.config_root())", cwd=tmp_path)

    assert where.returncode == 0, where.stderr
    assert where.stdout.strip() == os.fspath(REPOSITORY / "configs")
    assert Path(sys.executable).with_name("gradopt").is_file()
