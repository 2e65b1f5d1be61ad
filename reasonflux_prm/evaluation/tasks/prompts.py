r"""What thinking models are asked, in our words; no system message, as DeepSeek-R1's model card advises.

None of the benchmarks prescribes a prompt for thinking models. What the prompts have in common with those of others is
that they say where the answer goes: `\boxed{}` for answers (as Qwen2.5-Math and DeepSeek-R1 were trained to do), a
fenced block for programs.
"""

from __future__ import annotations

from collections.abc import Sequence

from reasonflux_prm.evaluation.tasks.base import Problem


def ask_answer(problem: Problem) -> str:
    """Ask for an answer in a box."""
    return f"{problem.problem}\n\nThink it through step by step. End with the final answer in \\boxed{{}}."


def ask_choice(problem: Problem) -> str:
    """Ask for the letter of an option in a box; the options are part of the problem."""
    return (
        f"{problem.problem}\n\nThink it through step by step. Exactly one option is right: end with its letter in "
        "\\boxed{}."
    )


def ask_completion(problem: Problem) -> str:
    """Ask for the whole of a function that has been begun."""
    return (
        f"Finish this Python function:\n\n```python\n{problem.problem.rstrip()}\n```\n\nThink it through first. End "
        "with the whole function, and the imports that it needs, in one ```python block."
    )


def ask_program(problem: Problem, names: Sequence[str] = ()) -> str:
    """Ask for a program that the tests import.

    Args:
        problem: The problem.
        names: What the program has to define, as names or declarations.
    """
    wanted = "".join(f"\n    {name}" for name in names)
    named = f"\n\nIt has to define:\n{wanted}" if names else ""
    return (
        f"Solve this in Python:\n\n{problem.problem}{named}\n\nThink it through first. End with the whole program in "
        "one ```python block; its tests import it by the names that are asked for, and read nothing from standard "
        "input."
    )
