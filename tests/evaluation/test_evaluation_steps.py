"""Step benchmarks against hand-computed cases, upstream's own way of counting, and SciPy."""

import json
import random

import numpy as np
import pytest
from scipy.stats import spearmanr

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.evaluation.step_statistics import mean_of, on_items, weighted_f1, weighted_spearman
from reasonflux_prm.evaluation.steps import find_step_benchmark
from reasonflux_prm.evaluation.steps.base import read_benchmark
from reasonflux_prm.evaluation.steps.first_errors import AUC, CHANCE, LOWEST, f_metric
from reasonflux_prm.evaluation.steps.judged import BASELINES, EARLIER, PRM, SHORTER, Judged, judged_of
from reasonflux_prm.evaluation.steps.labelled import GAIN, POOLED, VALUE, WITHIN
from reasonflux_prm.evaluation.steps.prmbench import ALL_RIGHT, best_threshold, counts, prm_score, verdicts
from reasonflux_prm.evaluation.steps.processbench import AVERAGE
from reasonflux_prm.evaluation.steps.report import ALL, Settings, markdown
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status

PROCESSBENCH, PRMBENCH, STEPS = (find_step_benchmark(name) for name in ("processbench", "prmbench", "steps"))
SETTINGS = Settings(0.5, resamples=40)
FIXED, CHOSEN = "threshold 0.5", "threshold chosen on GSM8K"


def judged(name, rewards, labels, scope="", lengths=None, **more):
    n = len(rewards)
    ways = {
        PRM: tuple(rewards),
        EARLIER: tuple(-float(k) for k in range(n)),
        SHORTER: tuple(-float(length) for length in lengths or [1] * n),
    }
    known = tuple(None if y is None else bool(y) for y in labels)
    return Judged(name, more.pop("cluster", name), scope, ways, known, **more)


def plain(statistic, n):
    return float(statistic(np.ones((1, n)))[0])


# --- statistics ------------------------------------------------------------------------------------------------------


def test_spearman_is_scipys_with_ties_and_repeats():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 6, (2, 30)).astype(float)
        times = rng.integers(0, 4, 30)
        expected = spearmanr(np.repeat(x, times), np.repeat(y, times)).statistic
        assert weighted_spearman(x, y)(times[None].astype(float))[0] == pytest.approx(expected)
    assert np.isnan(plain(weighted_spearman([1, 2], [3, 3]), 2))
    with pytest.raises(UsageError, match="finite"):
        weighted_spearman([1, np.nan], [1, 2])
    with pytest.raises(UsageError, match="equal length"):
        weighted_spearman([1], [1, 2])


def test_f1_by_hand():
    table = [(3, 1, 2, 0), (1, 0, 0, 2)]
    assert plain(weighted_f1(table), 2) == pytest.approx(8 / (8 + 1 + 2))
    assert plain(weighted_f1(table, negative=True), 2) == pytest.approx(4 / (4 + 1 + 2))
    assert np.isnan(plain(weighted_f1([(0, 0, 0, 0)]), 1))
    assert plain(weighted_f1([(0, 0, 1, 2)]), 1) == 0
    both = mean_of([on_items(weighted_f1(table[:1]), [0]), on_items(weighted_f1(table[1:]), [1])])
    assert plain(both, 2) == pytest.approx((6 / 7 + 2 / 4) / 2)


# --- ProcessBench ----------------------------------------------------------------------------------------------------


def processbench_traces():
    """Four GSM8K solutions and four of MATH; below 0.5 is wrong, but 0.35 is the best threshold on GSM8K."""
    return [
        judged("g0", (0.9, 0.3, 0.8), (1, 0, None), "gsm8k"),
        judged("g1", (0.2, 0.9), (0, None), "gsm8k"),
        judged("g2", (0.4, 0.9), (1, 1), "gsm8k"),
        judged("g3", (0.9, 0.8), (1, 1), "gsm8k"),
        judged("m0", (0.9, 0.4), (1, 0), "math"),
        judged("m1", (0.1, 0.9), (1, 0), "math"),
        judged("m2", (0.4, 0.9), (1, 1), "math"),
        judged("m3", (0.1,), (1,), "math"),
    ]


