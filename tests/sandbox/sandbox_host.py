"""Runs sandboxes in another process, as another user or to be killed: one request a line in, one run a line out."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])


def main() -> None:
    user = int(sys.argv[1])
    sys.path.insert(0, ROOT)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    from reasonflux_prm.errors import ReasonFluxError
    from reasonflux_prm.sandbox import sandbox as module
    from reasonflux_prm.sandbox.limits import Limits
    from reasonflux_prm.sandbox.sandbox import Sandbox

    tried = module.why_not
    for line in sys.stdin:
        request = json.loads(line)
        try:
            unsafe = request["backend"] == "unsafe"
            module.why_not = (lambda backend: "it is forbidden") if unsafe else tried
            box = Sandbox(Limits(**request["limits"]), "auto" if unsafe else request["backend"], allow_unsafe=unsafe)
            run = box.run(request["code"], files=request["files"], arguments=request.get("arguments", ()))
            answer = dataclasses.asdict(run)
        except ReasonFluxError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


main()
