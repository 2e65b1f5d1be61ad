"""Ours against reward-hub's Hugging Face path: scores and time on the same weights and the same real traces.

reward-hub loads five models by their hub names, two of which are PRMs. A folder of such a name under the working
directory comes before the hub, so its code, unchanged, loads checkpoints that are made here: the body of
SmolLM2-135M-Instruct in each PRM's published layout, with a random reward head where there is one. Remote code of
Qwen2.5-Math-PRM-7B is stood in for by a class of a few lines on the installed transformers. Weights are rounded to
bfloat16, which reward-hub insists on, so both sides read the same numbers. It is compared with the model cast to
float32, which is what we compute in on a CPU; and as it is, on a few traces, since many CPUs have no bfloat16.

Both get the same steps, and neither reads a trajectory reward. reward-hub needs an environment of its own; with
transformers 5 it cannot score in the RLHFlow layout:

    python3 -m venv hub-env
    hub-env/bin/python -m pip install reward-hub==0.1.10 transformers==4.57.3 jinja2
    python -m benchmarks.reward_hub --python hub-env/bin/python --traces TRACES.jsonl CANDIDATES.jsonl -o out.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, pre_tokenizers
from torch import Tensor

from reasonflux_prm.prm.base import PRM
from reasonflux_prm.prm.embedded.install import ensure_base
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.records import SegmentedTrace
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.read import read_traces

HOST = Path(__file__).with_name("reward_hub_host.py")
Time = tuple[float, float]
"""Seconds on the clock, and of all processors: where other work shares the machine, the latter is the steadier."""
SEPARATOR = "\x1e"
"""Between steps in what reward-hub is given; stands in no trace."""

# --- checkpoints in the published layouts -----------------------------------------------------------------------------

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
)
REMOTE_CODE = """\
import torch
from transformers import Qwen2Model, Qwen2PreTrainedModel


class Qwen2ForProcessRewardModel(Qwen2PreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size
        self.model = Qwen2Model(config)
        self.score = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))
        self.post_init()

    def forward(self, input_ids, use_cache=False):
        return (self.score(self.model(input_ids=input_ids, use_cache=use_cache).last_hidden_state),)
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the PRMs that reward-hub knows."""

    hub_name: str
    family: str
    """What we call it."""
    controls: tuple[str, ...]
    """Control tokens that SmolLM2's tokenizer lacks."""
    chat_template: str
    model_type: str
    architecture: str


LAYOUTS = {
    "qwen": Layout(
        "Qwen/Qwen2.5-Math-PRM-7B", "qwen-math", ("<extra_0>",), CHATML, "qwen2", "Qwen2ForProcessRewardModel"
    ),
    "rlhflow": Layout(
        "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data",
        "rlhflow",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        LLAMA3,
        "llama",
        "LlamaForCausalLM",
    ),
}
SPARE = ("<file_sep>", "<filename>", "<gh_stars>", "<issue_start>")
"""Control tokens of SmolLM2 that no trace uses; they take the names of those it lacks."""


def write_checkpoint(layout: Layout, base: Path, root: Path) -> Path:
    """Write the base in a PRM's layout to a folder with the PRM's hub name; return the folder."""
    folder = root / layout.hub_name
    folder.mkdir(parents=True)
    tensors = load_file(base / "model.safetensors")
    config = json.loads((base / "config.json").read_text("utf-8"))
    config |= {"model_type": layout.model_type, "architectures": [layout.architecture], "dtype": "bfloat16"}
    config["torch_dtype"] = "bfloat16"  # its name before transformers 5
    if layout.model_type == "qwen2":
        config["auto_map"] = {"AutoModel": f"modeling_prm.{layout.architecture}"}
        (folder / "modeling_prm.py").write_text(REMOTE_CODE, "utf-8")
        tensors |= qwen_extras(config)
    rounded = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    write_tokenizer(layout, base, folder)
    return folder


