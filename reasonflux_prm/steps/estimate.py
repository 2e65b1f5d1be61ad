"""How many tokens a text has, more or less, without a tokenizer.

Steps are cut before it is known which PRM will score them, so their bounds count estimated tokens: the same trace has
the same steps whichever PRM reads it.
"""

from __future__ import annotations

import re

# One match is about one token of a byte-level BPE with single digits (Qwen2.5, SmolLM2): a word of up to eight letters,
# a line break, a run of spaces as in indented code, or any other visible character (digits, signs, letters of other
# scripts).
_TOKEN = re.compile(r"[A-Za-z]{1,8}|\n|[^\S\n]{2,16}|[^\sA-Za-z]")


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a byte-level BPE makes of a text.

    Measured against SmolLM2's tokenizer on whole thinking trajectories and responses (R1, R1-Distill, QwQ, s1.1, LIMO),
    GSM8K and MATH solutions: median ratio to the true count 1.02, 5th to 95th percentile 0.90 to 1.13. Scripts without
    ASCII letters count one token a character, which is up to three times too few for SmolLM2 and somewhat too many for
    Qwen.

    The estimate is additive where a text is cut behind a run of white space: the parts' estimates sum to the whole's.

    Args:
        text: Any text.

    Returns:
        Tokens, 0 or more; at least 1 for a text with a visible character. Time is linear in the length.
    """
    return _TOKEN.subn("", text)[1]  # counts in C; an iterator makes an object of every match
