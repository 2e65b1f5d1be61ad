"""What speaks against a trace by itself: verdict, length, marks, benchmarks; and duplicates among them."""

from __future__ import annotations

import json
import random

import pytest
from selection_pools import changed, dropped, ids, many, scored, select, write_pool

from reasonflux_prm.errors import DownloadError, InputError, UsageError
from reasonflux_prm.records import Trace
from reasonflux_prm.selection.decontamination import Contamination, load_benchmarks
from reasonflux_prm.selection.duplicates import PERMUTATIONS, SHINGLE
from reasonflux_prm.selection.export import Export
from reasonflux_prm.selection.settings import Bounds, Filters
from reasonflux_prm.selection.words import text_key, words


def with_response(name, response, **fields):
    return scored(name, response=[(response, 0.5)], **fields)


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_the_gate_drops_wrong_and_unknown(tmp_path):
    records = [scored("r", correct=True), scored("w", correct=False), scored("u")]
    rows, _ = select(tmp_path, records, filters=Filters(correct=True))
    assert ids(rows) == ["r"]
    assert {id: reason for id, (reason, _) in dropped(tmp_path).items()} == {"w": "wrong", "u": "no-verdict"}


def test_a_grader_judges_what_has_no_verdict_and_only_that(tmp_path):
    records = [
        with_response("right", "The answer is 42.", answer="42.0"),
        with_response("wrong", "The answer is 41.", answer="42"),
        with_response("recorded", "The answer is 41.", answer="42", correct=True),
        with_response("unreadable", "Who knows?", answer="42"),
        with_response("no-reference", "The answer is 42."),
    ]
    rows, _ = select(tmp_path, records, filters=Filters(correct=True, grader="numeric"))
    assert sorted(ids(rows)) == ["recorded", "right"]
    assert all(row["correct"] is True for row in rows)
    gone = {id: reason for id, (reason, _) in dropped(tmp_path).items()}
    assert gone == {"wrong": "wrong", "unreadable": "wrong", "no-reference": "no-verdict"}


def test_unfinished_traces_go_unless_they_are_asked_for(tmp_path):
    records = [
        scored("a"),
        changed(scored("open"), trace_thinking_closed=False),
        Trace("mute", "P", "T", "  "),
        Trace("blank", " ", "T", "R"),
    ]
    rows, _ = select(tmp_path, records, by="random")
    assert ids(rows) == ["a"]
    assert {id: reason for id, (reason, _) in dropped(tmp_path).items()} == {
        "open": "unfinished",
        "mute": "unfinished",
        "blank": "no-problem",
    }
    rows, _ = select(tmp_path, records, by="random", filters=Filters(unfinished=True))
    assert sorted(ids(rows)) == ["a", "mute", "open"]


# --- length ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high", "kept"), [(3, 5, "345"), (4, None, "4567"), (None, 2, "12"), (7, 7, "7")])
def test_bounds_hold_at_both_ends(tmp_path, low, high, kept):
    records = [Trace(str(n), f"P{n}", "x" * n, "R") for n in range(1, 8)]
    bounds = {"thinking-characters": Bounds(low, high)}
    rows, outcome = select(tmp_path, records, by="random", filters=Filters(bounds=bounds))
    assert sorted(ids(rows)) == list(kept)
    assert outcome.counts.get("too-short", 0) == (0 if low is None else low - 1)
    assert outcome.counts.get("too-long", 0) == (0 if high is None else 7 - high)


def test_a_length_that_is_out_is_told(tmp_path):
    records = [scored("a"), with_response("long", "y" * 3000)]
    select(tmp_path, records, filters=Filters(bounds={"response-characters": Bounds(1, 2999)}))
    assert dropped(tmp_path)["long"] == ("too-long", "response has 3,000 characters, more than 2,999")


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer whose tokens are words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    found = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    found.save(str(folder / "tokenizer.json"))
    return folder


def test_tokens_are_the_tokenizers(tmp_path, tokenizer):
    records = [Trace(str(n), "one two", "w " * n, "R") for n in range(1, 6)]
    bounds = {"thinking-tokens": Bounds(2, None), "total-tokens": Bounds(None, 2 + 2 + 4 + 1)}
    filters = Filters(bounds=bounds, tokenizer=str(tokenizer))
    rows, outcome = select(tmp_path, records, by="random", filters=filters)
    # problem 2, thinking n, response 1, and the two tags
    assert sorted(ids(rows)) == ["2", "3", "4"]
    assert outcome.longest_tokens == 9
    assert "The longest row has 9 tokens" in outcome.card.read_text()
    assert dropped(tmp_path)["5"][1] == "problem and turn have 10 tokens, more than 9"


