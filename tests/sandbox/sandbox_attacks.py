"""Programs that try to get out of the sandbox, to spy, or to do harm.

Each prints `OUT <what>` for every way that was open, so a contained program prints none. `M` tells it what of this
machine to look for; `attempt` takes an action that has to raise. Nothing here does harm where it is not held back, but
for the bombs, which run only where the probe has found the limits in force.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reasonflux_prm.sandbox.limits import Limits, RunStatus

PRELUDE = """
import ctypes, functools, json, os, signal, sys, time
print = functools.partial(print, flush=True)  # said even if the program is killed next
M = json.load(open("machine.json"))
libc = ctypes.CDLL(None, use_errno=True)

def attempt(what, action):
    try:
        result = action()
    except (Exception, SystemExit) as error:
        print("held", what, "-", type(error).__name__, str(error)[:60])
    else:
        print("OUT", what, repr(result)[:60])

def call(name, *arguments):
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = getattr(libc, name)(*passed)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def read(path):
    with open(path, "rb") as file:
        return file.read(100) or "empty"

def write(path):
    with open(path, "wb") as file:
        file.write(b"x")
"""

OK, FAILED, TIMEOUT = RunStatus.OK, RunStatus.FAILED, RunStatus.TIMEOUT
KILLED, OUTPUT = RunStatus.KILLED, RunStatus.OUTPUT_LIMIT


@dataclass(frozen=True)
class Attack:
    name: str
    program: str
    ends: tuple[RunStatus, ...] = (OK,)
    reason: str = ""
    """What the run's reason has to contain."""
    limits: Limits = field(default_factory=lambda: Limits(cpu_s=5, wall_s=20, memory_mb=256, file_mb=8, files=256))


SHORT = Limits(cpu_s=20, wall_s=0.5, memory_mb=256, file_mb=8, files=256)

NETWORK = [
    Attack(
        "connects to a server on the machine",
        """
import socket
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    attempt(f"connect {host}", lambda: socket.socket(family).connect((host, M["tcp"])))
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", M["udp"]))
except OSError as error:
    print("held", error)
""",
    ),
    Attack(
        "looks for a way to other machines",
        """
import socket
# Connecting a datagram socket sends nothing; it only asks whether there is a route.
attempt("route", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9)))
attempt("route 6", lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).connect(("2001:db8::1", 9)))
names = {line.split(":")[0].strip() for line in open("/proc/self/net/dev") if ":" in line}
if names - {"lo"}:
    print("OUT interfaces", names)
""",
    ),
    Attack(
        "asks for a name",
        """import socket
attempt("look-up", lambda: socket.getaddrinfo("name.invalid", 80))
attempt("look-up of the machine", lambda: socket.getaddrinfo(M["host"] + ".invalid", 80))
if socket.gethostname() == M["host"]:
    print("OUT host name")
""",
    ),
    Attack(
        "opens sockets that no network namespace holds",
        """
import socket
for name, family, kind in (("packet", 17, socket.SOCK_RAW), ("netlink", 16, socket.SOCK_RAW),
                           ("vsock", 40, socket.SOCK_STREAM), ("raw", 2, socket.SOCK_RAW),
                           ("alg", 38, socket.SOCK_SEQPACKET), ("bluetooth", 31, socket.SOCK_RAW)):
    attempt(name, lambda: socket.socket(family, kind))
""",
    ),
    Attack(
        "connects to Unix sockets of the machine",
        """
import socket
for address in (M["unix"], "\\0" + M["abstract"], "/run/docker.sock", "/var/run/docker.sock",
                "/run/dbus/system_bus_socket"):
    attempt(repr(address), lambda: socket.socket(socket.AF_UNIX).connect(address))
""",
    ),
]

