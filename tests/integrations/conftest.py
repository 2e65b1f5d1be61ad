"""Stand-ins of the other layers' tests, for the tests against other packages."""

from __future__ import annotations

import sys
from pathlib import Path

for sibling in ("prm", "scoring"):
    sys.path.append(str(Path(__file__).parents[1] / sibling))  # tiny.py, tiny_native.py
