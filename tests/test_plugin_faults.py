"""Plugins as they are met in life: really installed, good and broken ones side by side."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradopt.plugins import Staged
from tests.installed import STRANGERS, environment, gradopt, install, python

pytestmark = pytest.mark.slow

BROKEN = {
    # plugin: its distribution, and why it is broken
    "broken_configs": ("gradopt-broken-configs", "config path 'pkg://gradopt_broken_configs.presets' does not exist"),
    "broken_exit": ("gradopt-broken-exit", "SystemExit: no licence found"),
    "broken_future": ("gradopt-broken-future", "it needs gradopt>=99, this is gradopt"),
    "broken_halfway": ("gradopt-broken-halfway", "KeyError: 'the second half'"),
    "broken_hook": ("gradopt-broken-hook", "unknown hook 'gradopt_make_tea'"),
    "broken_hookless": ("gradopt-broken-hookless", "has no hook; mark gradopt_register with gradopt.hookimpl"),
    "broken_import": ("gradopt-broken-import", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
    "broken_reserved": ("gradopt-broken-reserved", "objective 'polynomial' is a name of gradopt itself"),
    "broken_shadow": ("gradopt-broken-shadow", "preset optimiser/adam.yaml has a name of gradopt itself"),
    "broken_signature": ("gradopt-broken-signature", "{'weather'} are declared in the hookimpl but can not be found"),
    "gradopt": ("gradopt-broken-name", "another plugin is named 'gradopt' already"),
    "twin": ("gradopt-twin-two", "another plugin is named 'twin' already"),
}
LAZY = {
    # what is selected, and what the message must say beside the names of the entry and its plugin
    "objective=lazy_import": "could not be loaded from 'gradopt_broken_lazy.problem:Problem': ModuleNotFoundError",
    "objective=lazy_exit": "could not be loaded from 'gradopt_broken_lazy.exits:Problem': SystemExit",
    "objective=lazy_absent": "cannot be read from 'gradopt_broken_lazy.nowhere:Problem': there is no module",
    "objective=lazy_syntax": "cannot be read from 'gradopt_broken_lazy.syntax:Problem': expected default value",
    "objective=lazy_circle": "cannot be read from 'gradopt_broken_lazy.circle:Problem': maximum recursion depth",
    "objective=lazy_argument": "has an argument called 'name', which is the option's own; rename it",
    "objective=lazy_default": "has an argument that cannot become an option: mutable default <class 'set'>",
    "optimiser=lazy_option": "has an argument that cannot become an option: Field name duplicated: 'groups'",
}
GOOD = ("gradopt-hills", "gradopt-presets")


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Where all strangers are installed, the broken ones too."""
    return install(tmp_path_factory.mktemp("everything"), *sorted(STRANGERS.glob("gradopt-*")))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Where only the good strangers are installed."""
    return install(tmp_path_factory.mktemp("good"), *(STRANGERS / name for name in GOOD))


def result_of(directory: Path) -> dict:
    (found,) = directory.glob("runs/*/*/result.json")
    return json.loads(found.read_text(encoding="utf-8"))


def complete(line: str, *, path: Path, cwd: Path) -> tuple[set[str], str]:
    """What Hydra's completion of the console script offers behind `line`, and what it prints to the terminal."""
    script = Path(sys.executable).with_name("gradopt")
    done = subprocess.run(
        [script, "-sc", "query=bash"],
        cwd=cwd,
        env=environment(path, COMP_LINE=line, COMP_POINT=str(len(line))),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split()), done.stderr


