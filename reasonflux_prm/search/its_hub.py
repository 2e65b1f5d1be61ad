"""A PRM as reward model of its-hub 1.2: for its best-of-N as well as its beam search and particle filtering.

its-hub has two roles. As outcome reward model it hands over whole conversations. As process reward model it hands over
a prompt and a list of texts, each of them one response as far as it is written (the abstract class calls them steps,
its algorithms do not), and wants one number for each, which particle filtering asserts to be in [0, 1]. One object here
plays both: the second argument tells which is meant.

A response is cut at blank lines and its thinking told by its marks. What a response had in common with one of the call
before is not read again where the PRM keeps its past, so a step of beam search costs its own tokens.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.records import Trace
from reasonflux_prm.search.budget import Budget
from reasonflux_prm.search.draft import Draft
from reasonflux_prm.search.reader import Reading, open_reader
from reasonflux_prm.steps.rules import blank_line_ends

if TYPE_CHECKING:
    from reasonflux_prm.scoring.run import Scorer


class Scores:
    """What both roles share: responses to a prompt in, numbers in [0, 1] out. Safe to use from several threads.

    Args:
        scorer: An engine or a generative verifier.

    Raises:
        UsageError: Its rewards are no probabilities.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._reader = open_reader(scorer)
        if not self._reader.probabilities:
            raise UsageError(
                f"its-hub takes scores in [0, 1], and those of {self._reader.identity.name} with the aggregation "
                f"{self._reader.identity.aggregation} are not; take another PRM or aggregation"
            )
        self.spent = Budget()
        """What the PRM has read so far."""
        self._lock = threading.Lock()
        self._prompt: str | None = None
        self._known: dict[tuple[tuple[str, str], ...], Reading] = {}
        """Readings of the last call, by their steps."""

    def partial(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return the value of every response as far as it is written: the aggregate of its step rewards."""
        with self._lock:
            return [self._checked(reading.value, 1.0) for _, reading in self._read(prompt, responses)]

    def whole(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return the reward of every response as a whole, the trajectory's included, as a share of the highest."""
        trace = Trace("its-hub", prompt)
        with self._lock:
            rewards = [
                self._reader.finish(trace, draft, reading, self.spent).reward
                for draft, reading in self._read(prompt, responses)
            ]
        return [self._checked(-math.inf if reward is None else reward, self._reader.most) for reward in rewards]

    def _read(self, prompt: str, responses: Sequence[str]) -> list[tuple[Draft, Reading]]:
        trace = Trace("its-hub", prompt)
        if prompt != self._prompt:
            self._prompt, self._known = prompt, {(): self._reader.begin(trace, self.spent)}
        drafts = [_draft(response) for response in responses]
        readings = self._reader.read(trace, [(self._past(draft), draft) for draft in drafts], self.spent)
        root = self._known[()]
        self._known = {(): root, **{draft.steps: reading for draft, reading in zip(drafts, readings, strict=True)}}
        return list(zip(drafts, readings, strict=True))

    def _past(self, draft: Draft) -> Reading:
        """Return the reading that the draft goes on from."""
        for length in range(len(draft.steps), 0, -1):
            if (known := self._known.get(draft.steps[:length])) is not None:
                return known
        return self._known[()]

    def _checked(self, reward: float, most: float) -> float:
        if self._reader.identity.aggregation == "product":
            score = math.exp(reward)
        else:
            score = reward / most if math.isfinite(reward) else 0.0
        if not 0 <= score <= 1:
            raise UsageError(f"its-hub takes scores in [0, 1], and the PRM gave {score}; alpha must be at least 0")
        return score


def its_hub_reward_model(scorer: Scorer) -> Any:
    """Return a reward model for its-hub: an `AbstractProcessRewardModel` and an `AbstractOutcomeRewardModel` in one.

    Args:
        scorer: What `scoring.engine.Engine` or `scoring.generative_run.GenerativeScorer` gives.

    Raises:
        MissingExtra: its-hub is not installed.
        UsageError: The PRM's rewards are no probabilities.

    Example:
        ```python
        from its_hub import BestOfN

        model = its_hub_reward_model(Engine(load_prm("embedded")))
        BestOfN(model).infer(lm, "What is 12 + 30?", budget=8)
        ```
    """
    try:
        its_hub = import_module("its_hub")
    except ImportError as error:
        raise MissingExtra('the reward model for its-hub needs it: pip install "reasonflux-prm[its]"') from error

    class RewardModel(its_hub.AbstractProcessRewardModel, its_hub.AbstractOutcomeRewardModel):  # type: ignore[misc, name-defined]
        """Both roles of its-hub, told by whether there is a second argument."""

        def __init__(self) -> None:
            self.scores = Scores(scorer)

        def score(self, prompt_or_messages: Any, steps: Sequence[str] | None = None, **_: Any) -> Any:
            """Return a number in [0, 1] for each response of a prompt, or for each conversation; one for one."""
            if steps is not None:
                return self.scores.partial(_prompt(prompt_or_messages), steps)
            one = not _is_batch(prompt_or_messages)
            conversations = [prompt_or_messages] if one else list(prompt_or_messages)
            found = _in_groups(self.scores, [_asked_and_said(own) for own in conversations])
            return found[0] if one else found

        async def ascore(
            self, prompt_or_messages: Any, steps: Sequence[str] | None = None, orchestrator: Any = None, **_: Any
        ) -> Any:
            """As `score`; the PRM runs in a thread of its own."""
            return await asyncio.to_thread(self.score, prompt_or_messages, steps)

    return RewardModel()


def _in_groups(scores: Scores, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Score all responses of a prompt together."""
    found: dict[tuple[str, str], float] = {}
    for prompt in dict.fromkeys(prompt for prompt, _ in pairs):
        responses = list(dict.fromkeys(response for own, response in pairs if own == prompt))
        for response, score in zip(responses, scores.whole(prompt, responses), strict=True):
            found[prompt, response] = score
    return [found[pair] for pair in pairs]


def _draft(response: str) -> Draft:
    draft = Draft()
    for start, stop in pairwise([0, *blank_line_ends(response)]):
        draft = draft.extended(response[start:stop])
    # A step must be the same whether the blank line behind it is there yet or not.
    steps = tuple((part, text.strip()) for part, text in draft.steps)
    return Draft(draft.written, steps, draft.part, draft.thought, draft.closed)


def _messages(conversation: Any) -> list[Any]:
    """Return the messages of a conversation: a list of them, or an object that knows how to list them."""
    listed = getattr(conversation, "to_chat_messages", None)
    return list(listed() if callable(listed) else conversation)


def _prompt(given: Any) -> str:
    if isinstance(given, str):
        return given
    return _joined(message for message in _messages(given) if _role(message) != "assistant")


def _is_batch(given: Any) -> bool:
    if isinstance(given, str) or callable(getattr(given, "to_chat_messages", None)):
        return False
    first = next(iter(given), None)
    return isinstance(first, Sequence) or callable(getattr(first, "to_chat_messages", None))


def _asked_and_said(conversation: Any) -> tuple[str, str]:
    """Return what was asked, and the assistant's last message.

    Raises:
        UsageError: The conversation does not end with the assistant.
    """
    messages = _messages(conversation)
    if not messages or _role(messages[-1]) != "assistant":
        raise UsageError("expected a conversation that ends with the assistant's response")
    return _joined(messages[:-1]), _text(messages[-1])


def _joined(messages: Any) -> str:
    return "\n\n".join(text for text in map(_text, messages) if text)


def _role(message: Any) -> str:
    return str(message["role"] if isinstance(message, Mapping) else message.role)


def _text(message: Any) -> str:
    content = message.get("content") if isinstance(message, Mapping) else message.content
    if isinstance(content, str) or content is None:
        return content or ""
    return "".join(part.get("text", "") for part in content)
