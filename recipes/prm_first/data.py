"""Step-labelled trees for the first embedded PRM, from the reference solutions of GSM8K's training problems.

Each problem gives one tree: the right steps, and branches that leave them at some step, wrong (label 0) or right but
written differently (label 1). A style is drawn for each problem and applied to all its steps alike, so that style says
nothing about labels.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

from recipes.prm_first.calc import Calc, Line, Num, Token, last_calc, numbers_in, parse_line, to_fraction
from recipes.prm_first.corrupt import Scene, carry_on, equivalent_version, misstated, slip, wrong_version
from recipes.prm_first.giveaway import giveaway_auc

FINALS = (
    "#### {}",
    "The answer is {}.",
    "A: {}",
    "\\boxed{{{}}}",
    "Therefore, the final answer is \\boxed{{{}}}.",
)
LEADS = ("So, ", "Then, ", "Now, ", "Therefore, ")
THOUGHTS = ("Okay, so ", "Hmm, ", "Let me see. ", "Wait, let me check: ", "Alright, ", "Let me think. ")
_LOWER = re.compile(
    r"(?:the|he|she|they|there|it|this|in|so|each|since|that|then|if|for|before|after|her|his|their|to|all|a|an|at|when|"
    r"next|you|we|one|both|another|on|from|with|by|because|now|thus|therefore|hence|altogether|over|out|as|first)\b",
    re.IGNORECASE,
)
_LEAD_SHARE = 0.06
_VARIANT_SHARE = 0.25
_REPEAT_SHARE = 0.10


@dataclass(frozen=True, slots=True)
class Style:
    """How all steps of one tree are written."""

    marks: bool
    number: str
    times: str
    spaced: bool
    final: str
    joiner: str
    thoughts: float
    """Share of steps that open with a thinking phrase."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Steps that replace the right ones from `at` on; the first of them has the label."""

    at: int
    lines: tuple[Line | str, ...]
    complete: bool
    label: int
    kind: str


def draw_style(thinking: bool, rng: Random) -> Style:
    """Draw the style of one tree."""
    times = rng.choices(["*", "x", "×", "\\times"], [0.4, 0.25, 0.15, 0.2])[0]
    return Style(
        marks=times != "\\times" and rng.random() < 0.375,
        number=rng.choices(["", "{}. ", "Step {}: "], [0.6, 0.2, 0.2])[0],
        times=times,
        spaced=rng.random() < 0.7,
        final=rng.choices(FINALS, [0.2, 0.2, 0.1, 0.2, 0.3])[0],
        joiner=rng.choice(["\n", "\n\n"]),
        thoughts=0.35 if thinking and rng.random() < 0.5 else 0.0,
    )


class Writer:
    """Renders steps in one style; draws lead-ins the same way for every step, right or wrong."""

    def __init__(self, style: Style, rng: Random) -> None:
        self.style, self.rng = style, rng

    def step(self, line: Line, at: int, bare: float = 0.06) -> str:
        """Write step `at` (counted from 0); `bare` is the chance that it is written without its words."""
        calc, draw = last_calc(line), self.rng.random()
        text = "".join(piece if isinstance(piece, str) else self._calc(piece) for piece in map(self._latex, line))
        if calc and calc.shown and draw < bare:
            text = self._calc(calc)
        elif draw > 1 - _LEAD_SHARE and not text.startswith(("So", "Then", "Now", "Therefore", "Thus", "Hence")):
            text = self.rng.choice(LEADS) + _lowered(text)
        elif self.rng.random() < self.style.thoughts:
            thought = self.rng.choice(THOUGHTS)
            text = thought + (text if thought.endswith((". ", ": ")) else _lowered(text))
        text = re.sub(r"\s+", " ", text).strip()
        return self.style.number.format(at + 1) + text

    def final(self, value: str) -> str:
        """Write the closing step."""
        return self.style.final.format(value)

    def _latex(self, piece: str | Calc) -> str | Calc:
        if isinstance(piece, str) and self.style.times == "\\times":
            return piece.replace("$", "\\$")
        return piece

    def _calc(self, calc: Calc) -> str:
        latex = self.style.times == "\\times"
        sign = ("\\$" if latex else "$") if calc.currency else ""
        mark = f"<<{_plain(calc.tokens)}={calc.result.replace(',', '')}>>" if self.style.marks else ""
        if not calc.shown:
            return f"{mark}{sign}{calc.result}"
        gap = " " if self.style.spaced else ""
        expression = self._expression(calc.tokens, gap)
        if calc.via:
            expression += f"{gap}={gap}{self._expression(calc.via, gap)}"
        if latex:
            return f"${expression}{gap}={gap}{sign}{calc.result}$"
        return f"{expression}{gap}={gap}{sign}{mark}{calc.result}"

    def _expression(self, tokens: Sequence[Token], gap: str) -> str:
        return "".join(self._token(token, tokens[:i], gap) for i, token in enumerate(tokens))

    def _token(self, token: Token, before: Sequence[Token], gap: str) -> str:
        if isinstance(token, Num):
            text = f"{'$' if token.currency else ''}{token.text}{'%' if token.percent else ''}"
            return re.sub(r"([$%])", r"\\\1", text) if self.style.times == "\\times" else text
        if token in "()":
            return token
        if token in "+-" and (not before or before[-1] == "("):
            return token
        if token == "*" and self.style.times != "*":
            return f" {self.style.times} "
        return f"{gap}{token}{gap}"


