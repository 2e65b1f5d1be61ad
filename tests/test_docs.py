"""The documentation is true: its code runs, its links lead somewhere, the examples in docstrings give what they say.

Every ```python block of a page is run, and of every ```bash block the `reasonflux-prm` commands, in order and in one
folder a page, so that a block may use what an earlier one wrote. Inputs and checkpoints are the stand-ins below. A
block that cannot run here stands under `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import doctest
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "reasonflux_prm"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
README_LINES = 150
TIMEOUT_S = 300

RUN = ("python", "bash")
NOT_CODE = ("", "text", "json", "jsonl", "yaml", "toml", "console", "mermaid")
"""Of a block's languages: `console` is a session that was recorded, with what it printed."""
_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>\S*).*\n(?P<code>(?:.*\n)*?)(?P=fence)[ \t]*$", re.MULTILINE)
_REASON = re.compile(r"<!--[ \t]*not run:[ \t]*(\S.*?)[ \t]*-->[ \t]*\n\Z")
_COMMAND = re.compile(r"(?:^|[|&;(]\s*)(?:\w+=\S+\s+)*reasonflux-prm\b(?!\[)")
_LINK = re.compile(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|<(?:a|img|source)\b[^>]*\b(?:href|src|srcset)=\"([^\"]+)\"")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    """Of its opening fence."""
    reason: str | None
    """Why it is not run."""


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = []
    for match in _FENCE.finditer(text):
        reason = _REASON.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(match["language"], match["code"], line, reason[1] if reason else None))
    return found


def commands(code: str) -> list[str]:
    """Return the lines of a bash block that call `reasonflux-prm`, continued lines joined."""
    return [line for line in re.sub(r"\\\n\s*", " ", code).splitlines() if _COMMAND.search(line)]


def prose(text: str) -> str:
    """Return a page without its fenced blocks and its inline code."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the names that headings give to their places, as GitHub forms them."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """Return the links to files and headings of ours that lead nowhere."""
    broken = []
    for match in _LINK.finditer(prose(page.read_text("utf-8"))):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    return broken


# --- stand-ins -------------------------------------------------------------------------------------------------------


def _thinks(number: int, answer: int) -> dict[str, str]:
    thinking = f"We need {number} + 30.\n\nThe units give {number % 10}.\n\nWait, so the sum is {answer}."
    return {"thinking": thinking, "response": f"The sum is \\boxed{{{answer}}}."}


def _write_inputs(folder: Path) -> None:
    """Write what the pages' examples read: `traces.jsonl`, `traces.parquet`, `candidates.jsonl`."""
    import pyarrow
    import pyarrow.parquet

    problems = [{"id": f"sum-{n}", "problem": f"What is {n} + 30?", "answer": str(n + 30)} for n in (12, 14, 17)]
    sums = [int(problem["answer"]) for problem in problems]
    traces = [{**problem, **_thinks(total - 30, total)} for problem, total in zip(problems, sums, strict=True)]
    groups = [
        {**problem, "candidates": [_thinks(total - 30, answer) for answer in (total, total + 1, total)]}
        for problem, total in zip(problems, sums, strict=True)
    ]
    for name, rows in (("traces", traces), ("candidates", groups)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(traces), folder / "traces.parquet")


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory) -> Path:
    """Return a folder with a tiny PRM of random weights in our own format."""
    for sibling in ("prm", "scoring"):
        sys.path.append(str(ROOT / "tests" / sibling))
    from tiny_native import write_native

    return write_native(tmp_path_factory.mktemp("stand-in") / "checkpoint")