def test_the_default_run_is_the_same_with_all_broken_plugins_installed_together(everything, tmp_path):
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()

    harmed = gradopt("objective=polynomial", cwd=tmp_path / "with", path=everything)
    alone = gradopt("objective=polynomial", cwd=tmp_path / "without")

    assert (harmed.returncode, alone.returncode) == (0, 0), harmed.stderr
    first, second = result_of(tmp_path / "with"), result_of(tmp_path / "without")
    assert first["status"] == "converged"
    assert all(first[key] == second[key] for key in ("status", "fun", "x", "nit", "nfev", "message"))
    assert alone.stderr == ""
    (warning,) = harmed.stderr.splitlines()
    assert warning.startswith("gradopt: warning: broken plugins are left out: ")
    assert all(f"{name} ({distribution})" in warning for name, (distribution, _) in BROKEN.items())


def test_no_plugin_can_change_an_optimiser_of_ours_by_a_preset_of_its_name(everything, tmp_path):
    with_all = gradopt("optimiser=adam", "--cfg", "job", cwd=tmp_path, path=everything)
    without = gradopt("optimiser=adam", "--cfg", "job", cwd=tmp_path)

    assert with_all.stdout == without.stdout
    assert "name: adam" in without.stdout


def test_the_list_names_every_plugin_its_distribution_what_it_adds_and_why_it_is_broken(everything, tmp_path):
    listed = gradopt("plugins", cwd=tmp_path, path=everything)

    assert (listed.returncode, listed.stderr) == (0, "")
    blocks = {
        block.partition("  (")[0]: block
        for block in listed.stdout.replace("\n  ", "\t").splitlines()
        if "BROKEN" not in block
    }
    assert "gradopt-hills 1.0" in blocks["hills"]
    for words in ("objective: valley, ripple", "optimiser: signdescent", "criterion: enough", "observer:  tally"):
        assert words in blocks["hills"]
    assert "configs:   pkg://gradopt_presets.configs" in blocks["presets"]
    assert "twin_one" in blocks["twin"]
    assert set(blocks) == {"gradopt", "hills", "presets", "twin", "clash_one", "clash_two", "broken_lazy"}
    broken = [line for line in listed.stdout.splitlines() if "BROKEN" in line]
    assert len(broken) == len(BROKEN)
    for name, (distribution, why) in BROKEN.items():
        (line,) = (line for line in broken if line.startswith(f"{name}  ({distribution} 1.0)  BROKEN: "))
        assert why in line


@pytest.mark.parametrize(
    ("name", "selection"),
    [
        ("broken_configs", "objective=configs_thing"),
        ("broken_exit", "objective=exit_thing"),
        ("broken_future", "objective=future_thing"),
        ("broken_halfway", "objective=halfway_thing"),
        ("broken_hook", "optimiser=hook_thing"),
        ("broken_hookless", "schedule=hookless_thing"),
        ("broken_import", "criteria=[import_thing]"),
        ("broken_import", "observers=[import_thing]"),
        ("broken_reserved", "objective=reserved_thing"),
        ("broken_shadow", "objective=shadow_thing"),
        ("broken_signature", "objective=signature_thing"),
        ("gradopt", "objective=name_thing"),
        ("twin", "objective=twin_two"),
    ],
)
def test_selecting_what_a_broken_plugin_would_offer_says_which_plugin_and_why(everything, tmp_path, name, selection):
    distribution, why = BROKEN[name]

    done = gradopt(selection, cwd=tmp_path, path=everything)

    assert (done.returncode, done.stdout) == (2, "")
    warning, error = done.stderr.splitlines()
    assert "broken plugins are left out" in warning
    assert error.startswith("gradopt: error: there is no ")
    assert f"Plugin {name!r} ({distribution}) is broken: " in error
    assert why in error


def test_a_plugin_that_broke_after_registering_a_name_is_the_only_one_blamed_for_it(everything, tmp_path):
    done = gradopt("objective=halfway_thing", cwd=tmp_path, path=everything)

    assert done.stderr.count("is broken") == 1


