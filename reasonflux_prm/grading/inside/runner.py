"""The runner's side: forks the candidate, learns the tests only then, and says how they went.

Whatever the candidate does, the verdict comes from here: only this process holds the token and the pipe that it goes
out by, and its memory is closed to others of the same user.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import sys
import types
from typing import Any, NoReturn

from reasonflux_prm.grading.inside import candidate, testing
from reasonflux_prm.grading.inside.peer import Gone, Peer, Unsupported

_SET_DUMPABLE = 4


def main() -> NoReturn:
    """Read the job from standard input, and print one line of JSON.

    The job: `sources` (texts of the program, run one after the other), `style` (`check`: the tests define `check`,
    which takes the function `entry_point`; `pytest`: they import from `solution`), `tests`, `shared` (run the tests
    beside the program), `prompt` (what comes before the tests of style `check`), and `token`, printed only if all
    tests passed.
    """
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    peer = _start_candidate()
    # What the program writes into its folder is nothing that this process will ever import.
    sys.path[:] = [folder for folder in sys.path if os.path.realpath(folder) != os.getcwd()]
    job = json.load(sys.stdin)
    try:
        said = _grade(peer, job)
    except Unsupported as error:
        said = {"unsupported": str(error)}
    except Gone:
        said = {"failure": {"test": "", "line": "", "error": "the program ended in the middle"}}
    except BaseException as error:
        said = {"failure": {"test": "", "line": "", "error": f"{type(error).__name__}: {error}"[:300]}}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    os._exit(0)


def _start_candidate() -> Peer:
    """Fork; the other process, which knows nothing yet, goes on in `candidate.serve` with no file of ours open."""
    to_candidate, to_runner = os.pipe(), os.pipe()
    if os.fork():
        os.close(to_candidate[0])
        os.close(to_runner[1])
        return Peer(os.fdopen(to_runner[0], "rb"), os.fdopen(to_candidate[1], "wb"))
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for handle in (0, 1, 2):
            os.dup2(nothing, handle)
        for handle in (nothing, to_candidate[1], to_runner[0]):
            os.close(handle)
        os.setpgid(0, 0)
        candidate.serve(os.fdopen(to_candidate[0], "rb"), os.fdopen(to_runner[1], "wb"))
    finally:
        os._exit(0)


def _grade(peer: Peer, job: dict[str, Any]) -> dict[str, Any]:
    try:
        peer.ask({"load": job["sources"]})
    except Gone:
        raise
    except BaseException as error:
        return _failed(testing.Failure("loading the program", "", f"{type(error).__name__}: {error}"[:300]))
    if job["shared"]:
        passed, failure = _test_beside(peer, job["tests"])
    elif job["style"] == "check":
        passed, failure = _check(peer, job)
    else:
        sys.modules[candidate.MODULE] = _Solution(peer)
        passed, failure = candidate.run_tests(job["tests"])
    if failure is not None:
        return _failed(failure)
    if not any(passed.values()):
        raise Unsupported("every test asks to be skipped")
    return {"token": job["token"]}


def _failed(failure: testing.Failure) -> dict[str, Any]:
    return {"failure": failure._asdict()}


class _Solution(types.ModuleType):
    """What the tests import in place of the program: its functions across the pipe, copies of its plain values."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(candidate.MODULE)
        self.__dict__["_peer"] = peer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        value = self.__dict__[name] = look_up(self.__dict__["_peer"], name)
        return value


def look_up(peer: Peer, name: str) -> Any:
    """Return what the program means by a name.

    Raises:
        AttributeError: It defines no such name.
        TypeError: It is an object that cannot cross between processes.
    """
    told = peer.ask({"describe": name})["value"]
    kind = told["kind"]
    if kind == "function":
        return peer.remote(int(told["number"]), name)
    if kind == "value":
        return peer.decode(told["value"])
    if kind == "error":
        lineage = [str(each) for each in told["lineage"]]
        return peer.error_type(lineage[0], _built_in(lineage))
    if kind == "absent":
        raise AttributeError(f"the program defines no {name}")
    raise TypeError(f"{name} is an object that cannot be passed between processes")


def _built_in(lineage: list[str]) -> str:
    return next((name for name in lineage if hasattr(builtins, name)), "Exception")


def _check(peer: Peer, job: dict[str, Any]) -> tuple[dict[str, bool], testing.Failure | None]:
    try:
        function = look_up(peer, job["entry_point"])
    except (AttributeError, TypeError) as error:
        return {}, testing.Failure("loading the program", "", str(error))
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(job["prompt"], "<prompt>", "exec", dont_inherit=True), namespace)
        # Some tests (HumanEval/33) call the function by its own name as well.
        namespace[job["entry_point"]] = function
        exec(compile(job["tests"], testing.TESTS_FILE, "exec", dont_inherit=True), namespace)
        check = namespace["check"]
    except BaseException as error:
        raise Unsupported(f"the tests do not run ({type(error).__name__}: {error})") from None
    return testing.run([("check", lambda: check(function))], job["tests"])


def _test_beside(peer: Peer, source: str) -> tuple[dict[str, bool], testing.Failure | None]:
    """Have the candidate's process run the tests, which it learns only now that the program is loaded."""
    nonce = os.urandom(16).hex()
    said = peer.ask({"test": source, "nonce": nonce})
    if "unsupported" in said:
        raise Unsupported(str(said["unsupported"]))
    if said.get("nonce") != nonce:
        raise Gone
    failure = said["failure"]
    passed = {str(name): bool(ran) for name, ran in said["passed"].items()}
    if failure is None and (left_out := _names(source) - {name.split("[")[0].split(".")[0] for name in passed}):
        return {}, testing.Failure(min(left_out), "", "the test was not run")
    return passed, None if failure is None else testing.Failure(**failure)


def _names(source: str) -> set[str]:
    """Return the names of the tests that a look at their text finds."""
    import ast  # slow to load, and for this alone

    found = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {name for name in found if name.startswith("test")}


if __name__ == "__main__":
    main()
