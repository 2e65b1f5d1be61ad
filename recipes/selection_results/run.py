"""What a PRM's choice is worth on recorded candidates: every file of a folder, in one table.

    python -m recipes.selection_results.run DATA/bon -o results --share gsm8k_example_model_solutions=0.2

Each file is scored and evaluated by `reasonflux-prm evaluate`; what is done is kept, so a run that was killed goes on.
In `results`: for each file NAME.json, NAME.md, NAME.svg, NAME.html and the scored candidates; then results.md and
results.json with all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from reasonflux_prm.cli.main import main as command
from reasonflux_prm.traces.write import atomic_path
from recipes.selection_results.choosing import write_chosen
from recipes.selection_results.tables import markdown


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate every file, and write the table after each."""
    args = _arguments(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    shares = dict(args.share)
    files = sorted(args.folder.glob("*.jsonl"))
    if unknown := sorted(shares.keys() - {file.stem for file in files}):
        raise SystemExit(f"--share: there is no {unknown[0]}.jsonl in {args.folder}")
    reports: dict[str, Any] = {}
    for file in files:
        chosen = args.output / f"{file.stem}.jsonl"
        n = write_chosen(file, chosen, share=shares.get(file.stem, args.default_share), most=args.problems)
        print(f"{file.stem}: {n:,} problems", file=sys.stderr, flush=True)
        rewards = [flag for name in _recorded(chosen, args.rewards) for flag in ("--rewards", name)]
        flags = ["--candidates", str(chosen), "--prm", args.prm, *rewards]
        reports[file.stem] = evaluated("custom", args.output / file.stem, flags)
        write_results(args.output, reports, f"`{args.prm}` on recorded candidates.")


def evaluated(task: str, stem: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Run `reasonflux-prm evaluate` into STEM.json, .md, .svg and .html; return the report.

    Raises:
        SystemExit: It failed; missing candidates or rewards are no failure, and the report counts them.
    """
    report = stem.with_name(f"{stem.name}.json")
    with stem.with_name(f"{stem.name}.md").open("w", encoding="utf-8") as out, redirect_stdout(out):
        code = command(
            ["evaluate", task, *flags, "-o", str(report), "--figure", str(stem.with_name(f"{stem.name}.svg"))]
        )
    if code > 1:
        raise SystemExit(code)
    command(["view", str(report), "-o", str(stem.with_name(f"{stem.name}.html")), "--title", stem.name])
    row: dict[str, Any] = json.loads(report.read_text("utf-8"))
    return row


def write_results(folder: Path, reports: Mapping[str, Any], head: str) -> None:
    """Write results.json and results.md, and print the latter."""
    text = f"{head}\n\n{markdown(reports)}"
    for name, content in (("results.json", json.dumps(reports, ensure_ascii=False) + "\n"), ("results.md", text)):
        with atomic_path(folder / name) as part:
            part.write_text(content, "utf-8")
    print(text, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of candidates files")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--prm", default="embedded", help="as `reasonflux-prm score` takes it; none for none")
    parser.add_argument("--rewards", nargs="*", default=["rm_score"], help="columns with recorded rewards")
    parser.add_argument(
        "--share", type=_share, action="append", default=[], metavar="NAME=X", help="take this share of a file"
    )
    parser.add_argument("--default-share", type=float, default=1.0, metavar="X", help="of all other files")
    parser.add_argument("--problems", type=int, metavar="N", help="at most so many of each file")
    return parser.parse_args(argv)


def _share(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    if not equals or not 0 < float(value) <= 1:
        raise argparse.ArgumentTypeError(f"expected NAME=X with X in (0, 1], got {text!r}")
    return name, float(value)


def _recorded(file: Path, columns: Sequence[str]) -> Iterator[str]:
    """Yield the columns that every candidate of the first problem has."""
    with file.open(encoding="utf-8") as lines:
        candidates = json.loads(next(lines))["candidates"]
    for name in columns:
        if all(isinstance(candidate, dict) and name in candidate for candidate in candidates):
            yield name


if __name__ == "__main__":
    main()
