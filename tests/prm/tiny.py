"""Tiny random checkpoints in the published layouts, tiny tokenizers of every kind, and a pack of the simplest sort.

Checkpoints and tokenizers come from transformers and tokenizers alone, so a reference built on them is independent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from reasonflux_prm.prm.base import PRM, PackedBatch
from reasonflux_prm.prm.encoding import TRAJECTORY, EncodedTrace, TokenSequence
from reasonflux_prm.records import Part, SegmentedTrace, Step, Trace

Kind = Literal["byte-bpe", "sentencepiece", "metaspace", "byte"]
KINDS: tuple[Kind, ...] = ("byte-bpe", "sentencepiece", "metaspace", "byte")

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>")
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = (
    "First, note that the sum of 12 and 30 is 42, so the answer is 42.",
    "Wait, let me check this again. If x = 3 then x + 4 = 7, which is right.\n\nTherefore the answer is \\boxed{7}.",
    "What is 12 + 30? Let us add them step by step.\n\nStep 1: the units give 2.\n\nStep 2: the tens give 40.\n",
    "system\nPlease reason step by step, and put your final answer within \\boxed{}.\nuser\nassistant\n",
    "Hmm, that cannot be. 1/2 of 84 is 42.\nSo both ways agree.",
)


# --- tokenizers ----------------------------------------------------------------------------------------------------


def tokenizer(
    kind: Kind = "byte-bpe",
    special: Sequence[str] = CHATML,
    *,
    plain_added: Sequence[str] = (),
    corpus: Sequence[str] = (),
) -> Tokenizer:
    """Train a tokenizer of about 500 tokens (sentencepiece) or fewer.

    Args:
        kind: `byte-bpe` as in Qwen and Llama 3, `sentencepiece` as in Llama 2 and Mistral (byte fallback, a space
            put in front of every text by the normalizer), `metaspace` (the same by a pre-tokenizer, as newer
            conversions have it), `byte` (no merges at all).
        special: Added tokens marked special; they get the first ids (sentencepiece: after `<unk>`), in order.
        plain_added: Added tokens that are not marked special; they get the last ids.
        corpus: More text to train on; put a word there many times to make it one token.
    """
    result = Tokenizer.from_str(_trained(kind, tuple(special), tuple(corpus)))
    result.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    result.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain_added])
    return result


@lru_cache
def _trained(kind: Kind, special: tuple[str, ...], corpus: tuple[str, ...]) -> str:
    texts = [*_CORPUS, *corpus] * 3
    if kind in ("sentencepiece", "metaspace"):
        return _sentencepiece(kind, special, texts)
    result = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated")
    result.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    result.decoder = decoders.ByteLevel()
    size = len(special) + 256 + (0 if kind == "byte" else 300)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    result.train_from_iterator(texts, trainer)
    return str(result.to_str())


def _sentencepiece(kind: Kind, special: tuple[str, ...], texts: list[str]) -> str:
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=240, show_progress=False)
    # Line breaks are bytes in Llama's vocabulary, and so they are here.
    learner.train_from_iterator([line for text in texts for line in text.split("\n")], trainer)
    learned = json.loads(learner.to_str())["model"]
    names = [
        "<unk>",
        *special,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *sorted(learned["vocab"], key=learned["vocab"].get),
    ]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in learned["merges"]]
    result = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if kind == "sentencepiece":
        result.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        result.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    result.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return str(result.to_str())


# --- models and folders --------------------------------------------------------------------------------------------


def config(kind: str, vocabulary: int, **settings: Any) -> Any:
    """Return a transformers configuration with tiny shapes; `settings` replace or add fields."""
    shapes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 8192,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return AutoConfig.for_model(kind, **{**shapes, **settings})


def randomise(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Give every weight a value that matters: wide matrices, norms that are not 1, biases that are not 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.8 + 0.6)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.5 / parameter.shape[-1] ** 0.5)
    return model.eval()


def body(kind: str, vocabulary: int, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """Return a random headless decoder (`AutoModel`), float32."""
    return randomise(AutoModel.from_config(config(kind, vocabulary, **settings)), seed)


def causal(kind: str, vocabulary: int, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """Return a random causal language model, float32, embeddings not tied."""
    settings = {"tie_word_embeddings": False, **settings}
    return randomise(AutoModelForCausalLM.from_config(config(kind, vocabulary, **settings)), seed)


def head(rows: int, width: int, seed: int, scale: float = 1.0) -> Tensor:
    """Return a random matrix (rows, width) whose products with hidden states have a spread of about `scale`."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * (scale / width**0.5)


