"""What the workers of the tests run: functions that behave, and functions that do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def same(item):
    return item


def pid(_):
    return os.getpid()


def nap(seconds):
    time.sleep(seconds)
    return seconds


def behave(item):
    """Do what `item` says, and return it if it is a number."""
    if item in BEHAVIOURS:
        return BEHAVIOURS[item](item)
    return item


def tell_pid_and_behave(item):
    path, name = item
    part = Path(f"{path}.part")
    part.write_text(str(os.getpid()))
    part.rename(path)
    return behave(name)


def swallow_everything(_):
    while True:
        try:
            time.sleep(100)
        except BaseException:
            continue


def power(_):
    """Sit in C code, with the lock of the interpreter held."""
    return 9**9**9


def segfault(_):
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(10)


def leave(_):
    sys.exit(3)


def leave_at_once(_):
    os._exit(7)


def out_of_memory(_):
    return len(bytearray(1 << 36))


def unpicklable(_):
    return threading.Lock()


def too_big(_):
    return b"x" * (1 << 26)


class Unspeakable(BaseException):
    """Cannot be pickled, says nothing, and escapes `except Exception`."""

    def __init__(self, lock):
        self.lock = lock

    def __str__(self):
        raise ValueError


def raise_unspeakable(_):
    raise Unspeakable(threading.Lock())


def raise_long(_):
    raise ValueError("x" * 10**6)


def chatter(_):
    """Print everywhere, through Python and past it, also from a process of its own."""
    print("out" * 10**5)
    print("err" * 10**5, file=sys.stderr)
    os.write(1, b"more" * 1000)
    subprocess.run([sys.executable, "-c", "print('grandchild')"], check=True)
    return sys.stdin.read()


def recurse(_):
    return recurse(_)


def stop(_):
    os.kill(os.getpid(), signal.SIGSTOP)


def loaded(names):
    return sorted(name for name in names if name in sys.modules)


BEHAVIOURS = {
    function.__name__: function
    for function in (
        swallow_everything,
        power,
        segfault,
        leave,
        leave_at_once,
        out_of_memory,
        unpicklable,
        raise_unspeakable,
        raise_long,
        recurse,
        stop,
    )
}
