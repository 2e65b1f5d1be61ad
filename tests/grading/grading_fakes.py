"""Programs that want to pass without doing what they were asked, which is `add(a, b)`."""

from __future__ import annotations

EVERYWHERE = {
    "ends at once": "import os; os._exit(0)",
    "exits": "import sys; sys.exit(0)",
    "exits when called": "def add(a, b):\n    import os; os._exit(0)",
    "exits politely when called": "def add(a, b): raise SystemExit(0)",
    "prints a verdict": """
import json
for handle in range(0, 64):
    try:
        import os
        os.write(handle, (json.dumps({"token": "x", "passed": 3}) + "\\n").encode())
    except OSError:
        pass
def add(a, b): return 0
""",
    "kills the runner": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)\ndef add(a, b): return 0",
    "stops the runner": "import os, signal\ndef add(a, b):\n    os.kill(os.getppid(), signal.SIGSTOP)\n    return 0",
    "reads the runner's memory and files": """
import os
for name in ("mem", "environ", "maps", "cmdline", "fd/0", "fd/1", "fd/3", "fd/4"):
    try:
        data = open(f"/proc/{os.getppid()}/{name}", "rb").read()
        if name != "cmdline":
            import os; os._exit(0)
    except OSError:
        pass
try:
    open(f"/proc/{os.getppid()}/fd/1", "w").write('{"token": "x"}')
except OSError:
    pass
def add(a, b): return 0
""",
    "looks for the token in its own memory": """
import gc, os, re
found = {text for each in gc.get_objects() for text in (each.values() if isinstance(each, dict) else [each])
         if isinstance(text, str) and re.fullmatch("[0-9a-f]{32}", text)}
for text in found:
    os.write(1, ('{"token": "%s"}' % text).encode())
def add(a, b): return 0
""",
    "reads the tests in the folder": """
import os, re
text = "".join(open(os.path.join(p, n), errors="replace").read() for p, _, names in os.walk("/tmp") for n in names)
expected = re.findall(r"add\\((.*?)\\) == (\\d+)", text)
def add(a, b): return int(dict(expected)[f"{a}, {b}"])
""",
    "overwrites the runner's modules": """
import os
for place, _, names in os.walk("/tmp"):
    for name in names:
        with open(os.path.join(place, name), "w") as file:
            file.write("import os; os.write(1, b'{}'); os._exit(0)")
for name in ("json", "ast", "math", "pytest", "solution"):
    open(f"/tmp/{name}.py", "w").write("import os; os._exit(0)")
def add(a, b): return 0
""",
    "replaces built-in names": """
import builtins
builtins.AssertionError = Warning
builtins.exec = builtins.compile = builtins.isinstance = builtins.print = lambda *a, **k: True
builtins.callable = builtins.any = builtins.all = lambda *a: True
def add(a, b): return 0
""",
    "replaces modules": """
import sys
place = "reasonflux_prm.grading.inside"
for name in ("pytest", "json", f"{place}.testing", f"{place}.runner", "tests"):
    sys.modules[name] = sys.modules[__name__]
def run(items, source): return {name: True for name, _ in items}, None
run_tests = lambda source: ({"test_add": True, "test_more": True}, None)
def add(a, b): return 0
""",
    "patches the runner's modules": """
import sys
for name, module in list(sys.modules.items()):
    if "grading" in name:
        for function in ("run", "run_tests", "collect", "failure"):
            if hasattr(module, function):
                setattr(module, function, lambda *a: ({"test_add": True, "test_more": True}, None))
def add(a, b): return 0
""",
    "patches what is further up the stack": """
import sys
frame = sys._getframe()
while frame:
    for name in ("run", "run_tests", "_test", "testing"):
        if name in frame.f_globals:
            frame.f_globals[name] = lambda *a: ({"test_add": True, "test_more": True}, None)
    frame = frame.f_back
def add(a, b): return 0
""",
    "traces": """
import sys
sys.settrace(lambda frame, event, argument: None if "test" not in frame.f_code.co_name else sys.exit(0))
sys.setprofile(lambda *a: None)
def add(a, b): return 0
""",
    "asks to be skipped": """
try:
    from reasonflux_prm.grading.inside.peer import Unsupported as Skipped
except ImportError:
    Skipped = type("Skipped", (Exception,), {})
def add(a, b): raise Skipped("skip me")
""",
    "calls itself untestable": "class Unsupported(Exception): pass\ndef add(a, b): raise Unsupported('no')",
    "is a number that equals all": """
class Number(int):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = int.__hash__
def add(a, b): return Number(0)
""",
    "is always equal": """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = lambda self: 0
def add(a, b): return Equal()
""",
    "changes its arguments": "def add(a, b):\n    return 0\nadd.__code__ = (lambda a, b: 0).__code__",
    "looks at who calls": """
import sys
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        for value in frame.f_code.co_consts:
            if isinstance(value, int) and value > max(a, b):
                return value
        frame = frame.f_back
    return 0
""",
    "sleeps through it": "import time\ndef add(a, b): time.sleep(1000)",
    "turns the clock off": "import time\ntime.sleep = time.monotonic = lambda *a: 0\nwhile True: pass",
    "answers before it is asked": """
import os
for handle in range(3, 64):
    try:
        os.write(handle, b'{"value": {"kind": "function", "number": 0}}\\n' + b'{"value": 3}\\n{"value": 7}\\n' * 3)
    except OSError:
        pass
def add(a, b): return 0
""",
    "calls back": """
import os
for handle in range(3, 64):
    try:
        os.write(handle, b'{"call": 0, "arguments": [], "named": {}}\\n{"call": -1, "arguments": [], "named": {}}\\n')
    except OSError:
        pass
def add(a, b): return 0
""",
    "sends what makes no sense": """
import os
for handle in range(3, 64):
    try:
        os.write(handle, b'[[[[[{"token": 1e999}\\n{"error": 1}\\n{"value": {"list": 5}}\\n')
    except OSError:
        pass
def add(a, b): return 0
""",
}

BESIDE = {"is always equal", "is a number that equals all", "looks at who calls"}
"""What nothing holds where the tests run in the program's own process."""