def test_tokens_need_a_tokenizer(tmp_path):
    with pytest.raises(UsageError, match="--tokenizer"):
        select(tmp_path, many(4), filters=Filters(bounds={"total-tokens": Bounds(1, 5)}))
    with pytest.raises(UsageError, match=r"folder with a tokenizer\.json"):
        select(tmp_path, many(4), filters=Filters(tokenizer=str(tmp_path / "none")))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DownloadError, match="cannot be read"):
        select(tmp_path, many(4), filters=Filters(tokenizer=str(tmp_path)))


@pytest.mark.parametrize("text", ["5", "5:4", "a:b", ":", "-1:4"])
def test_bounds_are_two_numbers_in_order(text):
    with pytest.raises(ValueError, match="expected"):
        Bounds.parse(text)


# --- marks -----------------------------------------------------------------------------------------------------------


def test_marks_of_the_students_template_in_a_text_are_refused(tmp_path):
    records = [
        scored("fine"),
        scored("closing", thinking=[("so </think> is a tag", 0.5)]),
        with_response("turn", "done <|im_end|>"),
        scored("asked", problem="What does <think> do?"),
    ]
    rows, _ = select(tmp_path, records)
    assert ids(rows) == ["fine"]
    assert dropped(tmp_path)["turn"] == ("marks-in-text", "the text holds <|im_end|>, which think is cut by")
    rows, _ = select(tmp_path, records, export=Export.of("messages", "none"))
    assert sorted(ids(rows)) == ["asked", "closing", "fine"]


# --- benchmarks ------------------------------------------------------------------------------------------------------

LONG = "Ola had 12 beads. She found 5 more beads on the way home from school, and gave 3 to Pia. How many are left?"
SHORT = "What is the largest prime below 100?"
TINY = "Compute 2 + 3."


@pytest.fixture
def benchmark(tmp_path):
    problems = [{"id": "long", "problem": LONG}, {"id": "short", "problem": SHORT}, {"id": "tiny", "problem": TINY}]
    return write_pool(tmp_path / "bench.jsonl", [{**problem, "answer": "1"} for problem in problems])


def test_contaminated_problems_are_named(tmp_path, benchmark):
    records = [
        scored("same", problem=LONG.upper()),
        scored("part", problem="Yesterday she found 5 more beads on the way home, from SCHOOL and gave 3! Why?"),
        scored("eleven", problem="found 5 more beads on the way home from school and nothing else here"),
        scored("short", problem=f"{SHORT} Explain."),
        scored("tiny", problem="compute 2 + 3"),
        scored("around-tiny", problem="First compute 2 + 3, then add 4."),
    ]
    rows, outcome = select(tmp_path, records, filters=Filters(benchmarks=(str(benchmark),)))
    assert sorted(ids(rows)) == ["around-tiny", "eleven"]
    gone = dropped(tmp_path)
    assert gone["part"] == (
        "contaminated",
        "bench.jsonl long: 'she found 5 more beads on the way home from school and gave'",
    )
    assert gone["short"][1].startswith("bench.jsonl short: 'what is the largest prime below 100'")
    assert gone["tiny"][1] == "bench.jsonl tiny: 'compute 2 3'"
    assert "bench.jsonl (3 problems)" in outcome.card.read_text()


def test_n_is_the_users(tmp_path, benchmark):
    records = [scored("a"), scored("nine", problem="found 5 more beads on the way home from a shop")]
    rows, _ = select(tmp_path, records, filters=Filters(benchmarks=(str(benchmark),), ngram=9))
    assert ids(rows) == ["a"]


def test_thinking_is_searched_if_asked(tmp_path, benchmark):
    records = [scored("a"), scored("quotes", thinking=[(f"I remember: {LONG}", 0.5)])]
    assert len(select(tmp_path, records, filters=Filters(benchmarks=(str(benchmark),)))[0]) == 2
    rows, _ = select(tmp_path, records, filters=Filters(benchmarks=(str(benchmark),), whole_trace=True))
    assert ids(rows) == ["a"]


def test_a_task_is_read_from_a_local_file(tmp_path):
    row = {"id": "7", "Body": "Each pack of dvds costs 76 dollars", "Question": "What are 3 packs worth now?"}
    file = write_pool(tmp_path / "svamp.jsonl", [{**row, "Equation": "", "Answer": 228, "Type": "x"}])
    (found,) = load_benchmarks([f"svamp={file}"])
    hit = Contamination([found], 13).find(Trace("t", "each pack of dvds costs 76 dollars. what are 3 packs worth now?"))
    assert hit is not None
    assert (hit.benchmark, hit.problem) == ("svamp", found.problems[0].id)


@pytest.mark.parametrize("name", ["nonsense", "nonsense=x.jsonl"])
def test_an_unknown_benchmark_is_named_with_those_there_are(name):
    with pytest.raises(UsageError, match=r"nonsense.*gsm8k"):
        load_benchmarks([name])


