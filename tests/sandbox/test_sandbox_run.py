"""What a program gets, what comes back, what is left behind, and what happens where nothing isolates."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reasonflux_prm.errors import SandboxUnavailable, UsageError
from reasonflux_prm.sandbox import backends
from reasonflux_prm.sandbox import sandbox as module
from reasonflux_prm.sandbox.backends import Backend
from reasonflux_prm.sandbox.limits import Limits, RunStatus
from reasonflux_prm.sandbox.sandbox import Sandbox, why_not

HOST = Path(__file__).with_name("sandbox_host.py")
SMALL = Limits(cpu_s=5, wall_s=15, memory_mb=256, file_mb=8, files=256)
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", MARKER])
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def box(backend) -> Sandbox:
    return Sandbox(SMALL, backend)


def processes_with(marker: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if line.endswith(marker.encode() + b"\0"):
            found.append(folder.name)
    return found


def gone_soon(marker: str) -> bool:
    deadline = time.monotonic() + 10
    while processes_with(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not processes_with(marker)


# --- what comes back --------------------------------------------------------------------------------------------------


def test_a_program_that_ends_well(box, backend):
    run = box.run("import sys; print('out'); print('err', file=sys.stderr)")
    assert (run.status, run.exit_code, run.stdout, run.stderr) == (RunStatus.OK, 0, "out\n", "err\n")
    assert (run.backend, run.reason, run.isolated) == (str(backend), None, True)
    assert 0 < run.seconds < 15


def test_a_program_that_fails(box):
    run = box.run("raise ValueError('so it is')")
    assert (run.status, run.exit_code) == (RunStatus.FAILED, 1)
    assert run.stderr.endswith("ValueError: so it is\n")
    assert run.reason == "ended with exit code 1"


def test_an_exit_code(box):
    assert box.run("exit(7)").exit_code == 7


def test_the_processor_limit_has_a_reason_of_its_own(backend):
    run = Sandbox(Limits(cpu_s=1, wall_s=120, memory_mb=256), backend).run("while True: pass")
    assert (run.status, run.exit_code) == (RunStatus.TIMEOUT, -signal.SIGKILL)
    assert run.reason == "took longer than 1 s of processor time"


def test_output_is_kept_up_to_the_limit(backend):
    run = Sandbox(Limits(output_kb=4, memory_mb=256), backend).run("while True: print('x' * 1000)")
    assert run.status is RunStatus.OUTPUT_LIMIT
    assert len(run.stdout) == 4096


def test_output_at_the_limit_is_no_overflow(backend):
    run = Sandbox(Limits(output_kb=4, memory_mb=256), backend).run("print('x' * 4095)")
    assert (run.status, len(run.stdout)) == (RunStatus.OK, 4096)


@pytest.mark.parametrize("code", ["print('\ud800')", "a\0b", "\ufeffprint(1", "(" * 10_000, ""])
def test_strange_texts_are_programs_too(box, code):
    assert box.run(code).status in (RunStatus.FAILED, RunStatus.OK)


# --- what a program gets ----------------------------------------------------------------------------------------------


def test_standard_input(box):
    assert box.run("print(input()[::-1])", stdin="olleh\n").stdout == "hello\n"


def test_more_input_than_a_pipe_holds(box):
    run = box.run("import sys; print(len(sys.stdin.read()))", stdin="x" * 3_000_000)
    assert run.stdout == "3000000\n"


def test_input_that_nobody_reads(box):
    assert box.run("pass", stdin="x" * 3_000_000).status is RunStatus.OK


def test_files_and_arguments(box):
    files = {"solution.py": "def f(): return 1", "data/deep/x.bin": b"\xff\0"}
    code = "import sys, solution; print(solution.f(), open('data/deep/x.bin', 'rb').read(), sys.argv[1:])"
    assert box.run(code, files=files, arguments=["a b", "-c"]).stdout == "1 b'\\xff\\x00' ['a b', '-c']\n"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", ".", "a\0b"])
def test_files_stay_in_the_folder(box, name):
    with pytest.raises(UsageError, match="below its folder"):
        box.run("pass", files={name: ""})


def test_the_folder_is_empty_and_can_be_written_to(box):
    code = "import os, tempfile; open('x', 'w'); print(sorted(os.listdir()), os.getcwd(), tempfile.gettempdir())"
    assert box.run(code).stdout == "['program.py', 'x'] /tmp /tmp\n"
    assert box.run("import os; print(os.listdir())").stdout == "['program.py']\n"


def test_what_ordinary_programs_need(box):
    run = box.run(
        "import subprocess, asyncio, random, os\n"
        "from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: print(sum(pool.map(abs, range(-5, 5))))\n"
        "with ProcessPoolExecutor(2) as pool: print(list(pool.map(abs, [-1, 2])))\n"
        "print(subprocess.run(['/bin/sh', '-c', 'echo $((6*7))'], capture_output=True, text=True).stdout.strip())\n"
        "print(asyncio.run(asyncio.sleep(0, 'slept')), random.SystemRandom().random() < 1, os.cpu_count() > 0)\n"
    )
    assert run.stdout == "25\n[1, 2]\n42\nslept True True\n", run.stderr


def test_the_order_of_sets_is_the_same_in_every_run(box):
    outputs = {box.run("print(set('abcdefgh'))").stdout for _ in range(3)}
    assert len(outputs) == 1


def test_packages(backend, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "extra_package.py").write_text("value = 5")
    assert Sandbox(SMALL, backend).run("import extra_package").status is RunStatus.FAILED
    box = Sandbox(SMALL, backend, packages=[tmp_path])
    assert box.run("import extra_package; print(extra_package.value)").stdout == "5\n"
    run = box.run(f"open({str(tmp_path / 'extra_package.py')!r}, 'w')")
    assert "Read-only file system" in run.stderr


@pytest.mark.parametrize("folder", ["/", "/no/such/folder"])
def test_packages_that_make_no_sense(folder):
    with pytest.raises(UsageError, match="folders of packages"):
        Sandbox(SMALL, packages=[Path(folder)])


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_positive(name, value):
    with pytest.raises(UsageError, match=name):
        Limits(**{name: value})


# --- side by side, and what is left -----------------------------------------------------------------------------------


def test_several_at_once(box):
    code = "import os, sys, time; open('mine', 'x'); time.sleep(0.2); print(sys.argv[1], len(os.listdir()))"
    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(lambda number: box.run(code, arguments=[str(number)]), range(12)))
    assert [run.stdout for run in runs] == [f"{number} 2\n" for number in range(12)]


def children():
    """Return the processes that this one has started and not seen the end of."""
    return {one for file in Path("/proc/self/task").glob("*/children") for one in file.read_text().split()}


def test_nothing_is_left(box):
    box.run("pass")
    # Workers of earlier tests may still be there.
    others = children()
    before = Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd")), sorted(os.listdir("/tmp"))
    for code in ("open('x', 'w')", "while True: print('x')", "import os; os.fork()", "import os; os.kill(1, 9); 1/0"):
        box.run(code)
    after = Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd")), sorted(os.listdir("/tmp"))
    # Other programs may use the machine's folder for temporary files meanwhile.
    assert after[:2] == before[:2]
    assert [name for name in set(after[2]) - set(before[2]) if "sandbox" in name or name in ("x", "program.py")] == []
    assert children() <= others


def test_nothing_is_left_when_we_are_killed(backend):
    marker = f"marker-{os.urandom(8).hex()}"
    request = {"code": f"MARKER = {marker!r}\n{DAEMON}", "limits": {"wall_s": 300}, "files": {}, "backend": backend}
    host = subprocess.Popen([sys.executable, HOST, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with host:
        host.stdin.write(json.dumps(request) + "\n")
        host.stdin.flush()
        deadline = time.monotonic() + 20
        while not processes_with(marker) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes_with(marker), "the daemon never came up"
        host.kill()
    assert gone_soon(marker)


def test_nothing_is_left_when_we_are_interrupted(box, monkeypatch):
    marker = f"marker-{os.urandom(8).hex()}"

    def interrupted(*_):
        deadline = time.monotonic() + 20
        while not processes_with(marker) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes_with(marker), "the daemon never came up"
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "pump", interrupted)
    with pytest.raises(KeyboardInterrupt):
        box.run(f"MARKER = {marker!r}\n{DAEMON}")
    assert gone_soon(marker)


def test_a_supervisor_that_dies_breaks_the_run_and_takes_the_program_along(box):
    marker = f"marker-{os.urandom(8).hex()}"
    runs = []
    thread = threading.Thread(target=lambda: runs.append(box.run(f"MARKER = {marker!r}\n{DAEMON}")))
    thread.start()
    deadline = time.monotonic() + 20
    while not processes_with(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/self/task/{thread.native_id}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    thread.join(20)
    assert runs[0].status is RunStatus.BROKEN
    assert re.search("without a report|ended from outside", runs[0].reason)
    assert gone_soon(marker)


def test_a_server_inside_cannot_be_reached(backend):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"import socket, time; s = socket.create_server(('0.0.0.0', {port})); print('up', flush=True); time.sleep(9)"
    box = Sandbox(Limits(wall_s=0.8, memory_mb=256), backend)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(box.run, code)
        tries = 0
        while not run.done():
            with socket.socket() as client:
                client.settimeout(1)
                assert client.connect_ex(("127.0.0.1", port)) != 0
            tries += 1
            time.sleep(0.05)
    assert tries > 3
    assert (run.result().status, run.result().stdout) == (RunStatus.TIMEOUT, "up\n")


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_the_backend_is_chosen_by_trying(backend):
    assert Sandbox(SMALL).backend is backend


def test_an_unknown_backend():
    with pytest.raises(UsageError, match="bubblewrap, namespaces, user-namespaces; got 'docker'"):
        Sandbox(backend="docker")


def test_unsafe_is_no_backend_to_ask_for():
    with pytest.raises(UsageError):
        Sandbox(backend=Backend.NONE)


@pytest.fixture
def nothing_works(monkeypatch):
    monkeypatch.setattr(module, "why_not", lambda backend: "it is forbidden")


@pytest.mark.usefixtures("nothing_works")
def test_refuses_where_nothing_isolates():
    with pytest.raises(SandboxUnavailable, match=r"\(bubblewrap: it is forbidden; .*\)\. Install bubblewrap") as caught:
        Sandbox(SMALL)
    assert "--unsafe-no-sandbox" in str(pickle.loads(pickle.dumps(caught.value)))
    assert caught.value.exit_code == 3


def test_a_backend_that_only_seems_to_work_is_refused(monkeypatch):
    monkeypatch.setattr(backends, "PROBE", "print('[\"there is a network\"]')")
    backend = next((each for each in backends.candidates() if why_not(each) is None), None)
    if backend is None:
        pytest.skip("nothing isolates programs here")
    assert why_not.__wrapped__(backend) == "there is a network"


@pytest.mark.parametrize("probe", ["import os; os._exit(3)", "while True: print('x' * 999)"])
def test_a_probe_that_fails_says_how(monkeypatch, backend, probe):
    monkeypatch.setattr(backends, "PROBE", probe)
    assert why_not.__wrapped__(backend)


# --- without isolation ------------------------------------------------------------------------------------------------


UNSAFE_LIMITS = Limits(cpu_s=5, wall_s=1.5, memory_mb=256, file_mb=8, output_kb=64, processes=16)


@pytest.fixture(scope="module")
def unsafe(request):
    """Return what runs a program with limits only: here, or as an ordinary user where root's Python is root's alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "why_not", lambda backend: "it is forbidden")
        with contextlib.suppress(SandboxUnavailable):
            box = Sandbox(UNSAFE_LIMITS, allow_unsafe=True)
            return lambda code, *arguments: box.run(code, arguments=arguments)
    host = request.getfixturevalue("other_user")
    return lambda code, *arguments: host.run(code, UNSAFE_LIMITS, {}, "unsafe", arguments)


