"""How a stranger's text is shown to a model: as data, between marks that the text cannot contain.

Every text becomes one JSON string on one line, so nothing in it can end its record, begin another, or look like the
mark; and spellings of control tokens are broken up, because many servers read them inside a message as if the chat
template had put them there. What a text says can still sway a model that follows it: no format prevents that.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from reasonflux_prm.steps.estimate import estimate_tokens

# Turn and control tokens of the common chat templates: <|im_end|>, <｜User｜>, </s>, <end_of_turn>, [INST], <think>.
_CONTROL = re.compile(
    r"<(?=[|｜])|<(?=/?(?:s|bos|eos|pad|unk|think|start_of_turn|end_of_turn|start_of_image|extra_\d+)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK)\])"
    r"|<(?=<SYS>>|</SYS>>)",
)
# Line breaks that json.dumps leaves as they are, and halves of characters that no server could be sent.
_UNSAFE = re.compile("[\u0085\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ENCODER = json.JSONEncoder(ensure_ascii=False)

Record = Mapping[str, str | int]


def json_line(record: Record) -> str:
    """Write a record as one line of JSON without line breaks or control tokens; `json.loads` gives it back."""
    line = _ENCODER.encode(record)
    return _UNSAFE.sub(_escape, _CONTROL.sub(_escape, line))


def plain(text: str) -> str:
    """Return a text to be shown as it is: control tokens get a space, halves of characters a replacement character."""
    return _SURROGATE.sub("\ufffd", _CONTROL.sub(lambda found: found[0] + " ", text))


def mark_of(text: str) -> str:
    """Return a mark for the lines around a text: 16 hex digits, the same for the same text, and not in it.

    Whoever writes the text cannot know its mark, because the mark depends on all of it.
    """
    salt = 0
    while (mark := hashlib.sha256(f"{salt}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:16]) in text:
        salt += 1
    return mark


def enclosed(records: Sequence[Record]) -> dict[str, str]:
    """Return what a prompt with the places `mark` and `material` needs to show records."""
    material = "\n".join(json_line(record) for record in records)
    return {"mark": mark_of(material), "material": material}


def shorten(text: str, tokens: int) -> str:
    """Return a text of at most about `tokens` estimated tokens: too long ones lose their middle, and say so there."""
    estimate = estimate_tokens(text)
    if estimate <= tokens:
        return text
    kept = len(text) * tokens // estimate
    head, tail = kept - kept // 2, kept // 2
    return f"{text[:head]}\n[... {len(text) - kept} characters left out here ...]\n{text[len(text) - tail :]}"


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