PROCESSES = [
    Attack(
        "fork bomb",
        """
count = 0
try:
    while True:
        if os.fork() == 0:
            signal.pause()
        count += 1
        if count > 200:
            print("OUT more than 200 processes")
            break
except BlockingIOError:
    print("held at", count)
""",
        limits=Limits(cpu_s=5, wall_s=20, memory_mb=512, file_mb=8, files=256, processes=16),
    ),
    Attack(
        "fork bomb of the usual kind",
        """
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
        ends=(TIMEOUT,),
        limits=Limits(cpu_s=20, wall_s=0.5, memory_mb=512, file_mb=8, files=256, processes=16),
    ),
    Attack(
        "thread bomb",
        """
import threading
try:
    for count in range(300):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    print("OUT 300 threads")
except RuntimeError as error:
    print("held", error)
os._exit(0)
""",
    ),
    Attack(
        "kills its parent and every process by number",
        """
parent = os.getppid()
for number in [parent, M["canary"], M["pytest"], *range(2, 5000)]:
    if number != os.getpid():
        try:
            os.kill(number, signal.SIGKILL)
            if number != 1:
                print("OUT killed", number)
        except ProcessLookupError:
            pass
        except PermissionError:
            print("OUT sees", number)
""",
    ),
    Attack(
        "signals everybody",
        """
if os.fork() == 0:
    time.sleep(60)
os.kill(-1, signal.SIGKILL)
print("still here")
""",
    ),
    Attack(
        "signals the process groups of the machine",
        """
for group in (M["canary_group"], M["pytest_group"]):
    attempt("group", lambda: os.killpg(group, signal.SIGKILL))
os.killpg(0, signal.SIGKILL)
""",
        ends=(KILLED,),
    ),
    Attack(
        "stops its supervisor",
        """
for number in (1, os.getppid()):
    for sign in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGSEGV, signal.SIGKILL):
        os.kill(number, sign)
time.sleep(60)
""",
        ends=(TIMEOUT,),
        limits=SHORT,
    ),
    Attack(
        "slows its supervisor down, or takes its limits away",
        """
attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))
attempt("scheduler", lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
import resource
attempt("limits of others", lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)))
for name in ("CPU", "AS", "FSIZE", "NPROC", "NOFILE", "CORE"):
    soft, hard = resource.getrlimit(getattr(resource, "RLIMIT_" + name))
    attempt(name, lambda: resource.setrlimit(getattr(resource, "RLIMIT_" + name), (hard + 1, hard + 1)))
""",
    ),
    Attack(
        "debugs its supervisor",
        """
for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
    attempt(f"ptrace {request}", lambda: call("ptrace", request, 1, 0, 0))
attempt("trace me", lambda: call("ptrace", 0, 0, 0, 0))
room = ctypes.create_string_buffer(16)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
here, there = Vector(ctypes.addressof(room), 16), Vector(id(None), 16)
attempt("read memory", lambda: call("process_vm_readv", 1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))
attempt("take a file", lambda: call("syscall", 438, os.pidfd_open(1), 0, 0))
""",
    ),
    Attack(
        "reads its supervisor by /proc",
        """
for name in ("environ", "mem", "maps", "auxv", "stack", "syscall"):
    attempt(name, lambda: read(f"/proc/1/{name}"))
attempt("open files", lambda: os.listdir("/proc/1/fd"))
for number in range(10):
    attempt(f"file {number}", lambda: open(f"/proc/1/fd/{number}", "wb"))
for name in ("root", "cwd", "exe", "ns/user"):
    attempt(name, lambda: os.readlink(f"/proc/1/{name}"))
attempt("through the root", lambda: os.listdir("/proc/1/root/"))
""",
    ),
    Attack(
        "writes to whatever was left open",
        """
for number in range(3, 1024):
    try:
        os.fstat(number)
    except OSError:
        continue
    print("OUT open file", number, os.readlink(f"/proc/self/fd/{number}"))
for number in (0, 1, 2):
    if not os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
        print("OUT no pipe", number)
attempt("terminal", lambda: open("/dev/tty"))
import fcntl
attempt("typing into a terminal", lambda: fcntl.ioctl(0, 0x5412, b"x"))
""",
    ),
    Attack(
        "leaves a daemon behind",
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for sign in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(sign, signal.SIG_IGN)
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", M["marker"]])
    os._exit(0)
os.wait()
time.sleep(0.1)
print("daemon is up")
""",
    ),
    Attack("loops for ever", "while True: pass", ends=(TIMEOUT,), reason="0.5 s", limits=SHORT),
    Attack(
        "ignores every signal, the processor limit's too",
        """
for sign in range(1, 65):
    try:
        signal.signal(sign, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
print("ignored", flush=True)
while True: pass
""",
        ends=(TIMEOUT,),
        reason="processor time",
        limits=Limits(cpu_s=1, wall_s=120, memory_mb=256, file_mb=8, files=256),
    ),
    Attack("sleeps for ever", "time.sleep(1e6)", ends=(TIMEOUT,), reason="0.5 s", limits=SHORT),
    Attack(
        "tampers with the clock",
        """
attempt("clock", lambda: time.clock_settime(time.CLOCK_REALTIME, 0))
time.time = time.monotonic = time.perf_counter = lambda: 0.0
while True: pass
""",
        ends=(TIMEOUT,),
        limits=SHORT,
    ),
]