@pytest.mark.parametrize("selection", LAZY)
def test_selecting_an_entry_that_cannot_be_used_says_which_plugin_and_why(everything, tmp_path, selection):
    kind, _, name = selection.partition("=")
    # An option of an entry that cannot be read is not what is wrong with it.
    options = [] if name in {"lazy_import", "lazy_exit"} else [f"{kind}.size=3"]

    done = gradopt(selection, *options, cwd=tmp_path, path=everything)

    assert (done.returncode, done.stdout) == (2, "")
    _, error = done.stderr.splitlines()
    assert all(word in error for word in (f"{kind} {name!r}", "plugin 'broken_lazy'", LAZY[selection])), error


@pytest.mark.parametrize("selection", ["objective=lazy_import", "objective=lazy_syntax", "optimiser=lazy_option"])
def test_help_works_whatever_is_chosen(everything, tmp_path, selection):
    done = gradopt(selection, "--help", cwd=tmp_path, path=everything)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"options of {selection}" in done.stdout
    assert "  valley             A long valley with two named parameters." in done.stdout


@pytest.mark.parametrize(
    "selection", ["objective=clash", "objective=clash_preset", "optimiser=adam objective=clash objective.one=2"]
)
def test_a_name_of_two_plugins_is_an_error_only_when_it_is_selected(everything, tmp_path, selection):
    refused = gradopt(*selection.split(), cwd=tmp_path, path=everything)

    assert refused.returncode == 2
    assert "is ambiguous: plugins 'clash_one' and 'clash_two' both offer it" in refused.stderr
    assert "--disable-plugin NAME" in refused.stderr


def test_switching_one_of_two_claimants_off_settles_whose_name_it_is(everything, tmp_path):
    settled = gradopt("objective=clash", "--disable-plugin", "clash_two", cwd=tmp_path, path=everything)

    assert settled.returncode == 0, settled.stderr
    assert result_of(tmp_path)["status"] == "converged"


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--disable-plugin", "hills"], {}),
        (["--disable-plugin=hills"], {}),
        (["--disable-plugin", "gradopt-hills"], {}),
        (["--disable-plugin", "presets", "--disable-plugin", "hills"], {}),
        ([], {"GRADOPT_DISABLE_PLUGINS": "presets, hills"}),
        (["--disable-plugin", "presets"], {"GRADOPT_DISABLE_PLUGINS": "hills"}),
    ],
)
def test_a_plugin_that_is_switched_off_is_gone_and_the_message_says_so(good, tmp_path, arguments, variables):
    selected = gradopt("objective=valley", *arguments, cwd=tmp_path, path=good, variables=variables)
    listed = gradopt(*arguments, "plugins", cwd=tmp_path, path=good, variables=variables)

    assert selected.returncode == 2
    assert "there is no objective named 'valley'" in selected.stderr
    assert "Switched off: " in selected.stderr
    assert "hills  switched off" in listed.stdout
    assert "ripple" not in listed.stdout


def test_a_plugin_that_is_switched_off_is_not_even_imported(everything, tmp_path):
    listed = gradopt("plugins", "--disable-plugin", "broken_exit", cwd=tmp_path, path=everything)

    assert listed.returncode == 0, listed.stderr
    assert "broken_exit  switched off" in listed.stdout
    assert "no licence found" not in listed.stdout


@pytest.mark.parametrize(
    ("name", "target", "why"),
    [
        ("zoo/", "zoo:Lion", "no usable name"),
        ("/lion", "zoo:Lion", "no usable name"),
        ("a lion", "zoo:Lion", "no usable name"),
        ("", "zoo:Lion", "no usable name"),
        (None, "zoo:Lion", "no usable name"),
        ("lion", "zoo.Lion", "must be a string 'module:Name'"),
        ("lion", dict, "must be a string 'module:Name'"),
        ("tiger", "zoo:Tiger", "is registered twice"),
    ],
)
def test_a_registration_that_could_never_be_selected_is_refused(name, target, why):
    staged = Staged("zoo")
    staged.objective("tiger", "zoo:Tiger")

    with pytest.raises((TypeError, ValueError), match=why):
        staged.objective(name, target)

    assert [entry.name for entry in staged.entries] == ["tiger"]