def qwen_extras(config: dict[str, Any]) -> dict[str, Tensor]:
    """Return what Qwen2's body and head have over Llama's, random: biases of queries, keys and values; the head."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    widths = {"q": hidden, "k": hidden // heads * int(config["num_key_value_heads"])}
    widths["v"] = widths["k"]
    found = {
        f"model.layers.{layer}.self_attn.{name}_proj.bias": random(width, scale=0.02)
        for layer in range(int(config["num_hidden_layers"]))
        for name, width in widths.items()
    }
    for name, rows in (("0", hidden), ("2", 2)):
        found[f"score.{name}.weight"] = random(rows, hidden, scale=hidden**-0.5)
        found[f"score.{name}.bias"] = random(rows, scale=0.1)
    return found


def write_tokenizer(layout: Layout, base: Path, folder: Path) -> None:
    """Write SmolLM2's tokenizer with the PRM's control tokens, and with line breaks apart from what follows them.

    Llama 3's and Qwen's tokenizers keep line breaks apart, and reward-hub counts on it.
    """
    text = (base / "tokenizer.json").read_text("utf-8")
    for spare, control in zip(SPARE, layout.controls, strict=False):
        text = text.replace(json.dumps(spare), json.dumps(control))
    tokenizer = Tokenizer.from_str(text)
    lines = pre_tokenizers.Split(Regex(r"\n+"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, tokenizer.pre_tokenizer])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "chat_template": layout.chat_template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


# --- both sides -------------------------------------------------------------------------------------------------------


class Hub:
    """reward-hub in a process of its own."""

    def __init__(self, python: Path, layout: Layout, root: Path) -> None:
        # Without -P this folder would come first, and this very file be taken for reward_hub.
        command = [str(python.absolute()), "-P", str(HOST.absolute()), layout.hub_name]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(root / "modules")}
        self._log = (root / "reward_hub.log").open("w+")
        self._process = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.about = self._answer()

    def __enter__(self) -> Hub:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def score(self, conversations: Sequence[Any], dtype: str) -> tuple[Time, list[list[float]]]:
        """Return the time it took and the reward of every step of every conversation."""
        assert self._process.stdin is not None
        job = {"dtype": dtype, "conversations": conversations, "separator": SEPARATOR}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return (answer["wall_s"], answer["processor_s"]), answer["scores"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"reward-hub gave up:\n{self._log.read()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def conversation(trace: SegmentedTrace, *, problem_in_step: bool = False) -> list[dict[str, str]]:
    """Return a trace as chat messages, its steps joined by `SEPARATOR`.

    Args:
        trace: A trace and its steps.
        problem_in_step: Put the problem in front of the first step, in one turn, instead of in a turn of its own.
    """
    text = SEPARATOR.join(trace.text(step).strip() for step in trace.steps)
    problem = trace.trace.problem.strip()
    if problem_in_step:
        return [{"role": "assistant", "content": f"{problem} {text}"}]
    return [{"role": "user", "content": problem}, {"role": "assistant", "content": text}]


def real_traces(paths: Sequence[str], prm: PRM, tokens: int, longest: int) -> list[SegmentedTrace]:
    """Return traces of at most `longest` tokens from the files in turn, until they hold `tokens` tokens."""
    streams = [read_traces(path) for path in paths]
    found: list[SegmentedTrace] = []
    total = 0
    while total < tokens and streams:
        for stream in list(streams):
            trace = next(stream, None)
            if trace is None:
                streams.remove(stream)
                continue
            segmented = split(trace)
            length = len(prm.encode(segmented, trajectory=False))
            if length <= longest and all(segmented.text(step).strip() for step in segmented.steps):
                found.append(segmented)
                total += length
    if not found:
        raise SystemExit(f"no trace in {', '.join(paths)} has at most {longest:,} tokens; pass --longest MORE")
    return found


def apart(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the median and the largest distance of step rewards, how far ours spread, and what does not match."""
    matched = [(a, b) for a, b in zip(ours, theirs, strict=True) if len(a) == len(b)]
    distances = [abs(x - y) for a, b in matched for x, y in zip(a, b, strict=True)]
    rewards = [reward for trace in ours for reward in trace]
    return {
        "steps": len(distances),
        "lowest_reward": min(rewards),
        "highest_reward": max(rewards),
        "traces_of_another_number_of_steps": len(ours) - len(matched),
        "median": statistics.median(distances) if distances else float("nan"),
        "largest": max(distances, default=float("nan")),
    }


