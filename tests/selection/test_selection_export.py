"""Rows and files: what `datasets` and TRL make of them, the card, the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from selection_pools import changed, many, read_rows, scored, select

from reasonflux_prm.errors import MissingExtra, OutputError, ResumeError, UsageError
from reasonflux_prm.records import Trace
from reasonflux_prm.selection.export import FORMS, Export
from reasonflux_prm.selection.hub import push
from reasonflux_prm.selection.run import Extras, run_selection
from reasonflux_prm.selection.settings import Selection
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.resumable import Input

POOL = many(12)
TURN = "<think>\nT\n</think>\n\nR"
TRACE = Trace("t", " P ", "T", "R")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """`datasets` caches by the file's path; no test may meet another's."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def load(folder: Path, **options):
    import datasets

    return datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "hf"), **options)


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("messages", {"messages": [{"role": "user", "content": "P"}, {"role": "assistant", "content": TURN}]}),
        (
            "prompt-completion",
            {
                "prompt": [{"role": "user", "content": "P"}],
                "completion": [{"role": "assistant", "content": TURN}],
            },
        ),
        ("sharegpt", {"conversations": [{"from": "human", "value": "P"}, {"from": "gpt", "value": TURN}]}),
        ("alpaca", {"instruction": "P", "input": "", "output": TURN}),
        (
            "openthoughts",
            {
                "conversations": [
                    {"from": "user", "value": "P"},
                    {
                        "from": "assistant",
                        "value": "<|begin_of_thought|>\n\nT\n\n<|end_of_thought|>\n\n"
                        "<|begin_of_solution|>\n\nR\n\n<|end_of_solution|>",
                    },
                ]
            },
        ),
    ],
)
def test_the_rows_of_each_format(form, row):
    assert Export.of(form, None).row(TRACE) == row
    asked = Export.of(form, None, "Think.").row(TRACE)
    where = asked.get("messages") or (asked["prompt"] if form == "prompt-completion" else None)
    assert where[0] == {"role": "system", "content": "Think."} if where else asked["system"] == "Think."


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
def test_files_load_with_datasets_and_read_back_as_the_same_traces(tmp_path, form, suffix):
    import datasets

    _, outcome = select_any(tmp_path, f"out.{suffix}", form)
    kind = "parquet" if suffix == "parquet" else "json"
    loaded = datasets.load_dataset(kind, data_files=str(outcome.path), split="train", cache_dir=str(tmp_path / "hf"))
    assert loaded.num_rows == 5
    assert sorted(loaded["rank"]) == [1, 2, 3, 4, 5]
    by_id = {record.trace.id: record.trace for record in POOL}
    for trace in read_traces(outcome.path):
        source = by_id[trace.id]
        assert (trace.problem, trace.thinking, trace.response) == (
            source.problem,
            source.thinking.strip(),
            source.response.strip(),
        )
        assert (trace.source, trace.policy, trace.correct) == (source.source, source.policy, source.correct)


def select_any(folder, output, form, **asked):
    """As `selection_pools.select`, for outputs that are no JSON lines."""
    from selection_pools import write_pool

    pool = write_pool(folder / "pool.jsonl", POOL)
    outcome = run_selection(
        Input(str(pool)), folder / output, Selection(top=5, **asked), Export.of(form, None), Extras(dropped=True)
    )
    return pool, outcome


def test_a_folder_is_what_load_dataset_takes(tmp_path):
    _, outcome = select_any(tmp_path, "sft", "messages")
    loaded = load(tmp_path / "sft")
    assert loaded.num_rows == 5, "the dropped traces beside it are no data"
    assert set(loaded.column_names) == {"messages", "id", "source", "policy", "correct", "reward", "rank"}
    assert outcome.card == tmp_path / "sft" / "README.md"


def test_messages_with_a_field_for_thinking_load(tmp_path):
    rows, _ = select(tmp_path, POOL, "sft", Export.of("messages", "gpt-oss"), top=3)
    assert rows[0]["messages"][1].keys() == {"role", "content", "thinking"}
    assert load(tmp_path / "sft")[0]["messages"][1]["thinking"]


