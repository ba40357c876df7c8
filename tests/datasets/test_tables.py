import errno
import os
from pathlib import Path

import pytest

from ccdcseg.datasets.tables import Row, read_table
from ccdcseg.errors import UserError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"


def read(path: Path) -> list[Row]:
    return read_table(path, ("a", "b"), r"x_\d", "Mend it.")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("empty", [b"", b" ", b",,"])
def test_rows_know_their_line(table: Path, mark: bytes, end: bytes, empty: bytes) -> None:
    table.write_bytes(mark + end.join([b"b,x_1,a", b"1,, 2 ", empty, b'"3,4",\xc3\xa9,"5"', b""]))
    assert read(table) == [
        Row(f"{table}, line 2", {"b": "1", "x_1": "", "a": " 2 "}),
        Row(f"{table}, line 4", {"b": "3,4", "x_1": "é", "a": "5"}),
    ]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_columns_of_a_spreadsheet_of_another_country(table: Path, delimiter: str) -> None:
    table.write_text(delimiter.join("ba") + "\n" + delimiter.join(["3,4", "5"]) + "\n")
    assert read(table) == [Row(f"{table}, line 2", {"b": "3,4", "a": "5"})]


def test_line_breaks_within_quotes_count(table: Path) -> None:
    table.write_text('a,b\n"one\ntwo",3\n4\n')
    with pytest.raises(UserError, match=r"t\.csv, line 4, has 1 values, not 2: '4'\. Give it one for each"):
        read(table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"has the columns none\."),
        (b"a\n1", r"has the columns a\."),
        (b"a,b,x_12\n1,2,3", r"has the columns a, b, x_12\."),
        (b"a,b,\n1,2,3", r"has the columns a, b, \."),
        (b"a,b,x_1,x_1\n1,2,3,4", r"has the column x_1 twice\."),
        (b"a,a,b\n1,2,3", r"has the column a twice\."),
        (b'a,b\n1,2\n"3,4', r"is no CSV table \(line 3: unexpected end of data\)\."),
        (b"a,b\n1,2\n3,\xff", r"is no CSV table \(line 3 is not in UTF-8\)\."),
    ],
)
def test_what_cannot_be_used(table: Path, content: bytes, message: str) -> None:
    table.write_bytes(content)
    with pytest.raises(UserError, match=rf"t\.csv {message} Mend it\."):
        read(table)


def test_what_cannot_be_read(table: Path) -> None:
    with pytest.raises(UserError, match=r"t\.csv does not exist\. Mend it\."):
        read(table)
    table.mkdir()
    with pytest.raises(UserError, match=r"t\.csv cannot be read \(Is a directory\)\. Mend it\."):
        read(table)


def test_a_table_that_this_user_may_not_read(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"t\.csv is forbidden to this user .*\. Change its rights"):
        read(table)
