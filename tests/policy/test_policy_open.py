import pytest

from reasonflux_prm.errors import PolicyStopped, UsageError
from reasonflux_prm.policy.open import PolicySettings, open_policy
from tests.policy.tiny_model import write_tiny_model


@pytest.mark.parametrize(
    ("spec", "model"), [("gpt-4o@http://127.0.0.1:9/v1", "gpt-4o"), ("a@b:c@https://host/v1", "a@b:c")]
)
def test_an_endpoint(spec, model):
    pytest.importorskip("openai")
    policy = open_policy(spec, PolicySettings(concurrency=3, retries=0))
    assert (policy.name, policy.concurrency) == (model, 3)
    policy.close()


def test_a_local_model(tmp_path):
    pytest.importorskip("transformers")
    folder = write_tiny_model(tmp_path / "tiny")
    policy = open_policy(f"local:{folder}", PolicySettings(device="cpu", batch_sequences=4))
    assert (policy.name, policy.concurrency) == ("tiny", 8)
    policy.close()
    with pytest.raises(PolicyStopped, match="neither a model's folder"):
        open_policy(f"local:{tmp_path}")


@pytest.mark.parametrize("spec", ["gpt-4o", "", "@http://x/v1", "gpt-4o@localhost:80", "local:", "vllm:", "sglang:a"])
def test_a_name_that_is_none(spec):
    with pytest.raises(UsageError, match="MODEL@URL"):
        open_policy(spec)


@pytest.mark.parametrize(
    ("spec", "settings", "named"),
    [
        ("m@http://127.0.0.1:9/v1", {"device": "cuda", "dtype": "float32"}, "device, dtype does not go with"),
        ("local:folder", {"api_key": "secret"}, "api_key does not go with"),
        ("vllm:folder", {"batch_tokens": 5}, "batch_tokens does not go with"),
    ],
)
def test_a_setting_that_a_backend_does_not_know_is_refused(spec, settings, named):
    with pytest.raises(UsageError, match=named) as refused:
        open_policy(spec, PolicySettings(**settings))
    assert "secret" not in str(refused.value)
