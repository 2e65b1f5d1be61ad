r"""The published formats of the generative verifiers: what they are asked, and where their verdicts stand.

GenPRM (arXiv:2504.00891): `src/prm_evaluation/infer_module/genprm_inference.py` and `prm_evaluate.py` of
RyanLiu112/GenPRM at 590bc942. ThinkPRM (arXiv:2504.16828): `utils/helper.py` and `prm/thinkprm_api.py` of
mukhal/ThinkPRM at 214cce98. The prompts are theirs to the character, because the models were trained on them.

Verdicts are looked for in what the model wrote and nowhere else, so a step that contains `\boxed{Yes}` decides
nothing by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reasonflux_prm.policy.base import Completion, Message, TokenLogprob

GENPRM_SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
GENPRM_STOP = "</output>\n"

_THINKPRM_USER = """You are given a math problem and a proposed step-by-step solution:

[Math Problem]

{problem}

[Solution]

{solution}

Review and critique each step in the proposed solution to determine whether each step is correct. \
If the solution is incomplete, only verify the provided steps."""

_STEP_LABEL = re.compile(r"(?:## )?Step \d+:")
_STEP_HEADER = re.compile(r"^[ \t>#*-]*Step\s+(\d{1,6})\s*\**\s*[:.]", re.MULTILINE)
_STEP_VERDICT = re.compile(r"\\boxed\{\s*(?:\\text\{\s*)?(correct|incorrect)\s*\}", re.IGNORECASE)
_OPPOSITE = {"Yes": "No", "No": "Yes", "yes": "no", "no": "yes", "YES": "NO", "NO": "YES"}
_YES_NO = "(" + "|".join(_OPPOSITE) + ")"
_JUDGEMENT = re.compile(r"\\boxed\{\s*" + _YES_NO + r"\s*\}")
_DECISION = re.compile(r"Is the solution correct\?[\s*]*(?:\\boxed\{\s*)?" + _YES_NO + r"\b")

Found = tuple[int, str]
"""Where a verdict's word starts in a text, and the word."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A yes or no, with its probability where the logprobs tell it."""

    yes: bool
    probability: float | None
    """P(yes) / (P(yes) + P(no)) at the verdict's token; None if the logprobs are absent or do not show it."""


def genprm_messages(problem: str, steps: Sequence[str], critiques: Sequence[str]) -> tuple[Message, ...]:
    """Build the conversation that asks for the judgement on step `len(critiques)`: a user turn a step, each answered.

    Args:
        problem: The problem; it opens the first user turn.
        steps: The steps' texts, at least one more than the critiques.
        critiques: What the verifier answered on the steps before.
    """
    messages = [Message("system", GENPRM_SYSTEM)]
    for index in range(len(critiques) + 1):
        step = steps[index].strip()
        messages.append(Message("user", f"{problem}\n{step}" if index == 0 else step))
        if index < len(critiques):
            messages.append(Message("assistant", critiques[index]))
    return tuple(messages)


def genprm_turn(completion: Completion) -> str:
    """Return a critique as it stands in the conversation: with the closing mark that ended it."""
    text = completion.text
    closed = "</output>" in text.rpartition("<output>")[2]
    if closed or "<output>" not in text or completion.finish_reason != "stop":
        return text
    return text.rstrip("\n") + "\n" + GENPRM_STOP


def thinkprm_messages(problem: str, steps: Sequence[str]) -> tuple[Message, ...]:
    """Build the one user turn that holds the problem and all steps, numbered from 1.

    As published, labels `Step k:` that the steps bring along are taken out before they are numbered (the client does
    so in its process verifier mode). The client then opens the verifier's turn with "Let's verify step by step:"; chat
    endpoints cannot do that under every template, and the models open it so by themselves.
    """
    numbered = [f"Step {number}: {_STEP_LABEL.sub('', step).strip()}" for number, step in enumerate(steps, 1)]
    # One replacement at a time would fill in a "{solution}" typed in the problem.
    before, middle, after = re.split(r"\{problem\}|\{solution\}", _THINKPRM_USER)
    return (Message("user", before + problem + middle + "\n".join(numbered) + after),)


