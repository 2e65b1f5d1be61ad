"""A language model of some 400,000 parameters for the small world, before it has learnt anything.

The tokenizer is byte-level BPE with digits apart, learnt from the training problems; the model is a Llama.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from recipes.student.form import chat_row, reference_traces

GAP = "\n\n"
"""Between two steps, as the paper cuts them."""
PAD, START, END, STEP, TRACE = "<|pad|>", "<|start|>", "<|end|>", "<|step|>", "<|trace|>"
"""The last two close a step and a trace in the input of a PRM."""
_TEMPLATE: Final = (
    f"{{% for m in messages %}}{START}{{{{ m['role'] }}}}\n{{{{ m['content'] }}}}{END}\n{{% endfor %}}"
    f"{{% if add_generation_prompt %}}{START}assistant\n{{% endif %}}"
)
_VOCABULARY = 640
_CONTEXT = 512


def write_base(problems: Path, folder: Path, seed: int = 0) -> None:
    """Write a random model and the tokenizer that training problems give; a folder that is there is kept."""
    if (folder / "config.json").is_file():
        return
    tokenizer = _tokenizer(problems)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=96,
            intermediate_size=264,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=3,
            max_position_embeddings=_CONTEXT,
            tie_word_embeddings=True,
            # With the usual 0.02, meant for wide models, copying is not learnt in the time there is.
            initializer_range=0.1,
            bos_token_id=tokenizer.token_to_id(START),
            eos_token_id=tokenizer.token_to_id(END),
            pad_token_id=tokenizer.token_to_id(PAD),
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [START, STEP, TRACE],
        "chat_template": _TEMPLATE,
        "model_max_length": _CONTEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", "utf-8")
    model.save_pretrained(folder)


def _tokenizer(problems: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[PAD, START, END, STEP, TRACE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(problems), trainer)
    return tokenizer


def _texts(problems: Path) -> Iterator[str]:
    for trace in reference_traces(problems, GAP):
        row = chat_row(trace)
        for message in (*row["prompt"], *row["completion"]):
            yield message["role"] + "\n"
            yield message["content"]
