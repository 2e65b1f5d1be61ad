"""POST /get_reward: decoded texts back into traces, and a number for each, whatever comes."""

import math

import pytest
from serving_parts import HeldService, error_of, live, row

from reasonflux_prm.records import Trace
from reasonflux_prm.scoring.engine import Engine
from reasonflux_prm.serving.limits import ServiceLimits
from reasonflux_prm.serving.openrlhf import rewards_of, trace_of

CHATML = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n<|im_start|>assistant\n"
LLAMA3 = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhat is 1 + 1?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
DEEPSEEK = "<｜begin▁of▁sentence｜><｜User｜>What is 1 + 1?<｜Assistant｜><think>\n"
GEMMA = "<bos><start_of_turn>user\nWhat is 1 + 1?<end_of_turn>\n<start_of_turn>model\n"
MISTRAL = "<s>[INST] What is 1 + 1? [/INST]"
PHI = "<|user|>\nWhat is 1 + 1?<|end|>\n<|assistant|>\n"
PLAIN = "What is 1 + 1?"
TEMPLATES = {
    "chatml": (CHATML, "<|im_end|>"),
    "llama3": (LLAMA3, "<|eot_id|>"),
    "deepseek": (DEEPSEEK, "<｜end▁of▁sentence｜>"),
    "gemma": (GEMMA, "<end_of_turn>"),
    "mistral": (MISTRAL, "</s>"),
    "phi": (PHI, "<|end|>"),
    "plain": (PLAIN, "<|endoftext|>"),
}
every_template = pytest.mark.parametrize(("prompt", "end"), TEMPLATES.values(), ids=TEMPLATES)


def parts(trace):
    return trace.problem, trace.thinking, trace.response


@every_template
@pytest.mark.parametrize("tail", ["", "\n", "<|endoftext|>", "</s></s>\n"])
def test_prompt_and_completion(prompt, end, tail):
    opening = "" if prompt.rstrip().endswith("<think>") else "<think>\n"
    query = f"{prompt}{opening}One and one.</think>\n\nIt is 2.{end}{tail}"
    assert parts(trace_of(query, prompt, id="a")) == ("What is 1 + 1?", "One and one.", "It is 2.")


@every_template
def test_without_thinking(prompt, end):
    if prompt is DEEPSEEK:
        prompt = prompt.removesuffix("<think>\n")
    assert parts(trace_of(f"{prompt}It is 2.{end}", prompt, id="a")) == ("What is 1 + 1?", "", "It is 2.")


@every_template
def test_cut_off_while_thinking(prompt, end):
    opening = "" if prompt.rstrip().endswith("<think>") else "<think>\n"
    trace = trace_of(f"{prompt}{opening}One and", prompt, id="a")
    assert parts(trace) == ("What is 1 + 1?", "One and", "")
    assert not trace.thinking_closed


@every_template
@pytest.mark.parametrize(
    "changed",
    [
        lambda text: "<s> " + text,
        lambda text: "<|endoftext|><|endoftext|>" + text,
        lambda text: text.replace(" + ", " +"),
        lambda text: text.replace("\n", " \n"),
        lambda text: text.removeprefix("<|begin_of_text|>").removeprefix("<bos>").removeprefix("<s>"),
    ],
)
def test_the_query_begins_otherwise_than_the_prompt(prompt, end, changed):
    query = f"{changed(prompt)} It is 2.{end}"
    wanted = "It is 2." if "<think>" not in prompt else ""
    assert trace_of(query, prompt, id="a").response == wanted
    assert trace_of(query, prompt, id="a").problem == "What is 1 + 1?"


@every_template
def test_the_prompt_without_its_control_tokens(prompt, end):
    """Some trainers decode prompts with special tokens left out, and queries with them."""
    bare = PLAIN
    response = trace_of(f"{prompt}It is 2.{end}", bare, id="a")
    assert (response.problem, response.response or response.thinking) == (PLAIN, "It is 2.")


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "plain"])
@pytest.mark.parametrize("prompt", [None, "", "Something else altogether?"])
def test_marks_tell_where_no_prompt_does(name, prompt):
    rendered, end = TEMPLATES[name]
    trace = trace_of(f"{rendered}It is 2.{end}", prompt, id="a")
    assert (trace.problem, trace.response or trace.thinking) == ("What is 1 + 1?", "It is 2.")


def test_several_turns():
    prompt = CHATML + "Two.<|im_end|>\n<|im_start|>user\nAnd 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    trace = trace_of(prompt + "Four.<|im_end|>", prompt, id="a")
    assert trace.problem == "User: What is 1 + 1?\n\nAssistant: Two.\n\nUser: And 2 + 2?"
    assert trace.response == "Four."


def test_an_empty_thinking_in_the_prompt_is_none():
    prompt = CHATML + "<think>\n\n</think>\n\n"
    assert parts(trace_of(prompt + "It is 2.<|im_end|>", prompt, id="a")) == ("What is 1 + 1?", "", "It is 2.")


def test_marks_that_the_policy_quotes_are_text():
    prompt = CHATML
    trace = trace_of(prompt + "ChatML has <|im_start|>assistant in it.<|im_end|>", prompt, id="a")
    assert trace.response == "ChatML has <|im_start|>assistant in it."


def test_without_anything_to_go_by_all_is_response():
    assert parts(trace_of("It is 2.", None, id="a")) == ("", "", "It is 2.")
    assert parts(trace_of("", "", id="a")) == ("", "", "")


# --- over HTTP -------------------------------------------------------------------------------------------------------


