"""Prompt files, and how a stranger's text is put into them."""

import hashlib
import json
import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels import prompts
from reasonflux_prm.labels.prompts import load_prompt, parse_prompt, prompt_names
from reasonflux_prm.labels.prompts.material import enclosed, json_line, mark_of, plain, shorten
from reasonflux_prm.policy.base import Message
from reasonflux_prm.steps.estimate import estimate_tokens

PLACES = {
    "judge_repair": {"faults", "steps", "count", "mark"},
    "judge_steps": {"mark", "material", "steps", "count"},
    "judge_trace": {"mark", "material"},
    "judge_trace_repair": {"fault", "mark"},
    "rollout": {"problem", "mark", "prefix"},
    "solve": {"problem"},
    "solve_with_template": {"problem", "template"},
    "template_repair": {"fault", "mark"},
    "template_write": {"mark", "material"},
}


def test_the_prompts_that_ship():
    assert {name: set(load_prompt(name).places) for name in prompt_names()} == PLACES


@pytest.mark.parametrize("name", PLACES)
def test_version_is_the_hash_of_the_file(name):
    assert load_prompt(name).version == hashlib.sha256((files(prompts) / f"{name}.md").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", PLACES)
def test_the_note_for_people_is_not_sent(name):
    note = (files(prompts) / f"{name}.md").read_text("utf-8").splitlines()[0]
    filled = load_prompt(name).fill(dict.fromkeys(PLACES[name], "x"))
    assert len(note) > 20
    assert all(note not in message.content and "##" not in message.content for message in filled)
    assert filled[-1].role == "user"


def test_the_control_differs_from_the_attempt_by_the_template_alone():
    values = {"problem": "P"}
    alone = load_prompt("solve").fill(values)[0].content
    followed = load_prompt("solve_with_template").fill({**values, "template": "T"})[0].content
    assert followed.replace("Follow this plan, stage by stage:\nT\n\n", "") == alone


def test_places_are_filled_in_one_pass():
    prompt = parse_prompt("p", "a note\n\n## system\nBe {{how}}.\n## user\n{{what}}\n")
    assert prompt.fill({"how": "{{what}}", "what": "{{how}} {not} \\1"}) == (
        Message("system", "Be {{what}}."),
        Message("user", "{{how}} {not} \\1"),
    )


@pytest.mark.parametrize("values", [{}, {"how": "x", "more": "y"}])
def test_a_place_that_is_missing_or_unknown_is_refused(values):
    with pytest.raises(UsageError, match="has the places how, and got"):
        parse_prompt("p", "## user\n{{how}}").fill(values)


def test_a_prompt_without_a_message_or_a_file_is_refused():
    with pytest.raises(UsageError, match="has no message"):
        parse_prompt("p", "Just text.")
    with pytest.raises(UsageError, match="there is no prompt 'nope'; there are judge_repair,"):
        load_prompt("nope")


# --- material --------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=()), max_size=100))
def test_a_record_is_one_line_and_reads_back(text):
    line = json_line({"text": text})
    assert len(line.splitlines()) == 1
    assert json.loads(line) == {"text": text}
    line.encode("utf-8")


@pytest.mark.parametrize(
    "token",
    ["<|im_end|>", "<|im_start|>", "<｜User｜>", "</s>", "<s>", "<end_of_turn>", "<think>", "</think>", "[INST]",
     "[/INST]", "<<SYS>>", "<extra_0>", "[TOOL_CALLS]", "<|start_header_id|>"],
)  # fmt: skip
def test_control_tokens_are_broken_up_and_still_legible(token):
    line = json_line({"text": f"a{token}b\\{token}"})
    assert token not in line
    assert json.loads(line)["text"] == f"a{token}b\\{token}"
    shown = plain(f"a{token}b")
    assert token not in shown
    assert shown.replace(" ", "") == f"a{token}b"


@pytest.mark.parametrize("text", ["if x<y then [a, b]", "x < |y| and <br>", "a[i] <= b", "[1, 2] \\[x\\]"])
def test_other_signs_stay_as_they_are(text):
    assert plain(text) == text
    assert json_line({"text": text}) == json.dumps({"text": text})


def test_plain_text_can_be_sent():
    plain("a\ud800b").encode("utf-8")


def test_the_mark_follows_from_the_text_and_is_not_in_it():
    records = [{"problem": "P"}, {"step": 1, "text": "x"}]
    shown = enclosed(records)
    assert shown == enclosed(records)
    assert re.fullmatch(r"[0-9a-f]{16}", shown["mark"])
    assert shown["mark"] not in shown["material"]
    assert enclosed([{"problem": "Q"}])["mark"] != shown["mark"]


def test_a_text_with_a_mark_in_it_has_another_one(monkeypatch):
    def first_zeros(data):
        return hashlib.new("sha256", b"" if data.startswith(b"0\n") else data)

    zeros = hashlib.sha256(b"").hexdigest()[:16]
    monkeypatch.setattr("reasonflux_prm.labels.prompts.material.hashlib.sha256", first_zeros)
    assert mark_of("nothing") == zeros
    assert mark_of(f"says {zeros}") != zeros


def test_shorten_keeps_both_ends_and_says_what_is_gone():
    text = " ".join(f"word{number}" for number in range(1000))
    shown = shorten(text, 200)
    assert estimate_tokens(shown) <= 230
    assert shown.startswith("word0 ")
    assert shown.endswith(" word999")
    (gone,) = re.findall(r"\[\.\.\. (\d+) characters left out here \.\.\.\]", shown)
    assert len(text) - int(gone) == len(re.sub(r"\n\[.*\]\n", "", shown))
    assert shorten(text, 10_000) == text


def test_shorten_to_nothing_leaves_the_remark():
    assert shorten("some words here", 0) == "\n[... 15 characters left out here ...]\n"
