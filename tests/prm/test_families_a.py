"""Families that read labels or values at separators, against slow references: every score to 1e-5 in float32."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import references
import tiny
import torch
from transformers import AutoTokenizer

from reasonflux_prm.prm.base import PRM
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.families.pure import PurePRM
from reasonflux_prm.prm.families.qwen import PUBLISHED_SYSTEM, QWEN25_SYSTEM, QwenPRM
from reasonflux_prm.prm.families.reasonflux_scalar import ReasonFluxScalarPRM
from reasonflux_prm.prm.families.skywork import SkyworkPRM
from reasonflux_prm.prm.families.token_classification import TokenClassificationPRM
from reasonflux_prm.records import SegmentedTrace, Status, Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings

GOLDEN = Path(__file__).with_name("golden_families_a.json")
SATURATING = 1e5

# The chat template of Qwen2.5 models, shortened to what a conversation without tools meets.
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}"
    "{{- '<|im_start|>system\\nSYSTEM<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}{%- if (message.role == 'user') or (message.role == 'assistant') %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endif %}{%- endfor %}"
)
MATH_TEMPLATE = CHAT_TEMPLATE.replace("SYSTEM", PUBLISHED_SYSTEM.replace("\\", "\\\\"))
INSTRUCT_TEMPLATE = CHAT_TEMPLATE.replace("SYSTEM", QWEN25_SYSTEM)


def write_qwen(folder: Path, kind: tiny.Kind, scale: float, template: str = MATH_TEMPLATE) -> None:
    tokens = tiny.tokenizer(kind)
    model = tiny.body("qwen2", tokens.get_vocab_size(), seed=1)
    head = {
        "score.0.weight": tiny.head(48, 48, 2),
        "score.0.bias": tiny.head(1, 48, 3)[0],
        "score.2.weight": tiny.head(2, 48, 4, scale),
        "score.2.bias": torch.tensor([0.1, -0.2]) * scale,
    }
    tensors = tiny.prefixed(model.state_dict(), "model.") | head
    # Trained from a causal language model, published with its unused head.
    tensors["lm_head.weight"] = model.state_dict()["embed_tokens.weight"]
    tiny.write(folder, model.config, tensors, tokens, architecture="Qwen2ForProcessRewardModel", chat_template=template)


def write_reasonflux(folder: Path, kind: tiny.Kind, scale: float) -> None:
    write_qwen(folder, kind, scale, INSTRUCT_TEMPLATE)


def write_skywork(folder: Path, kind: tiny.Kind, scale: float) -> None:
    tokens = tiny.tokenizer(kind)
    model = tiny.body("qwen2", tokens.get_vocab_size(), seed=5)
    head = {"v_head.summary.weight": tiny.head(1, 48, 6, scale), "v_head.summary.bias": torch.tensor([0.3]) * scale}
    tensors = tiny.prefixed(model.state_dict(), "model.") | head
    tiny.write(folder, model.config, tensors, tokens, architecture="Qwen2ForPrmModel", bos="<|endoftext|>")


def write_trl(folder: Path, kind: tiny.Kind, scale: float, bos: str | None = "<|endoftext|>") -> None:
    tokens = tiny.tokenizer(kind)
    model = tiny.body("llama", tokens.get_vocab_size(), seed=7)
    head = {"score.weight": tiny.head(2, 48, 8, scale), "score.bias": torch.tensor([0.2, -0.1]) * scale}
    tensors = tiny.prefixed(model.state_dict(), "model.") | head
    tiny.write(folder, model.config, tensors, tokens, architecture="LlamaForTokenClassification", bos=bos)


def write_pure(folder: Path, kind: tiny.Kind, scale: float) -> None:
    tokens = tiny.tokenizer(kind)
    model = tiny.body("qwen2", tokens.get_vocab_size(), seed=9)
    head = {"score.weight": tiny.head(2, 48, 10, scale), "score.bias": torch.tensor([0.2, -0.1]) * scale}
    tensors = tiny.prefixed(model.state_dict(), "model.") | head
    tiny.write(folder, model.config, tensors, tokens, architecture="Qwen2ForTokenClassification", bos="<|endoftext|>")


def write_scalar(folder: Path, kind: tiny.Kind, scale: float) -> None:
    tokens = tiny.tokenizer(kind)
    model = tiny.causal("qwen2", tokens.get_vocab_size(), seed=11)
    tiny.write(folder, model.config, model.state_dict(), tokens, architecture="Qwen2ForCausalLM")
    torch.save(scalar_head(scale), folder / "reward_head.pt")


def scalar_head(scale: float) -> dict[str, torch.Tensor]:
    return {"weight": tiny.head(1, 48, 12, scale), "bias": torch.tensor([0.1]) * scale}


@dataclass(frozen=True)
class Case:
    write: Callable[[Path, tiny.Kind, float], None]
    load: Callable[[Checkpoint], PRM]
    reference: references.Reference
    kinds: tuple[tiny.Kind, ...] = ("byte-bpe", "byte")


CASES = {
    "qwen-math": Case(write_qwen, QwenPRM.load, references.qwen()),
    "reasonflux": Case(write_reasonflux, QwenPRM.load_reasonflux, references.qwen(QWEN25_SYSTEM)),
    "skywork": Case(write_skywork, SkyworkPRM.load, references.SKYWORK),
    "token-classification": Case(write_trl, TokenClassificationPRM.load, references.TRL, tiny.KINDS),
    "pure": Case(write_pure, PurePRM.load, references.PURE),
}
NAMES = [(name, kind) for name, case in CASES.items() for kind in case.kinds]

TYPED = "What does <extra_0> mean? <|im_end|>\n<|im_start|>assistant\nIt is<extra_0>\n\nright.<|endoftext|>"
TRACES = [
    tiny.segmented(
        "What is 12 + 30?",
        "First, add the units: 2.\n\nThen the tens: 40.\n\nSo 42.\n",
        "The answer is \\boxed{42}.\n\nDone.",
    ),
    tiny.segmented("One step?", response="Yes."),
    tiny.segmented("Only thinking, x = 3", thinking="  If x = 3\nthen x + 4 = 7.  \n\n\n\n Wait - é and 数学.\n\n"),
    tiny.segmented(TYPED, "A step with <extra_0> in it.\n\nAnother<|im_end|>.", "\n\nThe end."),
    tiny.segmented("  Problem with space around \n", "a\n\nb\n\nc\n\nd", "e\n\nf"),
    tiny.segmented("Many?", "".join(f"{n}x.\n\n" for n in range(200)), "So 42."),
]


@dataclass(frozen=True)
class Built:
    prm: PRM
    folder: Path
    expected: list[tuple[list[float], float]]
    """The reference's scores of `TRACES`."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """Returns a case as it was loaded, and what the reference says; each is made once."""
    made: dict[tuple[str, str, float], Built] = {}

    def get(name: str, kind: tiny.Kind = "byte-bpe", scale: float = 1.0) -> Built:
        key = (name, kind, scale)
        if key not in made:
            folder = tmp_path_factory.mktemp(name)
            case = CASES[name]
            case.write(folder, kind, scale)
            expected = [case.reference.scores(folder, trace) for trace in TRACES]
            made[key] = Built(case.load(Checkpoint(folder, name=name)), folder, expected)
        return made[key]

    return get


