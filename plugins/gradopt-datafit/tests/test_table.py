"""Reading CSV files: what is read, and what each bad file is told."""

import pytest
from gradopt_datafit.table import read

from gradopt import Mistake


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("x,y\n1,2\n3,4\n", "comma"),
        ("x,y\r\n1,2\r\n3,4\r\n", "comma"),
        ("x,y\n1,2\n3,4", "comma"),
        ('# a comment, with "one" and a comma\n\nx, y\n1, 2\n# another\n\n 3 ,4\n   \n', "comma"),
        ('"x","y"\n"1","2"\n3,4\n', "comma"),
        ('x,y,note\n1,2,fine\n3,4,"a, b"\n', "comma"),
        ("x;y\n1;2\n3;4\n", "semicolon"),
        ("x\ty\n1\t2\n3\t4\n", "tab"),
        ("  x   y\n  1   2  \n3 4 \n", "space"),
        ("\ufeffx,y\n1e0,+2\n3.0,.4e1\n", "comma"),
    ],
)
def test_columns_are_read_by_name(text, delimiter, write):
    table = read(write(text), delimiter)

    assert table.numbers("x", "objective.x") == [1.0, 3.0]
    assert table.numbers("y", "objective.y") == [2.0, 4.0]


MISTAKES = {
    # the file: what the message must hold
    "empty": ("", ["my.csv is empty", "names of the columns"]),
    "blank lines only": ("\n\n# nothing\n", ["my.csv is empty"]),
    "misspelt column": ("x,signal\n1,2\n", ["objective.y=signl", "Did you mean 'signal'?", "'x', 'signal'"]),
    "no names": ("1,2\n3,4\n", ["objective.y=signl", "first line holds numbers"]),
    "other delimiter": ("x;signal\n1;2\n", ["no such column", "objective.delimiter=semicolon"]),
    "name twice": ("signl,signl\n1,2\n", ["2 columns named 'signl'", "rename"]),
    "empty cell": ("x,signl\n1,2\n3,\n", ["column 'signl'", "line 3 has ''"]),
    "NaN": ("# two\n# comments\nx,signl\n1,NaN\n", ["column 'signl'", "line 4 has 'NaN'"]),
    "infinity": ("x,signl\n1,-inf\n", ["line 2 has '-inf'"]),
    "a word": ("x,signl\n1,n/a\n3,4\n5,none\n", ["line 2 has 'n/a'", "line 4 has 'none'", "remove their lines"]),
    "an underscore": ("x,signl\n1,1_2\n", ["line 2 has '1_2'"]),
    "decimal comma": ('x,signl\n1,"2,5"\n', ["line 2 has '2,5'", "with a point"]),
    "many": ("x,signl\n" + "1,-\n" * 12, ["line 6 has '-'", "7 lines more"]),
    "short row": ("x,signl\n1,2\n3\n", ["line 3", "1 cell,", "2 columns"]),
    "long row": ("x,signl\n1,2,5\n", ["line 2", "3 cells", "2 columns"]),
    "open quote": ('x,signl\n1,"2\n', ["cannot be read as CSV"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_bad_file_is_told_what_and_where(case, write):
    text, expected = MISTAKES[case]
    path = write(text)

    with pytest.raises(Mistake) as caught:
        read(path).numbers("signl", "objective.y")

    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_a_file_in_another_encoding_is_refused(write):
    path = write("zeit,größe\n1,2\n", encoding="latin-1")

    with pytest.raises(Mistake, match="UTF-8"):
        read(path)


def test_line_numbers_are_those_of_the_file(write):
    table = read(write("# one\nx\n\n1\n# five\n2\n"))

    assert [table.line(row) for row in range(len(table.rows))] == [4, 6]
