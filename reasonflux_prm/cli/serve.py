"""Serve one PRM over HTTP: score traces, vLLM's /pooling, OpenRLHF's /get_reward, health and metrics.

Requests are batched into the PRM's packed passes. The service listens on this machine only unless --host says
otherwise, and then wants a token. Told to stop (Ctrl-C, SIGTERM) it takes nothing more, finishes what it has accepted,
and exits with 0.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from dataclasses import dataclass

from reasonflux_prm.cli.console import say
from reasonflux_prm.cli.options import CLAIMS, GENERATIVE, ScoringConfig, add_engine, count, is_address, scoring_of
from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.serving.limits import MIB, ServiceLimits

TOKEN_VARIABLE = "REASONFLUX_PRM_TOKEN"


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """The arguments of `serve`."""

    host: str
    port: int
    token: str | None
    insecure: bool
    pooling: str | None
    step_tag_id: int | None
    limits: ServiceLimits
    scoring: ScoringConfig

    def check(self) -> None:
        """Refuse what would make no sense, or would be open to the whole network.

        Raises:
            UsageError: It is so.
        """
        if self.scoring.prm in GENERATIVE or is_address(self.scoring.prm):
            raise UsageError(f"--prm {self.scoring.prm} asks a model that is served already; serve a checkpoint")
        if self.scoring.prm == CLAIMS:
            raise UsageError(f"--prm {CLAIMS} has no model to serve; serve a checkpoint")
        if self.token is not None and not (self.token.strip() and self.token.isascii() and self.token.isprintable()):
            raise UsageError(f"expected a token of printable ASCII in --token or {TOKEN_VARIABLE}, got another or none")
        if self.token is None and not self.insecure and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} can be reached from other machines: set {TOKEN_VARIABLE} to a token that requests "
                "must bear, or pass --insecure to let everyone in"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `serve`."""
    limits = ServiceLimits()
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="address to listen at; default 127.0.0.1")
    parser.add_argument("--port", type=port, default=8000, metavar="PORT", help="default 8000; 0 takes a free one")
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        help="what requests must bear (Authorization: Bearer TOKEN); default the environment variable "
        f"{TOKEN_VARIABLE}, which other users of this machine cannot see",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="listen without a token where other machines can reach the service"
    )
    parser.add_argument(
        "--pooling",
        choices=("all", "step"),
        help="what /pooling gives: the labels of all tokens or of those that close a step; default as vLLM: step for "
        "Qwen2ForProcessRewardModel, else all",
    )
    parser.add_argument(
        "--step-tag-id", type=count, metavar="ID", help="token that closes a step for --pooling step; default the PRM's"
    )
    parser.add_argument(
        "--queue-traces",
        type=count,
        default=limits.queue_traces,
        metavar="N",
        help=f"traces in progress, above which requests get 429; default {limits.queue_traces:,}",
    )
    parser.add_argument(
        "--queue-tokens",
        type=count,
        default=limits.queue_tokens,
        metavar="N",
        help=f"tokens in progress, above which requests get 429; default {limits.queue_tokens:,}",
    )
    parser.add_argument(
        "--body-mib",
        type=count,
        default=limits.body_bytes // MIB,
        metavar="N",
        help=f"MiB of the largest request, above which it gets 413; default {limits.body_bytes // MIB}",
    )
    parser.add_argument(
        "--wait-ms",
        type=milliseconds,
        default=limits.wait_s * 1000,
        metavar="X",
        help=f"how long a pack that is not full waits for more traces; default {limits.wait_s * 1000:g}",
    )
    parser.add_argument(
        "--drain",
        type=float,
        default=limits.drain_s,
        metavar="SECONDS",
        help=f"to finish what was accepted, once told to stop; default {limits.drain_s:g}",
    )
    add_engine(parser)


def port(text: str) -> int:
    """Read a port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def milliseconds(text: str) -> float:
    """Read a time of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected milliseconds of at least 0, got {text!r}")
    return value


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself, seen from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def config_of(arguments: argparse.Namespace) -> ServeConfig:
    """Return what the flags say."""
    limits = ServiceLimits(
        queue_traces=arguments.queue_traces,
        queue_tokens=arguments.queue_tokens,
        body_bytes=arguments.body_mib * MIB,
        held_bytes=max(8 * arguments.body_mib * MIB, ServiceLimits().held_bytes),
        wait_s=arguments.wait_ms / 1000,
        drain_s=arguments.drain,
    )
    token = arguments.token if arguments.token is not None else os.environ.get(TOKEN_VARIABLE)
    return ServeConfig(
        arguments.host,
        arguments.port,
        token,
        arguments.insecure,
        arguments.pooling,
        arguments.step_tag_id,
        limits,
        scoring_of(arguments),
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    config = config_of(arguments)
    config.check()
    try:
        from reasonflux_prm.serving.app import create_app
        from reasonflux_prm.serving.host import Host, address_of, bind, leave
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "uvicorn", "pydantic", "starlette"):
            raise
        raise MissingExtra('serving needs FastAPI and uvicorn: pip install "reasonflux-prm[serve]"') from error
    from reasonflux_prm.scoring.engine import Engine
    from reasonflux_prm.serving.pooling import pooler_for
    from reasonflux_prm.serving.service import Service

    bound = bind(config.host, config.port)
    engine = config.scoring.scorer()
    assert isinstance(engine, Engine)
    pooler = pooler_for(engine.prm, config.pooling, config.step_tag_id, config.scoring.steps)
    service = Service(engine.prm, engine.settings, config.limits)
    host = Host(create_app(service, pooler, config.token), service)
    spec = engine.prm.spec

    def started() -> None:
        guard = "with a token" if config.token is not None else "without a token"
        say(
            f"serving {spec.name} at {address_of(bound)} {guard}: /score, /get_reward"
            + (", /pooling" if pooler else "")
        )

    if not host.serve_until_stopped(bound, started):
        say("stopped; a forward pass was left unfinished")
        leave(0)
    say("stopped")
    return 0
