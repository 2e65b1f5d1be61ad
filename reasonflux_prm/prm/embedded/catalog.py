"""The PRMs that the package knows by name.

A name that is not listed here may still be a hub id or a folder; what it holds is then told from its configuration.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownPRM:
    """One PRM: how to ask for it, and what is known of it before it is fetched."""

    name: str
    """What `--prm` takes: a hub id, or `embedded`."""
    family: str
    size: str
    """Parameters, rounded, as its makers give them."""
    context: int | None = None
    """Tokens it reads at once; None where we have not seen it: the checkpoint says it when it is loaded."""
    licence: str | None = None
    """As its model card states it; None if the card states none that we have seen."""
    aliases: tuple[str, ...] = ()


EMBEDDED = KnownPRM("embedded", "native", "135M", 8192, "apache-2.0", aliases=("prm-135m",))

KNOWN: tuple[KnownPRM, ...] = (
    EMBEDDED,
    KnownPRM("Gen-Verse/ReasonFlux-PRM-7B", "reasonflux", "7B"),
    KnownPRM("Gen-Verse/ReasonFlux-PRM-1.5B", "reasonflux-scalar", "1.5B"),
    KnownPRM("Qwen/Qwen2.5-Math-PRM-7B", "qwen-math", "7B", 4096, "qwen"),
    KnownPRM("Qwen/Qwen2.5-Math-PRM-72B", "qwen-math", "72B"),
    KnownPRM("Qwen/Qwen2.5-Math-7B-PRM800K", "qwen-math", "7B", licence="qwen"),
    KnownPRM("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B", "skywork", "1.5B", 4096, "skywork-community"),
    KnownPRM("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B", "skywork", "7B", licence="other"),
    KnownPRM("peiyi9979/math-shepherd-mistral-7b-prm", "math-shepherd", "7B"),
    KnownPRM("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", "rlhflow", "8B"),
    KnownPRM("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "rlhflow", "8B"),
    KnownPRM("PRIME-RL/EurusPRM-Stage1", "implicit", "7B", licence="apache-2.0"),
    KnownPRM("PRIME-RL/EurusPRM-Stage2", "implicit", "7B", licence="apache-2.0"),
    KnownPRM("jinachris/PURE-PRM-7B", "pure", "7B", licence="apache-2.0"),
)


def find(name: str) -> KnownPRM | None:
    """Return the PRM of that name or alias, letters' case aside; None if the package does not know it."""
    wanted = name.casefold()
    for known in KNOWN:
        if wanted in (known.name.casefold(), *known.aliases):
            return known
    return None