def genprm_verdict(completion: Completion) -> Verdict | None:
    r"""Read the judgement: the `\boxed{Yes|No}` after the last `<output>`; None if there is none or they disagree."""
    return _verdict(completion, completion.text, _find_judgement)


def thinkprm_verdict(completion: Completion) -> Verdict | None:
    """Read the final decision: the last "Is the solution correct? Yes|No"; None if there is none.

    The published client forces these words and compares the two choices; here they are the model's own, which it was
    trained to end with, and the probabilities are compared at the same place.
    """
    return _verdict(completion, _chain(completion), _find_decision)


def thinkprm_step_verdicts(completion: Completion, count: int) -> list[bool | None]:
    r"""Read the verdict on each of `count` steps: the last `\boxed{correct|incorrect}` under the step's header.

    A chain without headers counts if it has exactly one verdict a step. None where a step has none: the verifiers
    usually end at the first wrong step. Verdicts on steps that do not exist are left out.
    """
    chain = _chain(completion)
    verdicts: list[bool | None] = [None] * count
    headers = list(_STEP_HEADER.finditer(chain))
    if not headers:
        flat = _STEP_VERDICT.findall(chain)
        return [word.lower() == "correct" for word in flat] if len(flat) == count else verdicts
    ends = [header.start() for header in headers[1:]] + [len(chain)]
    for header, end in zip(headers, ends, strict=True):
        number, found = int(header[1]), _STEP_VERDICT.findall(chain, header.end(), end)
        if found and 1 <= number <= count:
            verdicts[number - 1] = found[-1].lower() == "correct"
    return verdicts


def _chain(completion: Completion) -> str:
    """Join all that was written: ThinkPRM verifies while thinking, and servers differ in what they call thinking."""
    return f"{completion.thinking}\n{completion.text}"


def _find_judgement(text: str) -> Found | None:
    before, mark, output = text.rpartition("<output>")
    found = list(_JUDGEMENT.finditer(output)) if mark else []
    if len({match[1].lower() for match in found}) != 1:
        return None
    return len(before) + len(mark) + found[0].start(1), found[0][1]


def _find_decision(text: str) -> Found | None:
    found = list(_DECISION.finditer(text))
    return (found[-1].start(1), found[-1][1]) if found else None


def _verdict(completion: Completion, text: str, find: Callable[[str], Found | None]) -> Verdict | None:
    found = find(text)
    if found is None:
        return None
    word = found[1]
    probability = None
    if completion.logprobs:
        # The tokens may hold more than the text (thinking, stop marks), so the verdict is found among them afresh.
        placed = find("".join(token.token for token in completion.logprobs))
        if placed is not None:
            probability = _yes_probability(completion.logprobs, placed[0], word)
    return Verdict(word.lower() == "yes", probability)


def _yes_probability(logprobs: Sequence[TokenLogprob], start: int, word: str) -> float | None:
    """Compare the verdict's token with the one that differs from it in the word only.

    A counterpart that is not among the alternatives gets the least of their logprobs, as published: its own is no
    greater. None where that says nothing: the written token is no likelier than the least alternative, or the word is
    not within one token.
    """
    offset = 0
    for token in logprobs:
        if start < offset + len(token.token):
            break
        offset += len(token.token)
    before, after = token.token[: start - offset], token.token[start - offset :]
    if not after.startswith(word):
        return None
    counterpart = before + _OPPOSITE[word] + after[len(word) :]
    others = {text: logprob for text, logprob in reversed(token.top) if text != token.token}
    least = min(others.values(), default=token.logprob)
    if counterpart not in others and least >= token.logprob:
        return None
    other = others.get(counterpart, least)
    yes, no = (token.logprob, other) if word.lower() == "yes" else (other, token.logprob)
    top = max(yes, no)
    if not math.isfinite(top):
        return None
    return math.exp(yes - top) / (math.exp(yes - top) + math.exp(no - top))
