"""Finds and runs tests written for pytest, without pytest: what KodCode's tests use of it, and no more.

The same on every machine, whatever is installed there. What is not known here raises `Unsupported`, so that a missing
feature is never taken for a failing program. Modules that are slow to load are loaded where they are needed.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reasonflux_prm.grading.inside.peer import Gone, Unsupported

Item = tuple[str, Callable[[], object] | None]
"""A test's name, and the test as a function without arguments; None if it is marked to be skipped."""
TESTS_FILE = "<tests>"
"""What the tests are compiled as, so that a failure's line is found."""
_MESSAGE = 300
_LINE = 160


class Failure(NamedTuple):
    """The first test that failed."""

    test: str
    line: str
    """The line of the tests at which it failed; empty if none is to blame."""
    error: str


def run(items: Sequence[Item], source: str) -> tuple[dict[str, bool], Failure | None]:
    """Run tests in order up to the first that fails.

    Returns:
        The names of the tests that did not fail, with False for those that are marked to be skipped; and the failure.
    """
    passed = {}
    for name, test in items:
        if test is None:
            passed[name] = False
            continue
        try:
            test()
        except (Unsupported, Gone):
            raise
        except BaseException as error:
            return passed, failure(name, error, source)
        passed[name] = True
    return passed, None


def failure(test: str, error: BaseException, source: str) -> Failure:
    """Return where and how a test failed."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == TESTS_FILE]
    lines = source.splitlines()
    number = frames[-1].lineno if frames else None
    line = lines[number - 1].strip()[:_LINE] if number and number <= len(lines) else ""
    return Failure(test, line, f"{type(error).__name__}: {error}"[:_MESSAGE].rstrip(": "))


def collect(namespace: Mapping[str, Any]) -> list[Item]:
    """Return the tests of a module, in the order in which they stand there."""
    fixtures = {name: value for name, value in namespace.items() if isinstance(value, Fixture)}
    found: list[Item] = []
    for name, value in namespace.items():
        if name.startswith("test") and isinstance(value, types.FunctionType):
            found += _cases(name, value, fixtures)
        elif isinstance(value, type) and hasattr(value, "assertEqual"):  # a unittest.TestCase, which is slow to load
            names = [method for method in dir(value) if method.startswith("test")]
            found += [(f"{name}.{method}", value(method).debug) for method in names]
        elif isinstance(value, type) and name.startswith("Test"):
            for method, function in vars(value).items():
                if method.startswith("test") and isinstance(function, types.FunctionType):
                    found += _cases(f"{name}.{method}", _in_class(value, function), fixtures)
    return found


def _in_class(kind: type, function: Callable[..., object]) -> Callable[..., object]:
    def test(*arguments: Any, **named: Any) -> None:
        instance = kind()
        for name in ("setup_class", "setup_method"):
            if prepare := getattr(instance, name, None):
                prepare(*[function] * len(_parameters(prepare.__func__)[1:]))
        function(instance, *arguments, **named)

    vars(test).update(marks=getattr(function, "marks", []), parameters=_parameters(function)[1:])
    return test


def _parameters(function: Any) -> list[str]:
    """Return the names of a function's parameters that have no default."""
    if hasattr(function, "parameters"):
        return list(function.parameters)
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional = names[: code.co_argcount - len(function.__defaults__ or ())]
    keyword = [name for name in names[code.co_argcount :] if name not in (function.__kwdefaults__ or {})]
    return [*positional, *keyword]


def _cases(name: str, function: Callable[..., object], fixtures: Mapping[str, Fixture]) -> list[Item]:
    """Return a test once for every combination of its parameters."""
    if "skip" in getattr(function, "marks", []):
        return [(name, None)]
    sets = [mark for mark in getattr(function, "marks", []) if isinstance(mark, list)]
    cases: list[Item] = []
    for number, combination in enumerate(itertools.product(*sets)):
        values = {key: value for case in combination for key, value in case.items()}
        cases.append((f"{name}[{number}]" if sets else name, _with_fixtures(function, values, fixtures)))
    return cases


def _with_fixtures(
    function: Callable[..., object], values: Mapping[str, Any], fixtures: Mapping[str, Fixture]
) -> Callable[[], object]:
    def test() -> None:
        with contextlib.ExitStack() as stack:
            had: dict[str, Any] = dict(values)
            function(**{name: _fixture(name, had, fixtures, stack) for name in _needed(function, values)})

    return test


def _needed(function: Callable[..., object], values: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*values, *_parameters(function)]))


def _fixture(name: str, had: dict[str, Any], fixtures: Mapping[str, Fixture], stack: contextlib.ExitStack) -> Any:
    if name not in had:
        if name in fixtures:
            function = fixtures[name].function
            value = function(**{each: _fixture(each, had, fixtures, stack) for each in _needed(function, {})})
            if isinstance(value, types.GeneratorType):
                stack.callback(next, value, None)
                value = next(value)
        elif name == "capsys":
            value = stack.enter_context(_Captured())
        elif name == "tmp_path":
            import tempfile
            from pathlib import Path

            value = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            raise Unsupported(f"the tests use the fixture {name}")
        had[name] = value
    return had[name]


