"""A PRM of known rewards, and a policy with one token a letter."""

from __future__ import annotations

import math

from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Step

IDENTITY = PRMIdentity("letters", "0", "fake", "causal", "mean", 1.0)
WIDTH = 5


def letter_reward(text):
    """Return a reward in (0, 1) that depends on the letters."""
    return (sum(map(ord, text)) % 97 + 1) / 99


class LetterPRM:
    """Cuts every part after each five characters, and rewards each piece by its letters."""

    def __init__(self):
        self.seen = []

    def score(self, traces):
        for trace in traces:
            self.seen.append(trace)
            steps = [
                Step(part, at, min(at + WIDTH, len(trace.text(part))))
                for part in ("thinking", "response")
                for at in range(0, len(trace.text(part)), WIDTH)
            ]
            rewards = [letter_reward(trace.text(s.part)[s.start : s.stop]) for s in steps]
            if not rewards:
                none = ScoredTrace(trace, Status.NO_STEPS, (), (), None, None, IDENTITY, 0, note="no text")
                yield none
                continue
            whole = letter_reward(trace.thinking + trace.response)
            mean = math.fsum(rewards) / len(rewards)
            yield ScoredTrace(
                trace, Status.SCORED, tuple(steps), tuple(rewards), whole, mean + whole, IDENTITY, len(steps)
            )
