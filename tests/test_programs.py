"""Model pages by name, path and module; copies that are edited; mistakes."""

import ast
from dataclasses import is_dataclass

import pytest

from bayesref import programs
from bayesref._checks import InputError


def test_pages_that_come_with_it():
    names = programs.names()
    assert {"merge", "merge_normal", "projection", "refine"} <= set(names)
    assert names == sorted(names)
    assert all(programs.summary(n).endswith((".", "say.")) for n in names)


@pytest.mark.parametrize("name", programs.names())
def test_a_page_is_a_program_with_priors_at_the_top(name):
    assert callable(programs.load(name))
    tree = ast.parse(programs.source(name))
    first = next(n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef))
    assert isinstance(first, ast.ClassDef)
    assert first.name == "Priors"
    module = __import__(f"bayesref.models.{name}", fromlist=["Priors"])
    assert is_dataclass(module.Priors)


def test_by_path_and_by_module(tmp_path):
    page = programs.copy("merge", tmp_path)
    assert page == tmp_path / "merge.py"
    assert programs.load(str(page)).__module__ != programs.load("merge").__module__
    assert programs.load("bayesref.models.merge") is programs.load("merge")


def test_an_edited_copy_is_what_runs(tmp_path):
    page = programs.copy("merge", tmp_path / "mine.py")
    page.write_text(page.read_text().replace("def model(", "def model_was(") + "\n\nmodel = sorted\n")
    assert programs.load(str(page)) is sorted


def test_a_copy_replaces_nothing_unasked(tmp_path):
    page = programs.copy("merge", tmp_path / "mine.py")
    page.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        programs.copy("merge", page)
    assert page.read_text() == "mine"
    programs.copy("merge", page, overwrite=True)
    assert page.read_text() == programs.source("merge")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("merg", None, "did you mean 'merge'"),
        ("none.py", None, "no model file none.py"),
        ("empty.py", "", "no function 'model'"),
        ("broken.py", "1 / 0", "ZeroDivisionError"),
        ("syntax.py", "def", "SyntaxError"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        programs.load(name)


def test_a_copy_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        programs.copy("merge", tmp_path / "no" / "such" / "merge.py")