def rendered(number):
    one = row(number)
    prompt = CHATML.replace("What is 1 + 1?", one["problem"])
    return prompt, f"{prompt}<think>\n{one['thinking']}\n</think>\n\n{one['response']}<|im_end|>"


def test_a_recorded_request(served, engine):
    """As OpenRLHF 0.11.2 sends it: one query, one prompt, one label."""
    prompt, query = rendered(5)
    answer = served.post("/get_reward", {"query": [query], "prompts": [prompt], "labels": ["35"]}).json()
    expected = next(engine.score([Trace(**row(5))]))
    assert answer["rewards"] == pytest.approx([expected.reward], abs=1e-6)
    assert answer["scores"] == pytest.approx([sum(expected.step_rewards) / len(expected.steps)], abs=1e-6)
    logs = answer["extra_logs"]
    assert logs["prm_trajectory"] == pytest.approx([expected.trajectory_reward], abs=1e-6)
    assert logs["prm_min_step"] == pytest.approx([min(expected.step_rewards)], abs=1e-6)
    assert logs["prm_steps"] == [len(expected.steps)]
    assert logs["prm_unscored"] == [0.0]


def test_several_queries_keep_their_order(served, engine):
    prompts, queries = zip(*map(rendered, range(30)), strict=True)
    answer = served.post("/get_reward", {"query": queries, "prompts": prompts, "labels": [None] * 30}).json()
    expected = [scored.reward for scored in engine.score([Trace(**row(number)) for number in range(30)])]
    assert answer["rewards"] == pytest.approx(expected, abs=1e-6)
    assert len(set(answer["rewards"])) == 30


@pytest.mark.parametrize(
    "query", ["", "<|im_end|>", CHATML, CHATML + "<|im_end|>", CHATML + "<think>\n\n</think>", "\0", "�"]
)
@pytest.mark.parametrize("label", [None, 3, {"a": [1]}, "x"])
def test_every_query_gets_a_number(served, query, label):
    """A reward of None, or an error, would end the trainer's run minutes later."""
    reply = served.post("/get_reward", {"query": [query], "prompts": [CHATML], "labels": [label]})
    assert reply.status_code == 200
    body = reply.json()
    for numbers in (body["rewards"], body["scores"], *body["extra_logs"].values()):
        assert len(numbers) == 1
        assert math.isfinite(numbers[0])
    nothing = not query.removeprefix(CHATML).replace("<|im_end|>", "").replace("<think>\n\n</think>", "")
    assert body["extra_logs"]["prm_unscored"] == [float(nothing)]
    if nothing:
        assert body["rewards"] == [0.0]


def test_prompts_and_labels_may_be_left_out(served):
    prompt, query = rendered(5)
    answers = [
        served.post("/get_reward", {"query": [query], **more}).json()["rewards"]
        for more in ({}, {"prompts": [prompt]}, {"prompts": [None]}, {"labels": ["35"], "step": 3})
    ]
    assert all(answer == pytest.approx(answers[0], abs=1e-6) for answer in answers)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"query": ["a"], "prompts": []}, "one of prompts for each query, got 0 for 1"),
        ({"query": ["a"], "labels": [1, 2]}, "one of labels for each query, got 2 for 1"),
        ({"query": "a"}, "query"),
        ({"queries": ["a"]}, "query: field required"),
    ],
)
def test_what_is_no_request(served, body, says):
    reply = served.post("/get_reward", body)
    assert reply.status_code == 422
    assert says in error_of(reply)


def test_a_full_queue_is_waited_for(prm):
    """OpenRLHF asks five times, a second apart, and then gives the run up."""
    import threading

    with live(prm, limits=ServiceLimits(queue_traces=2), service_class=HeldService) as busy:
        answers = []
        threads = [
            threading.Thread(target=lambda number=number: answers.append(_ask(busy, number))) for number in range(6)
        ]
        for thread in threads:
            thread.start()
        assert busy.service.held.entered.wait(20)
        assert busy.service.room.traces <= 2
        busy.service.held.open.set()
        for thread in threads:
            thread.join(60)
        assert sorted(answers) == [(number, 200) for number in range(6)]
        assert busy.service.room.traces == 0


def _ask(busy, number):
    prompt, query = rendered(number)
    return number, busy.post("/get_reward", {"query": [query], "prompts": [prompt]}).status_code


def test_rewards_that_are_no_numbers_are_an_error(prm):
    """A PRM that gives NaN would otherwise teach the policy that everything is bad."""

    class Broken(HeldService):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            run = self.engine.run

            def nan(jobs):
                run(jobs)
                for work, _ in jobs:
                    work.rewards = dict.fromkeys(work.rewards, math.nan)

            self._batcher._run = nan

    with live(prm, service_class=Broken) as broken:
        prompt, query = rendered(1)
        reply = broken.post("/get_reward", {"query": [query], "prompts": [prompt]})
        assert reply.status_code == 500
        assert "not-finite" in error_of(reply)
        assert broken.post("/score", {"traces": row(1)}).json()["scored"][0]["status"] == "not-finite"


def test_scores_lie_between_0_and_1_whatever_the_range(prm):
    from dataclasses import replace

    scored = next(Engine(prm).score([Trace(**row(1))]))
    signed = replace(scored, step_rewards=(-1.0, 0.5, 1.0, 1.0), trajectory_reward=0.5)
    assert rewards_of([signed], (-1.0, 1.0)).scores == [pytest.approx((0.375 + 1) / 2)]
    scalar = replace(scored, step_rewards=(None,) * 4, trajectory_reward=-3.0)
    assert rewards_of([scalar], (-1.0, 1.0)).scores == [0.0]
