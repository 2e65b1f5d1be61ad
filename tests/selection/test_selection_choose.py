"""Which traces are kept: orders, numbers, quotas, ties, and the reward made anew."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_pools import OTHER, PRM, changed, dropped, ids, many, scored, select, write_pool

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import PRMIdentity, Status, Trace
from reasonflux_prm.scoring.aggregate import AGGREGATIONS, aggregate
from reasonflux_prm.selection.settings import Diversity, Filters, Selection, Student

POOL = many(40)


def best(records, key, number):
    return [record.trace.id for record in sorted(records, key=key, reverse=True)][:number]


def test_top_keeps_the_best_rewards_in_rank_order(tmp_path):
    rows, outcome = select(tmp_path, POOL, top=7)
    assert ids(rows) == best(POOL, lambda record: record.reward, 7)
    assert [row["rank"] for row in rows] == list(range(1, 8))
    assert outcome.counts == {"kept": 7, "rank": 33}
    assert {reason for reason, _ in dropped(tmp_path).values()} == {"rank"}


def test_the_rows_stand_in_the_order_of_the_pool(tmp_path):
    from selection_pools import read_rows

    _, outcome = select(tmp_path, POOL, top=7)
    order = [record.trace.id for record in POOL]
    written = ids(read_rows(outcome.path))
    assert written == sorted(written, key=order.index)


def test_share_and_threshold(tmp_path):
    rows, _ = select(tmp_path, POOL, share=0.25)
    assert len(rows) == 10
    rows, outcome = select(tmp_path, POOL, threshold=1.5)
    assert set(ids(rows)) == {record.trace.id for record in POOL if record.reward >= 1.5}
    reason, detail = dropped(tmp_path)[min(POOL, key=lambda record: record.reward).trace.id]
    assert reason == "below-threshold"
    assert "below 1.5" in detail
    rows, _ = select(tmp_path, POOL, threshold=1.5, share=0.5)
    assert len(rows) == round(0.5 * outcome.kept)


@pytest.mark.parametrize("column", ["problem", "source", "policy", "domain", "nowhere"])
def test_quotas_cap_every_value_and_the_best_fill_them(tmp_path, column):
    rows, outcome = select(tmp_path, POOL, quotas={column: 2}, top=12)
    by_id = {record.trace.id: record for record in POOL}

    def value(id):
        trace = by_id[id].trace
        return trace.problem if column == "problem" else getattr(trace, column, trace.meta.get(column))

    assert max(Counter(map(value, ids(rows))).values()) <= 2
    taken: Counter = Counter()
    expected = []
    for id in best(POOL, lambda record: record.reward, 40):
        if taken[value(id)] < 2 and len(expected) < 12:
            taken[value(id)] += 1
            expected.append(id)
    assert ids(rows) == expected
    assert sum(outcome.counts.values()) == 40


def test_two_quotas_hold_together(tmp_path):
    rows, _ = select(tmp_path, POOL, quotas={"problem": 1, "source": 3})
    assert max(Counter(row["source"] for row in rows).values()) <= 3
    assert len({row["messages"][0]["content"] for row in rows}) == len(rows)


def test_a_group_is_a_problem(tmp_path):
    records = [scored(f"t{i}", 0.1 * i, problem=f"Wording {i}", group="g") for i in range(3)]
    rows, _ = select(tmp_path, records, quotas={"problem": 1})
    assert ids(rows) == ["t2"]


def test_longest_and_shortest(tmp_path):
    def length(record):
        return len(record.trace.thinking) + len(record.trace.response)

    longest, _ = select(tmp_path, POOL, by="longest", top=3)
    assert [len(POOL[int(id[1:])].trace.thinking + POOL[int(id[1:])].trace.response) for id in ids(longest)] == sorted(
        map(length, POOL), reverse=True
    )[:3]
    shortest, _ = select(tmp_path, POOL, by="shortest", top=1)
    assert length(POOL[int(shortest[0]["id"][1:])]) == min(map(length, POOL))
    assert shortest[0]["reward"] is None


def test_random_depends_on_the_seed_alone(tmp_path):
    first, _ = select(tmp_path, POOL, by="random", top=10)
    again, _ = select(tmp_path, random.Random(1).sample(POOL, len(POOL)), by="random", top=10)
    other, _ = select(tmp_path, POOL, by="random", top=10, seed=1)
    assert ids(first) == ids(again)
    assert set(ids(first)) != set(ids(other))


def test_random_is_fair(tmp_path):
    counts: Counter = Counter()
    for seed in range(40):
        rows, _ = select(tmp_path, POOL, by="random", top=10, seed=seed)
        counts.update(ids(rows))
    # Each of 40 traces is expected 10 times; the chance that one of them strays so far is below 1e-4.
    assert min(counts[record.trace.id] for record in POOL) >= 1
    assert max(counts.values()) <= 22


def test_correct_takes_right_ones_only(tmp_path):
    rows, outcome = select(tmp_path, [*POOL, scored("unknown")], by="correct", top=5)
    assert all(row["correct"] for row in rows)
    assert outcome.counts["wrong"] == sum(record.trace.correct is False for record in POOL)
    assert outcome.counts["no-verdict"] == 1


def test_response_reward_is_the_mean_of_the_responses_steps(tmp_path):
    records = [
        scored("a", 9.0, thinking=[("x ", 1.0)], response=[("one ", 0.2), ("two", 0.4)]),
        scored("b", 1.0, thinking=[("x ", 0.0)], response=[("three ", 0.9), ("four", None)]),
        scored("c", 1.0, thinking=[("x ", 0.0)], response=[("five", None)]),
    ]
    rows, _ = select(tmp_path, records, by="response-reward")
    assert [(row["id"], row["reward"]) for row in rows] == [("b", 0.9), ("a", pytest.approx(0.3))]
    assert dropped(tmp_path)["c"][0] == "no-such-reward"


def test_a_list_of_ids(tmp_path):
    (tmp_path / "ids.txt").write_text("t5\nt2\n\nnowhere\n")
    rows, outcome = select(tmp_path, POOL, by="ids", ids=str(tmp_path / "ids.txt"))
    assert ids(rows) == ["t5", "t2"]
    assert outcome.missing_ids == ["nowhere"]
    assert outcome.counts == {"kept": 2, "not-listed": 38}
    write_pool(tmp_path / "ids.jsonl", [{"id": "t5"}, {"id": "t3"}])
    rows, _ = select(tmp_path, POOL, by="ids", ids=str(tmp_path / "ids.jsonl"), top=1)
    assert ids(rows) == ["t5"]


@pytest.mark.parametrize(
    ("content", "said"), [("", "found none"), ('{"x": 1}\n', "expected a column id"), ("t1\n", r"named \*.txt")]
)
def test_a_bad_list_of_ids(tmp_path, content, said):
    (tmp_path / "list.jsonl").write_text(content)
    with pytest.raises(InputError, match=said):
        select(tmp_path, POOL, by="ids", ids=str(tmp_path / "list.jsonl"))


# --- rewards ---------------------------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(AGGREGATIONS)), st.sampled_from([0.0, 0.5, 2.0]), st.booleans())
@settings(max_examples=15, deadline=None)
def test_the_reward_is_made_anew_as_scoring_would(tmp_path_factory, how, alpha, both):
    asked = {"aggregation": how, "alpha": alpha} if both else {"alpha": alpha}
    rows, _ = select(tmp_path_factory.mktemp("anew"), POOL[:8], **asked)
    for row in rows:
        record = POOL[int(row["id"][1:])]
        expected = aggregate(record.step_rewards, record.trajectory_reward, how if both else "mean", alpha)
        assert row["reward"] == expected


def test_alpha_needs_a_trajectory_reward(tmp_path):
    records = [scored("with"), scored("without", trajectory=None)]
    rows, _ = select(tmp_path, records, alpha=0.5)
    assert ids(rows) == ["with"]
    assert dropped(tmp_path)["without"] == ("no-such-reward", "there is no trajectory reward to weigh with alpha 0.5")
    rows, _ = select(tmp_path, records, alpha=0.0)
    assert len(rows) == 2


def test_unscored_traces_are_counted(tmp_path):
    records = [scored("a"), scored("b", status=Status.TOO_LONG), Trace("c", "P", "T", "R")]
    rows, outcome = select(tmp_path, records)
    assert ids(rows) == ["a"]
    assert outcome.counts == {"kept": 1, "unscored": 2}
    assert dropped(tmp_path) == {"b": ("unscored", "too-long"), "c": ("unscored", "no PRM has scored it")}


def test_plain_traces_serve_orders_without_a_prm(tmp_path):
    records = [Trace(f"t{i}", f"P{i}", "T" * i, "R") for i in range(1, 5)]
    rows, _ = select(tmp_path, records, by="longest", top=2)
    assert ids(rows) == ["t4", "t3"]
    with pytest.raises(InputError, match=r"nothing is left of .*: 4 unscored"):
        select(tmp_path, records)


def test_rewards_of_two_prms_are_refused_and_one_can_be_named(tmp_path):
    records = [scored("a", 0.1), scored("b", 0.9, prm=OTHER)]
    with pytest.raises(UsageError, match=r"several PRMs.*tiny@0123456789ab \(1 traces\).*--prm NAME@REVISION"):
        select(tmp_path, records)
    rows, _ = select(tmp_path, records, prm="tiny")
    assert ids(rows) == ["a"]
    assert dropped(tmp_path)["b"] == ("other-prm", "scored by other@ba9876543210")
    with pytest.raises(InputError, match="no trace of the pool was scored by nobody"):
        select(tmp_path, records, prm="nobody")
    twins = [scored("a", prm=PRM), scored("b", prm=PRMIdentity("tiny", "ff", "native", "causal", "mean", 1.0))]
    with pytest.raises(UsageError, match="several PRMs"):
        select(tmp_path, twins, prm="tiny")
    assert ids(select(tmp_path, twins, prm="tiny@ff")[0]) == ["b"]


def test_two_prms_do_not_matter_to_an_order_that_looks_at_none(tmp_path):
    rows, _ = select(tmp_path, [scored("a"), scored("b", prm=OTHER)], by="random")
    assert len(rows) == 2


def test_rewards_that_were_combined_differently_are_refused_until_one_way_is_named(tmp_path):
    records = [scored("a"), scored("b", prm=PRMIdentity("tiny", "0123456789ab", "native", "causal", "min", 0.0))]
    with pytest.raises(UsageError, match=r"different values of aggregation \(mean, min\).*--aggregation"):
        select(tmp_path, records)
    with pytest.raises(UsageError, match="different values of alpha"):
        select(tmp_path, records, aggregation="min")
    assert len(select(tmp_path, records, aggregation="min", alpha=0.0)[0]) == 2


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_more_than_there_are(tmp_path):
    rows, outcome = select(tmp_path, POOL, top=1000)
    assert (len(rows), outcome.asked, outcome.kept) == (40, 1000, 40)


def test_ties_do_not_depend_on_the_order_of_the_pool(tmp_path):
    records = [scored(f"t{i}", 1.0) for i in range(20)]
    first, _ = select(tmp_path, records, top=5)
    again, _ = select(tmp_path, records[::-1], top=5)
    other, _ = select(tmp_path, records, top=5, seed=3)
    assert ids(first) == ids(again) != ids(other)


def test_every_trace_is_kept_or_dropped_once(tmp_path):
    _, outcome = select(
        tmp_path,
        [*POOL, changed(POOL[3], trace_id="copy"), scored("x", status=Status.FAILED)],
        top=6,
        threshold=0.4,
        quotas={"problem": 2},
        filters=Filters(correct=True),
    )
    gone = dropped(tmp_path)
    assert len(gone) + outcome.kept == 42
    assert Counter(reason for reason, _ in gone.values()) == {
        reason: number for reason, number in outcome.counts.items() if reason != "kept"
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"top": 3, "share": 0.5}, "--top and --share"),
        ({"top": 0}, "--top of at least 1"),
        ({"share": 1.5}, "--share above 0"),
        ({"share": math.nan}, "--share above 0"),
        ({"by": "random", "threshold": 0.5}, "--threshold is a reward"),
        ({"by": "longest", "alpha": 0.5}, "looks at none"),
        ({"by": "response-reward", "alpha": 0.5}, "no part in"),
        ({"by": "ids"}, "--ids FILE"),
        ({"ids": "x"}, "--ids FILE"),
        ({"by": "best"}, "unknown order 'best'"),
        ({"by": "student"}, "--student MODEL"),
        ({"by": "random", "student": Student("m")}, "--student MODEL"),
        ({"student": Student("m", 2.0)}, r"in \[0, 1\]"),
        ({"diversity": Diversity("facility")}, "--top or --share"),
        ({"candidates": 5, "top": 3}, "there is neither"),
        ({"quotas": {"source": 0}}, "N of at least 1"),
        ({"filters": Filters(near_duplicates=1.5)}, "below 1"),
        ({"filters": Filters(grader="math")}, "add --correct"),
        ({"aggregation": "best"}, "unknown aggregation"),
    ],
)
def test_settings_that_make_no_sense(asked, said):
    with pytest.raises(UsageError, match=said):
        Selection(**asked).check()
