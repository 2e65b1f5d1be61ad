"""One batch as the model will read it, in colour: where windows begin, where steps end, what is to be said there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.viewer.terminal import visible

if TYPE_CHECKING:
    from reasonflux_prm.training.examples import Example
    from reasonflux_prm.training.run import Prepared

_COLOURS = ("red", "dark_orange", "yellow", "green")


def show_batch(prepared: Prepared, console: Console | None = None) -> None:
    """Print the first pack of the training, and what its colours mean."""
    out = console or Console()
    settings, examples = prepared.base.settings, prepared.data.train.examples
    pack = prepared.packs[0]
    tokens = sum(len(examples[number]) for number in pack)
    out.print(f"One forward pass: {len(pack)} windows, {tokens:,} tokens; each attends to itself only.")
    legend = Text("A step ends at ").append(settings.separator, "bold reverse")
    if settings.marker:
        legend.append("; the trajectory's reward is read at ").append(settings.marker, "bold reverse")
    out.print(
        legend.append("; behind it its target and weight, from ")
        .append(*_coloured(0.0))
        .append(" to ")
        .append(*_coloured(1.0))
        .append(".\n")
    )
    for place, number in enumerate(pack):
        example = examples[number]
        out.rule(f"window {place + 1} of {len(pack)}: {len(example):,} tokens, trace {example.trace + 1}", align="left")
        out.print(rendered(example, prepared), soft_wrap=True)


def rendered(example: Example, prepared: Prepared) -> Text:
    """Return a window's text with its read positions and targets marked."""
    decode = prepared.input.tokenizer.decode
    controls = set(prepared.base.control_ids())
    at = {int(read): number for number, read in enumerate(example.reads)}
    text = Text()
    run: list[int] = []
    for position, token in enumerate(example.tokens.tolist()):
        if token not in controls:
            run.append(token)
            continue
        text.append(visible(decode(run)))
        run = []
        number = at.get(position)
        if number is None:
            text.append(visible(decode([token])), "dim reverse").append(" no target \n", "dim")
            continue
        target = float(example.targets[number])
        what = "trajectory " if example.steps[number] == TRAJECTORY else f"step {example.steps[number] + 1} "
        shown, colour = _coloured(target)
        text.append(visible(decode([token])), f"bold reverse {colour}")
        text.append(f" {what}{shown} x {example.weights[number]:.3g} \n", f"bold {colour}")
    return text.append(visible(decode(run)))


def _coloured(target: float) -> tuple[str, str]:
    place = round(min(max(target, 0.0), 1.0) * (len(_COLOURS) - 1))
    return f"{target:.2f}", _COLOURS[place]
