"""The shape of the package: layers, file length, what is packaged, and what an import costs."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    ["conventions", "_checks"],
    ["crystal", "distributions", "kinetics", "fourier"],
    ["data", "structure_factors", "scaling", "restraints"],
    ["io", "guides"],
    ["inference"],
    ["refinement"],
    ["results", "validation"],
    ["programs"],
    ["cli"],
]
LEVEL = {name: i for i, row in enumerate(LAYERS) for name in row}
FILES = sorted((ROOT / "bayesref").rglob("*.py"))


def owner(path):
    """Folder or module of the package that a file belongs to."""
    return path.relative_to(ROOT / "bayesref").with_suffix("").parts[0]


def imports(path):
    """First part below `bayesref` of every module that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        yield from (n.split(".")[1] for n in names if n.startswith("bayesref."))


@pytest.mark.parametrize(
    "path", [f for f in FILES if owner(f) in LEVEL], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_point_down(path):
    mine = owner(path)
    for other in imports(path):
        if other == "models":
            continue
        assert other in LEVEL, f"{path} imports the top of the package"
        assert other == mine or LEVEL[other] < LEVEL[mine], f"{path} imports {other}"


def test_every_folder_has_a_layer():
    known = {*LEVEL, "__init__", "__main__"}
    assert {owner(f) for f in FILES} <= known


@pytest.mark.parametrize("path", [*FILES, *(ROOT / "models").glob("*.py")], ids=lambda p: p.name)
def test_a_file_is_one_concept(path):
    assert len(path.read_text().splitlines()) <= 350


def test_package_list():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {"bayesref", "bayesref.models"} | {
        f"bayesref.{p.parent.name}" for p in (ROOT / "bayesref").glob("*/__init__.py")
    }
    assert set(settings["packages"]) == folders


def test_no_folder_named_utils():
    assert not list((ROOT / "bayesref").rglob("utils*"))


def test_importing_is_cheap():
    code = "import sys, bayesref; print('torch' in sys.modules or 'gemmi' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_every_public_name_loads():
    import bayesref as br

    assert all(getattr(br, name) is not None for name in br.__all__)


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("[a-z]*.py")), ids=lambda p: p.name)
def test_model_pages_use_the_public_api(path):
    allowed = {"pyro", "torch", "bayesref", "math", "dataclasses"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in allowed - {"bayesref"}, f"{path} imports {node.module}"
        if isinstance(node, ast.Import):
            for a in node.names:
                assert a.name.split(".")[0] in allowed
                assert a.name != "bayesref" or a.asname == "br"
                assert not a.name.startswith("bayesref.")
