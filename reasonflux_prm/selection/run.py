"""A selection from file to file: the pool is read once to choose and once to write, and never held.

`survey` fills the index, `choose` decides, and what is kept is written in the order of the pool. All files appear whole
or not at all. What costs time is kept beside the output (the student's readings) or in the cache folder (vectors), so a
run that is killed repeats none of it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.selection.card import Recipe, llama_factory_info, write_card
from reasonflux_prm.selection.choose import choose
from reasonflux_prm.selection.duplicates import Signatures
from reasonflux_prm.selection.export import Export, about, data_path, row_writer
from reasonflux_prm.selection.filters import Gate
from reasonflux_prm.selection.hub import CARD
from reasonflux_prm.selection.index import Index, Notes
from reasonflux_prm.selection.middle import encoder_of, surprise_of
from reasonflux_prm.selection.pool import Pooled, read_pool
from reasonflux_prm.selection.reasons import REASONS, Reason
from reasonflux_prm.selection.sampled import Seen, sampled
from reasonflux_prm.selection.settings import Selection
from reasonflux_prm.selection.survey import Listed, Tick, read_ids, said, survey
from reasonflux_prm.traces.manifest import Manifest, write_manifest
from reasonflux_prm.traces.resumable import Input, finished_run
from reasonflux_prm.traces.run_files import RunFiles
from reasonflux_prm.traces.write import RejectsWriter, atomic_path, json_line, side_path, writing

KIND: Final = "selection"
DROPPED_SUFFIX: Final = ".dropped.jsonl"


@dataclass(frozen=True, slots=True)
class Extras:
    """What else is written, and what the card says."""

    dropped: bool = False
    """Write `X.dropped.jsonl`: every trace that was not kept, with the reason."""
    license: str | None = None
    command: str = "reasonflux-prm select"
    look: Callable[[Iterator[Seen]], None] | None = None
    """Is given a sample of the pool, each trace with what became of it."""
    look_at: int = 4000
    """Traces of that sample, at most."""


@dataclass(slots=True)
class Outcome:
    """What came of a selection."""

    path: Path
    """The data file."""
    card: Path
    counts: dict[str, int]
    """Traces of the pool by reason; `kept` are in the data file."""
    rejects: int = 0
    asked: int | None = None
    """How many were asked for."""
    missing_ids: list[str] = field(default_factory=list)
    unthinking: int = 0
    """Kept traces without thinking."""
    longest_tokens: int | None = None
    done_before: bool = False
    """The output was complete, and of the same settings and pool."""

    @property
    def kept(self) -> int:
        """Return how many traces are in the data file."""
        return self.counts.get(Reason.KEPT.value, 0)


def run_selection(
    source: Input,
    output: Path,
    settings: Selection,
    export: Export | None = None,
    extras: Extras | None = None,
    *,
    fresh: bool = False,
    tick: Tick | None = None,
) -> Outcome:
    """Choose traces of a pool and write them as training rows, with manifest and card.

    Args:
        source: The pool; no pipe.
        output: A data file, or a folder, which gets `train.jsonl` and `README.md`.
        settings: Which traces.
        export: In which form; default messages with think tags.
        extras: What else; default nothing.
        fresh: Replace an output that is there.
        tick: Told how it goes on.

    Raises:
        UsageError: Settings make no sense, or rewards cannot be compared.
        InputError: There is no pool, nothing is left of it, or it changed while it was read.
        ResumeError: The output is another run's, or is being written.
        MissingExtra, DownloadError, PolicyStopped, CheckpointError: Something that is needed cannot be had.
        OutputError: The output cannot be written.
    """
    settings.check()
    export, extras = export or Export(), extras or Extras()
    path = data_path(output)
    made_of = settings_of(source, settings, export)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    files = RunFiles(path)
    with files.only_writer():
        if not fresh and (manifest := finished_run(path, KIND, made_of)) is not None:
            done = Outcome(path, card_path(output, path), dict(manifest.counts), manifest.rejects, done_before=True)
            if extras.look is None:
                return done
        with _folder(path.with_name(f".{path.name}.work")) as work:
            return _Run(source, output, path, settings, export, extras, work, tick).go(made_of)


def settings_of(source: Input, settings: Selection, export: Export) -> dict[str, Any]:
    """Return everything that the bytes of the output depend on, as JSON values."""
    ids = None if settings.ids is None else Input(settings.ids).fingerprint()
    written = {"form": export.form, "template": export.template.name, "system": export.system}
    found = {"input": source.fingerprint(), "ids": ids, "selection": settings.as_json(), "export": written}
    return dict(json.loads(json.dumps(found)))


def card_path(output: Path, data: Path) -> Path:
    """Return where the card is: `README.md` in a folder, `X.README.md` beside a file."""
    return side_path(data, f".{CARD}") if data == output else output / CARD


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Give an empty folder, and take it away afterwards; what a killed run left in it is no use."""
    shutil.rmtree(path, ignore_errors=True)
    with writing(path):
        path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclass(slots=True)