def test_the_card_tells_the_recipe(tmp_path):
    import yaml

    _, outcome = select(tmp_path, [*POOL, scored("w|x`y", correct=False, policy="a|b\n# c")], "sft", top=5)
    front, body = outcome.card.read_text("utf-8").split("---\n")[1:]
    about = yaml.safe_load(front)
    assert about["license"] == "mit"
    assert about["size_categories"] == ["n<1K"]
    assert about["configs"][0]["data_files"] == [{"split": "train", "path": "train.jsonl"}]
    assert "reasonflux-prm select" in body
    assert "`tiny@0123456789ab`" in body
    assert f"| rank | {outcome.counts['rank']} |" in body
    assert "\n# c" not in body


def test_hub_cards_are_understood(tmp_path):
    from huggingface_hub import DatasetCard

    _, outcome = select(tmp_path, POOL, "sft", top=5)
    assert DatasetCard.load(outcome.card).data.tags == ["reasoning", "sft", "reasonflux-prm"]


@pytest.mark.parametrize("form", ["sharegpt", "alpaca"])
def test_llama_factory_finds_its_entry(tmp_path, form):
    _, outcome = select(tmp_path, POOL, "sft", Export.of(form, None, "Think."), top=5)
    (entry,) = json.loads((tmp_path / "sft" / "dataset_info.json").read_text()).values()
    row = read_rows(outcome.path)[0]
    assert entry["file_name"] == outcome.path.name
    assert set(entry["columns"].values()) <= row.keys()
    assert entry["formatting"] == form


def test_somebody_elses_dataset_info_beside_a_file_is_left_alone(tmp_path):
    (tmp_path / "dataset_info.json").write_text("mine")
    select(tmp_path, POOL, "out.jsonl", Export.of("alpaca", None), top=5)
    assert (tmp_path / "dataset_info.json").read_text() == "mine"
    assert (tmp_path / "out.dataset_info.json").exists()


def test_the_manifest_counts_and_describes(tmp_path):
    _, outcome = select(tmp_path, POOL, top=5)
    manifest = read_manifest(outcome.path)
    assert manifest.kind == "selection"
    assert manifest.counts == outcome.counts
    shapes = manifest.details["distributions"]
    assert sum(row["traces"] for row in shapes) == len(POOL)
    assert sum(row["traces"] for row in shapes if row["kept"]) == 5
    right = [r.reward for r in POOL if r.trace.correct and r.trace.policy == "p0"]
    mine = [row for row in shapes if row["teacher"] == "p0" and row["correct"] is True]
    assert sum(row["mean"] * row["traces"] for row in mine) == pytest.approx(sum(right), rel=1e-4)


def test_traces_without_thinking_are_counted(tmp_path):
    _, outcome = select(tmp_path, [*POOL, changed(scored("bare", 9.0, thinking=[]))], top=5)
    assert outcome.unthinking == 1


# --- runs ------------------------------------------------------------------------------------------------------------


def test_the_same_command_does_nothing_and_another_is_refused(tmp_path):
    pool, outcome = select_any(tmp_path, "out.jsonl", "messages")
    before = outcome.path.stat().st_mtime_ns
    again = run_selection(Input(str(pool)), outcome.path, Selection(top=5), Export.of("messages", None))
    assert again.done_before
    assert (again.counts, outcome.path.stat().st_mtime_ns) == (outcome.counts, before)
    with pytest.raises(ResumeError, match=r"selection\.top \(5, now 6\)"):
        run_selection(Input(str(pool)), outcome.path, Selection(top=6))
    with pytest.raises(ResumeError, match=r"export\.template"):
        run_selection(Input(str(pool)), outcome.path, Selection(top=5), Export.of("messages", "none"))


def test_the_same_settings_give_the_same_bytes(tmp_path):
    first, second = (select_any(tmp_path / name, "out.jsonl", "messages")[1] for name in made(tmp_path, "a", "b"))
    assert first.path.read_bytes() == second.path.read_bytes()


def made(folder, *names):
    for name in names:
        (folder / name).mkdir()
    return names


