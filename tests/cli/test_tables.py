"""Tables that commands print: counts without decimals, cells that are not wrapped."""

import io

import pandas as pd

from bayesref.cli.tables import number, resolution_table, wide_console


def printed(table) -> str:
    console = wide_console(file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_counts_stay_counts_where_bins_are_empty():
    data = pd.DataFrame({"dmax": [9.0, 5.0, 9.0], "dmin": [5.0, 3.0, 3.0]})
    data = data.assign(spots=[0.0, 1.0, 1234.0], cc=[float("nan"), 1.0, 0.5])
    lines = printed(resolution_table("Data", data)).splitlines()
    assert lines[2].split() == ["9.00", "-", "5.00", "0", "-"]
    assert lines[3].split() == ["5.00", "-", "3.00", "1", "1.000"]
    assert lines[4].split() == ["all", "1,234", "0.500"]


def test_numbers():
    assert [number(3), number(3.0), number(float("nan"))] == ["3", "3.000", "-"]


def test_wide_rows_are_not_wrapped():
    data = pd.DataFrame({"dmax": [9.0], "dmin": [3.0], **{f"a long name {i}": [0.1] for i in range(6)}})
    assert len(printed(resolution_table(None, data)).splitlines()) == 2
