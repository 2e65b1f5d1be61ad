"""The trees that the first embedded PRM is trained on: every label is checked again from the written text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest

from recipes.prm_first.calc import (
    Calc,
    Num,
    evaluate,
    last_calc,
    parse_line,
    replace_numbers,
    to_fraction,
    tokenize,
    write_number,
)
from recipes.prm_first.corrupt import KINDS, Scene, carry_on, equivalent_version, slip, wrong_version
from recipes.prm_first.data import build_tree, build_trees, draw_style, main, result_counts

TRAIN = Path(__file__).parents[2] / "shared/data/problems/gsm8k_train.jsonl"

ANA = {
    "id": "made-0",
    "problem": "Ana sold 46 pots in May and half as many in June. Each pot costs $5. How much did she earn?",
    "answer": "345",
    "solution": "In June Ana sold 46/2 = <<46/2=23>>23 pots.\nShe sold 46+23 = <<46+23=69>>69 pots in both months.\n"
    "She earned 69 x $5 = $<<69*5=345>>345.\n#### 345",
}


def scene(*given: int, earlier: tuple[int, ...] = ()) -> Scene:
    return Scene(tuple(map(Fraction, given)), tuple(map(Fraction, earlier)), {})


def parsed(text: str) -> Any:
    line = parse_line(text)
    assert line is not None
    return line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+2*5", 12),
        ("(2+2) x 5", 20),
        ("$1,200 / 4", 300),
        ("50% * 30", 15),
        (".5×8", 4),
        ("10 – 4", 6),
        ("+3+4", 7),
        ("1/0", None),
        ("2**3", None),
        ("2 3", None),
        ("", None),
    ],
)
def test_expressions_are_computed_exactly(text: str, value: int | None) -> None:
    tokens = tokenize(text)
    assert tokens is not None
    assert evaluate(tokens) == value


def test_an_expression_of_anything_else_is_refused() -> None:
    assert tokenize("__import__('os')") is None


def test_a_line_gives_its_text_and_its_calculation() -> None:
    line = parsed("She earned 69 x $5 = $<<69*5=345>>345 in all.")
    assert line == ("She earned ", Calc((Num("69"), "*", Num("5", True)), "345", True, True), " in all.")


def test_a_line_with_units_in_the_expression_keeps_its_text() -> None:
    line = parsed("35 people * 2 bags/person = <<35*2=70>>70 bags")
    assert line[0] == "35 people * 2 bags/person = "
    assert last_calc(line) == Calc((Num("35"), "*", Num("2")), "70", False, False)


@pytest.mark.parametrize("text", ["2+2 = <<2+2=5>>5", "2+2 = <<2+2=4>> apples", "<<a+b=c>>4"])
def test_a_mark_that_is_wrong_or_unreadable_is_refused(text: str) -> None:
    assert parse_line(text) is None


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (Fraction(1234), "5,000", "1,234"),
        (Fraction(18), "144.00", "18.00"),
        (Fraction(5, 2), "7", "2.5"),
        (Fraction(1, 3), "7", None),
    ],
)
def test_numbers_are_written_as_their_model(value: Fraction, like: str, text: str | None) -> None:
    assert write_number(value, like) == text


def test_only_free_standing_numbers_are_rewritten() -> None:
    text = "5 boxes, 15 bags, 5.5 kg, 2/5 and x5; then 5."
    assert replace_numbers(text, {Fraction(5): Fraction(6)}) == "6 boxes, 15 bags, 5.5 kg, 2/5 and x5; then 6."


@pytest.mark.parametrize("text", ["7", "10", "345", "1,200", "12.50", "0.05", "144.00", "999", "1"])
def test_a_slip_is_another_positive_number_of_the_same_form(text: str) -> None:
    for seed in range(200):
        wrong = slip(text, {}, Random(seed))
        assert to_fraction(wrong) != to_fraction(text)
        assert to_fraction(wrong) > 0
        assert len(wrong.partition(".")[2]) == len(text.partition(".")[2])
        assert (to_fraction(wrong).denominator == 1) == (to_fraction(text).denominator == 1)


def test_a_slip_prefers_results_that_are_common() -> None:
    drawn = [slip("7", {Fraction(8): 1000}, Random(seed)) for seed in range(100)]
    assert drawn.count("8") > 80


def test_only_arithmetic_slips_state_a_result_that_the_expression_does_not_have() -> None:
    line = parsed("He has 12 + 5 * 60 = <<12+5*60=312>>312 left.")
    seen = set()
    for seed in range(300):
        version = wrong_version(line, scene(12, 5, 9, 60, earlier=(12, 33)), Random(seed))
        assert version is not None
        calc = last_calc(version[0])
        assert calc is not None
        assert calc.value != 312
        right_sum = evaluate(calc.tokens) == calc.value
        assert right_sum == (version[1] not in ("arithmetic", "precedence"))
        seen.add(version[1])
    assert seen <= set(KINDS)
    assert {"arithmetic", "operator", "operand", "stale", "misread", "forgotten", "conversion", "precedence"} <= seen


def test_a_wrong_value_is_used_in_all_that_follows() -> None:
    lines = [parsed("She sold 46+23 = <<46+23=69>>69 pots."), parsed("So 69 pots give 69*5 = $<<69*5=345>>345.")]
    carried = carry_on(lines, Fraction(23), Fraction(24), [Fraction(46), Fraction(5)])
    assert carried is not None
    (first, second), changed = carried
    assert last_calc(first) == Calc((Num("46"), "+", Num("24")), "70", False, True)
    assert second[0] == "So 70 pots give "
    assert changed == {23: 24, 69: 70, 345: 350}


@pytest.mark.parametrize(
    ("text", "new", "taken"),
    [
        ("46-23 = <<46-23=23>>23 left", 50, [46]),  # would be negative
        ("23/23 = <<23/23=1>>1 each of 23 = 23", 24, [23]),  # 23 also stands in the problem
        ("46/23 = <<46/23=2>>2 each", 24, [46]),  # a fraction of something that was whole
    ],
)
def test_a_wrong_value_that_leads_to_nonsense_is_not_carried_on(text: str, new: int, taken: list[int]) -> None:
    assert carry_on([parsed(text)], Fraction(23), Fraction(new), list(map(Fraction, taken))) is None


def test_an_equivalent_version_has_the_same_value_and_another_form() -> None:
    line = parsed("It takes 3*20/4 + 7 = <<3*20/4+7=22>>22 days.")
    kinds = set()
    for seed in range(50):
        version = equivalent_version(line, Random(seed))
        assert version is not None
        calc = last_calc(version[0])
        assert calc is not None
        assert calc != last_calc(line)
        assert evaluate(calc.tokens) == calc.value == 22
        assert not calc.via or evaluate(calc.via) == 22
        kinds.add(version[1])
    assert "expanded" in kinds


def test_a_tree_has_the_documented_form() -> None:
    tree = build_tree(ANA, result_counts([ANA]), Random(0))
    assert tree is not None
    assert set(tree) == {"id", "problem", "answer", "style", "part", "gold", "final", "branches"}
    assert len(tree["gold"]) == 3
    assert "345" in tree["final"]
    for branch in tree["branches"]:
        assert set(branch) == {"at", "steps", "complete", "label", "kind"}
        assert 0 <= branch["at"] <= len(tree["gold"])
        assert branch["label"] in (0, 1)
        if branch["complete"]:
            assert branch["at"] + len(branch["steps"]) == len(tree["gold"]) + 1
        else:
            assert len(branch["steps"]) == 1


def test_trees_do_not_depend_on_their_neighbours() -> None:
    other = {**ANA, "id": "made-1"}
    counts = result_counts([ANA, other])
    both = list(build_trees([ANA, other], counts, 3))
    assert both[1:] == list(build_trees([other], counts, 3))
    assert both[0]["branches"] != both[1]["branches"] or both[0]["style"] != both[1]["style"]


def test_a_solution_that_contradicts_itself_gives_no_tree() -> None:
    wrong = {**ANA, "solution": "46/2 = <<46/2=22>>22\n#### 22"}
    assert list(build_trees([wrong], {}, 0)) == []


def test_styles_are_drawn_in_their_shares() -> None:
    rng = Random(0)
    styles = [draw_style(thinking=True, rng=rng) for _ in range(2000)]
    assert 0.25 < sum(style.marks for style in styles) / 2000 < 0.35
    assert 0.45 < sum(style.thoughts > 0 for style in styles) / 2000 < 0.55
    assert all(not style.marks for style in styles if style.times == "\\times")


@pytest.fixture(scope="module")
def trees() -> list[Mapping[str, Any]]:
    if not TRAIN.exists():
        pytest.skip("the GSM8K training problems are not here")
    records = [json.loads(line) for line in TRAIN.read_text(encoding="utf-8").splitlines()[:400]]
    return list(build_trees(records, result_counts(records), 0))


def _marked(step: str) -> tuple[Fraction | None, Fraction] | None:
    marks = re.findall(r"<<([^<>=]*)=([^<>]*)>>", step)
    if not marks:
        return None
    tokens = tokenize(marks[-1][0])
    assert tokens is not None
    return evaluate(tokens), to_fraction(marks[-1][1])


def test_every_label_holds_when_read_back_from_the_marks(trees: list[Mapping[str, Any]]) -> None:
    checked = {0: 0, 1: 0}
    for tree in trees:
        for branch in tree["branches"]:
            if branch["at"] == len(tree["gold"]) or branch["kind"] in ("repeat", "misstated"):
                continue
            old, new = _marked(tree["gold"][branch["at"]]), _marked(branch["steps"][0])
            if old is None or new is None:
                continue
            checked[branch["label"]] += 1
            if branch["label"] == 1:
                assert new[1] == old[1]
                assert new[0] == old[0]
            else:
                assert new[1] != old[1]
                if branch["kind"] not in ("arithmetic", "precedence"):
                    assert new[0] is not None
                    assert abs(new[0] - new[1]) <= Fraction(1, 100)
    assert min(checked.values()) > 80


def test_every_complete_branch_ends_in_a_wrong_answer(trees: list[Mapping[str, Any]]) -> None:
    complete = [(tree, branch) for tree in trees for branch in tree["branches"] if branch["complete"]]
    assert len(complete) > len(trees)
    for tree, branch in complete:
        opening, closing = tree["style"]["final"].split("{}") if "{{" not in tree["style"]["final"] else ("{", "}")
        said = branch["steps"][-1]
        value = said[said.index(opening) + len(opening) :] if opening else said
        value = value.split("}")[0] if closing == "}" else value.removesuffix(closing)
        assert to_fraction(value) != to_fraction(tree["answer"]), branch
        for step in branch["steps"][1:-1]:
            stated = _marked(step)
            assert stated is None or (stated[0] is not None and abs(stated[0] - stated[1]) < 1)


def test_the_surface_gives_little_away(trees: list[Mapping[str, Any]]) -> None:
    pytest.importorskip("sklearn")
    from recipes.prm_first.giveaway import giveaway_auc

    assert giveaway_auc(trees, 0)["linear"] < 0.6


def test_the_command_writes_the_same_bytes_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = tmp_path / "train.jsonl"
    rows = [{**ANA, "id": f"made-{i}"} for i in range(30)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name in ("a", "b"):
        main([str(problems), "-o", str(tmp_path / name), "--limit", "20", "--seed", "4"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len((tmp_path / "a").read_text(encoding="utf-8").splitlines()) == 20
    assert "20 trees of 20 problems" in capsys.readouterr().out
