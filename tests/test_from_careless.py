"""docs/from-careless.md: every option of careless 0.5.4 is mapped, or declined with a reason.

`careless_options.txt` holds the names that careless's own --help lists, one "command option" a line.
"""

import re
from pathlib import Path

import pytest
import typer

from bayesref.cli import app

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "from-careless.md").read_text(encoding="utf-8")
OPTIONS = [line.rsplit(" ", 1) for line in (HERE / "careless_options.txt").read_text().splitlines()]


def rows():
    """(commands of careless, options, what to type, why) of every row of the page."""
    for section in PAGE.split("\n## ")[1:]:
        commands = [c.strip() for c in section.splitlines()[0].split(",")]
        for line in section.splitlines():
            cells = [c.strip() for c in line.strip("|").split("|")]
            names = re.findall(r"`(-[-\w]+)`", cells[0]) if line.startswith("|") else []
            if names:
                yield commands, names, cells[1], cells[2]


MAPPED = {(c, name): (here, why) for commands, names, here, why in rows() for c in commands for name in names}


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda x: x)
def test_every_option_is_mapped_or_declined(command, option):
    here, why = MAPPED[command, option]
    assert here.startswith("`bayesref ") or (here == "declined" and len(why) > 30)


def test_no_option_is_made_up():
    known = {tuple(x) for x in OPTIONS}
    commands = {c for c, _ in known}
    for cs, names, _, _ in rows():
        assert set(cs) <= commands
        for name in names:
            assert any((c, name) in known for c in cs), name


def ours(words):
    """The command that these words name."""
    command = app._load(words[0])
    for word in words[1:]:
        command = command.commands[word]
    return command


@pytest.mark.parametrize("text", sorted(set(re.findall(r"`(bayesref [^`\n]*)`", PAGE))))
def test_what_to_type_exists(text):
    words = text.split()[1:]
    n = 2 if words[0] == "validate" and len(words) > 1 else 1
    assert words[0] in app.COMMANDS
    command = ours(words[:n])
    assert isinstance(command, typer.core.TyperCommand | typer.core.TyperGroup)
    options = {o for p in command.params for o in p.opts}
    for word in words[n:]:
        if word.startswith("-"):
            assert word in options


def test_the_example_of_merge_is_complete():
    line = next(x for x in PAGE.splitlines() if x.startswith("    bayesref merge"))
    options = {o for p in ours(["merge"]).params for o in p.opts}
    assert {w for w in line.split() if w.startswith("--")} <= options
