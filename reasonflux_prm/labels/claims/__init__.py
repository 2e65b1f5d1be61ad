"""What a step claims about numbers, found in its text and checked.

    tokens -> parser -> relations -> arithmetic | algebra, consequences -> check

`tokens` cuts prose and LaTeX into tokens, `parser` makes expressions of them, `relations` finds what stands on both
sides of each relation sign, `arithmetic` decides those without variables by exact fractions, `algebra` and
`consequences` those with variables, and `check` gathers the verdicts of a step, with `context` letting off what is not
stated as a fact. `values` evaluates within limits, `vocabulary` holds the words.
"""
