"""A report of what N buys as Markdown: a table for all candidates, a table by k, and what there is to say of them."""

from __future__ import annotations

from collections.abc import Sequence

from reasonflux_prm.evaluation.candidates import OF_PROBLEMS, Trouble
from reasonflux_prm.evaluation.report import BASELINES, Found, MethodCurve, SelectionReport, interval_text


def markdown(report: SelectionReport) -> str:
    """Return a report as Markdown that ends in a newline."""
    blocks = [_head(report), _table(report), _table_by_k(report), _table_by_rank(report), _list(report)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _head(report: SelectionReport) -> str:
    return (
        f"{report.problems:,} problems, {report.candidates:,} candidates; in brackets {report.settings['level']:.0%} "
        f"bootstrap intervals, {report.settings['resamples']:,} resamples by problem."
    )


def _table(report: SelectionReport) -> str:
    among = f"{report.fewest}" if report.fewest == report.most else f"all {report.fewest} to {report.most}"
    return "\n".join(
        [
            f"| choice among {among} | accuracy | minus pass@1 | minus majority | tied | policy tokens | PRM tokens |",
            "|---|---|---|---|---|---|---|",
            *(_row(own) for own in report.curves),
        ]
    )


def _row(own: MethodCurve) -> str:
    whole = own.whole
    cells = [_plain(own.label), interval_text(whole.accuracy)]
    cells += [interval_text(whole.minus[str(base)], "+") if str(base) in whole.minus else "" for base in BASELINES]
    counts = (whole.tied, whole.policy_tokens, whole.prm_tokens)
    return f"| {' | '.join(cells + ['' if count is None else f'{count:,.0f}' for count in counts])} |"


def _table_by_k(report: SelectionReport) -> str:
    """Return the accuracies at the powers of two and at the last k; nothing if there is one size only."""
    shown = _shown(report.ks)
    if len(shown) < 2:
        return ""
    rows = [[f"{own.points[at].accuracy.value:.3f}" for at in shown] for own in report.curves]
    return "\n".join(
        [
            f"| accuracy at k = | {' | '.join(str(report.ks[at]) for at in shown)} |",
            f"|{'---|' * (len(shown) + 1)}",
            *(f"| {_plain(own.label)} | {' | '.join(row)} |" for own, row in zip(report.curves, rows, strict=True)),
        ]
    )


def _shown(numbers: Sequence[int]) -> list[int]:
    """Return the places of the powers of two, and the last place."""
    return [at for at, number in enumerate(numbers) if number & (number - 1) == 0 or at == len(numbers) - 1]


def _table_by_rank(report: SelectionReport) -> str:
    """Return how right candidates are by the rank of their reward, at the powers of two and at the last rank."""
    shown = _shown(range(1, report.fewest + 1))
    if len(shown) < 2 or not report.ranks:
        return ""
    numbers = " | ".join(str(at + 1) for at in shown)
    lines = [
        f"| right, by rank of the reward within its problem | {numbers} | area within problems |",
        f"|{'---|' * (len(shown) + 2)}",
    ]
    for own in report.ranks:
        area = "" if own.area is None else f"{interval_text(own.area)}, n = {own.area.n:,}"
        cells = [f"{own.right[at].value:.3f}" for at in shown]
        lines.append(f"| {' | '.join([_plain(own.prm), *cells, area])} |")
    return "\n".join(lines)


def _list(report: SelectionReport) -> str:
    said = [*report.findings(), *report.notes]
    said += [f"{count:,} candidates have no reward of {name}." for name, count in report.unscored.items() if count]
    said += [_trouble(trouble, own) for trouble, own in report.troubles.items()]
    return "\n".join(f"- {_plain(sentence)}" for sentence in said)


def _trouble(trouble: Trouble, own: Found) -> str:
    some = "" if own.problems <= len(own.named) else ", ..."
    what = "problems" if trouble in OF_PROBLEMS else f"candidates of {own.problems:,} problems"
    return f"{trouble}: {own.count:,} {what} ({', '.join(own.named)}{some})."


def _plain(text: str) -> str:
    """Return a text on one line in which nothing ends a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
