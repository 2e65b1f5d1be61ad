"""GET /metrics: Prometheus' text format, and counts that add up."""

import re

from serving_parts import live, metric, row

from reasonflux_prm.serving.metrics import Metrics

LABEL = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
NUMBER = r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|Inf|NaN)"
SAMPLE = re.compile(rf"(?P<name>[a-zA-Z_:]\w*)(?:\{{(?P<labels>{LABEL}(?:,{LABEL})*)\}})? (?P<value>{NUMBER})")


def families(text):
    """Read the format strictly; return the kind of each family and its samples."""
    assert text.endswith("\n")
    kinds, samples, helped = {}, {}, set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name in helped
            assert name not in kinds
            kinds[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            suffix = r"_(?:bucket|sum|count)$" if list(kinds.values())[-1] == "histogram" else r"$^"
            family = re.sub(suffix, "", found["name"])
            assert family == list(kinds)[-1], line
            assert (found["name"], found["labels"]) not in samples
            samples[found["name"], found["labels"]] = float(found["value"])
    return kinds, samples


def test_the_format(prm):
    with live(prm) as service:
        service.post("/score", {"traces": [row(1), row(2, thinking="", response=""), {"x": 1}]})
        service.get("/nothing")
        reply = service.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    kinds, samples = families(reply.text)
    assert kinds["reasonflux_prm_requests_total"] == "counter"
    assert kinds["reasonflux_prm_queue_tokens"] == "gauge"
    assert kinds["reasonflux_prm_batch_fill"] == kinds["reasonflux_prm_request_seconds"] == "histogram"
    assert samples["reasonflux_prm_requests_total", 'code="200",endpoint="/score"'] == 1
    assert samples["reasonflux_prm_requests_total", 'code="404",endpoint="other"'] == 1
    for status in ("scored", "no-steps", "refused"):
        assert samples["reasonflux_prm_traces_total", f'status="{status}"'] == 1
    assert samples["reasonflux_prm_passes_total", None] == 1
    assert samples["reasonflux_prm_batch_fill_count", None] == 1
    assert samples["reasonflux_prm_tokens_total", None] > 10


def test_buckets_are_cumulative():
    metrics = Metrics()
    for seconds in (0.001, 0.005, 0.2, 1000.0):
        metrics.answered("/score", 200, seconds)
    text = metrics.text()
    counts = [
        metric(text, f'reasonflux_prm_request_seconds_bucket{{endpoint="/score",le="{bound}"}}')
        for bound in ("0.005", "0.01", "0.25", "120", "+Inf")
    ]
    assert counts == [2, 2, 3, 3, 4]
    assert metric(text, 'reasonflux_prm_request_seconds_count{endpoint="/score"}') == 4
    assert metric(text, 'reasonflux_prm_request_seconds_sum{endpoint="/score"}') == 1000.206


def test_labels_are_escaped():
    metrics = Metrics()
    metrics.scored({'a"b\\c\nd': 1})
    _, samples = families(metrics.text())
    assert samples["reasonflux_prm_traces_total", r'status="a\"b\\c\nd"'] == 1
