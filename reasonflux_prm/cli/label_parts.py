"""The parts that the flags of `label` name, opened and closed together; and what they would ask, without asking."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from reasonflux_prm.cli.label_options import LabelConfig
from reasonflux_prm.cli.policies import Policies, PolicyConfig, said_cost
from reasonflux_prm.cli.running import trace_sizes
from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.choices import Role, open_judge, open_rater
from reasonflux_prm.traces.resumable import PIPE, Input
from reasonflux_prm.viewer.terminal import visible

if TYPE_CHECKING:
    from reasonflux_prm.grading.grader import Grader
    from reasonflux_prm.labels.first_pass import InputEmbedding
    from reasonflux_prm.labels.pipeline import Labeller
    from reasonflux_prm.policy.base import Policy

SAMPLE: Final = 16
"""Traces that a dry run looks at."""


class Parts:
    """A labeller and what it is made of. A context manager: nothing is open behind it.

    Args:
        config: What labels are made of.
        policies: How policies are asked.
        source: The input, which negatives are drawn from.
        kept: Where the sample of negatives is kept until all is labelled; None keeps it nowhere.
    """

    def __init__(self, config: LabelConfig, policies: PolicyConfig, source: Input, kept: Path | None) -> None:
        self._config, self._source, self._kept = config, source, kept
        self._stack = ExitStack()
        self._asked = policies
        self._embedding: InputEmbedding | None = None

    def __enter__(self) -> Self:
        from reasonflux_prm.labels.pipeline import Labeller, LabelSettings

        with ExitStack() as stack:
            policies = stack.enter_context(Policies(self._asked))
            config = self._config

            def policy(role: Role) -> Policy:
                return policies.open(config.spec(role))

            grader = _grader(config.grader, stack)
            judge = open_judge(config.choices, policy, grader)
            if (close := getattr(judge, "close", None)) is not None:
                stack.callback(close)
            rater = open_rater(config.choices, policy, grader)
            self._embedding = self._open_embedding(stack) if config.embeds else None
            settings = LabelSettings(
                steps=config.steps, concurrency=policies.concurrency or LabelSettings().concurrency
            )
            self.labeller: Labeller = Labeller(
                config.formula, embedding=self._embedding, judge=judge, rater=rater, settings=settings
            )
            self.cost: Callable[[], dict[str, float]] = policies.cost
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def drawn_from(self) -> int:
        """Traces that were read to draw negatives from."""
        return self._embedding.read if self._embedding is not None else 0

    def forget(self) -> None:
        """Remove what was kept for a run that goes on."""
        if self._embedding is not None:
            self._embedding.forget()

    def _open_embedding(self, stack: ExitStack) -> InputEmbedding:
        from reasonflux_prm.labels.encoder import open_encoder
        from reasonflux_prm.labels.first_pass import InputEmbedding, Negatives
        from reasonflux_prm.storage import cache_folder

        config = self._config
        encoder = open_encoder(config.encoder, cache_folder() / "embeddings.sqlite", config.device)
        stack.callback(encoder.close)
        default = Negatives()
        negatives = Negatives(config.negatives or default.each, config.pool or default.pool, config.choices.seed)
        given: dict[str, Any] = {} if config.temperature is None else {"temperature": config.temperature}
        return InputEmbedding(
            encoder,
            self._source,
            steps=config.steps,
            negatives=negatives if config.coherence else None,
            kept=self._kept,
            **given,
        )


def _grader(name: str | None, stack: ExitStack) -> Callable[[], Grader]:
    """Return what gives the grader, opened when it is first asked for, and closed with the stack."""
    opened: list[Grader] = []

    def grader() -> Grader:
        from reasonflux_prm.grading.graders import default_grader, open_grader

        if not opened:
            opened.append(stack.enter_context(open_grader(name or default_grader())))
        return opened[0]

    return grader


def dry_run(source: Input, config: LabelConfig, policies: PolicyConfig, stack: ExitStack) -> int:
    """Print one real prompt and what a run could cost; nobody is asked anything."""
    from reasonflux_prm.labels.dry_run import dry_requests
    from reasonflux_prm.policy.budget import estimate

    if not config.choices.roles():
        raise UsageError(
            f"--quality {config.choices.quality} and --trajectory {config.choices.trajectory} ask no policy; "
            "there is nothing to estimate"
        )
    if source.source == PIPE:
        raise UsageError("a dry run reads its input and leaves it where it is; give it a file, not a pipe")
    sizes = trace_sizes(source)
    sample = list(islice(source.read(lambda _: None), SAMPLE))
    asked = dry_requests(sample, config.choices, _grader(config.grader, stack), config.steps)
    if not asked:
        print("Nothing would be asked about these traces: they have no steps, or no reference answer to grade against.")
        return 0
    first = asked[0]
    print(f"The first request, to {config.spec(first.role)}:\n")
    for message in first.request.messages:
        print(f"--- {message.role}\n{visible(message.content)}\n")
    spent = estimate([one.request for one in asked], policies.prices)
    # Traces differ in length by orders of magnitude, and so do prompts.
    scale = 1.0 if sizes is None else sum(sizes) / max(1, sum(sizes[: len(sample)]))
    traces = f"{len(sizes):,} traces" if sizes is not None else f"each {len(sample)} traces"
    most = {
        "requests": spent.requests * scale,
        "prompt_tokens": spent.prompt_tokens * scale,
        "completion_tokens": spent.completion_tokens * scale,
        **({} if spent.money is None else {"money": spent.money * scale}),
    }
    print(
        f"Told from the first {len(sample)} traces, {traces} take about {said_cost(most)}, of which "
        f"{most['completion_tokens']:,.0f} tokens are the most that answers may have. Repeats of answers that cannot "
        "be used come on top; answers from the cache come off."
    )
    if spent.money is None:
        print("Give --prices READ,WRITTEN (for a million tokens each) to see it in money.")
    return 0
