"""Flags that several commands share, with one meaning everywhere, and what they are turned into."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.scoring.aggregate import AGGREGATIONS
from reasonflux_prm.scoring.run import Input, Scorer
from reasonflux_prm.scoring.windows import OVERFLOWS
from reasonflux_prm.steps.split import RULE_NAMES
from reasonflux_prm.traces.formats import FORMATS
from reasonflux_prm.traces.read import FIELDS

if TYPE_CHECKING:
    from reasonflux_prm.scoring.generative_run import GenerativeScorer

DTYPES: Final = ("float32", "bfloat16", "float16")
"""As `prm.load.DTYPES`, which would import torch."""
GENERATIVE: Final = ("genprm", "thinkprm")
"""Values of `--prm` that name a kind of verifier and not a checkpoint."""
CLAIMS: Final = "claims"
"""The value of `--prm` for no model at all, as `scoring.claims.NAME`."""

# --- input and output ----------------------------------------------------------------------------------------------


def input_of(arguments: argparse.Namespace, source: str) -> Input:
    """Return what the flags of `add_input` say of a source."""
    return Input(source, arguments.format, arguments.map, arguments.limit)


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how to read."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--format",
        default="auto",
        choices=("auto", *FORMATS),
        metavar="FORMAT",
        help=f"format of the records: auto (told record by record) or one of {', '.join(FORMATS)}; default auto",
    )
    group.add_argument(
        "--map",
        type=columns,
        default={},
        metavar="A=B,...",
        help=f"what your columns are called: FIELD=COLUMN, with FIELD one of {', '.join(FIELDS)}",
    )
    group.add_argument("--limit", type=count, metavar="N", help="read the first N records only")


def add_output(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    """Add `-o` and `--fresh`."""
    parser.add_argument("-o", "--output", required=True, metavar=metavar, help=what)
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start over and replace what is there; without it an interrupted run goes on where it stopped, and the "
        "output of other settings or another input is never touched",
    )


def columns(text: str) -> dict[str, str]:
    """Read `a=b,c=d`."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name.strip() and column.strip() for name, _, column in pairs):
        raise argparse.ArgumentTypeError(f"expected FIELD=COLUMN,..., got {text!r}")
    return {name.strip(): column.strip() for name, _, column in pairs}