@pytest.fixture
def folder(request, tmp_path, stand_in) -> Path:
    """Return a folder with inputs and, under their own names, the checkpoints that the page names."""
    from reasonflux_prm.prm.embedded.catalog import KNOWN

    _write_inputs(tmp_path)
    text = request.getfixturevalue("page").read_text("utf-8")
    for known in KNOWN[1:]:
        if known.name in text:
            (tmp_path / known.name).parent.mkdir(exist_ok=True)
            (tmp_path / known.name).symlink_to(stand_in)
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory, monkeypatch, stand_in) -> dict[str, str]:
    """Return an environment in which the embedded PRM is the stand-in, and no network is reached for."""
    from reasonflux_prm.prm.embedded import install

    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("REASONFLUX_PRM_CACHE", str(cache))
    monkeypatch.setattr(install, "_ensure", lambda folder, build, release: folder)
    embedded = install.ensure_embedded()
    monkeypatch.undo()
    embedded.mkdir()
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    config, tokenizer_config = (
        json.loads((stand_in / f"{name}.json").read_text("utf-8")) for name in ("config", "tokenizer_config")
    )
    tokenizer = Tokenizer.from_file(str(stand_in / "tokenizer.json"))
    install._write(embedded, config, load_file(stand_in / "model.safetensors"), tokenizer, tokenizer_config)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    offline = {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache / "hub")}
    return {**os.environ, **offline, "REASONFLUX_PRM_CACHE": str(cache), "PATH": path, "COLUMNS": "120"}


# --- the pages -------------------------------------------------------------------------------------------------------

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _has_code(page: Path) -> bool:
    return page.exists() and any(
        block.reason is None and (block.language == "python" or commands(block.code))
        for block in blocks(page.read_text("utf-8"))
        if block.language in RUN
    )


def _run(call: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    nothing = subprocess.DEVNULL
    return subprocess.run(
        call, cwd=folder, env=environment, stdin=nothing, capture_output=True, text=True, timeout=TIMEOUT_S
    )


@pytest.mark.parametrize("page", [page for page in PAGES if _has_code(page)], ids=lambda page: page.name)
def test_code_runs(page, folder, environment):
    for block in blocks(page.read_text("utf-8")):
        if block.language not in RUN or block.reason is not None:
            continue
        if block.language == "python":
            calls = [[sys.executable, "-c", block.code]]
        else:
            calls = [["bash", "-eo", "pipefail", "-c", command] for command in commands(block.code)]
        for call in calls:
            done = _run(call, folder, environment)
            assert done.returncode == 0, f"{page.name}:{block.line}: {call[-1]}\n{done.stdout}\n{done.stderr}"


@every_page
def test_blocks_say_what_they_are(page):
    for block in blocks(page.read_text("utf-8")):
        assert block.language in (*RUN, *NOT_CODE), f"line {block.line}: a block is one of {RUN} or {NOT_CODE}"


@every_page
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_readme_is_short():
    assert README.read_text("utf-8").count("\n") < README_LINES


EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>>" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_examples_in_docstrings(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried.attempted > 0
    assert tried.failed == 0


# --- how this file reads a page --------------------------------------------------------------------------------------

PAGE = """# A page, *with* `code`

<!-- not run: needs a GPU -->
```bash
reasonflux-prm score traces.jsonl --device cuda
```

<!-- not run: -->
```python
print(1)
```
See [the other](other.md#a-place), [gone](gone.md), [here](#a-page-with-code), [nowhere](other.md#b), `[no](link.md)`.
"""


def test_blocks_are_found_with_their_lines_and_reasons():
    found = [(block.language, block.line, block.reason) for block in blocks(PAGE)]
    assert found == [("bash", 4, "needs a GPU"), ("python", 9, None)]
    assert blocks(PAGE)[1].code == "print(1)\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pip install 'reasonflux-prm[data]'\nmake demo\n", []),
        ("pip install reasonflux-prm\n", []),
        ("reasonflux-prm score a.jsonl \\\n    -o b.jsonl\n", ["reasonflux-prm score a.jsonl  -o b.jsonl"]),
        ("zcat a.gz | reasonflux-prm score - # why\n", ["zcat a.gz | reasonflux-prm score - # why"]),
        ("A=1 reasonflux-prm demo\n", ["A=1 reasonflux-prm demo"]),
        ("# reasonflux-prm demo\n", []),
    ],
)
def test_commands_are_told_from_other_lines(code, expected):
    assert commands(code) == expected


def test_links_are_checked(tmp_path):
    (tmp_path / "page.md").write_text(PAGE, "utf-8")
    (tmp_path / "other.md").write_text("## A place\n", "utf-8")
    assert broken_links(tmp_path / "page.md") == ["gone.md", "other.md#b"]
