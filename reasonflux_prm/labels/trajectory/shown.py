"""A whole trace as raters show it to a policy."""

from __future__ import annotations

from reasonflux_prm.labels.prompts.material import Record, shorten
from reasonflux_prm.records import Trace
from reasonflux_prm.steps.estimate import estimate_tokens

NO_TEXT = "neither thinking nor response holds any text"


def trace_records(trace: Trace, tokens: int, *, show_reference: bool) -> tuple[list[Record], str | None]:
    """Return the records that show a trace, and what a reader should know of them.

    Args:
        trace: Any trace.
        tokens: Most estimated tokens to show. Of a longer trace the problem gets a quarter at most, the response half,
            and the thinking the rest; what is too long loses its middle, and says so there.
        show_reference: Whether to show the reference answer, where there is one.
    """
    problem, response = shorten(trace.problem, tokens // 4), shorten(trace.response, tokens // 2)
    left = tokens - estimate_tokens(problem) - estimate_tokens(response)
    thinking = shorten(trace.thinking, left)
    shown = {"problem": problem, "thinking": thinking, "response": response}
    records: list[Record] = [{name: text} for name, text in shown.items() if text.strip()]
    if show_reference and trace.answer is not None:
        records.append({"reference_answer": trace.answer})
    whole = {"problem": trace.problem, "thinking": trace.thinking, "response": trace.response}
    cut = [name for name, text in shown.items() if text != whole[name]]
    return records, f"shown with a shortened {' and '.join(cut)}" if cut else None