def close(found: tuple[list[float], float | None], expected: tuple[list[float], float]) -> None:
    assert len(found[0]) == len(expected[0])
    assert found[0] == pytest.approx(expected[0], abs=1e-5, rel=0)
    assert found[1] == pytest.approx(expected[1], abs=1e-5, rel=0)


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_alone(built, name, kind):
    case = built(name, kind)
    for trace, expected in zip(TRACES, case.expected, strict=True):
        [found] = tiny.scores(case.prm, [case.prm.encode(trace)])
        close(found, expected)
    # A head that answers the same everywhere would pass with any input.
    assert torch.tensor([reward for steps, _ in case.expected for reward in steps]).std() > 0.02


@pytest.mark.parametrize("name", CASES)
def test_packed_in_any_order(built, name):
    case = built(name)
    for seed in range(3):
        order = list(range(len(TRACES)))
        random.Random(seed).shuffle(order)
        found = tiny.scores(case.prm, [case.prm.encode(TRACES[number]) for number in order])
        for number, result in zip(order, found, strict=True):
            close(result, case.expected[number])


@pytest.mark.parametrize("name", CASES)
def test_engine(built, name):
    case = built(name)
    records = list(Engine(case.prm, EngineSettings(pack_tokens=700)).score(TRACES))
    for trace, record, expected in zip(TRACES, records, case.expected, strict=True):
        assert record.status is Status.SCORED
        assert record.overflow is None
        blank = [not trace.text(step).strip() for step in trace.steps]
        assert [reward is None for reward in record.step_rewards] == blank
        found = [reward for reward in record.step_rewards if reward is not None]
        close((found, record.trajectory_reward), expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("limit", "overlap"), [(250, 0.5), (400, 0.25), (200, 0.0)])
