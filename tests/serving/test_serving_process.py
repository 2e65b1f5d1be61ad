"""`reasonflux-prm serve` as a process: what it says, what it refuses, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serving_parts import row

ROOT = Path(__file__).parents[2]
START_S = 120
pytestmark = pytest.mark.slow


def command(*arguments):
    return [sys.executable, "-m", "reasonflux_prm.cli.main", "serve", *map(str, arguments)]


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name != "REASONFLUX_PRM_TOKEN"}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@contextmanager
def serving(folder, *arguments, **more):
    """Start a service; yield the process, its address, and what it says."""
    process = subprocess.Popen(
        command("--prm", folder, "--port", 0, *arguments), env=environment(**more), stderr=subprocess.PIPE, text=True
    )
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://\S+:\d+", line):
                break
        else:
            pytest.fail("".join(said))
        reader = threading.Thread(target=lambda: said.extend(process.stderr))
        reader.start()
        yield process, found[0], said
        process.wait(START_S)
        reader.join()
    finally:
        process.kill()


def refused(*arguments, **more):
    done = subprocess.run(command(*arguments), env=environment(**more), capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


LONG = row(0, thinking="\n\n".join(f"Then {number} is the next one, and so on." for number in range(400)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_all_is_answered(folder, number):
    with serving(folder, "--pack-tokens", 512, "--drain", 300) as (process, url, said):
        assert httpx.get(url + "/health").json()["ready"]
        statuses = []

        def ask():
            statuses.append(httpx.post(url + "/score", json={"traces": LONG}, timeout=300).status_code)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        while not statuses and httpx.get(url + "/health").json()["queue_traces"] < 6:
            time.sleep(0.01)
        process.send_signal(number)
        for thread in threads:
            thread.join(300)
        assert statuses == [200] * 6
        with pytest.raises(httpx.ConnectError):
            httpx.get(url + "/health")
    assert process.returncode == 0
    assert said[-1] == "stopped\n"


def test_what_is_not_done_in_time_is_told_so(folder):
    with serving(folder, "--drain", 0.3, "--pack-tokens", 128, "--queue-tokens", 10**8) as (process, url, _):
        statuses = []

        def ask():
            statuses.append(httpx.post(url + "/score", json={"traces": [LONG] * 200}, timeout=60).status_code)

        thread = threading.Thread(target=ask)
        thread.start()
        while httpx.get(url + "/health").json()["queue_traces"] < 200:
            time.sleep(0.01)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        thread.join(60)
        process.wait(60)
        assert time.monotonic() - started < 10
        assert statuses == [503]
    assert process.returncode == 0


def test_the_token_is_never_shown(folder):
    secret = "not-to-be-seen"
    with serving(folder, REASONFLUX_PRM_TOKEN=secret) as (process, url, said):
        assert httpx.post(url + "/score", json={"traces": row(1)}).status_code == 401
        bearing = {"authorization": f"Bearer {secret}"}
        assert httpx.post(url + "/score", json={"traces": row(1)}, headers=bearing).status_code == 200
        answers = [httpx.get(url + path, headers=bearing).text for path in ("/metrics", "/openapi.json", "/v1/models")]
        assert secret not in "".join(answers)
        assert secret not in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.send_signal(signal.SIGTERM)
    assert secret not in "".join(said)
    assert "with a token" in "".join(said)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_need_a_token(folder, host):
    assert "set REASONFLUX_PRM_TOKEN to a token" in refused("--prm", folder, "--host", host)


def test_a_port_in_use(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot serve at 127.0.0.1:{port}: Address already in use" in refused("--prm", folder, "--port", port)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "65536"], "a port from 0 to 65535"),
        (["--token", ""], "printable ASCII"),
        (["--token", "\u00e9"], "printable ASCII"),
        (["--prm", "genprm"], "served already"),
        (["--prm", "http://127.0.0.1:1"], "served already"),
        (["--wait-ms", "-1"], "milliseconds"),
        (["--drain", "-1"], "drain_s"),
        (["--queue-traces", "0"], "at least 1"),
    ],
)
def test_flags_that_make_no_sense(arguments, says):
    assert says in refused(*arguments)


def test_a_file_is_scored_by_a_service(folder, tmp_path):
    """`score --prm URL` writes what `score --prm FOLDER` writes."""
    import json

    from reasonflux_prm.traces.write import read_scored

    source = tmp_path / "traces.jsonl"
    source.write_text("".join(json.dumps(row(number)) + "\n" for number in range(30)))
    score = [sys.executable, "-m", "reasonflux_prm.cli.main", "score", str(source)]
    with serving(folder) as (process, url, _):
        for prm, output in ((url, "remote.jsonl"), (folder, "local.jsonl")):
            subprocess.run([*score, "-o", str(tmp_path / output), "--prm", str(prm)], env=environment(), check=True)
        wrong = subprocess.run(
            [*score, "-o", str(tmp_path / "x.jsonl"), "--prm", url, "--device", "cpu"],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert (wrong.returncode, "--device does not go with" in wrong.stderr) == (2, True)
        process.send_signal(signal.SIGTERM)
    remote, local = (list(read_scored(tmp_path / name)) for name in ("remote.jsonl", "local.jsonl"))
    assert [one.trace for one in remote] == [one.trace for one in local]
    assert [one.prm for one in remote] == [one.prm for one in local]
    assert [one.reward for one in remote] == pytest.approx([one.reward for one in local], abs=1e-6)
