"""The table of templates, held to the chat templates that TRL ships to recognise models by."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonflux_prm.errors import UsageError
from reasonflux_prm.records import Trace
from reasonflux_prm.selection.export import FORMS, Export
from reasonflux_prm.selection.templates import TEMPLATES, find_template
from reasonflux_prm.traces.marks import split_marks

TRACE = Trace("t", "Q?", "\nfirst\n\nsecond {x}\n", " It is 4. ")


def rendered(name: str, messages: list, *, ask: bool = False) -> str:
    """What a family's chat template makes of messages."""
    trl = pytest.importorskip("trl", reason="TRL has the chat templates")
    from transformers.utils.chat_template_utils import render_jinja_template

    file = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
    if not file.exists():
        pytest.skip(f"this release of TRL has no {name}.jinja")
    texts, _ = render_jinja_template(
        [messages], chat_template=file.read_text("utf-8"), add_generation_prompt=ask, bos_token="", eos_token=""
    )
    return texts[0]


@pytest.mark.parametrize(
    ("template", "file"),
    [
        ("qwen3", "qwen3"),
        ("qwen3", "qwen3_5_think"),
        ("qwen3", "qwen3_6"),
        ("qwen3.8", "qwen3_8"),
        ("glm4.5", "glm4moe"),
        ("gpt-oss", "gptoss"),
        ("think", "qwen2_5"),
        ("think", "llama3"),
        ("think", "phi3"),
        ("openthoughts", "qwen2_5"),
        ("none", "qwen2_5"),
        ("response", "qwen3_instruct_2507"),
    ],
)
def test_the_familys_chat_template_writes_the_turn_as_the_table_says(template, file):
    export = Export.of("messages", template)
    (asked, answered) = export.row(TRACE)["messages"]
    text = rendered(file, [asked, answered])
    turn = find_template(template).turn(TRACE.thinking, TRACE.response)
    assert text.count(turn) == 1
    assert text.count("second {x}") == (template != "response")
    assert text.startswith(rendered(file, [asked], ask=True)), "what is asked at inference is what is trained on"


def test_r1s_chat_template_drops_the_thinking_and_ours_is_what_it_asks_for():
    message = {"role": "assistant", "content": find_template("think").turn(TRACE.thinking, TRACE.response)}
    asked = {"role": "user", "content": "Q?"}
    assert "second" not in rendered("deepseek_r1_distill", [asked, message])
    row = Export.of("prompt-completion", "deepseek-r1").row(TRACE)
    assert row["prompt"] == rendered("deepseek_r1_distill", [asked], ask=True)
    assert row["completion"] == "first\n\nsecond {x}\n</think>\n\nIt is 4."


@pytest.mark.parametrize("form", [form for form in FORMS if form != "prompt-completion"])
def test_r1_is_refused_where_its_thinking_would_be_lost(form):
    with pytest.raises(UsageError):
        Export.of(form, "deepseek-r1")


def test_qwen38_would_double_tags_in_the_text():
    asked, message = {"role": "user", "content": "Q?"}, {"role": "assistant", "content": "<think>\nT\n</think>\n\nR"}
    assert rendered("qwen3_8", [asked, message]).count("</think>") == 2


@pytest.mark.parametrize("name", ["think", "qwen3", "smollm3", "glm4.5", "openthoughts"])
def test_our_own_reader_splits_a_turn_as_it_was(name):
    parts = split_marks(find_template(name).turn(TRACE.thinking, TRACE.response))
    assert (parts.thinking, parts.response, parts.closed) == (TRACE.thinking.strip(), TRACE.response.strip(), True)


def test_every_mark_of_a_turn_is_forbidden_in_texts():
    for template in TEMPLATES.values():
        marks = {mark for mark in template.forbidden if mark in template.text}
        left = template.text.format(thinking="", response="")
        for mark in sorted(marks, key=len, reverse=True):
            left = left.replace(mark, "")
        assert left.replace("assistant", "").replace("analysis", "").replace("final", "").strip() == "", template.name


def test_an_unknown_template_is_one_sentence():
    with pytest.raises(UsageError, match="unknown template 'qwen9'; there are think, qwen3"):
        Export.of("messages", "qwen9")
    with pytest.raises(UsageError, match="unknown format"):
        Export.of("parquet", None)
    with pytest.raises(UsageError, match="marks of its own"):
        Export.of("openthoughts", "qwen3")
    with pytest.raises(UsageError, match="field reasoning_content"):
        Export.of("alpaca", "qwen3.8")
