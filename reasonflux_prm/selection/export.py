"""Kept traces as training rows: the formats, and the files they go to.

| format | columns | read by |
|---|---|---|
| `messages` | `messages: [{role, content}]` | TRL, and most trainers; loss on all tokens unless the trainer masks |
| `prompt-completion` | `prompt`, `completion`: messages, or texts for `deepseek-r1` | TRL, loss on the completion |
| `sharegpt` | `conversations: [{from: human or gpt, value}]`, `system` | LLaMA-Factory (`formatting: sharegpt`) |
| `alpaca` | `instruction`, `input`, `output`, `system` | LLaMA-Factory (`formatting: alpaca`) |
| `openthoughts` | `system`, `conversations: [{from: user or assistant, value}]` | as OpenThoughts-114k |

Every row also has `id, source, policy, correct, reward, rank`: where it came from, and its place among the kept, so
that the first thousand of ten thousand are a filter away. `system` is there only if a system message was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, get_args

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.labels.tables import written_rows
from reasonflux_prm.records import Trace
from reasonflux_prm.selection.templates import TEMPLATES, Template, find_template
from reasonflux_prm.traces.sources import DATA_SUFFIXES
from reasonflux_prm.traces.write import atomic_path, json_line

Form = Literal["messages", "prompt-completion", "sharegpt", "alpaca", "openthoughts"]
FORMS: Final[tuple[str, ...]] = get_args(Form)
DATA_FILE: Final = "train.jsonl"
"""Of an output that is a folder."""
_GROUP: Final = 1000
"""Rows of a Parquet row group."""


@dataclass(frozen=True, slots=True)
class Export:
    """How kept traces are written."""

    form: Form = "messages"
    template: Template = TEMPLATES["think"]
    system: str | None = None

    @classmethod
    def of(cls, form: str, template: str | None, system: str | None = None) -> Export:
        """Put the names together.

        Raises:
            UsageError: There is no such format or template, or they do not go together.
        """
        if form not in FORMS:
            raise UsageError(f"unknown format {form!r}; there are {', '.join(FORMS)}")
        chosen = find_template(template or ("openthoughts" if form == "openthoughts" else "think"))
        if form == "openthoughts" and chosen.name != "openthoughts":
            raise UsageError(f"--format openthoughts has marks of its own; leave --template {chosen.name} out")
        if chosen.prompt is not None and form != "prompt-completion":
            raise UsageError(
                f"the chat template of {chosen.name} drops the thinking of assistant turns, so {form} would train on "
                "responses alone; take --format prompt-completion, which is plain text for this template"
            )
        if chosen.field is not None and form not in ("messages", "prompt-completion"):
            raise UsageError(
                f"{chosen.name} keeps the thinking in the field {chosen.field} of a message, and {form} has no such "
                "field; take --format messages or prompt-completion"
            )
        return cls(form, chosen, system)  # type: ignore[arg-type]

    def message(self, trace: Trace) -> dict[str, str]:
        """Return the assistant's turn as a message."""
        if self.template.field is None:
            return {"role": "assistant", "content": self.template.turn(trace.thinking, trace.response)}
        return {
            "role": "assistant",
            "content": trace.response.strip(),
            self.template.field: trace.thinking.strip(),
        }

    def pair(self, trace: Trace) -> tuple[str, str] | None:
        """Return prompt and completion as plain texts; None where the chat template is to write them."""
        if self.template.prompt is None:
            return None
        turn = self.template.turn(trace.thinking, trace.response).removeprefix(self.template.opening)
        return self._asked(self.template.prompt.replace("{problem}", trace.problem.strip())), turn

    def _asked(self, prompt: str) -> str:
        return prompt if self.system is None else self.system + prompt

    def row(self, trace: Trace) -> dict[str, Any]:
        """Return the training columns of a trace."""
        problem, turn = trace.problem.strip(), self.template.turn(trace.thinking, trace.response)
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        asked = [*system, {"role": "user", "content": problem}]
        if self.form == "messages":
            return {"messages": [*asked, self.message(trace)]}
        if self.form == "prompt-completion":
            if (pair := self.pair(trace)) is not None:
                return dict(zip(("prompt", "completion"), pair, strict=True))
            return {"prompt": asked, "completion": [self.message(trace)]}
        said = {} if self.system is None else {"system": self.system}
        if self.form == "alpaca":
            return {"instruction": problem, "input": "", "output": turn, **said}
        names = ("human", "gpt") if self.form == "sharegpt" else ("user", "assistant")
        values = zip(names, (problem, turn), strict=True)
        return {**said, "conversations": [{"from": name, "value": value} for name, value in values]}


def about(trace: Trace, correct: bool | None, reward: float | None, rank: int) -> dict[str, Any]:
    """Return the columns that say where a row came from."""
    return {
        "id": trace.id,
        "source": trace.source,
        "policy": trace.policy,
        "correct": correct,
        "reward": reward,
        "rank": rank,
    }


# --- files -----------------------------------------------------------------------------------------------------------


def data_path(output: Path) -> Path:
    """Return the file that rows go to: the output, or, if its name is not that of a data file, one in that folder.

    Raises:
        UsageError: The output is there and is the other kind of thing.
    """
    is_file = output.name.endswith(DATA_SUFFIXES)
    if is_file and output.is_dir():
        raise UsageError(f"expected {output} to be a file, and it is a folder")
    if not is_file and output.is_file():
        raise UsageError(f"expected the output to end in {', '.join(DATA_SUFFIXES)} or to be a folder, got {output}")
    return output if is_file else output / DATA_FILE


@contextmanager
def row_writer(path: Path) -> Iterator[Any]:
    """Give a function that writes a row; the file appears whole when the block ends without an error.

    Raises:
        MissingExtra: A Parquet file needs pyarrow, which is not installed.
        OutputError: The file could not be written.
    """
    if path.suffix == ".parquet":
        with _table(path) as write:
            yield write
    else:
        with written_rows(path) as stream:
            yield lambda row: stream.write(json_line(row))


@contextmanager
def _table(path: Path) -> Iterator[Any]:
    arrow = _pyarrow()
    held: list[dict[str, Any]] = []
    with atomic_path(path) as part:
        writer: Any = None

        def flush() -> None:
            nonlocal writer
            schema = _schema(arrow, held[0]) if writer is None else writer.schema
            writer = writer or arrow.parquet.ParquetWriter(part, schema, compression="zstd")
            writer.write_table(arrow.Table.from_pylist(held, schema=schema))
            held.clear()

        def write(row: Mapping[str, Any]) -> None:
            held.append(dict(row))
            if len(held) >= _GROUP:
                flush()

        yield write
        if held:
            flush()
        if writer is not None:
            writer.close()


def _schema(arrow: ModuleType, row: Mapping[str, Any]) -> Any:
    known = {"correct": arrow.bool_(), "reward": arrow.float64(), "rank": arrow.int64()}

    def kind(name: str, value: Any) -> Any:
        if isinstance(value, list):
            keys = dict.fromkeys(key for item in value for key in item)
            return arrow.list_(arrow.struct([(key, arrow.string()) for key in keys]))
        return known.get(name, arrow.string())

    return arrow.schema([(name, kind(name, value)) for name, value in row.items()])


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            'expected pyarrow to write a Parquet file, but it is not installed: pip install "reasonflux-prm[data]"'
        ) from error
    module: ModuleType = pyarrow
    return module
