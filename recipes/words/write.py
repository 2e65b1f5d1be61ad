r"""Word problems with worked solutions, made of story templates, in the form of GSM8K's training file.

    python -m recipes.words.write -o words.jsonl --count 4000 --seed 0           # problems to learn from
    python -m recipes.words.write -o words-dev.jsonl --count 400 --seed 0 --dev  # of stories that the first never tells

A row has `id, problem, answer, solution, source`; calculations of a solution carry GSM8K's marks (`<<12+5=17>>`), so
what reads GSM8K train reads these. `others` holds the solutions of what else the story could have asked, where the
answer is another one. A tenth of the stories is set aside, by a hash of their file and place. The format of the
templates is in `recipes/words/README.md`. Nothing of any data set is in them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from reasonflux_prm.traces.write import atomic_path

STORIES: Final = Path(__file__).with_name("stories")
LISTS: Final[Mapping[str, list[str]]] = {
    name: text.split()
    for name, text in tomllib.loads(Path(__file__).with_name("lists.toml").read_text("utf-8")).items()
}
LARGEST: Final = 2000
LEAST: Final = 2
"""Of a result, so that plurals are right."""
TRIES: Final = 4000

_CALCULATION = re.compile(r"\[(\w+)\s*([-+*/])\s*(\w+)(?:\s*=\s*([a-z]))?\]")
_SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
_PRONOUNS: Final = ({"he": "she", "him": "her", "his": "her"}, {"he": "he", "him": "him", "his": "his"})


class StoryError(ValueError):
    """A story that cannot be told, and why."""


class Story(NamedTuple):
    """A template: `[[story]]` of a TOML file, with its name (file and place)."""

    name: str
    numbers: Mapping[str, tuple[int, int]]
    words: Mapping[str, list[str]]
    body: str
    extra: list[str]
    questions: list[list[str]]

    @property
    def dev(self) -> bool:
        """Whether the story is set aside."""
        return hashlib.sha256(self.name.encode()).digest()[0] < 26


def read_stories(path: Path) -> list[Story]:
    """Read the stories of one file.

    Raises:
        StoryError: If a table lacks a field or has one that no story has.
    """
    stories: list[Story] = []
    for place, table in enumerate(tomllib.loads(path.read_text("utf-8"))["story"]):
        name = f"{path.stem}-{place}"
        unknown = set(table) - {*Story._fields[1:]}
        if unknown or not {"numbers", "body", "questions"} <= set(table):
            raise StoryError(f"{name}: expected numbers, body and questions (and words, extra), found {sorted(table)}")
        numbers = {letter: (low, high) for letter, (low, high) in table["numbers"].items()}
        stories.append(
            Story(name, numbers, table.get("words", {}), table["body"], table.get("extra", []), table["questions"])
        )
    return stories


def value(a: int, sign: str, b: int) -> int | None:
    """Return `a sign b`; None if it is no whole number from 1 to `LARGEST`."""
    exact = a // b if b and a % b == 0 else 0
    found = {"+": a + b, "-": a - b, "*": a * b, "/": exact}[sign]
    return found if 1 <= found <= LARGEST else None


def work_out(lines: list[str], numbers: Mapping[str, int]) -> tuple[list[str], int] | None:
    """Return the lines with their calculations written out, and the last result.

    Returns:
        None if a result is no whole number from 2 to `LARGEST` (so that plurals are right).

    Raises:
        StoryError: If a line has not exactly one calculation, or one of an unknown number.
    """
    known, written, result = dict(numbers), list[str](), 0
    for line in lines:
        found = list(_CALCULATION.finditer(line))
        if len(found) != 1:
            raise StoryError(f"expected one calculation in a line of a solution, found {len(found)}: {line!r}")
        place = found[0]
        left, sign, right, name = place.groups()
        try:
            a, b = (int(operand) if operand.isdigit() else known[operand] for operand in (left, right))
        except KeyError as error:
            raise StoryError(f"{error} is no number that is known in {line!r}") from None
        result = value(a, sign, b) or 0
        if result < LEAST:
            return None
        if name:
            known[name] = result
        text = f"{a} {sign} {b} = <<{a}{sign}{b}={result}>>{result}"
        before, after = line[: place.start()], line[place.end() :]
        written.append(f"{before}{text}{after}")
    return written, result


def draw_numbers(story: Story, lines: list[str], rng: random.Random) -> tuple[dict[str, int], list[str], int]:
    """Draw the story's numbers until the solution works out."""
    for _ in range(TRIES):
        numbers = {letter: rng.randint(low, high) for letter, (low, high) in story.numbers.items()}
        if len(set(numbers.values())) == len(numbers) and (done := work_out(lines, numbers)):
            return numbers, *done
    raise StoryError(f"none of {TRIES} draws of the numbers works out: {lines}")