def test_a_failed_run_leaves_nothing_but_what_was_there(tmp_path, monkeypatch):
    pool, outcome = select_any(tmp_path, "out.jsonl", "messages")
    before = outcome.path.read_bytes()

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Export, "row", broken)
    with pytest.raises(OutputError):
        run_selection(Input(str(pool)), outcome.path, Selection(top=3), fresh=True)
    assert outcome.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_pool_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    from reasonflux_prm.selection import run

    pool, _ = select_any(tmp_path, "other.jsonl", "messages")
    real = run.choose

    def shortened(*arguments):
        real(*arguments)
        pool.write_text("".join(pool.read_text().splitlines(keepends=True)[:-1]))

    monkeypatch.setattr(run, "choose", shortened)
    with pytest.raises(Exception, match="changed while it was read"):
        run_selection(Input(str(pool)), tmp_path / "out.jsonl", Selection(top=5))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(UsageError, match="to be a folder"):
        select_any(tmp_path, "taken", "messages")


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"\[data\]"):
        select_any(tmp_path, "out.parquet", "messages")


# --- the hub ---------------------------------------------------------------------------------------------------------


class FakeHub:
    """Keeps what is asked of the hub."""

    calls: ClassVar[list] = []
    broken = False

    def create_repo(self, repository, **options):
        if self.broken:
            raise ConnectionError("no route to host")
        self.calls.append(("create", repository, options))
        return f"hub:{repository}"

    def create_commit(self, repository, operations, **options):
        files = {one.path_in_repo: Path(one.path_or_fileobj).read_bytes() for one in operations}
        self.calls.append(("commit", repository, options["repo_type"], files))


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(FakeHub, "calls", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    return FakeHub


def test_push_uploads_in_one_commit(tmp_path, hub):
    (tmp_path / "a").write_bytes(b"data")
    assert push("org/name", {"train.jsonl": tmp_path / "a"}, private=True) == "hub:org/name"
    create, commit = hub.calls
    assert create == ("create", "org/name", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert commit == ("commit", "org/name", "dataset", {"train.jsonl": b"data"})


def test_a_hub_out_of_reach_is_one_sentence(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(hub, "broken", True)
    with pytest.raises(OutputError, match=r"org/name could not be written \(no route to host\)"):
        push("org/name", {"x": tmp_path / "x"})
    with pytest.raises(UsageError, match="ORG/NAME"):
        push("name", {})


# --- TRL -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny random model whose chat template is ChatML's."""
    sys.path.append(str(Path(__file__).parents[1] / "policy"))
    from tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model", context=2048)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "template"),
    [
        ("messages", "think"),
        ("prompt-completion", "think"),
        ("prompt-completion", "deepseek-r1"),
        ("openthoughts", None),
        ("sharegpt", "qwen3"),
    ],
)
def test_trl_trains_a_few_steps(tmp_path, tiny, form, template):
    trl = pytest.importorskip("trl")
    select(tmp_path, POOL, "sft", Export.of(form, template), top=8)
    data = load(tmp_path / "sft")
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "trained"),
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        max_length=None,
        report_to=[],
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = trl.SFTTrainer(model=str(tiny), args=arguments, train_dataset=data)
    row = trainer.train_dataset[0]
    text = trainer.processing_class.decode(row["input_ids"])
    thinking = POOL[int(data[0]["id"][1:])].trace.thinking.strip()
    assert thinking in text, "nothing was cut, and the template kept the thinking"
    if form == "prompt-completion":
        learnt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        assert "Problem" not in trainer.processing_class.decode(learnt)
        assert thinking in trainer.processing_class.decode(learnt)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_trl_cuts_long_rows_at_its_default(tmp_path, tiny):
    """The trap that card and command warn of: it must be there, or the warning is wrong."""
    trl = pytest.importorskip("trl")
    long = scored("long", 9.0, thinking=[("word " * 400, 0.5)])
    select(tmp_path, [long], "sft")
    arguments = trl.SFTConfig(output_dir=str(tmp_path / "t"), max_steps=1, report_to=[], use_cpu=True, bf16=False)
    trainer = trl.SFTTrainer(model=str(tiny), args=arguments, train_dataset=load(tmp_path / "sft"))
    assert arguments.max_length == 1024
    assert len(trainer.train_dataset[0]["input_ids"]) == 1024