class _Run:
    """One selection under way."""

    source: Input
    output: Path
    path: Path
    settings: Selection
    export: Export
    extras: Extras
    work: Path
    tick: Tick | None
    signatures: Signatures | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def go(self, made_of: dict[str, Any]) -> Outcome:
        """Read, choose, write."""
        with ExitStack() as stack:
            gate = stack.enter_context(Gate(self.settings, self.export.template))
            listed = read_ids(self.settings.ids) if self.settings.ids is not None else None
            index, rejected = self._survey(stack, gate, listed)
            with self._timed("choosing"):
                self._choose(index, stack)
            counts = index.counts()
            outcome = Outcome(self.path, card_path(self.output, self.path), counts, rejected)
            outcome.asked = self.settings.top
            outcome.missing_ids = listed.missing if listed is not None else []
            self._refuse_nothing(outcome)
            with self._timed("writing"):
                self._write(index, gate, outcome)
            self._describe(index, gate, outcome, made_of)
            if self.extras.look is not None:
                self.extras.look(sampled(self._pool(), index, self.extras.look_at, self.settings.seed))
            return outcome

    def _pool(self) -> Iterator[Pooled]:
        return read_pool(self.source, lambda _: None)

    def _survey(self, stack: ExitStack, gate: Gate, listed: Listed | None) -> tuple[Index, int]:
        notes = Notes(self.work / "notes")
        stack.callback(notes.close)
        index = Index(notes, tuple(self.settings.quotas), self.settings.seed)
        near = self.settings.filters.near_duplicates
        self.signatures = None if near is None else Signatures(self.work / "near", near)
        with self._timed("reading"), RejectsWriter(self.path) as rejects:
            pool = read_pool(self.source, rejects)
            survey(pool, index, self.settings, gate, listed=listed, signatures=self.signatures, tick=self.tick)
        return index, rejects.count

    def _choose(self, index: Index, stack: ExitStack) -> None:
        surprise = encode = None
        if self.settings.student is not None:
            cache = side_path(self.path, ".student.sqlite")
            surprise = surprise_of(self.settings.student, self.export, self._pool, cache, stack, self.tick)
        if self.settings.diversity is not None:
            encode = encoder_of(self.settings.diversity, self._pool, stack, self.tick)
        choose(index, self.settings, self.signatures, surprise, encode)

    def _refuse_nothing(self, outcome: Outcome) -> None:
        if not sum(outcome.counts.values()):
            raise InputError(f"expected traces in {self.source.source}, found none")
        if not outcome.kept:
            why = ", ".join(f"{number:,} {reason}" for reason, number in outcome.counts.items())
            raise InputError(f"nothing is left of {self.source.source} to choose from: {why}")

    def _write(self, index: Index, gate: Gate, outcome: Outcome) -> None:
        """Write the kept traces and, if asked, the others; the pool must be the one that was surveyed."""
        place = -1
        with ExitStack() as stack:
            write = stack.enter_context(row_writer(self.path))
            dropped = stack.enter_context(self._dropped_file())
            for place, pooled in enumerate(self._pool()):
                if place >= len(index):
                    break
                reward = float(index.reward[place])
                number = reward if reward == reward and self.settings.rewarded else None
                if index.code[place]:
                    if dropped is not None:
                        dropped.write(json_line(self._dropped(index, place, pooled, number)))
                    continue
                self._measure(pooled, gate, outcome)
                correct = {1: True, 0: False}.get(int(index.verdict[place]))
                extra = about(pooled.trace, correct, number, int(index.rank[place]))
                write({**self.export.row(pooled.trace), **extra})
                if self.tick is not None:
                    self.tick("written", int(place) + 1)
            if place + 1 != len(index):
                raise InputError(f"{self.source.source} changed while it was read; run the same command again")

    @contextmanager
    def _dropped_file(self) -> Iterator[Any]:
        path = side_path(self.path, DROPPED_SUFFIX)
        if not self.extras.dropped:
            # One of another run would be taken for this one's.
            path.unlink(missing_ok=True)
            yield None
            return
        with atomic_path(path) as part, part.open("wb") as stream:
            yield stream

    def _dropped(self, index: Index, place: int, pooled: Pooled, reward: float | None) -> dict[str, Any]:
        reason = REASONS[index.code[place]]
        detail = index.detail(place)
        if reason is Reason.BELOW:
            detail = f"the reward {reward:.6g} is below {self.settings.threshold:g}"
        trace = pooled.trace
        about_it = {"source": trace.source, "policy": trace.policy, "correct": trace.correct, "reward": reward}
        return {"id": trace.id, "reason": reason.value, "detail": detail, **about_it}

    def _measure(self, pooled: Pooled, gate: Gate, outcome: Outcome) -> None:
        trace = pooled.trace
        outcome.unthinking += not trace.thinking.strip()
        if gate.tokens is not None:
            turn = self.export.template.turn(trace.thinking, trace.response)
            length = gate.tokens(trace.problem) + gate.tokens(turn)
            outcome.longest_tokens = max(length, outcome.longest_tokens or 0)

    def _describe(self, index: Index, gate: Gate, outcome: Outcome, made_of: dict[str, Any]) -> None:
        """Write card and manifest."""
        prms = [said(identity) for identity, _ in index.makers.most_common()] if self.settings.rewarded else []
        names = {number: name for name, number in index.teachers.items()}
        kept = Counter(names[int(teacher)] for teacher in index.teacher[index.code == 0])
        manifest_details: dict[str, Any] = {
            "asked": outcome.asked,
            "prms": prms,
            "benchmarks": dict(gate.sizes()),
            "unthinking": outcome.unthinking,
            "longest_tokens": outcome.longest_tokens,
            "missing_ids": {"count": len(outcome.missing_ids), "first": outcome.missing_ids[:20]},
            "distributions": index.distributions(),
        }
        manifest = Manifest(
            KIND, outcome.counts, made_of, outcome.rejects, dict(self.seconds), details=manifest_details
        )
        recipe = Recipe(
            title=side_path(self.path, "").name if self.path == self.output else self.output.name,
            file=self.path.name,
            command=self.extras.command,
            export=self.export,
            counts=outcome.counts,
            settings=made_of["selection"],
            prms=prms,
            benchmarks=gate.sizes(),
            sources=dict(kept.most_common(50)),
            longest_tokens=outcome.longest_tokens,
            tokenizer=self.settings.filters.tokenizer,
            license=self.extras.license,
            version=str(manifest.versions["reasonflux-prm"]),
        )
        with atomic_path(outcome.card) as part:
            part.write_text(write_card(recipe), encoding="utf-8")
        if self.export.form in ("sharegpt", "alpaca"):
            system = self.export.system is not None
            info = llama_factory_info(recipe.title, self.path.name, self.export.form, system=system)
            # A folder of ours gets the name that LLaMA-Factory looks for; beside a file there may be somebody's own.
            name = "dataset_info.json"
            place = side_path(self.path, f".{name}") if self.path == self.output else self.path.with_name(name)
            with atomic_path(place) as part:
                part.write_text(json.dumps(info, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        write_manifest(manifest, self.path)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[what] = round(time.monotonic() - began, 3)
