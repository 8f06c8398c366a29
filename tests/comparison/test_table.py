import csv
import io

import pytest

from gradopt.comparison import table
from gradopt.comparison.groups import grouped
from gradopt.comparison.records import find

TEXT = """\
objective  optimiser    runs  verdict                  best loss     steps     evaluations  solved after  seconds         directory
bowl       sgd lr=0.1   2     converged                0.5 [0.5, 1]  1 [1, 2]  2 [2, 3]     2 [2, -]      0.1 [0.1, 0.2]  runs/2
           sgd lr=0.01  2     1 max_steps, 1 diverged  4             2         3            -             0.2             runs/3
valley     adam         1     error                    -             -         -            -             -               runs/5
"""  # noqa: E501


@pytest.fixture
def groups(write, tmp_path, monkeypatch):
    """Two seeds that differ, two of which one fails, and one run that raised."""
    monkeypatch.chdir(tmp_path)
    write("1", options={"lr": 0.1}, seed=0, losses=[8.0, 2.0, 1.0], status="converged")
    write("2", options={"lr": 0.1}, seed=1, losses=[8.0, 0.5], status="converged")
    write("3", options={"lr": 0.01}, seed=0, losses=[8.0, 6.0, 4.0])
    write("4", options={"lr": 0.01}, seed=1, losses=[8.0, 6.0, 4.0], status="diverged")
    write("5", objective="valley", optimiser="adam", status="error", result={"message": "a|b"})
    return grouped(find([tmp_path / "runs"]))


def test_the_terminal_shows_medians_with_their_spread_and_failures_as_rows(groups):
    assert table.text(groups) == TEXT


def test_there_is_no_column_of_runs_where_each_row_is_one(write, tmp_path):
    write("1")

    assert table.text(grouped(find([tmp_path]))).split()[:3] == ["objective", "optimiser", "verdict"]


def test_markdown_parses_back(groups):
    lines = table.markdown(groups).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    assert len({len(row) for row in rows}) == 1
    assert rows[0][:4] == ["objective", "optimiser", "runs", "verdict"]
    assert set(rows[1]) == {"---"}
    assert rows[2][:5] == ["bowl", "sgd lr=0.1", "2", "converged", "0.5 [0.5, 1]"]
    assert rows[3][0] == "bowl", "each row says its objective"


def test_markdown_shows_names_as_they_are(write, tmp_path):
    write("1", objective="<b>a|b</b> & *c* `d`", optimiser="trust_region")

    *_, row = table.markdown(grouped(find([tmp_path]))).splitlines()

    assert row.startswith(
        "| &lt;b&gt;a&#124;b&lt;/b&gt; &amp; \\*c\\* \\`d\\` | trust_region | 1 | max_steps | 0 | 0 | 1 | "
    )
    assert row.count("|") == len(table.HEADER) + 1


def test_csv_parses_back_with_all_digits(write, tmp_path):
    third = 1.0 / 3.0
    write("1", losses=[8.0, third])
    write("2", objective='"quoted", with comma', status="error")

    rows = list(csv.DictReader(io.StringIO(table.comma_separated(grouped(find([tmp_path]))))))

    assert [row["objective"] for row in rows] == ['"quoted", with comma', "bowl"]
    assert (float(rows[1]["loss"]), float(rows[1]["loss_10"]), float(rows[1]["loss_90"])) == (third,) * 3
    assert (rows[1]["steps"], rows[1]["evaluations"], rows[1]["runs"], rows[1]["verdict"]) == (
        "1",
        "2",
        "1",
        "max_steps",
    )
    assert rows[0]["loss"] == ""


def test_repeats_of_a_seed_are_told_from_seeds(write, tmp_path):
    for name, seed in (("1", 0), ("2", 0), ("3", 1)):
        write(name, seed=seed)
    groups = grouped(find([tmp_path]))

    assert table.cells(groups[0])[2] == "3 of 2 seeds"
    (row,) = csv.DictReader(io.StringIO(table.comma_separated(groups)))
    assert (row["runs"], row["seeds"]) == ("3", "2")


def test_of_many_starts_the_verdicts_of_all_are_counted(write, tmp_path):
    counts = {"converged": 60, "stalled": 4}
    write("1", status="converged", result={"starts": {"number": 64, "counts": counts}})

    assert "60 converged, 4 stalled" in table.text(grouped(find([tmp_path])))


def test_a_long_objective_is_shortened_to_the_terminal_and_whole_in_other_forms(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, width in (("1", 1.0), ("2", 2.0)):
        disc = [{"target": "module.py:disc", "kind": "inequality", "upper": width}] * 5
        write(name, objective="function", objective_options={"constraints": disc, "x0": [width]}, losses=[8.0, 1.0])
    groups = grouped(find([tmp_path / "runs"]))
    names = [group.problem.name for group in groups]

    monkeypatch.delenv("COLUMNS", raising=False)
    assert all(name in table.text(groups) for name in names), "there is no terminal"
    monkeypatch.setenv("COLUMNS", "140")
    lines = table.text(groups).splitlines()
    assert max(map(len, lines)) == 140
    assert all(line.startswith("function constraints=[{") for line in lines[1:])
    assert ["x0=[1]" in lines[1], "x0=[2]" in lines[2]] == [True, True]
    monkeypatch.setenv("COLUMNS", "20")
    cut = table.text(groups).splitlines()[1].partition("  ")[0]
    assert len(cut) == 24
    assert cut == f"{names[0][:12]}…{names[0][-11:]}"
    assert all(name in table.comma_separated(groups) and name in table.markdown(groups) for name in names)
