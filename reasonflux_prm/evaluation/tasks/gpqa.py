r"""GPQA-Diamond: 198 graduate-level questions with four options (arXiv:2311.12022).

- Data: `Idavidrein/gpqa`, configuration `gpqa_diamond`, split `train` (columns Question, Correct Answer,
  Incorrect Answer 1 to 3, Record ID). It is gated: accept its terms on the hub and log in. A local file has these
  columns, or `id, problem, answer` with the options in the problem and a letter as the answer. The authors ask that its
  text be kept off the open web, so none of it is in this repository, and candidates files should not be published.
- The right answer comes first in the data, so options are shuffled: sorted by a hash of the seed, the question and the
  option. Neither the order of the records nor a limit changes it. openai/simple-evals (gpqa_eval.py at 0ac027d5)
  shuffles by one generator for all records, so its letters are others.
- Graded by `choice` on the letter in `\boxed{}`, or `The answer is X`.
- The paper's tables 1 to 3 and figure 5 use it (arXiv:2506.18896).
"""

from __future__ import annotations

import hashlib

from reasonflux_prm.errors import InputError
from reasonflux_prm.evaluation.tasks.base import Problem, Task, problem_of, question_and_answer, required
from reasonflux_prm.evaluation.tasks.prompts import ask_choice
from reasonflux_prm.traces.columns import Columns
from reasonflux_prm.traces.rows import Row

_RIGHT = "Correct Answer"
_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def read(row: Row, seed: int) -> Problem:
    """Read a record; see `Task.read`."""
    if _RIGHT not in row.columns:
        return question_and_answer(row, seed)
    columns = Columns(row.columns, row.where)
    question = required(columns, "Question").strip()
    options = [required(columns, name).strip() for name in (_RIGHT, *_WRONG)]
    if len(set(options)) < len(options):
        raise InputError("expected four different options, and two of them are the same")
    shuffled = sorted(options, key=lambda option: _rank(seed, question, option))
    lines = [f"({letter}) {option}" for letter, option in zip("ABCD", shuffled, strict=True)]
    letter = "ABCD"[shuffled.index(options[0])]
    return problem_of(columns, "\n".join([question, "", *lines]), letter, id=columns.take_scalar(("Record ID",)))


def _rank(seed: int, question: str, option: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{question}\0{option}".encode(errors="surrogatepass")).digest()


TASK = Task(
    name="gpqa",
    title="GPQA-Diamond",
    source="Idavidrein/gpqa:gpqa_diamond:train",
    licence="CC BY 4.0, gated; not to be put on the open web",
    sizes=(198,),
    grader="choice",
    read=read,
    ask=ask_choice,
)