def count(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


# --- the PRM, and how to score --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoringConfig:
    """Which PRM, and how it scores; None takes the default, so that a flag that goes with nothing is noticed."""

    prm: str = "embedded"
    family: str | None = None
    revision: str | None = None
    reference: str | None = None
    dtype: str | None = None
    device: str | None = None
    context: int | None = None
    steps: str = "adaptive"
    alpha: float = 1.0
    aggregation: str | None = None
    overflow: str | None = None
    overlap: float | None = None
    pack_tokens: int | None = None
    policy_model: str | None = None
    policy_url: str | None = None
    samples: int | None = None
    check_claims: bool = False

    def scorer(self) -> Scorer:
        """Load the PRM.

        Raises:
            UsageError: A flag is out of its range or does not go with this PRM.
            MissingExtra: Claims are to be checked, and sympy is not installed.
        """
        scorer = self._plain()
        if not self.check_claims:
            return scorer
        from reasonflux_prm.scoring.checked import CheckedScorer

        return CheckedScorer(scorer)

    def _plain(self) -> Scorer:
        if is_address(self.prm):
            self._refuse((*_LOADING_FLAGS, *_POLICY_FLAGS))
            return self._service()
        if self.prm == CLAIMS:
            self._refuse((*_LOADING_FLAGS, *_WINDOW_FLAGS, *_POLICY_FLAGS))
            return self._claims()
        generative = self.prm in GENERATIVE
        self._refuse((*_LOADING_FLAGS, *_WINDOW_FLAGS) if generative else _POLICY_FLAGS)
        return self._verifier() if generative else self._engine()

    def _refuse(self, names: tuple[str, ...]) -> None:
        given = ", ".join("--" + name.replace("_", "-") for name in names if getattr(self, name) is not None)
        if given:
            raise UsageError(f"{given} does not go with --prm {self.prm}; leave it out")

    def _engine(self) -> Scorer:
        from reasonflux_prm.prm.load import load_prm
        from reasonflux_prm.scoring.engine import Engine, EngineSettings

        named: dict[str, Any] = {"overflow": self.overflow, "overlap": self.overlap}
        settings = EngineSettings(
            aggregation=self.aggregation,
            alpha=self.alpha,
            pack_tokens=self.pack_tokens,
            steps=self.steps,
            **{name: value for name, value in named.items() if value is not None},
        )
        prm = load_prm(
            self.prm,
            dtype=self.dtype,
            device=self.device,
            family=self.family,
            revision=self.revision,
            context=self.context,
            reference=self.reference,
        )
        return Engine(prm, settings)

    def _claims(self) -> Scorer:
        from reasonflux_prm.scoring.claims import ClaimsScorer

        return ClaimsScorer(steps=self.steps, aggregation=self.aggregation, alpha=self.alpha)

    def _service(self) -> Scorer:
        from reasonflux_prm.serving.client import Client
        from reasonflux_prm.serving.remote import RemoteScorer

        return RemoteScorer(
            Client(self.prm),
            alpha=self.alpha,
            aggregation=self.aggregation,
            steps=self.steps,
            overflow=self.overflow,
            overlap=self.overlap,
        )

    def _verifier(self) -> GenerativeScorer:
        from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy
        from reasonflux_prm.scoring.generative_run import GenerativeScorer

        if self.policy_model is None or self.policy_url is None:
            raise UsageError(
                f"--prm {self.prm} asks a served model: name it with --policy-model, and its server's address with "
                "--policy-url, such as http://127.0.0.1:8000/v1"
            )
        return GenerativeScorer(
            OpenAICompatiblePolicy(self.policy_model, self.policy_url),
            self.prm,
            samples=self.samples or 1,
            steps=self.steps,
            aggregation=self.aggregation,
            alpha=self.alpha,
        )


def is_address(prm: str) -> bool:
    """Return whether `--prm` names a service (`reasonflux-prm serve`) and not a checkpoint."""
    return prm.startswith(("http://", "https://"))


_LOADING_FLAGS: Final = ("family", "revision", "reference", "dtype", "device", "context", "pack_tokens")
_WINDOW_FLAGS: Final = ("overflow", "overlap")
_POLICY_FLAGS: Final = ("policy_model", "policy_url", "samples")


def scoring_of(arguments: argparse.Namespace) -> ScoringConfig:
    """Return what the flags of `add_scoring` say."""
    return ScoringConfig(**{field.name: getattr(arguments, field.name) for field in fields(ScoringConfig)})


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ScoringConfig` but `--check-claims`, which `add_check` adds."""
    add_engine(parser)
    _add_verifier(parser.add_argument_group("generative verifiers"))


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the flag that has rewards scaled by the claims that hold, to what scores whole traces."""
    parser.add_argument(
        "--check-claims",
        action="store_true",
        help="scale each step's reward by the share of its checkable claims about numbers that hold, and the "
        "trajectory reward by that of all of them; what makes no such claim keeps its reward",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ScoringConfig` that go with a checkpoint; what a generative verifier takes stays unset."""
    _add_prm(parser.add_argument_group("PRM"))
    _add_rewards(parser.add_argument_group("steps and rewards"))
    parser.set_defaults(check_claims=False, **dict.fromkeys(_POLICY_FLAGS))


def _add_prm(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prm",
        default="embedded",
        metavar="NAME|HUB_ID|FOLDER|URL",
        help="the PRM: embedded, a name that `reasonflux-prm models` lists, a hub id, a checkpoint folder, the address "
        f"of a service (`reasonflux-prm serve`), {' or '.join(GENERATIVE)}, or {CLAIMS}: no model, only a check of "
        "claims about numbers; default embedded",
    )
    group.add_argument("--family", metavar="NAME", help="the PRM's family, where its files do not tell it")
    group.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    group.add_argument(
        "--reference", metavar="HUB_ID|FOLDER", help="reference model of an implicit PRM; default the published one"
    )
    group.add_argument("--dtype", choices=DTYPES, help="default float32 on a CPU, bfloat16 on a GPU")
    group.add_argument(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...; default the GPUs if there are any, else the CPU"
    )
    group.add_argument(
        "--context", type=count, metavar="N", help="tokens of the longest reading; default the PRM's own limit"
    )
    group.add_argument(
        "--pack-tokens",
        type=count,
        metavar="N",
        help="tokens of a forward pass; default 1,024 on a CPU, 32,768 on a GPU",
    )


def _add_rewards(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--steps",
        default="adaptive",
        choices=RULE_NAMES,
        metavar="RULE",
        help=_choices("how traces are cut", RULE_NAMES),
    )
    group.add_argument(
        "--alpha",
        type=float,
        default=1.0,
        metavar="X",
        help="weight of the trajectory reward in a trace's reward; 0 leaves it out; default 1",
    )
    group.add_argument(
        "--aggregation",
        choices=tuple(AGGREGATIONS),
        metavar="NAME",
        help=f"from step rewards to one number: {', '.join(AGGREGATIONS)}; default the PRM's own",
    )
    group.add_argument(
        "--overflow",
        choices=OVERFLOWS,
        metavar="HOW",
        help="a trace longer than the context is scored in overlapping windows (window), refused (refuse), or cut to "
        "its beginning (head) or end (tail); default window",
    )
    group.add_argument(
        "--overlap", type=float, metavar="X", help="share of a window that the next one repeats, in [0, 1); default 0.5"
    )


def _add_verifier(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--policy-model", metavar="NAME", help="the verifier, as its server calls it")
    group.add_argument("--policy-url", metavar="URL", help="OpenAI-compatible server, such as http://127.0.0.1:8000/v1")
    group.add_argument("--samples", type=count, metavar="N", help="verifications that are averaged; default 1")


def _choices(what: str, names: tuple[str, ...]) -> str:
    return f"{what}: {', '.join(names)}; default {names[0]}"