def draw_words(story: Story, rng: random.Random) -> dict[str, tuple[str, Mapping[str, str]]]:
    """Draw names and words: slot to its text, and its pronouns where it is a person."""
    slots: dict[str, tuple[str, Mapping[str, str]]] = {}
    taken: set[str] = set()
    for slot in ("A", "B", "C"):
        male = rng.randrange(2)
        slots[slot] = (_fresh(LISTS["male" if male else "female"], taken, rng), _PRONOUNS[male])
    for slot in dict.fromkeys(("x", "y", *story.words)):
        slots[slot] = (_fresh(story.words.get(slot, LISTS["owned"]), taken, rng), {})
    return slots


def _fresh(choices: list[str], taken: set[str], rng: random.Random) -> str:
    left = [choice for choice in choices if choice not in taken]
    if not left:
        raise StoryError(f"all of {choices} are taken by other slots")
    chosen = rng.choice(left)
    taken.add(chosen)
    return chosen


def fill(text: str, numbers: Mapping[str, int], words: Mapping[str, tuple[str, Mapping[str, str]]]) -> str:
    """Return a text with its slots filled in.

    Raises:
        StoryError: If there is no such slot.
    """

    def filled(match: re.Match[str]) -> str:
        slot, form = match.groups()
        if form is not None and slot in words and form.lower() in words[slot][1]:
            pronoun = words[slot][1][form.lower()]
            return pronoun.capitalize() if form[0].isupper() else pronoun
        if form is None and slot in numbers:
            return str(numbers[slot])
        if form is None and slot in words:
            return words[slot][0]
        raise StoryError(f"no such slot: {match[0]} in {text!r}")

    done = _SLOT.sub(filled, text)
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), done)


def tell(story: Story, question: int, rng: random.Random) -> dict[str, Any]:
    """Return one problem of a story.

    Raises:
        StoryError: If the story cannot be told.
    """
    try:
        asked, *lines = story.questions[question]
        numbers, worked, answer = draw_numbers(story, lines, rng)
        words = draw_words(story, rng)
        told = [story.body, *(sentence for sentence in story.extra if rng.random() < 0.5), asked]
        problem = " ".join(fill(text, numbers, words) for text in told)
        solutions = {str(answer): [fill(line, numbers, words) for line in worked]}
        for _, *lines in story.questions:
            if other := work_out(lines, numbers):
                solutions.setdefault(str(other[1]), [fill(line, numbers, words) for line in other[0]])
    except StoryError as error:
        raise StoryError(f"{story.name}, question {question}: {error}") from None
    written = ["\n".join([*lines, f"#### {result}"]) for result, lines in solutions.items()]
    return {"problem": problem, "answer": str(answer), "solution": written[0], "others": written[1:]}


def problems(stories: list[Story], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield different problems, each question of each story as often as any other."""
    rng = random.Random(seed)
    places = [(story, question) for story in stories for question in range(len(story.questions))]
    seen: set[str] = set()
    while len(seen) < count:
        before = len(seen)
        rng.shuffle(places)
        for story, question in places[: count - len(seen)]:
            row = tell(story, question, rng)
            if row["problem"] not in seen:
                seen.add(row["problem"])
                yield {"id": f"{story.name}-{question}-{len(seen)}", **row, "source": "words"}
        if len(seen) == before:
            raise SystemExit(f"expected {count} different problems, and found no more than {before}")


def check(path: Path) -> int:
    """Tell every question of a file some times, print what cannot be told, and return how many."""
    failed = 0
    for story in read_stories(path):
        for question in range(len(story.questions)):
            rng = random.Random(0)
            try:
                rows = [tell(story, question, rng) for _ in range(20)]
                if question == 0:
                    print(f"{story.name}: {rows[0]['problem']}\n    {rows[0]['solution']}".replace("\n", "\n    "))
            except StoryError as error:
                failed += 1
                print(f"ERROR {error}")
    print(f"{failed} questions cannot be told")
    return failed


def main() -> None:
    """Write problems, or check a file of stories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dev", action="store_true", help="of the stories that are set aside")
    parser.add_argument("--check", type=Path, help="a file of stories to check instead")
    args = parser.parse_args()
    if args.check:
        raise SystemExit(min(1, check(args.check)))
    if args.output is None:
        parser.error("expected -o FILE or --check FILE")
    stories = [story for path in sorted(STORIES.glob("*.toml")) for story in read_stories(path)]
    chosen = [story for story in stories if story.dev == args.dev]
    with atomic_path(args.output) as part, part.open("w", encoding="utf-8") as stream:
        for row in problems(chosen, args.count, args.seed):
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{args.count} problems of {len(chosen)} stories, {len(stories) - len(chosen)} others set apart")


if __name__ == "__main__":
    main()
