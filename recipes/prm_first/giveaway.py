"""How far surface alone tells wrong steps from right ones.

The less it does, the more a PRM trained on the trees has to look at the arithmetic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

_NUMBERS = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_NOT_CALCULATED = frozenset({"final", "repeat", "misstated"})


def surface(step: str) -> list[float]:
    """Features of a step that need no arithmetic; the last number stands for its result."""
    numbers = [found.replace(",", "") for found in _NUMBERS.findall(step)]
    result = numbers[-1] if numbers else "0"
    operators = [step.count(sign) for sign in ("+", "-", "/", "*", "=", "%", "$", "(")]
    times = step.count("×") + step.count("\\times") + step.count(" x ")
    return [
        len(step),
        sum(character.isdigit() for character in step),
        *map(float, operators),
        times,
        len(numbers),
        len(result),
        math.log1p(float(result)),
        "." in result,
        result.endswith("0"),
        int(result[-1]) % 2,
        max((len(number) for number in numbers), default=0),
        sum("." in number for number in numbers),
    ]


def giveaway_auc(trees: Iterable[Mapping[str, Any]], seed: int) -> Mapping[str, float]:
    """Cross-validated AUC of two classifiers of wrong steps that see `surface` only; 0.5 is no giveaway.

    Right steps are the reference steps and the label 1 branches; wrong steps are the branches with a wrong
    calculation. As many right as wrong ones are drawn, from all trees.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    right: list[str] = []
    wrong: list[str] = []
    for tree in trees:
        branches: Sequence[Mapping[str, Any]] = tree["branches"]
        right += [step for step in tree["gold"] if "=" in step]
        right += [branch["steps"][0] for branch in branches if branch["label"] == 1]
        wrong += [b["steps"][0] for b in branches if b["label"] == 0 and b["kind"] not in _NOT_CALCULATED]
    count = min(len(right), len(wrong))
    rng = Random(seed)
    steps = rng.sample(right, count) + rng.sample(wrong, count)
    labels = [0] * count + [1] * count
    features = [surface(step) for step in steps]
    models = {
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        "boosted trees": HistGradientBoostingClassifier(random_state=seed),
    }
    return {
        name: float(cross_val_score(model, features, labels, cv=3, scoring="roc_auc").mean())
        for name, model in models.items()
    }