def test_windowed(built, name, limit, overlap):
    case = built(name)
    settings = EngineSettings(context=limit, overlap=overlap, alpha=0.0)
    [record] = Engine(case.prm, settings).score(TRACES[-1:])
    expected = CASES[name].reference.windowed(case.folder, TRACES[-1], limit, overlap)
    assert "windows" in record.overflow
    assert list(record.step_rewards) == pytest.approx(expected, abs=1e-5, rel=0)
    whole = case.expected[-1][0]
    assert max(abs(a - b) for a, b in zip(expected, whole, strict=True)) > 1e-3  # windows do change what is read


@pytest.mark.parametrize("name", CASES)
def test_saturated(built, name):
    case = built(name, scale=SATURATING)
    seen = set()
    for trace, expected in zip(TRACES, case.expected, strict=True):
        [(steps, trajectory)] = tiny.scores(case.prm, [case.prm.encode(trace)])
        close((steps, trajectory), expected)
        assert len(steps) == len(references.texts(trace))  # a probability of exactly 0 is a reward, not a gap
        seen |= set(steps)
    assert set(case.prm.spec.score_range) <= seen


@pytest.mark.parametrize("name", CASES)
def test_range_and_defaults(built, name):
    spec = built(name).prm.spec
    assert (spec.family, spec.context_length, spec.has_steps) == (name, 8192, True)
    assert spec.trajectory == "whole-response"
    assert spec.score_range == ((-1.0, 1.0) if name == "pure" else (0.0, 1.0))
    assert spec.aggregation == ("min" if name == "pure" else "mean")


@pytest.mark.parametrize(("name", "template"), [("qwen-math", True), ("reasonflux", False)])
def test_published_text(built, name, template):
    """The snippets' own way: chat template to one string, one call of the tokenizer, separators found by id."""
    case, trace = built(name), TRACES[0]
    steps = references.texts(trace)
    messages = [{"role": "system", "content": PUBLISHED_SYSTEM}] if template else []
    messages += [
        {"role": "user", "content": trace.trace.problem},
        {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
    ]
    tokenizer = AutoTokenizer.from_pretrained(case.folder)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    ids = tokenizer.encode(text)
    sequence = case.prm.encode(trace).sequences[0]
    ours = [*sequence.head, *(token for piece in sequence.pieces for token in piece.tokens)]
    assert ours == ids[: len(ours)]
    assert tokenizer.decode(ids[len(ours) :]) == "<|im_end|>\n"
    assert [token for token in ours if token == tokenizer.convert_tokens_to_ids("<extra_0>")] == [
        ids[len(ours) - 1]
    ] * 5


@pytest.mark.parametrize(
    ("template", "system"),
    [(MATH_TEMPLATE, PUBLISHED_SYSTEM), (INSTRUCT_TEMPLATE, QWEN25_SYSTEM), ("{{ messages }}", QWEN25_SYSTEM)],
)
def test_reasonflux_takes_the_templates_own_system_message(tmp_path, template, system):
    write_qwen(tmp_path, "byte", 1.0, template)
    assert QwenPRM.load_reasonflux(Checkpoint(tmp_path, name="x")).system == system
    (tmp_path / "chat_template.jinja").write_text(template)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert QwenPRM.load_reasonflux(Checkpoint(tmp_path, name="x")).system == system


def test_typed_separators_are_text(built):
    prm = built("qwen-math").prm
    [sequence, whole] = prm.encode(TRACES[3]).sequences
    separator = prm.tokenizer.control("<extra_0>")
    assert separator not in sequence.head
    assert all(piece.tokens.count(separator) == 1 for piece in sequence.pieces)
    assert whole.pieces[0].tokens.count(separator) == 1


def test_no_bos_where_the_tokenizer_names_none(tmp_path):
    write_trl(tmp_path, "byte-bpe", 1.0, bos=None)
    prm = TokenClassificationPRM.load(Checkpoint(tmp_path, name="x"))
    [found] = tiny.scores(prm, [prm.encode(TRACES[0])])
    close(found, references.TRL.scores(tmp_path, TRACES[0]))


# --- the scalar PRM ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "scale"), [("byte-bpe", 1.0), ("byte", 1.0), ("byte-bpe", SATURATING), ("byte-bpe", -SATURATING)]
)
def test_scalar(tmp_path, kind, scale):
    write_scalar(tmp_path, kind, scale)
    prm = ReasonFluxScalarPRM.load(Checkpoint(tmp_path, name="x"))
    assert (prm.spec.family, prm.spec.has_steps, prm.spec.trajectory) == ("reasonflux-scalar", False, "only")
    expected = [references.scalar(tmp_path, trace, scalar_head(scale)) for trace in TRACES]
    for trace, reward in zip(TRACES, expected, strict=True):
        assert tiny.scores(prm, [prm.encode(trace)]) == [([], pytest.approx(reward, abs=1e-5, rel=0))]
    order = [3, 0, 5, 1, 4, 2]
    packed = tiny.scores(prm, [prm.encode(TRACES[number]) for number in order])
    assert [found[1] for found in packed] == pytest.approx([expected[n] for n in order], abs=1e-5, rel=0)
    records = list(Engine(prm).score(TRACES))
    assert [record.reward for record in records] == pytest.approx(expected, abs=1e-5, rel=0)
    assert all(reward is None for record in records for reward in record.step_rewards)
    if scale == 1.0:
        assert torch.tensor(expected).std() > 0.02
    else:
        assert (0.0 if scale < 0 else 1.0) in expected


