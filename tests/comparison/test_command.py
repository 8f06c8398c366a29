"""`gradopt compare`, as it is called."""

import csv
import io
import sys
import time

import pytest
from PIL import Image

from gradopt.comparison.command import compare
from tests.installed import gradopt, python


def is_blank(file):
    return len(Image.open(file).convert("L").getcolors() or range(300)) < 10


def test_a_real_sweep_is_a_table_and_two_pictures(sweep, tmp_path, capsys):
    code = compare([str(sweep / "runs"), "--output", str(tmp_path / "pictures")])

    said = capsys.readouterr()
    assert code == 0
    header, first, second = said.out.splitlines()
    assert header.split()[:4] == ["objective", "optimiser", "runs", "verdict"]
    assert first.split()[:4] == ["function", "sgd", "3", "max_steps"]
    assert second.split()[:3] == ["adam", "3", "max_steps"]
    assert said.err.splitlines() == [f"wrote {tmp_path / 'pictures' / name}.png" for name in ("curves", "profiles")]
    for name in ("curves", "profiles"):
        assert not is_blank(tmp_path / "pictures" / f"{name}.png")


def test_pictures_go_into_the_directory_that_was_given(write, tmp_path, capsys):
    write("1", losses=[8.0, 1.0])

    assert compare([str(tmp_path / "runs")]) == 0

    assert (tmp_path / "runs" / "curves.png").is_file()
    said = capsys.readouterr().err
    assert "no profiles: they need two optimisers that have run on the same two objectives or seeds" in said


def test_of_several_places_they_go_into_one_of_their_own(write, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("1", losses=[8.0, 1.0])
    write("2", losses=[8.0, 1.0], optimiser="adam")

    assert compare(["runs/1", "runs/2"]) == 0

    assert (tmp_path / "compare" / "curves.png").is_file()


def test_csv_on_stdout_is_nothing_but_csv(sweep, tmp_path, capsys):
    assert compare([str(sweep / "runs"), "--csv", "--output", str(tmp_path)]) == 0

    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["optimiser"], row["runs"]) for row in rows] == [("sgd", "3"), ("adam", "3")]


def test_it_says_what_became_of_runs_without_a_verdict_and_what_cannot_be_compared(write, tmp_path, capsys):
    write("1", losses=[8.0, 1.0])
    write("2", objective="valley", status="error", result={"message": "RuntimeError: on fire"})
    write("3", optimiser="adam", losses=[8.0, 1.0], status=None)
    write("4", optimiser="adamw", losses=[8.0, -1e9], status="unbounded")
    (write("5", optimiser="lbfgs", losses=[8.0, 1.0]) / "result.json").write_text('{"status": "conv')

    assert compare([str(tmp_path / "runs"), "--output", str(tmp_path)]) == 0

    said = capsys.readouterr().err
    assert "torn result: result.json cannot be read; the numbers are those of the history" in said
    assert "2: RuntimeError: on fire" in said
    assert "no result: the run was killed, goes on still, or was made from Python" in said
    assert "2 objectives: losses, curves and ranks of different ones have nothing in common" in said
    assert "no curve for 2 of 5 rows: unbounded, infeasible or ended by an error" in said


def test_it_names_what_is_broken_of_runs_that_cannot_be_compared(write, tmp_path, capsys):
    said = {"overrides": ["objective=bowl", "optimiser=adam"]}
    (write("1", losses=[8.0, 1.0]) / "history.npy").write_text("cut off")
    for name, text in (("2", "{: broken"), ("3", "")):
        (write(name, losses=[8.0, 1.0], result=said) / ".hydra" / "config.yaml").write_text(text)

    assert compare([str(tmp_path / "runs"), "--output", str(tmp_path)]) == 0

    said = capsys.readouterr().err
    broken = ".hydra/config.yaml is missing or broken: only what the command line said is known of it"
    for name in ("2", "3"):
        assert f"{tmp_path / 'runs' / name}: {broken}\n" in said
    assert "no curve for 1 of 2 rows: history.npy cannot be read, or holds no loss that counts\n" in said
    assert "objectives or seeds; 2 runs whose config cannot be read may belong to them\n" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no directory 'nowhere'"),
        ([], "there is no directory 'runs', and no runs/ here: make a run first"),
        (["--markdwn"], "unrecognized arguments: --markdwn. Did you mean '--markdown'?"),
        (["--tolerance", "2"], "argument --tolerance: must be a number from 0 to below 1, got '2'"),
        (["--csv", "--markdown"], "gradopt compare: --csv and --markdown exclude each other: say one of them"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)

    assert compare(arguments) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gradopt: error: ")
    assert said in line