def test_processbench_by_hand():
    report = PROCESSBENCH.report(processbench_traces(), SETTINGS, None)
    assert 0.3 < report.thresholds[PRM] <= 0.4
    # Chosen: GSM8K all right. MATH: m0 missed (0.4 is not below), m1 named too early; m2 right, m3 wrong.
    assert report.find(f_metric(CHOSEN), "gsm8k").interval.value == 1
    assert report.find(f_metric(CHOSEN), "math").interval.value == 0
    assert report.find(f_metric(CHOSEN), AVERAGE).interval.value == pytest.approx(0.5)
    # At 0.5: GSM8K 2 of 2 with an error, 1 of 2 without: F1 2/3. MATH: m0 of two, none of two: 0.
    assert report.find(f_metric(FIXED), "gsm8k").interval.value == pytest.approx(2 / 3)
    assert report.find(f_metric(FIXED), AVERAGE).interval.value == pytest.approx(1 / 3)
    assert report.find(f"first error, traces with an error, {FIXED}", "math").interval.value == 0.5
    assert report.find(f"first error, traces without, {CHOSEN}", "math").interval.value == 0.5
    assert {m.way for m in report.measures if m.metric == f_metric(CHOSEN)} == {PRM, *BASELINES}
    assert any("flatter" in note for note in report.notes)
    assert any("gsm8k 4 of 400" in note for note in report.notes)


def test_processbench_a_trace_without_a_score_is_a_miss():
    traces = processbench_traces()
    lost = judged("g3", (None, None), (1, 1), "gsm8k", is_scored=False)
    report = PROCESSBENCH.report([lost if t.id == "g3" else t for t in traces], SETTINGS, None)
    assert report.find(f"first error, traces without, {FIXED}", "gsm8k").interval.value == 0
    # A trivial way has its say all the same.
    own = report.find(f"first error, traces without, {CHOSEN}", "gsm8k", EARLIER)
    assert own.interval.n == 2


def test_processbench_without_gsm8k_has_a_fixed_threshold_only():
    traces = [trace for trace in processbench_traces() if trace.scope == "math"]
    report = PROCESSBENCH.report(traces, SETTINGS, None)
    assert report.thresholds == {}
    assert report.find(f_metric(FIXED)).interval.value == 0
    assert any("No threshold could be chosen" in note for note in report.notes)
    dev = [trace for trace in processbench_traces() if trace.scope == "gsm8k"]
    assert PROCESSBENCH.report(traces, SETTINGS, dev).find(f_metric("threshold chosen on the dev set")) is not None


# --- PRMBench --------------------------------------------------------------------------------------------------------


def upstream_f1s(traces, labels):
    """Count as eval_on_hallucination_step does, one step after the other, and return F1 of right and of wrong steps."""
    tp = fp = tn = fn = 0
    for trace, own in zip(traces, labels, strict=True):
        wrong = [k for k, good in enumerate(trace.labels) if not good]
        for index, label in enumerate(own):
            if index in wrong:
                fp, tn = (fp + 1, tn) if label else (fp, tn + 1)
            else:
                tp, fn = (tp + 1, fn) if label else (tp, fn + 1)
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    negative_precision, negative_recall = tn / (tn + fn), tn / (tn + fp)
    return (
        2 * precision * recall / (precision + recall),
        2 * negative_precision * negative_recall / (negative_precision + negative_recall),
    )


def prmbench_traces(n=60):
    rng = random.Random(0)
    names = ("redundency", "circular", "confidence", "deception", "multi_solutions", "correct")
    traces = []
    for k in range(n):
        scope = names[k % len(names)]
        labels = [rng.random() < 0.7 or scope in names[4:] for _ in range(6)]
        rewards = [rng.random() * (1 if good else 0.7) for good in labels]
        traces.append(judged(f"t{k}", rewards, labels, scope, cluster=f"p{k % 7}"))
    return traces