def _plain(tokens: Sequence[Token]) -> str:
    written = ""
    for token in tokens:
        text = token if isinstance(token, str) else token.text.replace(",", "")
        if isinstance(token, Num) and token.percent:
            text = f"({text}*.01)" if written.endswith("/") else f"{text}*.01"
        written += text
    return written


def _lowered(text: str) -> str:
    word = _LOWER.match(text)
    return word[0].lower() + text[word.end() :] if word else text


def build_tree(record: Mapping[str, Any], typical: Mapping[Fraction, int], rng: Random) -> dict[str, Any] | None:
    """Build one problem's tree; None if the reference solution cannot be read or contradicts itself."""
    *texts, closing = record["solution"].strip().split("\n")
    lines = [parse_line(text.strip()) for text in texts if text.strip()]
    answer = closing.replace("####", "").strip().replace("$", "")
    gold = [line for line in lines if line is not None]
    if not gold or len(gold) != len(lines) or not re.fullmatch(r"-?[\d,.]+", answer):
        return None
    thinking = rng.random() < 0.35
    style = draw_style(thinking, rng)
    writer = Writer(style, rng)
    branches = _branches(gold, answer, tuple(numbers_in(record["problem"])), typical, rng)
    return {
        "id": record["id"],
        "problem": record["problem"],
        "answer": record["answer"],
        "style": asdict(style),
        "part": "thinking" if thinking else "response",
        "gold": [writer.step(line, i) for i, line in enumerate(gold)],
        "final": writer.final(answer),
        "branches": [_branch_row(branch, writer) for branch in branches],
    }


def _branch_row(branch: Branch, writer: Writer) -> dict[str, Any]:
    # Without its words, a right calculation of something else could be right: those kinds keep them.
    bare = 0.06 if branch.label else 0.12 if branch.kind == "arithmetic" else 0.0
    steps = [
        writer.final(line) if isinstance(line, str) else writer.step(line, branch.at + i, 0.06 if i else bare)
        for i, line in enumerate(branch.lines)
    ]
    return {
        "at": branch.at,
        "steps": steps,
        "complete": branch.complete,
        "label": branch.label,
        "kind": branch.kind,
    }


def _branches(
    gold: Sequence[Line], answer: str, given: tuple[Fraction, ...], typical: Mapping[Fraction, int], rng: Random
) -> list[Branch]:
    results = [[piece.value for piece in line if isinstance(piece, Calc)] for line in gold]
    wrong: list[Branch] = []
    for at, line in enumerate(gold):
        scene = Scene(given, tuple(value for row in results[:at] for value in row), typical)
        version = wrong_version(line, scene, rng)
        if version:
            wrong.append(Branch(at, (version[0],), False, 0, version[1]))
        elif quoted := misstated(line, scene, rng):
            wrong.append(Branch(at, (quoted,), False, 0, "misstated"))
    wrong = _complete_one(wrong, gold, answer, given, results, rng)
    wrong = [_varied(branch, rng) for branch in wrong]
    if rng.random() < 0.35:
        wrong.append(Branch(len(gold), (_wrong_final(answer, results, typical, rng),), True, 0, "final"))
    if len(gold) > 2 and rng.random() < _REPEAT_SHARE:
        at = rng.randint(1, len(gold) - 1)
        wrong.append(Branch(at, (gold[rng.randint(0, at - 1)],), False, 0, "repeat"))
    return wrong + _right(gold, rng)