FILES = [
    Attack(
        "reads what is not its own",
        """
paths = ["/etc/shadow", "/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/proc/kcore", "/proc/kallsyms",
         "/proc/cmdline", "/proc/version", M["secret_file"]]
for path in paths:
    attempt(path, lambda: read(path))
for folder in ("/home", "/var", "/run", "/boot", "/sys", "/srv", "/mnt", "/opt", "/dev/pts", M["secret_folder"]):
    attempt(folder, lambda: os.listdir(folder))
""",
    ),
    Attack(
        "reads the home folder and the project",
        """
for folder in (M["root"], M["home"], M["project"]):
    for place, folders, names in os.walk(folder):
        # The interpreter itself may live there; nothing else may be seen.
        folders[:] = [name for name in folders if os.path.join(place, name) not in M["interpreter"]]
        if names:
            print("OUT", place, names[:3])
attempt("import", lambda: __import__("reasonflux_prm"))
""",
    ),
    Attack(
        "reads secrets in the environment",
        """
places = [dict(os.environ)]
for name in os.listdir("/proc"):
    try:
        places.append(open(f"/proc/{name}/environ").read())
    except OSError:
        pass
if M["secret"] in str(places):
    print("OUT secret")
known = {"PATH", "LANG", "LC_CTYPE", "HOME", "TMPDIR", "PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
if set(os.environ) - known:
    print("OUT variables", set(os.environ))
""",
    ),
    Attack(
        "writes elsewhere",
        """
places = ["/", "/usr", "/usr/lib", "/usr/local/bin", "/bin", "/etc", "/dev", "/proc", "/var/tmp", "/run", M["root"],
          "/home", os.path.dirname(os.__file__), os.path.join(os.path.dirname(os.__file__), "site-packages"),
          M["home"], M["project"], M["secret_folder"]]
for place in places:
    attempt(place, lambda: write(os.path.join(place, M["marker"])))
    attempt(f"folder in {place}", lambda: os.mkdir(os.path.join(place, M["marker"])))
write(os.path.join("/tmp", M["marker"]))
write(os.path.join("/dev/shm", M["marker"] + "2"))
""",
    ),
    Attack(
        "changes the interpreter",
        """
attempt("append", lambda: open(os.__file__, "a"))
attempt("remove", lambda: os.unlink(os.__file__))
attempt("rename", lambda: os.rename(os.__file__, os.__file__ + ".bak"))
attempt("mode", lambda: os.chmod(os.__file__, 0o777))
attempt("owner", lambda: os.chown(os.__file__, os.getuid(), os.getgid()))
attempt("times", lambda: os.utime(os.__file__))
attempt("attributes", lambda: os.setxattr(os.__file__, "user.x", b"x"))
attempt("python", lambda: open(os.path.realpath(sys.executable), "r+b"))
""",
    ),
    Attack(
        "follows symbolic links out",
        """
for number, target in enumerate(["/etc/shadow", M["secret_file"], "../" * 20 + M["secret_file"][1:],
                                 "/proc/1/root/etc/shadow", "/proc/self/root" + M["secret_file"],
                                 "/proc/self/cwd/../" + M["secret_file"]]):
    os.symlink(target, f"link{number}")
    attempt(target, lambda: read(f"link{number}"))
    attempt(f"write {target}", lambda: os.open(f"link{number}", os.O_WRONLY))
""",
    ),
    Attack(
        "makes hard links",
        """
for path in ("/usr/bin/env", os.__file__, M["secret_file"]):
    attempt(path, lambda: os.link(path, "hard"))
""",
    ),
    Attack(
        "mounts",
        """
os.mkdir("here")
attempt("tmpfs", lambda: call("mount", b"tmpfs", b"here", b"tmpfs", 0, b""))
attempt("bind", lambda: call("mount", b"/usr", b"here", None, 4096, None))
attempt("proc", lambda: call("mount", b"proc", b"here", b"proc", 0, b""))
attempt("writable root", lambda: call("mount", None, b"/", None, 32 | 4096, None))
attempt("writable usr", lambda: call("mount", None, b"/usr", None, 32 | 4096, None))
for place in (b"/proc", b"/tmp", b"/usr", b"/"):
    attempt(place, lambda: call("umount2", place, 2))
attempt("new mount calls", lambda: call("syscall", 430, b"tmpfs", 0))
attempt("open tree", lambda: call("syscall", 428, -100, b"/", 1))
writable = bytes(8) + (1).to_bytes(8, "little") + bytes(16)
attempt("attributes", lambda: call("syscall", 442, -100, b"/usr", 0, writable, 32))
""",
    ),
    Attack(
        "makes namespaces of its own",
        """
for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("process", 0x20000000), ("network", 0x40000000),
                   ("ipc", 0x08000000)):
    attempt(name, lambda: call("unshare", flag))
number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
attempt("clone", lambda: call("syscall", number, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0))
attempt("clone3", lambda: call("syscall", 435, bytes(88), 88))
attempt("join", lambda: call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0))
""",
    ),
    Attack(
        "breaks out of the root folder",
        """
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("pivot", lambda: call("syscall", {"x86_64": 155, "aarch64": 41}[os.uname().machine], b".", b"."))
for _ in range(50):
    os.chdir("..")
if "home" in os.listdir("."):
    print("OUT above the root")
handle = ctypes.create_string_buffer(128)
handle[0] = b"\\x78"
mount = ctypes.c_int()
attempt("handle", lambda: call("name_to_handle_at", -100, b"/usr", handle, ctypes.byref(mount), 0))
attempt("open by handle", lambda: call("open_by_handle_at", os.open("/usr", os.O_RDONLY), handle, 0))
""",
    ),
    Attack(
        "becomes another user",
        """
for number in (0, 1, 1000, 65533):
    attempt(f"setuid {number}", lambda: os.setresuid(number, number, number))
    attempt(f"setgid {number}", lambda: os.setresgid(number, number, number))
attempt("groups", lambda: os.setgroups([0]))
for name in ("su", "mount", "passwd", "newgrp", "sudo", "ping"):
    path = f"/usr/bin/{name}"
    if os.path.exists(path) and not os.statvfs(path).f_flag & os.ST_NOSUID:
        print("OUT", path, "may change the user")
for command in (["/usr/bin/su", "-c", "id -u", "root"], ["/usr/bin/newgrp"], ["/usr/bin/sudo", "-n", "id", "-u"]):
    if os.path.exists(command[0]):
        import subprocess
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            print("OUT", command, done.stdout)
status = open("/proc/self/status").read()
none = [f"Cap{kind}:\\t0000000000000000" for kind in ("Eff", "Prm", "Inh", "Amb")]
for line in (*none, "NoNewPrivs:\\t1", "Seccomp:\\t2"):
    if line not in status:
        print("OUT", line)
""",
    ),
    Attack(
        "opens devices",
        """
for name in ("sda", "vda", "nvme0n1", "mem", "kmem", "port", "kmsg", "fuse", "kvm", "console", "tty0", "net/tun",
             "loop-control", "vsock", "zero", "nvidia0"):
    attempt(name, lambda: open(f"/dev/{name}", "rb"))
import stat
attempt("block device", lambda: os.mknod("disk", stat.S_IFBLK | 0o666, os.makedev(254, 0)))
attempt("memory device", lambda: os.mknod("mem", stat.S_IFCHR | 0o666, os.makedev(1, 1)))
""",
    ),
    Attack(
        "writes to the kernel's files",
        """
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory",
             "/proc/sysrq-trigger", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
             "/sys/kernel/mm/ksm/run", "/proc/1/oom_score_adj"):
    attempt(path, lambda: write(path))
def lower():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
attempt("out of memory score", lower)
for name in ("uid_map", "gid_map", "setgroups"):
    def remap():
        with open(f"/proc/self/{name}", "w") as file:
            file.write("0 0 1")
    attempt(name, remap)
""",
    ),
    Attack(
        "calls what a program has no need of",
        """
arm = os.uname().machine == "aarch64"
# The last one has wrong magic numbers, so that it would do nothing even if it were let.
for name, x86, other in (
    ("keyctl", 250, 219), ("add_key", 248, 217), ("request_key", 249, 218), ("bpf", 321, 280),
    ("perf_event_open", 298, 241), ("userfaultfd", 323, 282), ("io_uring_setup", 425, 425), ("memfd_create", 319, 279),
    ("shmget", 29, 194), ("msgget", 68, 186), ("semget", 64, 190), ("mq_open", 240, 180), ("init_module", 175, 105),
    ("kexec_load", 246, 104), ("syslog", 103, 116), ("swapon", 167, 224), ("quotactl", 179, 60), ("acct", 163, 89),
    ("sethostname", 170, 161), ("personality", 135, 92), ("fanotify_init", 300, 262), ("process_madvise", 440, 440),
    ("reboot", 169, 142),
):
    attempt(name, lambda: call("syscall", other if arm else x86, 0, 0, 0, 0, 0))
if not arm:
    attempt("x32", lambda: call("syscall", 0x40000000 + 39))
""",
    ),
    Attack(
        "fills the disk with one file",
        """
try:
    with open("big", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
except OSError as error:
    print("held", error, os.path.getsize("big"))
    if os.path.getsize("big") > 8 << 20:
        print("OUT", os.path.getsize("big"))
""",
        ends=(OK, KILLED),
    ),
    Attack(
        "fills the disk with several files",
        """
for number in range(1000):
    try:
        with open(f"big{number}", "wb") as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        print("held", error)
        break
else:
    print("OUT a gigabyte")
""",
        ends=(OK, KILLED),
    ),
    Attack(
        "makes files without end",
        """
for number in range(10**7):
    os.close(os.open(f"f{number}", os.O_CREAT))
    if number == 200_000:
        print("OUT 200,000 files")
        break
""",
        ends=(FAILED, KILLED),
    ),
    Attack(
        "makes folders in folders",
        """
for number in range(10**6):
    os.mkdir("d")
    os.chdir("d")
    if number == 100_000:
        print("OUT 100,000 folders")
        break
""",
        ends=(FAILED, KILLED),
    ),
    Attack(
        "makes a file that claims a terabyte",
        """
attempt("truncate", lambda: os.truncate(os.open("sparse", os.O_CREAT | os.O_RDWR), 1 << 40))
attempt("seek", lambda: os.pwrite(os.open("sparse", os.O_CREAT | os.O_RDWR), b"x", 1 << 40))
attempt("allocate", lambda: os.posix_fallocate(os.open("sparse", os.O_CREAT | os.O_RDWR), 0, 1 << 40))
""",
    ),
]

