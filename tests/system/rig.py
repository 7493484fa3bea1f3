# SPDX-License-Identifier: ISC
"""A daemon of a test's own: private directories, a private libvirtd where the system has none.

Everything lives in /tmp/omerta-test.<pid>.<random>; what a killed test left there is removed by the
next.  The daemon dies with the test (PR_SET_PDEATHSIG), its libvirtd and VMs with the daemon.
"""
import ctypes
import glob
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build/gcc"))
sys.path.insert(0, os.path.join(ROOT, "client", "python"))
import omerta  # noqa: E402

SANITIZED = BUILD.endswith(("-asan", "-tsan"))
REPORT = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:")
if SANITIZED:  # for the daemon and for every program that a test runs
    # Memory that was freed is kept to find uses of it: little, or limits on memory mean nothing.
    os.environ["ASAN_OPTIONS"] = "quarantine_size_mb=8:" + os.environ.get("ASAN_OPTIONS", "")
    os.environ["TSAN_OPTIONS"] = (f"suppressions={ROOT}/tests/tsan.supp:"
                                  + os.environ.get("TSAN_OPTIONS", ""))
READY_S = 60
PR_SET_PDEATHSIG = 1


def sweep():
    for path in glob.glob("/tmp/omerta-test.[0-9]*.*"):  # not others' omerta-test.XXXXXX
        pid = path.split(".")[1]
        if not os.path.exists(f"/proc/{pid}"):
            subprocess.run(["pkill", "-KILL", "-f", path])
            with open("/proc/mounts") as f:
                mounts = [line.split()[1] for line in f]
            for place in reversed(mounts):
                if place.startswith(path):
                    subprocess.run(["umount", "-l", place])
            shutil.rmtree(path, ignore_errors=True)


def processes(needle):
    """Command lines that name this directory, ours excluded."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if needle in line and int(pid) != os.getpid():
            found.append(f"{pid} {line.strip()}")
    return found


def until(what, seconds=60):
    """Polls a condition that another process brings about."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)


class Daemon:
    def __init__(self, config="", dir=None):
        sweep()
        self.dir = dir or tempfile.mkdtemp(prefix=f"omerta-test.{os.getpid()}.", dir="/tmp")
        os.chmod(self.dir, 0o711)
        self.config = config
        self.process = self.pump = self.out = None
        self.log = []

    @property
    def endpoint(self):
        return f"ipc://{self.dir}/run/control.sock"

    @property
    def ledger(self):
        return f"{self.dir}/state/ledger.db"

    def write_config(self):
        path = f"{self.dir}/omertad.conf"
        with open(path, "w") as f:
            f.write(f"[daemon]\nstate_dir = {self.dir}/state\nrun_dir = {self.dir}/run\n{self.config}\n")
        return path

    def start(self):
        self.launch()
        return self.until_ready()

    def launch(self):
        conf = self.write_config()
        libc = ctypes.CDLL(None)
        self.logfile = open(f"{self.dir}/log", "ab")
        read, write = os.pipe()
        self.process = subprocess.Popen(
            [f"{BUILD}/omertad", "start", "--config", conf], stdout=write, stderr=write,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM))
        os.close(write)
        self.out = os.fdopen(read, "rb", buffering=0)  # select() must see every line

    def until_ready(self):
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.out], [], [], 1)
            if not ready:
                continue
            line = self.out.readline().decode(errors="replace")
            self.log.append(line)
            if line.startswith("ready:") or line == "":
                break
        if not self.log or not self.log[-1].startswith("ready:"):
            raise AssertionError("the daemon is not ready:\n" + "".join(self.log))
        # What follows goes to the file: a pipe that nobody reads would stop the daemon.
        self.pump = subprocess.Popen(["cat"], stdin=self.out, stdout=self.logfile)
        return self

    def connect(self):
        return omerta.connect(self.endpoint)

    def kill9(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.pipes_end()

    def pipes_end(self):
        if self.pump:
            self.pump.wait()
        if self.out:
            self.out.close()
            self.logfile.close()
        self.pump = self.out = None

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)
        self.pipes_end()
        return self.process.returncode if self.process else 0

    def left(self):
        """What should not be there once the daemon has stopped."""
        things = processes(self.dir)
        things += glob.glob(f"{self.dir}/run/jobs/*")
        return things

    def sqlite(self, query):
        """Asks the file, when the daemon has nothing that is committed and not yet in it."""
        out = subprocess.run(["sqlite3", "-cmd", ".timeout 10000", self.ledger,
                              f"begin immediate; {query}; rollback"],
                             capture_output=True, text=True, check=True)
        return [tuple(line.split("|")) for line in out.stdout.splitlines()]

    def close(self):
        try:
            self.stop()
        finally:
            if self.process and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            reports = self.reports()
            shutil.rmtree(self.dir, ignore_errors=True)
        if reports:
            raise AssertionError("a sanitizer reports:\n" + reports)

    def reports(self):
        """What a sanitizer said of the daemon, from its first line on."""
        if not SANITIZED or not os.path.exists(f"{self.dir}/log"):
            return ""
        with open(f"{self.dir}/log", errors="replace") as f:
            text = f.read()
        found = REPORT.search(text)
        return text[found.start():][:8000] if found else ""

    def tail(self):
        with open(f"{self.dir}/log", errors="replace") as f:
            return "".join(f.readlines()[-30:])


def main(name):
    """Runs the module's tests; the last line is "NAME: N passed, N failed[, N skipped]"."""
    if os.geteuid() != 0:
        print("skip: needs root")
        sys.exit(0)
    program = unittest.main(module="__main__", exit=False, verbosity=2)
    r = program.result
    bad = len(r.failures) + len(r.errors)
    end = f", {len(r.skipped)} skipped" if r.skipped else ""
    print(f"{name}: {r.testsRun - bad - len(r.skipped)} passed, {bad} failed{end}", flush=True)
    sys.exit(1 if bad else 0)