class _Captured(contextlib.AbstractContextManager["_Captured"]):
    """The fixture `capsys`."""

    def __enter__(self) -> _Captured:
        self._before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self._now = io.StringIO(), io.StringIO()
        return self

    def __exit__(self, *error: object) -> None:
        sys.stdout, sys.stderr = self._before

    def readouterr(self) -> types.SimpleNamespace:
        """Return what was printed since the last call."""
        out, err = (stream.getvalue() for stream in self._now)
        for stream in self._now:
            stream.seek(0)
            stream.truncate()
        return types.SimpleNamespace(out=out, err=err)


# --- the module `pytest` ----------------------------------------------------------------------------------------------


class Fixture(NamedTuple):
    """A function that makes a value for tests."""

    function: Callable[..., Any]


class Raises(contextlib.AbstractContextManager["Raises"]):
    """`pytest.raises`."""

    value: BaseException

    def __init__(self, expected: type[BaseException] | tuple[type[BaseException], ...], match: str | None) -> None:
        self._expected, self._match = expected, match

    def __enter__(self) -> Raises:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            raise AssertionError(f"did not raise {self._expected}")
        if not isinstance(error, self._expected):
            return False
        if self._match is not None:
            import re

            if not re.search(self._match, str(error)):
                raise AssertionError(f"{str(error)!r} does not match {self._match!r}")
        self.value = error
        return True

    @property
    def type(self) -> type[BaseException]:
        """Return the class of what was raised."""
        return type(self.value)


def _raises(
    expected: type[BaseException] | tuple[type[BaseException], ...],
    function: Callable[..., object] | None = None,
    /,
    *arguments: Any,
    match: str | None = None,
    **named: Any,
) -> Raises:
    context = Raises(expected, match)
    if function is not None:
        with context:
            function(*arguments, **named)
    return context


class Approx:
    """`pytest.approx`: equal to within the larger of a relative and an absolute tolerance."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        # An absolute tolerance alone switches the relative one off, as it does in pytest.
        self._rel = rel if rel is not None else 0.0 if abs is not None else 1e-6
        self._abs = 1e-12 if abs is None else abs
        self._expected, self._nan_ok = expected, nan_ok

    def __repr__(self) -> str:
        return f"approx({self._expected!r})"

    def __eq__(self, other: object) -> bool:
        return self._near(other, self._expected)

    def _near(self, actual: Any, expected: Any) -> bool:
        if isinstance(expected, dict):
            same = isinstance(actual, dict) and actual.keys() == expected.keys()
            return same and all(self._near(actual[key], value) for key, value in expected.items())
        if isinstance(expected, list | tuple):
            same = isinstance(actual, list | tuple) and len(actual) == len(expected)
            return same and all(self._near(one, other) for one, other in zip(actual, expected, strict=True))
        if isinstance(expected, bool) or not isinstance(expected, int | float | complex):
            return bool(actual == expected)
        if not isinstance(actual, int | float | complex):
            return False
        if expected != expected:
            return self._nan_ok and actual != actual
        if actual == expected:
            return True
        difference = abs(actual - expected)
        return difference <= max(self._abs, self._rel * abs(expected)) and difference != float("inf")


class _Marks:
    """`pytest.mark`."""

    def __getattr__(self, name: str) -> Any:
        if name == "parametrize":
            return _parametrize
        if name == "skip":
            return _mark("skip")
        if name in ("skipif", "xfail", "usefixtures"):
            raise Unsupported(f"the tests use pytest.mark.{name}")
        return _mark("")


def _mark(mark: str) -> Callable[..., Any]:
    def decorate(*arguments: Any, **named: Any) -> Any:
        if len(arguments) == 1 and not named and callable(arguments[0]):
            return _marked(arguments[0], mark)
        return lambda function: _marked(function, mark)

    return decorate


def _marked(function: Any, mark: object) -> Any:
    function.marks = [*getattr(function, "marks", []), mark]
    return function


def _parametrize(names: str | Sequence[str], values: Sequence[Any], **_ids: Any) -> Callable[[Any], Any]:
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    rows = [value.values if isinstance(value, types.SimpleNamespace) else value for value in values]
    single = len(keys) == 1
    tables = [
        dict(zip(keys, (row,) if single and not isinstance(value, types.SimpleNamespace) else row, strict=True))
        for row, value in zip(rows, values, strict=True)
    ]
    return lambda function: _marked(function, tables)


def _fixture_decorator(function: Any = None, **settings: Any) -> Any:
    if settings.get("params") is not None or settings.get("autouse"):
        raise Unsupported("the tests use fixtures with parameters, or autouse")
    return Fixture(function) if function is not None else Fixture


def _fail(reason: str = "", pytrace: bool = True) -> None:
    raise AssertionError(reason)


def _missing(name: str) -> Iterator[Any]:
    if name.startswith("__"):
        raise AttributeError(name)
    raise Unsupported(f"the tests use pytest.{name}")


def pytest_module() -> types.ModuleType:
    """Return a module that stands in for pytest."""
    module = types.ModuleType("pytest")
    vars(module).update(
        raises=_raises,
        approx=Approx,
        mark=_Marks(),
        fixture=_fixture_decorator,
        fail=_fail,
        param=lambda *values, **_settings: types.SimpleNamespace(values=values),
        main=lambda *_arguments, **_settings: 0,
        __getattr__=_missing,
    )
    return module
