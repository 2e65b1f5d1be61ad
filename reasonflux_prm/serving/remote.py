"""A service as what file-to-file runs score with: `reasonflux-prm score TRACES --prm http://127.0.0.1:8000`.

The records name the PRM that is served, not where. Their last digits depend on what else the service packs beside a
trace, so two runs agree to 1e-6, not to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from reasonflux_prm.records import PRMIdentity, ScoredTrace, Trace
from reasonflux_prm.serving.client import Client, identity_of

CHUNK_TRACES = 256
"""Traces that are asked about together."""


class RemoteScorer:
    """Scores traces by a service; a `scoring.run.Scorer`.

    Args:
        client: Of the service.
        options: Arguments of `Client.score`; None leaves one to the service.

    Raises:
        ServiceError: The service cannot be reached or refuses the token.
    """

    def __init__(self, client: Client, **options: Any) -> None:
        self._client, self._options = client, options
        card = client.model()
        self._settings: dict[str, Any] = dict(card["settings"])
        self.identity: PRMIdentity = identity_of(card, options.get("aggregation"), options.get("alpha"))

    def settings_for_manifest(self) -> dict[str, Any]:
        """Return the service's settings, with this run's own in their place."""
        return self._settings | {name: value for name, value in self._options.items() if value is not None}

    def score_chunks(self, traces: Iterable[Trace]) -> Iterator[list[ScoredTrace]]:
        """Score traces, `CHUNK_TRACES` at a time.

        Raises:
            ServiceError: The service does not answer.
        """
        rest = iter(traces)
        while chunk := list(islice(rest, CHUNK_TRACES)):
            yield self._client.score(chunk, **self._options)