def test_without_autoload_no_plugin_is_loaded_and_the_message_says_so(everything, tmp_path):
    off = {"GRADOPT_PLUGIN_AUTOLOAD": "0"}

    listed = gradopt("plugins", cwd=tmp_path, path=everything, variables=off)
    selected = gradopt("objective=valley", cwd=tmp_path, path=everything, variables=off)

    assert [line for line in listed.stdout.splitlines() if not line.startswith(" ")] == [listed.stdout.splitlines()[0]]
    assert selected.returncode == 2
    assert "GRADOPT_PLUGIN_AUTOLOAD=0 keeps all plugins from being loaded" in selected.stderr


def test_switching_off_a_misspelt_plugin_is_pointed_out(good, tmp_path):
    done = gradopt("--cfg", "job", "--disable-plugin", "hils", cwd=tmp_path, path=good)

    assert done.returncode == 0
    assert "no plugin 'hils' is there to be switched off. Did you mean 'hills'?" in done.stderr


def test_a_distribution_without_metadata_harms_nobody(good, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(good, half)
    next(half.glob("gradopt_hills-*/METADATA")).unlink()

    listed = gradopt("plugins", cwd=tmp_path, path=half)

    assert listed.returncode == 0, listed.stderr
    assert "pkg://gradopt_presets.configs" in listed.stdout
    assert "hills  (" in listed.stdout


def test_one_class_without_yaml_is_an_objective_with_typed_options(good, tmp_path):
    done = gradopt(
        *("objective=valley", "objective.size=3", "objective.walls=[1,2]", "objective.slope=2", "objective.start=1.5"),
        *("criteria=[{name: enough, limit: 0.51}]", "observers=[{name: tally, label: seen}]", "optimiser=signdescent"),
        *("optimiser.lr=0.05", "optimiser.decay=1.0", "optimiser.elementwise=true"),
        cwd=tmp_path,
        path=good,
    )

    assert (done.returncode, done.stderr) == (0, "")
    result = result_of(tmp_path)
    assert result["status"] == "stopped"
    assert result["message"].startswith("enough is enough")
    # along starts at 1.5 three times, 0.05 a step: 30 steps to 0; across stops at its wall.
    assert result["nit"] in (29, 30)
    assert result["x"]["across"] == 1.0
    assert len(result["x"]["along"]) == 3
    (tally,) = tmp_path.glob("runs/*/*/tally.txt")
    assert tally.read_text(encoding="utf-8") == f"seen {result['nit'] + 1}"


def test_one_function_without_yaml_is_an_objective_with_typed_options(good, tmp_path):
    done = gradopt(
        *("objective=ripple", "objective.x0=[2.0, 1.0]", "objective.depth=0", "objective.waves=2", "optimiser=lbfgs"),
        cwd=tmp_path,
        path=good,
    )

    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path)["fun"] == pytest.approx(0.0, abs=1e-12)


def test_a_preset_of_a_plugin_sets_what_its_yaml_says(good, tmp_path):
    done = gradopt("objective=deep_bowl", cwd=tmp_path, path=good)

    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path)["fun"] == pytest.approx(-100.0)
    assert len(result_of(tmp_path)["x"]["x"]) == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.size=many", "objective.size: Value 'many' of type 'str' could not be converted to Integer"),
        ("objective.slope=-1", "objective.slope must be > 0, got -1.0"),
        ("objective.shape=rund", "objective.shape=rund is not one of round, sharp. Did you mean 'round'?"),
        ("objective.sise=3", "there is no option 'objective.sise'. Did you mean 'size'?"),
        ("objective.walls=3", "objective.walls"),
        ("optimiser.decay=fast", "optimiser.decay: Value 'fast' of type 'str' could not be converted to Float"),
        ("criteria=[enough]", "criterion 'enough' of plugin 'hills' needs criterion.limit"),
        ("observers=[{name: tally, lable: x}]", "lable"),
    ],
)
def test_a_wrong_option_of_a_plugin_is_one_line_and_imports_no_torch(good, tmp_path, override, message):
    program = (
        "import sys\nfrom gradopt.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    assert 'torch' not in sys.modules, 'torch was imported'\n"
    )

    done = python("-c", program, "objective=valley", "optimiser=signdescent", override, cwd=tmp_path, path=good)

    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert message in line