def test_a_problem_without_words_is_refused(tmp_path):
    file = write_pool(tmp_path / "b.jsonl", [{"id": "x", "problem": "???", "answer": "1"}])
    with pytest.raises(InputError, match="made of words"):
        Contamination(load_benchmarks([str(file)]), 13)


def test_words_of_scripts_without_spaces():
    assert words("求123と456の和。") == ["求", "123", "と", "456", "の", "和"]
    assert words("Ｆｕｌｌ　width É") == ["full", "width", "é"]


def test_random_overlaps_are_found_wherever_they_stand():
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(500)]
    for _ in range(200):
        problem = rng.choices(vocabulary, k=30)
        start, length = rng.randrange(18), rng.choice([12, 13])
        text = rng.choices(["a", "b"], k=rng.randrange(5)) + problem[start : start + length] + ["end"]
        file = Contamination([_benchmark(" ".join(problem))], 13)
        assert (file.find(Trace("t", " ".join(text))) is not None) == (length == 13)


def _benchmark(problem):
    from reasonflux_prm.evaluation.tasks.base import Problem
    from reasonflux_prm.selection.decontamination import Benchmark

    return Benchmark("b", [Problem("p", problem)])


# --- duplicates ------------------------------------------------------------------------------------------------------


def test_of_equal_texts_the_best_ranked_stays(tmp_path):
    one = scored("low", 0.2, thinking=[("Same  text\n", 0.1)], problem="P", response=[("R", 0.1)])
    two = scored("high", 0.9, thinking=[("same text", 0.1)], problem="p ", response=[("r", 0.1)])
    other = scored("other", 0.1)
    rows, _ = select(tmp_path, [one, two, other])
    assert ids(rows) == ["high", "other"]
    assert dropped(tmp_path)["low"] == ("duplicate", "the same text as high")
    assert len(select(tmp_path, [one, two, other], filters=Filters(duplicates=True))[0]) == 3


def test_parts_are_not_run_together():
    assert text_key("a b", "c") != text_key("a", "b c")


def variants(seed=0, words_each=120):
    """Ten texts, and of each three that differ in 1, 6 or 60 of its words in a row."""
    rng = random.Random(seed)
    records = []
    for i in range(10):
        base = [f"w{rng.randrange(5000)}" for _ in range(words_each)]
        for k, changes in enumerate((0, 1, 6, 60)):
            text = [f"x{i}{k}{j}" if j < changes else word for j, word in enumerate(base)]
            records.append(
                scored(f"b{i}v{k}", rng.random(), problem="p", thinking=[(" ".join(text), 0.5)], response=[("r", 0.5)])
            )
    return records


def jaccard(a, b):
    def shingles(record):
        found = words("\n".join((record.trace.problem, record.trace.thinking, record.trace.response)))
        return {tuple(found[i : i + SHINGLE]) for i in range(len(found) - SHINGLE + 1)}

    x, y = shingles(a), shingles(b)
    return len(x & y) / len(x | y)


def test_near_duplicates_are_those_of_the_true_similarity(tmp_path):
    records = {record.trace.id: record for record in variants()}
    rows, _ = select(tmp_path, records.values(), filters=Filters(near_duplicates=0.7))
    kept, gone = ids(rows), dropped(tmp_path)
    spread = 3.5 * (0.7 * 0.3 / PERMUTATIONS) ** 0.5
    for id, (reason, detail) in gone.items():
        other = detail.split()[-1]
        assert reason == "near-duplicate"
        assert other in kept
        assert records[other].reward > records[id].reward
        assert jaccard(records[id], records[other]) > 0.7 - spread
    for id in kept:
        better = [other for other in kept if records[other].reward > records[id].reward]
        assert all(jaccard(records[id], records[other]) < 0.7 + spread for other in better)
    assert 20 <= len(kept) < 30


def test_near_duplicates_need_datasketch(tmp_path, monkeypatch):
    import sys

    from reasonflux_prm.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingExtra, match=r"reasonflux-prm\[select\]"):
        select(tmp_path, many(4), filters=Filters(near_duplicates=0.7))


def test_refused_records_are_beside_the_output(tmp_path):
    pool = write_pool(tmp_path / "x.jsonl", many(4))
    with pool.open("a") as stream:
        stream.write("{broken\n" + json.dumps({"status": "scored", "prm": {}, "steps": [], "id": "bad"}) + "\n")
    from reasonflux_prm.selection.run import run_selection
    from reasonflux_prm.selection.settings import Selection
    from reasonflux_prm.traces.resumable import Input

    outcome = run_selection(Input(str(pool)), tmp_path / "out.jsonl", Selection())
    assert (outcome.kept, outcome.rejects) == (4, 2)
    assert len((tmp_path / "out.rejects.jsonl").read_text().splitlines()) == 2
