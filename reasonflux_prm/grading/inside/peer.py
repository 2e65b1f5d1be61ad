"""Calls between two processes that share a pair of pipes; plain values and functions cross, objects do not.

One line of JSON a message. While one side waits for a reply it serves the calls of the other, so functions may be
passed both ways. What arrives is only ever made of the types below, whatever the other side sends: the candidate's
side cannot be trusted.
"""

from __future__ import annotations

import builtins
import json
from collections import deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from importlib import import_module
from itertools import islice
from typing import IO, Any

_LONGEST_ITERATOR = 100_000
_LONGEST_MESSAGE = 64 << 20
_EXACT_INTEGER = 1 << 53


class Unsupported(Exception):
    """A value, or a use of the tests, that cannot cross between the processes."""


class Gone(Exception):
    """The other process has ended."""


class Peer:
    """One end of the connection."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        """Talk over two pipes."""
        self._incoming, self._outgoing = incoming, outgoing
        self._functions: list[Callable[..., Any]] = []
        self._errors: dict[str, type[BaseException]] = {}

    # --- messages -----------------------------------------------------------------------------------------------------

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request, serve what the other side asks meanwhile, and return the value that comes back.

        Raises:
            Gone: The other side ended instead.
            BaseException: What the other side raised.
        """
        self.send(request)
        while True:
            message = self.receive()
            if "call" in message:
                self.send(self.answer(message))
            elif "error" in message:
                raise self._error(message["error"])
            else:
                return message

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Call the function that a message asks for, and return what to send back."""
        arguments = [self.decode(value) for value in message["arguments"]]
        named = {str(name): self.decode(value) for name, value in message["named"].items()}
        try:
            value = self._functions[message["call"]](*arguments, **named)
            return {"value": self.encode(value), "arguments": [self._if_mutable(each) for each in arguments]}
        except BaseException as error:
            return {"error": self.describe(error)}

    def send(self, message: dict[str, Any]) -> None:
        """Write one message."""
        try:
            self._outgoing.write(json.dumps(message).encode() + b"\n")
            self._outgoing.flush()
        except BrokenPipeError:
            raise Gone from None

    def receive(self) -> dict[str, Any]:
        """Read one message."""
        line = self._incoming.readline(_LONGEST_MESSAGE)
        if not line.endswith(b"\n"):
            raise Gone
        message = json.loads(line)
        if not isinstance(message, dict):
            raise Gone
        return message

    # --- functions and errors -----------------------------------------------------------------------------------------

    def offer(self, function: Callable[..., Any]) -> int:
        """Let the other side call a function; return its number."""
        self._functions.append(function)
        return len(self._functions) - 1

    def remote(self, number: int, name: str = "function") -> Callable[..., Any]:
        """Return a function that calls the other side's function of this number."""

        def call(*arguments: Any, **named: Any) -> Any:
            sent = [self.encode(value) for value in arguments]
            named_sent = {key: self.encode(value) for key, value in named.items()}
            reply = self.ask({"call": number, "arguments": sent, "named": named_sent})
            for before, after in zip(arguments, reply.get("arguments", ()), strict=False):
                if after is not None:
                    _update(before, self.decode(after))
            return self.decode(reply["value"])

        call.__name__ = call.__qualname__ = name
        return call

    def error_type(self, name: str, base: str) -> type[BaseException]:
        """Return our own class for an error class of the other side: the built-in one, or a stand-in under its name."""
        found = getattr(builtins, name, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
        if name not in self._errors:
            self._errors[name] = type(name, (self.error_type(base, "Exception"),), {})
        return self._errors[name]

    def describe(self, error: BaseException) -> dict[str, Any]:
        """Return what can be told of an error to the other side."""
        try:
            values = [self.encode(value) for value in error.args]
        except (Unsupported, RecursionError):
            values = [repr(error)[:1000]]
        return {"lineage": [kind.__name__ for kind in type(error).__mro__[:-1]], "values": values}

    def _error(self, described: dict[str, Any]) -> BaseException:
        names = [str(name) for name in described["lineage"]]
        own = [name for name in names if isinstance(getattr(builtins, name, None), type)]
        name = next((name for name in names if name in self._errors), own[0] if own else "Exception")
        values = [self.decode(value) for value in described["values"]]
        try:
            return self.error_type(name, "Exception")(*values)
        except TypeError:  # such as UnicodeDecodeError, which wants more than its text
            return Exception(f"{name}: {values}")

    # --- values -------------------------------------------------------------------------------------------------------

    def _if_mutable(self, value: Any) -> Any:
        return self.encode(value) if isinstance(value, list | dict | set | bytearray) else None

    def encode(self, value: Any) -> Any:
        """Return a value as JSON can carry it.

        Subclasses of the plain types go as what they derive from, and iterators with all that they yield.

        Raises:
            Unsupported: It is an object of another type.
        """
        if value is None or isinstance(value, bool | str):
            return value if value is None or isinstance(value, bool) else str.__str__(value)
        if isinstance(value, int):
            return int(value) if abs(value) < _EXACT_INTEGER else {"int": hex(value)}
        if isinstance(value, float):
            return {"float": float(value).hex()}
        for kind in _SEQUENCES.values():
            if isinstance(value, kind):
                return {kind.__name__: [self.encode(each) for each in value]}
        if isinstance(value, KeysView | ValuesView | ItemsView):
            return {"list": [self.encode(each) for each in value]}
        if isinstance(value, dict):
            return {"dict": [[self.encode(key), self.encode(each)] for key, each in value.items()]}
        return self._encode_rare(value)

    def _encode_rare(self, value: Any) -> Any:
        if isinstance(value, bytes | bytearray):
            return {type(value).__name__: bytes(value).hex()}
        if isinstance(value, complex):
            return {"complex": [value.real.hex(), value.imag.hex()]}
        if isinstance(value, range):
            return {"range": [self.encode(each) for each in (value.start, value.stop, value.step)]}
        if (name := type(value).__name__) in _NUMBERS and type(value).__module__ == _NUMBERS[name]:
            return {name: str(value)}
        if isinstance(value, Iterator):
            items = [self.encode(each) for each in islice(value, _LONGEST_ITERATOR + 1)]
            if len(items) > _LONGEST_ITERATOR:
                raise Unsupported("an iterator without an end in sight cannot be passed between processes")
            return {"iterator": items}
        if isinstance(value, type) or not callable(value):
            raise Unsupported(f"a value of type {type(value).__name__} cannot be passed between processes")
        return {"function": self.offer(value)}

    def decode(self, value: Any) -> Any:
        """Return the value that `encode` was given; only the types it names come out, whatever comes in.

        Raises:
            Unsupported: It is nothing that `encode` makes.
        """
        if value is None or isinstance(value, bool | int | str):
            return value
        if not isinstance(value, dict) or len(value) != 1:
            raise Unsupported("a message that makes no sense")
        [(kind, content)] = value.items()
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](self.decode(each) for each in content)
        if kind == "dict":
            return {self.decode(key): self.decode(each) for key, each in content}
        if kind == "function":
            return self.remote(int(content))
        if kind == "iterator":
            return iter([self.decode(each) for each in content])
        if kind == "range":
            return range(*(int(self.decode(each)) for each in content))
        if kind in _NUMBERS:
            return getattr(import_module(_NUMBERS[kind]), kind)(content)
        if kind not in _SCALARS:
            raise Unsupported("a message that makes no sense")
        return _SCALARS[kind](content)


_SEQUENCES: Mapping[str, type[Any]] = {kind.__name__: kind for kind in (list, tuple, set, frozenset, deque)}
_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float.fromhex,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda parts: complex(float.fromhex(parts[0]), float.fromhex(parts[1])),
}
# Their modules are slow to load, and hardly ever needed.
_NUMBERS = {"Decimal": "decimal", "Fraction": "fractions"}


def _update(before: Any, after: Any) -> None:
    """Do to an argument what the function on the other side did to its copy."""
    if isinstance(before, list | bytearray):
        before[:] = after
    else:
        before.clear()
        before.update(after)
