"""The methods of search by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.search.adaptive import Adaptive
from reasonflux_prm.search.beam import Beam
from reasonflux_prm.search.dvts import DVTS
from reasonflux_prm.search.method import SearchMethod
from reasonflux_prm.search.particles import Particles
from reasonflux_prm.search.rebase import Rebase
from reasonflux_prm.search.sample import Sample

SEARCH_METHODS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {one.name: one for one in (Sample, Adaptive, Beam, DVTS, Particles, Rebase)}
)


def open_method(name: str, given: Mapping[str, Any]) -> SearchMethod:
    """Return a method with the settings that are given; what it does not know is refused, not ignored.

    Args:
        name: One of `SEARCH_METHODS`.
        given: Settings by name; None takes the method's default.

    Raises:
        UsageError: No such method, or a setting that it does not have or that is outside its range.
    """
    if name not in SEARCH_METHODS:
        raise UsageError(f"unknown method {name!r}; there are {', '.join(SEARCH_METHODS)}")
    known = SEARCH_METHODS[name].__dataclass_fields__
    settings = {setting: value for setting, value in given.items() if value is not None}
    if unknown := [setting for setting in settings if setting not in known]:
        raise UsageError(
            f"{', '.join('--' + one for one in unknown)} does not go with the method {name}; it takes "
            f"{', '.join('--' + one for one in known)}"
        )
    method: SearchMethod = SEARCH_METHODS[name](**settings)
    return method
