"""Steps over memory at fixed addresses write what steps one by one write; tokens in and out; weights of a trainer.

On a CPU the steps of `policy.graphs` run as they are; that they are captured is seen on a GPU only.
"""

import random

import pytest

from reasonflux_prm.errors import PolicyError, UsageError
from reasonflux_prm.policy.base import Message, Request
from reasonflux_prm.policy.local import LocalPolicy
from tests.policy.tiny_model import write_tiny_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from reasonflux_prm.policy.graphs import GraphedPast, Graphs, rounded_columns, rounded_rows  # noqa: E402
from reasonflux_prm.policy.past import KeptPast, kept_shape  # noqa: E402

CPU = torch.device("cpu")


def graphed(policy):
    """Have a policy on a CPU write as one on a GPU does."""
    policy.continue_tokens([[5]], max_tokens=1)  # loads it
    policy._graphs = Graphs(policy._model, kept_shape(policy._model, CPU), CPU)
    assert policy._graphs.works()
    return policy


def requests(number, **settings):
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdef ", k=rng.randint(1, 40))) for _ in range(number)]
    return [Request((Message("user", word),), **{"max_tokens": 30, "temperature": 1.0, **settings}) for word in words]


def test_a_graphed_past_gives_the_scores_of_a_kept_one(fresh):
    policy = graphed(fresh())
    shape, rng = kept_shape(policy._model, CPU), torch.Generator().manual_seed(0)
    with torch.inference_mode():
        pieces = policy._reader.read([[3, 4, 5, 6], [7], list(range(10, 40)), [8, 9]])
        ours = GraphedPast(policy._graphs, pieces, 8)
        theirs = KeptPast(policy._model, shape, pieces, 8, CPU)
        for _ in range(8):
            tokens = torch.randint(3, 200, (4, 1), generator=rng)
            torch.testing.assert_close(ours.read(tokens), theirs.read(tokens), atol=1e-5, rtol=1e-4)
        assert ours.length == theirs.length == 38
        torch.testing.assert_close(ours.written(1, 9), theirs.written(1, 9), atol=1e-5, rtol=1e-4)


def test_rows_are_dropped_only_where_that_makes_a_smaller_step(fresh):
    policy = graphed(fresh())
    shape, rng = kept_shape(policy._model, CPU), torch.Generator().manual_seed(0)
    with torch.inference_mode():
        pieces = policy._reader.read([[token, token + 1] for token in range(10, 30)])
        ours = GraphedPast(policy._graphs, pieces, 8)
        theirs = KeptPast(policy._model, shape, pieces, 8, CPU)
        tokens = torch.randint(3, 200, (20, 1), generator=rng)
        ours.read(tokens), theirs.read(tokens)
        assert not ours.keep(range(18))  # 24 rows are read either way
        kept = [0, 3, 4, 11, 19]
        assert ours.keep(kept)
        theirs.keep(kept)
        tokens = torch.randint(3, 200, (5, 1), generator=rng)
        torch.testing.assert_close(ours.read(tokens), theirs.read(tokens), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_are_the_same_with_and_without_graphs(fresh, temperature):
    asked = requests(40, n=3, seed=3, temperature=temperature)
    plain = fresh(batch_sequences=32).generate(asked)
    ours = graphed(fresh(batch_sequences=32)).generate(asked)
    assert [[one.text for one in own] for own in ours] == [[one.text for one in own] for own in plain]
    assert len({one.text for own in ours for one in own}) > 20


def test_a_search_that_goes_on_reads_what_was_kept(fresh):
    asked = requests(6, seed=1, stop=("e",))
    plain, ours = fresh(), graphed(fresh())
    first = plain.generate(asked)
    assert [one[0].text for one in ours.generate(asked)] == [one[0].text for one in first]
    further = [
        Request(request.messages, max_tokens=10, temperature=0.0, prefix=own[0].text + "e", raw=True)
        for request, own in zip(asked, first, strict=True)
    ]
    assert [one[0].text for one in ours.generate(further)] == [one[0].text for one in plain.generate(further)]


def test_a_model_whose_steps_differ_is_not_graphed(fresh, caplog, monkeypatch):
    policy = graphed(fresh())
    monkeypatch.setattr(policy._graphs, "_run", lambda rows, columns: torch.zeros(rows, 259))
    assert not policy._graphs.works()
    assert "its scores differ" in caplog.text


def test_sizes_are_few():
    assert [rounded_rows(rows) for rows in (1, 8, 9, 13, 100, 2048, 3072, 3073)] == [
        8, 8, 12, 16, 128, 2048, 3072, 6144
    ]  # fmt: skip
    assert [rounded_columns(tokens) for tokens in (1, 128, 129)] == [128, 128, 256]


# --- for trainers -----------------------------------------------------------------------------------------------------


def test_tokens_in_and_out_are_what_texts_are(fresh):
    policy = fresh()
    asked = requests(5, seed=7)
    prompts = [policy._prompt.tokens(request.messages, None) for request in asked]
    texts = [one[0].text for one in policy.generate(asked)]
    found = [policy.continue_tokens([prompt], max_tokens=30, seed=7)[0] for prompt in prompts]
    ends = policy._replies.ends
    assert [policy._files.text([token for token in own if token not in ends]) for own in found] == texts
    assert all(token not in ends for own in found for token in own[:-1])
    assert all(own[-1] in ends or len(own) == 30 for own in found)


def test_a_prompt_that_comes_twice_is_written_to_twice(fresh):
    found = fresh().continue_tokens([[5, 6]] * 4, max_tokens=20, seed=0)
    assert len(set(map(tuple, found))) == 4
    with pytest.raises(PolicyError, match=r"prompt 1 has 0 tokens, and must have 1 to 255"):
        fresh().continue_tokens([[5], []], max_tokens=3)


@pytest.mark.parametrize("is_graphed", [False, True])
def test_weights_are_taken(fresh, tmp_path, is_graphed):
    other = write_tiny_model(tmp_path / "other", seed=5)
    state = transformers.AutoModelForCausalLM.from_pretrained(other).state_dict()
    policy = graphed(fresh()) if is_graphed else fresh()
    before, name = policy.continue_tokens([[5, 6, 7]], max_tokens=20, temperature=0.0), dict(policy.identity())
    policy.take_weights(state)
    wanted = LocalPolicy(str(other), device="cpu")
    assert (
        policy.continue_tokens([[5, 6, 7]], max_tokens=20, temperature=0.0)
        == wanted.continue_tokens([[5, 6, 7]], max_tokens=20, temperature=0.0)
        != before
    )
    assert policy.identity() != name  # nothing that is cached was written by these
    wanted.close()


def test_weights_that_do_not_fit_are_refused(fresh):
    policy = fresh()
    with pytest.raises(UsageError, match=r"of the model's 21 parameters 21 are missing .* first model.embed_tokens"):
        policy.take_weights({})
    policy.close()
    with pytest.raises(UsageError, match="this policy is closed"):
        policy.take_weights({})
