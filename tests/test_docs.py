"""What the documents show is what happens: their commands are run and their plugin is installed."""

import json
import re
import subprocess
import sys

import pytest

from tests.installed import REPOSITORY, environment, gradopt, install, python

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PLUGIN = (REPOSITORY / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
OBJECTIVES = (REPOSITORY / "docs" / "write-an-objective.md").read_text(encoding="utf-8")
RESUMING = (REPOSITORY / "docs" / "resume-a-run.md").read_text(encoding="utf-8")
COMPARE = (REPOSITORY / "docs" / "compare-runs.md").read_text(encoding="utf-8")
READING = (REPOSITORY / "docs" / "read-the-pictures.md").read_text(encoding="utf-8")
TAB = (REPOSITORY / "docs" / "read-the-tab.md").read_text(encoding="utf-8")
FILES = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", OBJECTIVES, re.DOTALL)
EXAMPLES = re.findall(r"<!-- example: python -m gradopt (.*?) -->\n```text\n(.*?)\n```", README + OBJECTIVES, re.DOTALL)


@pytest.mark.parametrize(("arguments", "shown"), EXAMPLES)
def test_the_documents_show_the_real_output(arguments, shown, tmp_path):
    for name, text in FILES:
        (tmp_path / name).write_text(text, encoding="utf-8")

    done = gradopt(*arguments.split(), cwd=tmp_path)

    for line in filter(None, shown.splitlines()):
        assert line in done.stdout.splitlines(), done.stdout + done.stderr


def test_the_table_of_the_documents_is_the_real_one(tmp_path):
    commands, shown = re.search(r"<!-- run -->\n```sh\n(.*?)\n```\n\n```text\n(.*?)\n```", COMPARE, re.DOTALL).groups()

    for command in commands.splitlines():
        done = python(*command.split()[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    shown, real = ([re.split(r"\s{2,}", line)[:7] for line in text.splitlines()] for text in (shown, done.stdout))
    assert real == shown
    (rosenbrock,) = tmp_path.glob("runs/multirun/*/*/3-sgd/result.json")
    assert json.loads(rosenbrock.read_text(encoding="utf-8"))["minimum"] == 0.0
    assert "wrote runs/curves.png\nwrote runs/profiles.png\n" in done.stderr


@pytest.mark.slow
def test_a_run_goes_on_from_the_point_of_another_as_documented(tmp_path):
    commands = re.search(r"<!-- run -->\n```sh\n(.*?)```", RESUMING, re.DOTALL)[1]

    done = subprocess.run(
        ["sh", "-e"], input=commands.replace("python ", f"{sys.executable} "), cwd=tmp_path, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "runs" / "first" / "result.json").read_text(encoding="utf-8"))
    assert (first["status"], first["nit"]) == ("max_steps", 100)
    assert f"start      2 unknowns, loss {first['fun']:.10g}, " in done.stdout


def test_the_documents_have_examples():
    assert len(EXAMPLES) == 3


@pytest.mark.slow
def test_the_plugin_of_the_documents_installs_and_runs(tmp_path):
    source, target = tmp_path / "gradopt-wells", tmp_path / "site"
    for name, text in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PLUGIN, re.DOTALL):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    install(target, source)
    commands = re.search(r"<!-- run -->\n```sh\n(.*?)```", PLUGIN, re.DOTALL)[1].splitlines()

    outputs = []
    for command in commands:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)]
        done = python(*words[1:], cwd=tmp_path, path=target)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        outputs.append(done.stdout)

    assert "max_steps" in outputs[0] or "converged" in outputs[0]
    assert "converged" in outputs[1]
    assert "which is enough" in outputs[2]
    assert re.search(r"counter: \d+ rows", outputs[2])
    assert len(re.findall(r"^\d+ +objective=bowl", outputs[3], re.MULTILINE)) == 2
    assert "gradopt-wells 0.1.0" in outputs[4]


def test_the_pictures_of_the_documents_are_there_and_small():
    shown = {name for page in (README, READING, TAB) for name in re.findall(r"pictures/(\w+\.png)", page)}
    files = {file.name: file.stat().st_size for file in (REPOSITORY / "docs" / "pictures").iterdir()}

    assert shown == set(files)
    assert all(size < 80_000 for size in files.values())
