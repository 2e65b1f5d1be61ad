"""The OpenAPI schema, and requests made up from it: every answer is one that the schema announces."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_parts import live

from reasonflux_prm.serving.limits import ServiceLimits

OPERATIONS = [
    ("POST", "/score"),
    ("POST", "/pooling"),
    ("POST", "/get_reward"),
    ("GET", "/v1/models"),
    ("GET", "/metrics"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
]
every_operation = pytest.mark.parametrize(("method", "path"), OPERATIONS)


@pytest.fixture(scope="module")
def fuzzed(prm):
    with live(prm, limits=ServiceLimits(body_s=5)) as service:
        yield service


@pytest.fixture(scope="module")
def schema(fuzzed):
    return schemathesis.openapi.from_url(fuzzed.url + "/openapi.json")


def fuzz(schema, method, path, examples):
    """Send requests that fit the schema, and ones that do not, and hold the answers to it."""
    modes = list(schemathesis.GenerationMode) if method == "POST" else [schemathesis.GenerationMode.POSITIVE]
    cases = [schema[path][method].as_strategy(generation_mode=mode) for mode in modes]

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(cases))
    def check(case):
        # Not everything that fits the schema can be scored: token ids have an end, records need a problem.
        case.call_and_validate(excluded_checks=[schemathesis.checks.positive_data_acceptance])

    check()


@every_operation
def test_a_few_requests(schema, method, path):
    fuzz(schema, method, path, 10)


@pytest.mark.slow
@every_operation
def test_many_requests(schema, method, path):
    fuzz(schema, method, path, 500 if method == "POST" else 20)


def test_the_service_is_well_afterwards(fuzzed):
    """Whatever came before in this file: nothing is left in the queue, and no request failed on our side."""
    assert fuzzed.get("/health").json() == {"live": True, "ready": True, "queue_traces": 0, "queue_tokens": 0}
    lines = fuzzed.get("/metrics").text.splitlines()
    assert [line for line in lines if line.startswith('reasonflux_prm_requests_total{code="5')] == []


def test_every_endpoint_is_described(fuzzed):
    described = fuzzed.get("/openapi.json").json()
    assert set(described["paths"]) == {path for _, path in OPERATIONS}
    for path, methods in described["paths"].items():
        for method in methods.values():
            assert method["description"]
            expected = {"400", "401", "408", "413", "415", "422", "429", "500", "503"} if "post" in methods else set()
            assert expected <= set(method["responses"]), path
    assert "HTTPValidationError" not in described["components"]["schemas"]
