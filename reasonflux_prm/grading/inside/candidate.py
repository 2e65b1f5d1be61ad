"""The candidate's side: loads the program, and does what the runner asks until the runner ends."""

from __future__ import annotations

import builtins
import sys
import types
from typing import IO, Any

from reasonflux_prm.grading.inside import testing
from reasonflux_prm.grading.inside.peer import Gone, Peer, Unsupported

MODULE = "solution"


def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Answer requests: load, describe, call, and (in shared mode) test. Never returns to its caller's code."""
    peer = Peer(incoming, outgoing)
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    while True:
        request = peer.receive()
        if "call" in request:
            peer.send(peer.answer(request))
        elif "describe" in request:
            peer.send({"value": _described(peer, module, request["describe"])})
        elif "load" in request:
            peer.send(_load(peer, module, request["load"]))
        else:
            peer.send(_test(peer, request))


def _load(peer: Peer, module: types.ModuleType, sources: list[str]) -> dict[str, Any]:
    before = _hidden()
    try:
        for source in sources:
            exec(compile(source, "<program>", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        return {"error": peer.describe(error)}
    finally:
        # A program that replaces what everybody uses shall not have it used on its own tests.
        for names, values in before:
            names.update(values)
        sys.settrace(None)
        sys.setprofile(None)
    return {"value": None}


def _hidden() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Take our own modules out of the program's reach, and return what they and `builtins` hold, to put it back."""
    place = __name__.rpartition(".")[0]
    ours = [sys.modules.pop(name) for name in list(sys.modules) if name.startswith(place)]
    return [(vars(module), dict(vars(module))) for module in (builtins, *ours)]


def _described(peer: Peer, module: types.ModuleType, name: str) -> dict[str, Any]:
    """Say what the program means by a name."""
    if name == "__all__":
        names = [each for each, value in vars(module).items() if each[0] != "_" and _crossing(peer, value)]
        return {"kind": "value", "value": peer.encode(names)}
    if name not in vars(module):
        return {"kind": "absent"}
    return _crossing(peer, vars(module)[name]) or {"kind": "object"}


def _crossing(peer: Peer, value: Any) -> dict[str, Any] | None:
    """Return what the runner is to make of a value; None if it can make nothing of it."""
    if isinstance(value, type):
        if issubclass(value, BaseException):
            return {"kind": "error", "lineage": [kind.__name__ for kind in value.__mro__]}
        return None
    if callable(value):
        return {"kind": "function", "number": peer.offer(value)}
    try:
        return {"kind": "value", "value": peer.encode(value)}
    except Unsupported:
        return None


def _test(peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
    """Run the tests here, beside the program."""
    source = request["test"]
    try:
        passed, failure = run_tests(source)
    except Unsupported as error:
        return {"unsupported": str(error)}
    except BaseException as error:
        return {"error": peer.describe(error)}
    told = None if failure is None else failure._asdict()
    return {"nonce": request["nonce"], "passed": passed, "failure": told}


def run_tests(source: str) -> tuple[dict[str, bool], testing.Failure | None]:
    """Run the tests in `source`, with `solution` and `pytest` to import.

    Raises:
        Unsupported: The tests need what is not there.
    """
    sys.modules["pytest"] = testing.pytest_module()
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        code = compile(source, testing.TESTS_FILE, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise Unsupported(f"the tests do not compile ({error})") from None
    try:
        exec(code, namespace)
    except (Unsupported, Gone):
        raise
    except BaseException as error:
        return {}, testing.failure("the tests' own beginning", error, source)
    items = testing.collect(namespace)
    if not items:
        raise Unsupported("there are no tests")
    return testing.run(items, source)