def _varied(branch: Branch, rng: Random) -> Branch:
    """Write some wrong calculations the other way too, or only right steps would have such forms."""
    first = branch.lines[0]
    version = equivalent_version(first, rng) if isinstance(first, tuple) and rng.random() < _VARIANT_SHARE else None
    return replace(branch, lines=(version[0], *branch.lines[1:])) if version else branch


def _complete_one(
    wrong: list[Branch],
    gold: Sequence[Line],
    answer: str,
    given: Sequence[Fraction],
    results: Sequence[Sequence[Fraction]],
    rng: Random,
) -> list[Branch]:
    """Carry one wrong step, drawn with a preference for early ones, on to a wrong final answer."""
    order = sorted(range(len(wrong)), key=lambda i: rng.random() * (i + 1))
    for i in order:
        branch = wrong[i]
        line = branch.lines[0]
        old, new = last_calc(gold[branch.at]), last_calc(line) if isinstance(line, tuple) else None
        if old is None or new is None:
            continue
        taken = [*given, *(value for row in results[: branch.at] for value in row), *results[branch.at][:-1]]
        if branch.at == len(gold) - 1:
            changed = {old.value: new.value}
            after: list[Line] = []
        else:
            carried = carry_on(gold[branch.at + 1 :], old.value, new.value, taken)
            if carried is None:
                continue
            after, changed = carried
        last = last_calc(after[-1] if after else line if isinstance(line, tuple) else gold[-1])
        if to_fraction(answer) not in changed or last is None or last.value != changed[to_fraction(answer)]:
            continue
        whole = re.sub(r"\.0+$", "", last.result)
        done = Branch(branch.at, (line, *after, whole), True, 0, branch.kind)
        return [*wrong[:i], done, *wrong[i + 1 :]]
    return wrong


def _wrong_final(
    answer: str, results: Sequence[Sequence[Fraction]], typical: Mapping[Fraction, int], rng: Random
) -> str:
    values = {value for row in results for value in row if value != to_fraction(answer) and value.denominator == 1}
    if values and rng.random() < 0.6:
        return str(int(rng.choice(sorted(values))))
    return slip(answer, typical, rng) if not answer.startswith("-") else answer[1:]


def _right(gold: Sequence[Line], rng: Random) -> list[Branch]:
    found = []
    for at, line in enumerate(gold):
        version = equivalent_version(line, rng)
        if version:
            found.append(Branch(at, (version[0],), False, 1, version[1]))
    if not found:
        return []
    picked = [rng.choice(found)]
    if len(found) > 2 and rng.random() < 0.3:
        picked.append(rng.choice([branch for branch in found if branch.at != picked[0].at]))
    return picked


def result_counts(records: Iterable[Mapping[str, Any]]) -> Counter[Fraction]:
    """Count how often each value is the result of a calculation."""
    lines = (parse_line(text) or () for record in records for text in record["solution"].split("\n"))
    return Counter(piece.value for line in lines for piece in line if isinstance(piece, Calc))


def build_trees(
    records: Iterable[Mapping[str, Any]], typical: Mapping[Fraction, int], seed: int
) -> Iterator[dict[str, Any]]:
    """Build all trees; a problem's tree depends on its record, `typical` and the seed, not on its neighbours."""
    for record in records:
        tree = build_tree(record, typical, Random(f"{seed}:{record['id']}"))
        if tree is not None:
            yield tree


def main(argv: Sequence[str] | None = None) -> None:
    """Write the trees of a GSM8K training file and print what they hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", type=Path, help="GSM8K train, JSON lines with id, problem, answer, solution")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    records = [json.loads(line) for line in args.problems.read_text(encoding="utf-8").splitlines()]
    Random(args.seed).shuffle(records)
    typical = result_counts(records)
    trees = list(build_trees(records[: args.limit], typical, args.seed))
    text = "".join(json.dumps(tree, ensure_ascii=False) + "\n" for tree in trees)
    args.output.write_text(text, encoding="utf-8")
    kinds = Counter((b["label"], b["kind"], b["complete"]) for tree in trees for b in tree["branches"])
    print(
        f"{len(trees)} trees of {len(records[: args.limit])} problems, {sum(len(t['gold']) for t in trees)} right steps"
    )
    for (label, kind, complete), n in sorted(kinds.items()):
        print(f"  label {label}  {kind:12} {'complete' if complete else '':9} {n}")
    for name, auc in giveaway_auc(trees, args.seed).items():
        print(f"  AUC of wrong steps from surface alone, {name}: {auc:.3f}")


if __name__ == "__main__":
    main()
