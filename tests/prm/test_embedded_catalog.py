"""The list of known PRMs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from reasonflux_prm.prm.embedded.catalog import EMBEDDED, KNOWN, find


def test_every_name_and_alias_finds_its_own_entry():
    names = [name for known in KNOWN for name in (known.name, *known.aliases)]
    assert len({name.casefold() for name in names}) == len(names)
    for known in KNOWN:
        assert all(find(name) is known for name in (known.name, *known.aliases))


@pytest.mark.parametrize("name", ["embedded", "prm-135m", "PRM-135M"])
def test_the_embedded_prm_has_a_short_name(name):
    assert find(name) is EMBEDDED


def test_an_unknown_name_is_nothing():
    assert find("nobody/no-prm") is None


def test_listing_and_fetching_load_no_torch():
    code = (
        "import sys\n"
        "import reasonflux_prm.prm.embedded.catalog, reasonflux_prm.prm.embedded.fetch\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'gguf'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