def write(
    folder: Path,
    model_config: Any,
    tensors: Mapping[str, Tensor],
    tokens: Tokenizer,
    *,
    architecture: str,
    bos: str | None = None,
    chat_template: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint folder.

    Args:
        folder: Made if it is not there.
        model_config: A transformers configuration (see `config`).
        tensors: Everything that goes into `model.safetensors`, under its published name.
        tokens: Goes to `tokenizer.json`.
        architecture: The one entry of `architectures`.
        bos: `bos_token` of `tokenizer_config.json`.
        chat_template: `chat_template` of `tokenizer_config.json`.
        extra: More fields of `config.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = {**model_config.to_dict(), "architectures": [architecture], **(extra or {})}
    fields["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(fields, indent=1))
    save_file(
        {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors"
    )
    tokens.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "chat_template": chat_template}
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    return folder


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors with `prefix` in front of each name."""
    return {prefix + name: tensor for name, tensor in state.items()}


# --- traces and scores ---------------------------------------------------------------------------------------------


def segmented(problem: str, thinking: str = "", response: str = "", id: str = "t") -> SegmentedTrace:
    """Return a trace cut after every blank line; the line breaks stay with the step before them."""
    steps: list[Step] = []
    parts: tuple[tuple[Part, str], ...] = (("thinking", thinking), ("response", response))
    for part, text in parts:
        start = 0
        while start < len(text):
            found = text.find("\n\n", start)
            stop = len(text) if found < 0 else found + 2
            steps.append(Step(part, start, stop))
            start = stop
    return SegmentedTrace(Trace(id, problem, thinking, response), tuple(steps), "blank-line")


def pack(sequences: Sequence[TokenSequence]) -> tuple[PackedBatch, list[tuple[int, int]]]:
    """Lay whole sequences end to end; return the batch and (sequence, target) of each read."""
    tokens: list[int] = []
    starts, reads, spans, owners = [0], [], [], []
    for number, sequence in enumerate(sequences):
        tokens += sequence.head
        for piece in sequence.kept + sequence.pieces:
            begin = len(tokens)
            tokens += piece.tokens
            if piece.target is not None:
                reads.append(begin + piece.read_offset())
                spans.append((begin, len(tokens)))
                owners.append((number, piece.target))
        starts.append(len(tokens))
    return PackedBatch(torch.tensor(tokens), starts, torch.tensor(reads, dtype=torch.long), spans), owners


def scores(prm: PRM, traces: Sequence[EncodedTrace]) -> list[tuple[list[float], float | None]]:
    """Return (rewards of the steps that hold text, trajectory reward) of each trace; all are read in one pack."""
    sequences = [sequence for trace in traces for sequence in trace.sequences]
    trace_of = [number for number, trace in enumerate(traces) for _ in trace.sequences]
    batch, owners = pack(sequences)
    raw: list[dict[int, float]] = [{} for _ in traces]
    for (sequence, target), reward in zip(owners, prm.forward(batch).tolist(), strict=True):
        raw[trace_of[sequence]][target] = reward
    results = []
    for found in raw:
        read = found.pop(TRAJECTORY, None)
        rewards = [found[index] for index in sorted(found)]
        trajectory = None if read is None else prm.finish_trajectory(rewards, read)
        results.append((prm.finish(rewards), trajectory))
    return results