def test_prmscore_is_upstreams():
    traces = prmbench_traces()
    report = PRMBENCH.report(traces, SETTINGS, None)
    wanted = [trace for trace in traces if trace.scope != "correct"]
    right, wrong = upstream_f1s(wanted, [[r > 0.5 for r in t.rewards[PRM]] for t in wanted])
    assert report.find("PRMScore").interval.value == pytest.approx(0.5 * right + 0.5 * wrong)
    for scope in ("redundency", "deception"):
        own = [trace for trace in traces if trace.scope == scope]
        right, wrong = upstream_f1s(own, [[r > 0.5 for r in t.rewards[PRM]] for t in own])
        assert report.find("PRMScore", scope).interval.value == pytest.approx(0.5 * right + 0.5 * wrong)
    group = report.find("PRMScore", "simplicity (mean)").interval.value
    parts = [report.find("PRMScore", scope).interval.value for scope in ("redundency", "circular")]
    assert group == pytest.approx(sum(parts) / 2)
    assert report.find("PRMScore", "soundness (mean)") is None, "three of its categories are not there"
    assert report.find("PRMScore", ALL, ALL_RIGHT) is not None


def test_prmscore_by_hand():
    # Right steps: 2 found, 1 missed; wrong steps: 1 found, 1 missed.
    own = counts((True, True, True, False, False), (True, True, False, False, True))
    assert own == (2, 1, 1, 1)
    assert plain(prm_score([own]), 1) == pytest.approx(0.5 * 4 / 6 + 0.5 * 2 / 4)
    assert plain(prm_score([(5, 0, 0, 1)], "multi_solutions"), 1) == pytest.approx(10 / 11)
    assert counts((True, None, False), (True, True, None)) == (1, 0, 0, 0)


def test_the_redundancy_rule():
    rewards = (0.9, 0.1)
    plainly = judged("a", rewards, (1, 0), "circular")
    labelled = judged("a", rewards, (1, 0), "circular", redundant=(True, False))
    elsewhere = judged("a", rewards, (1, 0), "deception", redundant=(True, False))
    assert verdicts(plainly, PRM, 0.5) == [True, False]
    assert verdicts(labelled, PRM, 0.5) == [False, True]
    assert verdicts(elsewhere, PRM, 0.5) == [True, False]


def test_a_reward_at_the_threshold_is_wrong_here():
    assert verdicts(judged("a", (0.5, 0.51), (1, 1), "deception"), PRM, 0.5) == [False, True]


def test_trivial_ways_flag_as_many_steps_as_the_prm():
    traces = [trace for trace in prmbench_traces() if trace.scope == "deception"]
    report = PRMBENCH.report(traces, SETTINGS, None)
    assert report.find("PRMScore", ALL, EARLIER) is not None
    assert report.find("first wrong step is flagged").interval.value == pytest.approx(
        np.mean([t.rewards[PRM][t.first_error] <= 0.5 for t in traces if t.first_error is not None])
    )


def test_the_best_threshold_is_found_by_trying_all():
    traces = [trace for trace in prmbench_traces() if trace.scope == "deception"]

    def score(threshold):
        return plain(prm_score([counts(t.labels, verdicts(t, PRM, threshold)) for t in traces]), len(traces))

    best = best_threshold(traces)
    assert score(best) == pytest.approx(max(score(k / 500) for k in range(-1, 501)), abs=1e-12)
    report = PRMBENCH.report(traces, SETTINGS, traces)
    assert report.thresholds == {PRM: best}
    assert report.find("PRMScore").interval.value == pytest.approx(score(best))
    with pytest.raises(UsageError, match="only one of the two kinds"):
        best_threshold([judged("a", (0.5,), (1,))])


# --- labelled steps --------------------------------------------------------------------------------------------------