def test_without_matplotlib_there_is_a_table_and_a_line_that_says_how_to_get_pictures(sweep, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.backends.backend_agg", raising=False)

    assert compare([str(sweep / "runs")]) == 0

    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert said.err == 'no pictures: they need matplotlib: pip install "gradopt[pictures]"\n'


def test_a_broken_matplotlib_costs_the_pictures_alone(write, tmp_path):
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('no numpy.core\\nsee the manual')\n")
    write("1", losses=[8.0, 1.0])
    program = "import sys\nfrom gradopt.comparison.command import compare\nsys.exit(compare(sys.argv[1:]))\n"

    done = python("-c", program, "runs", cwd=tmp_path)  # the current directory comes first

    assert done.returncode == 0 and "bowl" in done.stdout
    said = "no pictures: matplotlib cannot be imported (ImportError: no numpy.core): pip install "
    assert done.stderr == f"{said}--force-reinstall matplotlib\n"


def test_a_place_where_nothing_can_be_written_costs_the_pictures_alone(write, tmp_path, capsys):
    write("1", losses=[8.0, 1.0])
    (tmp_path / "file").touch()

    assert compare([str(tmp_path / "runs"), "--output", str(tmp_path / "file")]) == 0

    said = capsys.readouterr()
    assert "bowl" in said.out
    assert said.err.startswith("no pictures: ")


def test_five_hundred_runs_are_compared_in_seconds(write, tmp_path, capsys):
    losses = [96.0 / (1 + step) for step in range(2000)]
    for number in range(500):
        write(
            f"{number}-sgd", options={"lr": number % 25 / 100}, seed=number // 25,
            losses=[loss * (1 + number / 500) for loss in losses],
        )  # fmt: skip

    started = time.process_time()
    assert compare([str(tmp_path / "runs")]) == 0
    seconds = time.process_time() - started

    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 26
    assert "curves of the best 10 of 25 optimisers" in said.err
    assert "profiles of the best 10 of 25 optimisers" in said.err
    assert seconds < 8, "measured: 2 s"


def test_torch_is_not_imported(sweep, tmp_path):
    program = (
        "import sys\nfrom gradopt.comparison.command import compare\n"
        f"code = compare([{str(sweep / 'runs')!r}, '--summary', '--output', {str(tmp_path)!r}])\n"
        "assert code == 0 and 'torch' not in sys.modules\n"
    )

    done = python("-c", program, cwd=tmp_path)

    assert done.returncode == 0, done.stderr


def test_a_typo_counts_in_no_group_of_good_runs(tmp_path, capsys):
    for words, code in ((("seed=0",), 0), (("seed=1",), 0), (("seed=2", "observers=[consol]"), 2)):
        done = gradopt("objective=polynomial", "optimiser=lbfgs", "threads=1", *words, cwd=tmp_path)
        assert done.returncode == code, done.stderr

    assert compare([str(tmp_path / "runs"), "--csv", "--no-pictures"]) == 0

    said = capsys.readouterr()
    rows = [(row["optimiser"], row["runs"], row["verdict"]) for row in csv.DictReader(io.StringIO(said.out))]
    assert rows == [("lbfgs", "2", "converged"), ("lbfgs", "1", "error")]
    assert "'consol'" in said.err