def test_unsafe_runs_say_so(unsafe):
    run = unsafe("print(1)")
    assert (run.status, run.stdout, run.backend, run.isolated) == (RunStatus.OK, "1\n", "none (unsafe)", False)


def test_unsafe_is_what_the_probe_warns_of(unsafe):
    run = unsafe(backends.PROBE, "4")
    assert run.status is RunStatus.OK, run.stderr
    assert "the machine's files can be seen" in backends.reading_of_probe(run.stdout)
    assert "not filtered" not in backends.reading_of_probe(run.stdout)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("while True: pass", RunStatus.TIMEOUT),
        ("while True: print('x' * 100)", RunStatus.OUTPUT_LIMIT),
        ("x = bytearray(1 << 30)", RunStatus.FAILED),
        ("open('x', 'wb').write(bytes(9 << 20))", RunStatus.FAILED),
        ("import socket; socket.socket()", RunStatus.FAILED),
        ("import os; os.kill(-1, 0)", RunStatus.FAILED),
        ("import os; assert 'SANDBOX_TEST_SECRET' not in os.environ", RunStatus.OK),
    ],
)
def test_unsafe_runs_have_limits_all_the_same(unsafe, code, status):
    assert unsafe(code).status is status


def test_unsafe_runs_bound_the_number_of_processes(unsafe):
    # A bomb of 60 at most: each child waits for its end.
    run = unsafe("import os, signal\nfor n in range(60):\n    if not os.fork(): signal.pause()\nprint('OUT')")
    assert "BlockingIOError" in run.stderr
    assert "OUT" not in run.stdout


def test_unsafe_runs_end_with_their_daemons_and_folder(unsafe):
    marker = f"marker-{os.urandom(8).hex()}"
    run = unsafe(f"import os; print(os.getcwd(), flush=True); MARKER = {marker!r}\n{DAEMON}")
    assert run.status is RunStatus.TIMEOUT
    folder, up = run.stdout.split()
    assert up == "up"
    assert gone_soon(marker)
    assert not Path(folder).exists()
    assert "sandbox-" in folder
