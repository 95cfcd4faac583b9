"""What --help shows: words as they were written, in every command."""

import re

import pytest

from bayesref.cli.app import main

COMMANDS = (
    "", "merge", "refine", "kinetics", "maps", "sf", "project", "convert", "demo", "models", "models copy", "simulate",
    "simulate merge", "simulate laue", "simulate serial", "simulate refine", "simulate kinetics", "validate",
)  # fmt: skip
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf]")


def shown(capsys, command: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert not end.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_no_text_turns_into_a_picture(capsys, command):
    text = shown(capsys, command)
    assert "Usage" in text
    assert not EMOJI.findall(text)


def test_kinetics_says_how_delays_and_losses_are_written(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    text = shown(capsys, "kinetics")
    assert "B->C:A" in text
    assert "a number alone is in s" in text
