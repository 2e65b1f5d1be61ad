"""The house rules of docs/architecture.md, read off the source: what may import what, and how large things may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "reasonflux_prm"
NAME = PACKAGE.name
MODULES = sorted(PACKAGE.rglob("*.py"))
MAY_IMPORT_TORCH = {"prm", "scoring", "policy", "training", "rl"}
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
# Each costs more to import than `--help` may take.
HEAVY = {
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "pyarrow",
    "numpy",
    "openai",
    "sentence_transformers",
    "sympy",
    "math_verify",
    "huggingface_hub",
    "fastapi",
    "uvicorn",
    "httpx",
    "trl",
    "peft",
    "datasketch",
}


def ranks() -> dict[str, int]:
    """Return the rank of every layer, as the table in docs/architecture.md gives it."""
    table = re.findall(r"^\| (\d+) \| ([^|]+) \|", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE)
    return {name: int(rank) for rank, names in table for name in re.findall(r"`(\w+)/?`", names)}


RANKS = ranks()


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, imported module) of every import in `source`, wherever it stands, in the module's own terms."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if base.split(".")[0] == NAME and is_module(full) else base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from ((node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def layer(module: str) -> str:
    """Return the layer of a module of ours: the name behind the package's, or "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def wrong_imports(source: str, module: str, is_package: bool) -> list[str]:
    """Return what `source` imports from its own height or from above, one sentence an import."""
    here = layer(module)
    found = []
    for line, target in imports(source, module, is_package):
        if target.split(".")[0] != NAME or layer(target) == here:
            continue
        if layer(target) == "" or RANKS[layer(target)] >= RANKS[here]:
            found.append(f"{module}:{line} imports {target}")
    return found


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Yield (name, lines) of every function in `source`, nested ones too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def each(paths: Iterable[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", list(paths), ids=lambda path: str(path.relative_to(PACKAGE)))


every_module = each(MODULES)
# The package itself hands out names of every layer, so it stands above them all.
every_layered_module = each(path for path in MODULES if layer(module_name(path)) not in ("", "__main__"))


def test_every_layer_has_a_rank():
    layers = {layer(module_name(path)) for path in MODULES} - {"", "__main__"}
    assert layers <= set(RANKS), "a layer is missing in the table of docs/architecture.md"


@every_layered_module
def test_imports_point_downwards(path):
    assert wrong_imports(path.read_text("utf-8"), module_name(path), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from reasonflux_prm.records import Trace", 0),
        ("from reasonflux_prm.traces.read import read_traces", 0),
        ("from . import session", 0),
        ("import reasonflux_prm.cli.main", 1),
        ("from reasonflux_prm import Trace", 1),
        ("from reasonflux_prm import records", 0),
        ("from reasonflux_prm import cli", 1),
        ("from ..cli import main", 1),
        ("from .. import viewer, records", 1),
        ("def f():\n    if True:\n        from reasonflux_prm.viewer import html", 1),
        ("if TYPE_CHECKING:\n    from reasonflux_prm.viewer.html import write_report", 1),
        ("importlib.import_module('reasonflux_prm.cli.main')", 1),
    ],
)
def test_the_walker_sees(source, wrong):
    assert len(wrong_imports(source, "reasonflux_prm.scoring.engine", is_package=False)) == wrong


def test_the_walker_resolves_a_package_from_inside():
    assert list(imports("from . import a\nfrom ..b import c", "reasonflux_prm.prm", is_package=True)) == [
        (1, "reasonflux_prm.prm"),
        (2, "reasonflux_prm.b"),
    ]
    assert len(wrong_imports("from ..cli import main", "reasonflux_prm.prm", is_package=True)) == 1


def test_two_layers_of_one_rank_do_not_know_each_other():
    assert (
        len(wrong_imports("from reasonflux_prm.policy import base", "reasonflux_prm.traces.read", is_package=False))
        == 1
    )


@each(path for path in MODULES if layer(module_name(path)) not in MAY_IMPORT_TORCH)
def test_only_layers_of_models_import_torch(path):
    found = imports(path.read_text("utf-8"), module_name(path), path.name == "__init__.py")
    assert [line for line, name in found if name.split(".")[0] == "torch"] == []


@every_module
def test_file_is_short_named_for_its_subject_and_says_what_it_is(path):
    source = path.read_text("utf-8")
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")
    assert source.count("\n") <= MOST_LINES_OF_A_FILE
    assert ast.get_docstring(ast.parse(source))


@every_module
def test_functions_are_short(path):
    assert [found for found in functions(path.read_text("utf-8")) if found[1] > MOST_LINES_OF_A_FUNCTION] == []


def test_the_length_of_a_function_includes_nested_ones():
    assert list(functions("def f():\n    def g():\n        pass\n\n    return g")) == [("f", 5), ("g", 2)]


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that are loaded once a fresh Python has run `code`."""
    probe = f"import sys\n{code}\nprint('LOADED', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.split("LOADED")[1].split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after(f"import {NAME}") & HEAVY == set()


def test_the_probe_for_heavy_modules_sees_one():
    assert "numpy" in loaded_after("import numpy")