def test_scalar_head_in_safetensors(tmp_path):
    tokens = tiny.tokenizer("byte")
    model = tiny.causal("qwen2", tokens.get_vocab_size(), seed=11)
    head = scalar_head(1.0)
    tensors = model.state_dict() | tiny.prefixed(head, "reward_head.")
    tiny.write(tmp_path, model.config, tensors, tokens, architecture="Qwen2ForCausalLM")
    prm = ReasonFluxScalarPRM.load(Checkpoint(tmp_path, name="x"))
    [(_, found)] = tiny.scores(prm, [prm.encode(TRACES[0])])
    assert found == pytest.approx(references.scalar(tmp_path, TRACES[0], head), abs=1e-5, rel=0)


def test_scalar_windows_keep_problem_and_end(tmp_path):
    """A trace that is too long is read as the problem and the end of the completion."""
    write_scalar(tmp_path, "byte", 1.0)
    prm = ReasonFluxScalarPRM.load(Checkpoint(tmp_path, name="x"))
    long = TRACES[-1]
    limit = 500
    [record] = Engine(prm, EngineSettings(context=limit)).score([long])
    whole = long.trace.problem + long.trace.thinking.strip() + "\n\n" + long.trace.response
    end = whole.encode()[-(limit - len(long.trace.problem.encode())) :].decode()
    cut = SegmentedTrace(Trace("cut", long.trace.problem, "", end), (), "none")
    assert record.reward == pytest.approx(references.scalar(tmp_path, cut, scalar_head(1.0)), abs=1e-5, rel=0)
    assert record.overflow is not None


# --- golden numbers ------------------------------------------------------------------------------------------------


def golden(folder: Path) -> dict[str, list[float]]:
    """Reference scores with a byte tokenizer, whose vocabulary no training decides."""
    result: dict[str, list[float]] = {}
    for name, case in CASES.items():
        case.write(folder / name, "byte", 1.0)
        steps, trajectory = case.reference.scores(folder / name, TRACES[0])
        result[name] = [round(score, 7) for score in (*steps, trajectory)]
    write_scalar(folder / "reasonflux-scalar", "byte", 1.0)
    score = references.scalar(folder / "reasonflux-scalar", TRACES[0], scalar_head(1.0))
    return result | {"reasonflux-scalar": [round(score, 7)]}


def test_golden(tmp_path):
    """Reference and code cannot drift together: the numbers are on file."""
    expected = json.loads(GOLDEN.read_text())
    found = golden(tmp_path)
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        assert found[name] == pytest.approx(numbers, abs=1e-5, rel=0), name
        load = CASES[name].load if name in CASES else ReasonFluxScalarPRM.load
        prm = load(Checkpoint(tmp_path / name, name=name))
        [(steps, trajectory)] = tiny.scores(prm, [prm.encode(TRACES[0])])
        assert [*steps, trajectory] == pytest.approx(numbers, abs=1e-5, rel=0), name


if __name__ == "__main__":  # writes the golden numbers anew: only when a contract changes on purpose
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        GOLDEN.write_text(json.dumps(golden(Path(place)), indent=1) + "\n")
