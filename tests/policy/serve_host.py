"""`transformers serve` as a process, for the tests that drive a real server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasonflux_prm.storage import cache_folder


def sampling_base(folder: Path) -> Path:
    """The base in `folder`, with leave to sample: `transformers serve` is greedy at every temperature without it."""
    for module in ("openai", "fastapi", "uvicorn", "transformers"):
        pytest.importorskip(module)
    from reasonflux_prm.prm.embedded.fetch import SMOLLM2
    from reasonflux_prm.prm.embedded.install import ensure_base

    if not list(cache_folder().glob(f"{SMOLLM2.name}-*.gguf")):
        pytest.skip("the base is not in the cache")
    folder.mkdir()
    for file in ensure_base().iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").write_text('{"do_sample": true, "eos_token_id": 2}')
    return folder


@contextlib.contextmanager
def serving(base: Path, log: Path) -> Iterator[str]:
    """Serve a model folder while the block runs; give the URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(base)]
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--device", "cpu", "--dtype", "float32", "--port", str(port), "--host", "127.0.0.1"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    try:
        until = time.monotonic() + 900
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            # Not /v1/models, which never lists a local folder.
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