def compare(layout: Layout, args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Return scores and times of one layout."""
    folder = write_checkpoint(layout, ensure_base(), root)
    prm = load_prm(str(folder), dtype="float32", device="cpu", family=layout.family)
    engine = Engine(prm, EngineSettings(alpha=0.0))
    traces = real_traces(args.traces, prm, args.tokens, args.longest)
    few = traces[: args.as_is]

    def ours(some: Sequence[SegmentedTrace]) -> list[list[float]]:
        return [[reward for reward in record.step_rewards if reward is not None] for record in engine.score(some)]

    with Hub(args.python, layout, root) as hub:

        def theirs(
            some: Sequence[SegmentedTrace], dtype: str, *, problem_in_step: bool = False
        ) -> tuple[Time, list[list[float]]]:
            return hub.score([conversation(trace, problem_in_step=problem_in_step) for trace in some], dtype)

        expected = ours(traces)
        result = {
            "reward_hub": hub.about,
            "all": sizes(prm, traces),
            "few": sizes(prm, few),
            "apart": {
                "float32": apart(expected, theirs(traces, "float32")[1]),
                "as-is": apart(expected[: len(few)], theirs(few, "as-is")[1]),
            },
        }
        if layout.family == "rlhflow":
            found = theirs(traces, "float32", problem_in_step=True)[1]
            result["apart"]["float32, problem in the first step's turn"] = apart(expected, found)
        in_float32 = {"ours": lambda: timed(lambda: ours(traces)), "float32": lambda: theirs(traces, "float32")[0]}
        as_is = {"ours": lambda: timed(lambda: ours(few)), "as-is": lambda: theirs(few, "as-is")[0]}
        result["time"] = {"all": interleaved(in_float32, args.repeats), "few": interleaved(as_is, args.repeats)}
    return result


def sizes(prm: PRM, traces: Sequence[SegmentedTrace]) -> dict[str, int]:
    """Return how much there is to score."""
    lengths = [len(prm.encode(trace, trajectory=False)) for trace in traces]
    steps = sum(len(trace.steps) for trace in traces)
    return {"traces": len(traces), "steps": steps, "tokens": sum(lengths), "longest": max(lengths)}


def timed(work: Callable[[], object]) -> Time:
    """Return the time of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def interleaved(ways: dict[str, Callable[[], Time]], repeats: int) -> dict[str, Any]:
    """Run all ways in turn, `repeats` times after a warm-up; return the times, and their ratios to the first way's."""
    times: dict[str, list[Time]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, work in ways.items():
            taken = work()
            if number:
                times[name].append(taken)
    first = times[next(iter(ways))]
    return {
        name: {
            kind: {
                "median": statistics.median(time[column] for time in found),
                "lowest": min(time[column] for time in found),
                "highest": max(time[column] for time in found),
                "times_the_first": statistics.median(
                    mine[column] / its[column] for mine, its in zip(found, first, strict=True)
                ),
            }
            for column, kind in enumerate(("wall_s", "processor_s"))
        }
        for name, found in times.items()
    }


def main() -> None:
    """Compare in the layouts that were asked for, print, and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="the Python that has reward-hub")
    parser.add_argument("--traces", nargs="+", required=True, help="files of real traces, taken in turn")
    parser.add_argument("--layouts", nargs="+", choices=list(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--tokens", type=int, default=3_000, help="tokens in all")
    parser.add_argument("--longest", type=int, default=1_500, help="tokens of the longest trace that is taken")
    parser.add_argument("--as-is", type=int, default=2, help="traces that are also scored in bfloat16, as it is")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=None)
    args = parser.parse_args()
    report: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "repeats": args.repeats,
    }
    for name in args.layouts:
        with tempfile.TemporaryDirectory() as root:
            report[name] = compare(LAYOUTS[name], args, Path(root))
        print(json.dumps({name: report[name]}, indent=2), flush=True)
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
