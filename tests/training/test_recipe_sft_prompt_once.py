"""The student's training: a prompt that rows share is read once, and what is learnt is the same."""

from __future__ import annotations

import pytest

from tests.policy.tiny_model import write_tiny_model

pytest.importorskip("trl")
pytest.importorskip("peft")


def losses_and_gradients(model, batch, number, once):
    import torch

    from recipes.student.sft import _PromptOnce

    model.zero_grad()
    if once:
        loss = _PromptOnce.compute_loss(None, model, batch, num_items_in_batch=number)
    else:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        labels = batch["labels"][:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / number
    loss.backward()
    return loss.item(), [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize("shared", [0, 1, 9])
def test_reading_a_shared_prompt_once_changes_neither_loss_nor_gradients(tmp_path, shared):
    import torch
    from transformers import AutoModelForCausalLM

    write_tiny_model(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.manual_seed(1)
    lengths, learnt = [30, 26, 19], [8, 11, 4]
    tokens = torch.randint(3, 200, (3, 30))
    tokens[:, :shared] = tokens[0, :shared]
    mask, labels = torch.zeros_like(tokens), torch.full_like(tokens, -100)
    for row, (length, last) in enumerate(zip(lengths, learnt, strict=True)):
        tokens[row, length:] = 0
        mask[row, :length] = 1
        labels[row, length - last : length] = tokens[row, length - last : length]
    batch = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
    plain, gradients = losses_and_gradients(model, batch, sum(learnt), once=False)
    once, also = losses_and_gradients(model, batch, sum(learnt), once=True)
    assert once == pytest.approx(plain, rel=1e-5)
    assert len(gradients) == len(also)
    for one, other in zip(gradients, also, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_prompts_that_are_learnt_are_not_read_once():
    from recipes.student.sft import SFTSettings

    with pytest.raises(ValueError, match="leave one of them out"):
        SFTSettings(100, whole=True, prompt_once=True)