def test_labelled_steps_by_hand():
    traces = [
        judged("a", (0.9, 0.2, 0.1), (1, 0, None), lengths=(5, 1, 9)),
        judged("b", (0.4, 0.8), (0, None), lengths=(1, 2)),
    ]
    report = STEPS.report(traces, SETTINGS, None)
    # 0.9 over 0.2 and over 0.4
    assert report.find(AUC).interval.value == 1.0
    # position 0 against 1 and 0: one won, one tied
    assert report.find(AUC, ALL, EARLIER).interval.value == 0.75
    assert report.find(AUC, ALL, SHORTER).interval.value == 0.0
    assert report.find(AUC, ALL, EARLIER).prm_minus.value == 0.25
    assert report.find(LOWEST).interval.value == 0.5
    assert report.find(LOWEST, ALL, CHANCE).interval.value == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert report.find(f"first error, traces with an error, {FIXED}").interval.value == 1.0
    text = markdown(report)
    assert "| step AUC | items | problems | PRM | earlier step | shorter step |" in text


def test_labels_that_do_not_say_where_the_first_error_is():
    assert not judged("a", (0.1, 0.2), (None, 0)).locates
    assert not judged("a", (0.1, 0.2), (1, None)).locates
    assert judged("a", (0.1, 0.2), (1, 0)).locates
    assert not judged("a", (0.1,), ()).locates


def test_correlations_by_hand():
    rising, falling = (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1)
    traces = [
        judged("a", rising, (), values=(1, 2, 3, 4, 5), gains=(1, 1, 1, 1, 1)),
        judged("b", falling, (), values=(1, 2, 3, 4, 5), gains=(None, 1, 1, 1, 2)),
        judged("c", (0.1, None), (), values=(1, 2)),
    ]
    report = STEPS.report(traces, SETTINGS, None)
    assert report.find(VALUE, WITHIN).interval.value == pytest.approx(0)
    assert report.find(VALUE, WITHIN).interval.n == 2
    assert report.find(VALUE, WITHIN, SHORTER).interval.value == 0, "all steps are equally long"
    flat = [*rising, *falling, 0.1]
    expected = spearmanr(flat, [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1]).statistic
    assert report.find(VALUE, POOLED).interval.value == pytest.approx(expected)
    assert report.find(GAIN, POOLED) is not None
    assert report.find(AUC) is None


# --- reading ---------------------------------------------------------------------------------------------------------


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def prmbench_row(category, name="prm_test_p1_0", **more):
    return {
        "idx": f"{category}_{name}",
        "classification": category,
        "question": "q",
        "original_question": "q",
        "modified_question": "q, changed",
        "original_process": ["1. a", "2. b"],
        "modified_process": ["1. a", "2. c", "3. d"],
        "error_steps": [2],
        **more,
    }


def test_upstreams_layout_of_prmbench(tmp_path):
    rows = [prmbench_row("redundency"), prmbench_row("redundency"), prmbench_row("deception", error_steps=["1", 3])]
    bad = [
        prmbench_row("deception", "x", error_steps=[4]),
        prmbench_row("deception", "y", error_steps=[0]),
        prmbench_row("hallucination", "z"),
        prmbench_row("deception", "w", modified_process=["a", ""]),
        {"id": "only a problem", "problem": "p", "response": "r", "category": "deception"},
    ]
    rejects = []
    traces = list(read_benchmark(PRMBENCH, [write(tmp_path / "p.jsonl", rows + bad)], rejects.append))
    assert [(t.id, t.meta["scope"], t.step_labels) for t in traces] == [
        ("redundency_prm_test_p1_0", "redundency", (1, 0, 1)),
        ("correct_prm_test_p1_0", "correct", (1, 1)),
        ("deception_prm_test_p1_0", "deception", (0, 1, 0)),
    ]
    assert {trace.group for trace in traces} == {"prm_test_p1_0"}
    assert traces[0].problem == "q, changed"
    assert traces[1].problem == "q"
    assert [reject.line for reject in rejects] == [4, 5, 6, 7, 8]
    assert "numbers from 1 to 3, the number of steps, got [4]" in rejects[0].reason
    assert "at least one is empty" in rejects[3].reason
    assert "expected `labels`, one for each step" in rejects[4].reason
    with pytest.raises(InputError, match=r"p\.jsonl:4: expected `error_steps`"):
        list(read_benchmark(PRMBENCH, [str(tmp_path / "p.jsonl")]))


