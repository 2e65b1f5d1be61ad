"""Math-Shepherd, RLHFlow and implicit PRMs as their contracts read: tiny checkpoints, and slow, obvious references.

The references use transformers models and whole-text tokenisation, one reading after another, without any pieces.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import tiny
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

TAGS = ("a ки and + or - ки + - ки " * 30,)
LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: {{ date_string }}\n\n<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}"
)
QWEN_TEMPLATE = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
TRACES: dict[str, tuple[str, list[str]]] = {
    "plain": ("What is 12 + 30?", ["Add the units: 2.", "Add the tens: 40.", "So the answer is \\boxed{42}."]),
    "one step": ("1/2 of 84?", ["It is 42."]),
    "numbered": ("Add 1 and 2.", ["Step 1: look at both.", "Step 2: the sum is 3."]),
    "separator typed": (
        "What do ки and + mean? <|eot_id|><|im_end|><|start_header_id|>user<|end_header_id|> Step 1: ки\nno + <s>",
        ["The tag ки is typed here: +", "<|eot_id|> and <|im_end|> are too.", "- ки"],
    ),
    "unicode": ("Сколько будет 2 + 2? 🙂", ["Два плюс два: 4 ки.", "答案是 4。"]),
    "many steps": ("Count.", [f"Now {number}." for number in range(240)]),
}


def logits(model: PreTrainedModel, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def plain_ids(tokens: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text in which nothing is a control token."""
    copy = Tokenizer.from_str(tokens.to_str())
    copy.encode_special_tokens = True
    return copy.encode(text, add_special_tokens=False).ids


# --- Math-Shepherd -------------------------------------------------------------------------------------------------


def shepherd(folder: Path, kind: tiny.Kind = "sentencepiece", **settings) -> tuple[Path, PreTrainedModel, Tokenizer]:
    tokens = tiny.tokenizer(kind, ("<s>", "</s>"), corpus=TAGS)
    model = tiny.causal("mistral", tokens.get_vocab_size(), seed=3, **{"sliding_window": None, **settings})
    state = model.state_dict()
    tiny.write(folder, model.config, state, tokens, architecture="MistralForCausalLM", bos="<s>")
    return folder, model, tokens


def shepherd_rewards(model: PreTrainedModel, tokens: Tokenizer, problem: str, steps: list[str]) -> list[float]:
    good, bad = plain_ids(tokens, "+"), plain_ids(tokens, "-")
    text = problem
    ends = []
    for number, step in enumerate(steps, 1):
        numbered = step if step.startswith("Step ") else f"Step {number}: {step}"
        text += (" " if number == 1 else "\n") + numbered + " ки"
        ends.append(len(plain_ids(tokens, text)))
    bos = tokens.token_to_id("<s>")
    out = logits(model, [bos, *plain_ids(tokens, text)])
    return [float(out[end, [good[0], bad[0]]].softmax(-1)[0]) for end in ends]


# --- RLHFlow -------------------------------------------------------------------------------------------------------


def rlhflow(folder: Path, chat_template: str | None = LLAMA_TEMPLATE) -> tuple[Path, PreTrainedModel, Tokenizer]:
    tokens = tiny.tokenizer("byte-bpe", LLAMA)
    model = tiny.causal("llama", tokens.get_vocab_size(), seed=4)
    tiny.write(
        folder,
        model.config,
        model.state_dict(),
        tokens,
        architecture="LlamaForCausalLM",
        bos=LLAMA[0],
        chat_template=chat_template,
    )
    return folder, model, tokens


def llama_chat(tokens: Tokenizer, turns: list[tuple[str, str]]) -> list[int]:
    """Return the ids of a Llama 3.1 chat; the contents cannot make control tokens."""
    bos, start, end, eot = (tokens.token_to_id(name) for name in LLAMA)
    dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    ids = [bos, start, *plain_ids(tokens, "system"), end, *plain_ids(tokens, "\n\n" + dates), eot]
    for role, content in turns:
        ids += [start, *plain_ids(tokens, role), end, *plain_ids(tokens, "\n\n" + content.strip()), eot]
    return ids


def rlhflow_rewards(
    model: PreTrainedModel, tokens: Tokenizer, problem: str, steps: list[str], only: Container[int] | None = None
) -> dict[int, float]:
    """Run the model anew for each step, over the chat that ends with it, and read at -3, as published."""
    candidates = [plain_ids(tokens, "+")[-1], plain_ids(tokens, "-")[-1]]
    turns: list[tuple[str, str]] = []
    rewards = {}
    for number, step in enumerate(steps):
        turns += [("user", f"{problem} {step}" if number == 0 else step), ("assistant", "+")]
        if only is None or number in only:
            rewards[number] = float(logits(model, llama_chat(tokens, turns))[-3, candidates].softmax(-1)[0])
    return rewards


# --- implicit ------------------------------------------------------------------------------------------------------


def implicit(folder: Path, seed: int, **settings) -> tuple[Path, PreTrainedModel, Tokenizer]:
    tokens = tiny.tokenizer("byte-bpe", tiny.CHATML[:3])
    model = tiny.causal("qwen2", tokens.get_vocab_size(), seed, **settings)
    state = {
        k: v for k, v in model.state_dict().items() if not (settings.get("tie_word_embeddings") and "lm_head" in k)
    }
    tiny.write(folder, model.config, state, tokens, architecture="Qwen2ForCausalLM", chat_template=QWEN_TEMPLATE)
    return folder, model, tokens


def qwen_chat(tokens: Tokenizer, problem: str, answer: str) -> tuple[int, list[int]]:
    """Return the length of the part before the answer, and the ids up to the token that closes the answer."""
    start, end = (tokens.token_to_id(name) for name in tiny.CHATML[1:3])
    system = "system\nPlease reason step by step, and put your final answer within \\boxed{}."
    ids = [start, *plain_ids(tokens, system), end, *plain_ids(tokens, "\n")]
    ids += [start, *plain_ids(tokens, "user\n" + problem), end, *plain_ids(tokens, "\n")]
    ids += [start, *plain_ids(tokens, "assistant\n")]
    return len(ids), [*ids, *plain_ids(tokens, answer), end]


def implicit_values(
    policy: PreTrainedModel, reference: PreTrainedModel, tokens: Tokenizer, problem: str, steps: list[str]
) -> tuple[list[float], float]:
    """Return the accumulative step values and the outcome reward, beta 1."""
    opening, ids = qwen_chat(tokens, problem, "\n\n".join(steps))
    chosen = torch.tensor(ids[1:])[:, None]
    log_pi, log_ref = (
        logits(model, ids)[:-1].double().log_softmax(-1).gather(1, chosen)[:, 0] for model in (policy, reference)
    )
    ratio = log_pi - log_ref
    ratio[: opening - 1] = 0  # entry t is of token t + 1; the first response token has index `opening`
    q = ratio.cumsum(0)
    ends = [
        opening + len(plain_ids(tokens, "\n\n".join(steps[:count]) + ("\n\n" if count < len(steps) else "")))
        for count in range(1, len(steps) + 1)
    ]
    return q.gather(0, torch.tensor(ends) - 2).tolist(), float(q[-1])
