"""Small scored traces for the viewer's tests."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import Any

from reasonflux_prm.records import (
    LabelledTrace,
    LabelStatus,
    Part,
    PRMIdentity,
    ScoredTrace,
    Status,
    Step,
    Term,
    Trace,
)

PRM = PRMIdentity("tiny", "0123456789ab", "native", "causal", "mean", 1.0)

HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror='window.pwned=1'>",
    "<!-- <script> --> ]]> {{data}} {{script}} {{title}}",
    "\u2028window.pwned=1\u2029 \\u003c/script> \\",
    '"}]}; window.pwned=1; //',
    "javascript:window.pwned=1",
    "\x1b]0;pwned\x07\x1b[31m \u202etxt.exe\u2066 [red]rich[/red] \x00\x9b2J",
    "𝒙² + 𝒚² = 🍏, a lone \ud800 surrogate, \U0010ffff",
)


def scored(
    name: str,
    thinking: list[tuple[str, float | None]] | None = None,
    response: list[tuple[str, float | None]] | None = None,
    *,
    reward: float | None = 0.5,
    trajectory: float | None = 0.25,
    status: Status = Status.SCORED,
    note: str | None = None,
    prm: PRMIdentity = PRM,
    **fields: Any,
) -> ScoredTrace:
    """A scored trace out of (text, reward) steps; `fields` are the trace's own."""
    texts: dict[Part, str] = {}
    steps, rewards = [], []
    parts: list[tuple[Part, list[tuple[str, float | None]]]] = [
        ("thinking", thinking or []),
        ("response", response or []),
    ]
    for part, pieces in parts:
        at = 0
        for text, value in pieces:
            steps.append(Step(part, at, at + len(text)))
            rewards.append(value)
            at += len(text)
        texts[part] = "".join(text for text, _ in pieces)
    trace = Trace(name, fields.pop("problem", f"Problem of {name}"), texts["thinking"], texts["response"], **fields)
    return ScoredTrace(trace, status, tuple(steps), tuple(rewards), trajectory, reward, prm, 7, note=note)


def many(count: int, words: int = 400) -> Iterator[ScoredTrace]:
    """`count` traces of about `6 * words` characters, in groups of four, made as they are asked for."""
    rng = random.Random(0)
    vocabulary = [f"{rng.randrange(16**5):05x}" for _ in range(5000)]
    for i in range(count):
        step = max(1, words // 8)
        pieces = [(" ".join(rng.choices(vocabulary, k=step)) + "\n\n", round(rng.random(), 6)) for _ in range(8)]
        about = {"source": f"source{i % 3}", "policy": f"policy{i % 2}", "group": f"g{i // 4}"}
        rewards = {"reward": round(rng.random() * 2, 6), "trajectory": round(rng.random(), 6)}
        yield scored(f"t{i}", pieces[:6], pieces[6:], correct=rng.choice([True, False, None]), **rewards, **about)


def hostile() -> Iterator[ScoredTrace]:
    """Traces that put every hostile string into every place a string can be."""
    for i, text in enumerate(HOSTILE):
        # An id is used in addresses and keys: it is as hostile as the rest.
        names = dict.fromkeys(("problem", "answer", "source", "policy", "group"), text)
        meta = {text: text, "nested": {text: [text]}}
        record = scored(f"{text}{i}", [(text, 0.1), (text, None)], [(text, 0.9)], meta=meta, **names)
        yield record
        yield dataclasses.replace(record, status=Status.FAILED, reward=None, note=text, overflow=text)


def labelled(name: str, texts: list[tuple[str, float | None]], **fields: Any) -> LabelledTrace:
    """A label out of (text, target) steps of the thinking, with terms of every kind; `fields` are the trace's own."""
    record = scored(name, texts, [("So it is.", None)], **fields)
    targets = (*(target for _, target in texts), None)
    return LabelledTrace(
        trace=record.trace,
        status=LabelStatus.LABELLED,
        steps=record.steps,
        step_terms=tuple(
            {
                "alignment_max": Term(0.125 * index),
                "coherence": Term(-3.5, "longer than the encoder's window"),
                "quality": Term(target, None if target is not None else f"no checkable claim in step {index}"),
            }
            for index, target in enumerate(targets)
        ),
        targets=targets,
        trajectory_terms={"trajectory": Term(0.75), "lift": Term(None, "there is no control")},
        trajectory_target=0.75,
        formula="bounded softmax(alignment_max, quality, coherence)",
    )


def unlabelled(name: str) -> LabelledTrace:
    """A trace that could not be labelled."""
    record = labelled(name, [("x", None)])
    return dataclasses.replace(
        record, status=LabelStatus.FAILED, targets=(None, None), trajectory_target=None, note="quality: it broke"
    )


def many_labels(count: int) -> Iterator[LabelledTrace]:
    """`count` labels of ten steps, made as they are asked for."""
    rng = random.Random(0)
    for i in range(count):
        yield labelled(f"t{i}", [(f"Step {k} of trace {i}.\n\n", round(rng.random(), 6)) for k in range(9)])


def hostile_labels() -> Iterator[LabelledTrace]:
    """Labels that put every hostile string into every place a string can be."""
    for record, text in zip(hostile(), (text for text in HOSTILE for _ in range(2)), strict=True):
        terms = {text: Term(0.5, text), "none": Term(None, text)}
        yield LabelledTrace(
            record.trace,
            LabelStatus.LABELLED if record.status is Status.SCORED else LabelStatus.FAILED,
            record.steps,
            (terms,) * len(record.steps),
            record.step_rewards,
            terms,
            0.5,
            text,
            text,
        )