def test_our_layout_of_prmbench(tmp_path):
    row = {
        "id": "prmbench-circular_prm_test_p1_4",
        "problem": "p",
        "steps": ["a", "b"],
        "labels": [1, 0],
        "category": "circular",
    }
    trace = next(read_benchmark(PRMBENCH, [write(tmp_path / "p.jsonl", [row])]))
    assert (trace.group, trace.meta["scope"]) == ("prm_test_p1_4", "circular")


def test_upstreams_layout_of_processbench(tmp_path):
    rows = [
        {
            "id": "gsm8k-0",
            "generator": "g",
            "problem": "p",
            "steps": ["a", "b", "c"],
            "final_answer_correct": False,
            "label": 1,
        },
        {"id": "omnimath-7", "problem": "p", "steps": ["a"], "final_answer_correct": True, "label": -1},
        {"id": "8", "problem": "p", "steps": ["a"], "label": -1},
        {"id": "math-9", "problem": "p", "steps": ["a"], "label": 1},
        {"id": "math-10", "problem": "p", "steps": ["a"]},
    ]
    rejects = []
    traces = list(read_benchmark(PROCESSBENCH, [write(tmp_path / "olympiadbench.jsonl", rows)], rejects.append))
    assert [(t.meta["scope"], t.step_labels) for t in traces] == [
        ("gsm8k", (1, 0, None)),
        ("omnimath", (1,)),
        ("olympiadbench", (1,)),
    ]
    assert (traces[0].correct, traces[0].policy) == (False, "g")
    assert [reject.line for reject in rejects] == [4, 5]
    assert (
        len(list(read_benchmark(PROCESSBENCH, [str(tmp_path / "olympiadbench.jsonl")], rejects.append, limit=1))) == 1
    )


def test_monte_carlo_values_are_read(tmp_path):
    rows = [
        {
            "id": "a",
            "problem": "p",
            "steps": ["x", "y"],
            "labels": None,
            "mc_value_before": [0.5, 0.75],
            "mc_value_after": [0.75, 0.25],
        },
        {"id": "b", "problem": "p", "steps": ["x", "y"], "labels": None, "mc_value_after": [0.75]},
        {"id": "c", "problem": "p", "steps": ["x"], "labels": None},
    ]
    rejects = []
    (trace,) = read_benchmark(STEPS, [write(tmp_path / "s.jsonl", rows)], rejects.append)
    assert trace.meta["values"] == [0.75, 0.25]
    assert trace.meta["gains"] == [0.25, -0.5]
    assert "a value for each of 2 steps, got 1" in rejects[0].reason
    assert "found neither" in rejects[1].reason
    with pytest.raises(InputError, match="no data set on the hub"):
        list(read_benchmark(STEPS, []))


def scored(trace, rewards, status=Status.SCORED):
    identity = PRMIdentity("n", "r", "native", "causal", "mean", 0.0)
    return ScoredTrace(trace, status, trace.steps, tuple(rewards), None, 0.5, identity, 1)


def test_judged_traces(tmp_path):
    row = {"id": "a", "problem": "p", "steps": ["long step", "x"], "labels": [1, 0], "mc_value_after": [0.5, None]}
    (trace,) = read_benchmark(STEPS, [write(tmp_path / "s.jsonl", [row])])
    (own,) = judged_of([scored(trace, (0.7, 0.2))])
    assert own.rewards[PRM] == (0.7, 0.2)
    assert own.rewards[SHORTER] == (-11.0, -1.0)
    assert own.labels == (True, False)
    assert own.values == (0.5, None)
    lost = judged_of([scored(trace, (0.7, 0.2)), scored(trace, (None, None), Status.TOO_LONG)])[1]
    assert (lost.is_scored, lost.rewards[PRM]) == (False, (None, None))
    with pytest.raises(UsageError, match="gives no step rewards"):
        judged_of([scored(trace, (None, None))])
    with pytest.raises(UsageError, match="none of 1 traces could be scored"):
        judged_of([scored(trace, (None, None), Status.FAILED)])