def test_help_lists_what_plugins_add_and_the_options_of_a_choice(good, tmp_path):
    done = gradopt("objective=valley", "optimiser=signdescent", "--help", cwd=tmp_path, path=good)

    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "  valley             A long valley with two named parameters.",
        "  ripple             A bowl with ripples.",
        "  signdescent        Steps of one size in every direction, shrinking a little each time.",
        "  enough             Stop once the loss is below a limit of the user's own.",
        "  objective.size: int = 2",
        "  optimiser.decay: float = 0.9",
    ):
        assert line in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gradopt objective=va", {"objective=valley"}),
        ("gradopt objective=deep", {"objective=deep_bowl"}),
        ("gradopt optimiser=sig", {"optimiser=signdescent"}),
        ("gradopt sche", {"schedule=", "schedule."}),
        ("gradopt schema/", set()),
        (
            "gradopt objective=valley objective.s",
            {"objective.size=", "objective.slope=", "objective.shape=", "objective.start="},
        ),
    ],
)
def test_tab_completes_names_and_options_of_plugins_and_prints_nothing_else(everything, tmp_path, line, expected):
    offered, printed = complete(line, path=everything, cwd=tmp_path)

    assert offered == expected
    assert printed == ""


def test_objectives_of_plugins_work_in_a_multirun(good, tmp_path):
    done = gradopt(
        *("-m", "objective=valley,ripple,deep_bowl", "optimiser=signdescent", "stop.max_steps=20", "observers=[tally]"),
        cwd=tmp_path,
        path=good,
    )

    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if "max_steps  " in line]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert len(list(tmp_path.glob("runs/multirun/*/*/*/tally.txt"))) == 3


def test_plugins_work_in_the_workers_of_joblib(good, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra gradopt[joblib]")

    done = gradopt(
        *("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "objective=valley,deep_bowl"),
        *("optimiser=signdescent", "optimiser.decay=0.95", "stop.max_steps=20", "observers=[tally]"),
        cwd=tmp_path,
        path=good,
    )

    assert done.returncode == 0, done.stderr
    results = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("runs/multirun/*/*/*/result.json"))]
    assert [(result["status"], result["nit"]) for result in results] == [("max_steps", 20)] * 2
    assert len(list(tmp_path.glob("runs/multirun/*/*/*/tally.txt"))) == 2


def test_workers_of_joblib_keep_a_plugin_switched_off(good, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra gradopt[joblib]")

    done = gradopt(
        *("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "objective=polynomial,deep_bowl"),
        *("optimiser=signdescent,sgd", "--disable-plugin", "hills"),
        cwd=tmp_path,
        path=good,
    )

    assert done.returncode == 2
    assert "there is no optimiser named 'signdescent'" in done.stderr


def test_an_optimiser_of_a_plugin_is_known_to_python_by_its_name(good, tmp_path):
    program = (
        "import gradopt\n"
        "result = gradopt.minimise(lambda x: (x ** 2).sum(), [1.0, -2.0], optimiser='signdescent',\n"
        "                          optimiser_options={'lr': 0.25, 'decay': 1.0}, stop=gradopt.Stop(max_steps=8))\n"
        "print(result.x.tolist())\n"
    )

    done = python("-c", program, cwd=tmp_path, path=good)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0.0, 0.0]\n"