MEMORY = [
    Attack("takes all memory", "hog = []\nwhile True: hog.append(bytearray(1 << 20))", ends=(FAILED, KILLED)),
    Attack(
        "takes all memory in several processes",
        """
for _ in range(6):
    if os.fork() == 0:
        hog = bytearray(b"x") * (100 << 20)
        time.sleep(30)
time.sleep(30)
""",
        ends=(KILLED,),
        reason="memory",
    ),
    Attack(
        "takes memory that no process seems to use",
        """
import mmap
attempt("shared", lambda: mmap.mmap(-1, 1 << 20))
attempt("by flag", lambda: mmap.mmap(-1, 1 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))
attempt("memory file", lambda: os.memfd_create("x"))
attempt("locked", lambda: call("mlockall", 3))
from multiprocessing.shared_memory import SharedMemory
def fill():
    for number in range(64):
        block = SharedMemory(create=True, size=4 << 20)
        block.buf[:] = bytes(4 << 20)
attempt("shared memory", fill)
os._exit(0)
""",
        ends=(OK, FAILED, KILLED),
    ),
    Attack("floods standard output", "while True: sys.stdout.write('x' * 65536)", ends=(OUTPUT,), reason="1024 KiB"),
    Attack("floods standard error", "while True: os.write(2, bytes(65536))", ends=(OUTPUT,), reason="1024 KiB"),
    Attack(
        "floods from children that outlive it",
        """
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        while True:
            os.write(1, b"x" * 65536)
time.sleep(30)
""",
        ends=(OUTPUT,),
    ),
    Attack(
        "recurses without end",
        """
sys.setrecursionlimit(10**9)
def down(value):
    return [down([value])]
down(0)
""",
        ends=(FAILED, KILLED),
        limits=Limits(cpu_s=20, wall_s=20, memory_mb=64, file_mb=8),
    ),
    Attack("crashes the interpreter", "ctypes.string_at(0)", ends=(FAILED,), reason="SIGSEGV"),
    Attack("jumps to nowhere", "ctypes.CFUNCTYPE(None)(16)()", ends=(FAILED,)),
    Attack("kills itself", "os.kill(os.getpid(), signal.SIGKILL)", ends=(KILLED,)),
    Attack(
        "opens files without end",
        """
kept = []
try:
    while len(kept) < 5000:
        kept.append(open("/dev/null"))
    print("OUT 5,000 files open")
except OSError as error:
    print("held", len(kept))
""",
    ),
    Attack("prints what is no text", "os.write(1, bytes(range(256)))"),
]

ATTACKS = [*NETWORK, *PROCESSES, *FILES, *MEMORY]
