#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Many jobs with tunnels, and things that die at random moments: jobs (cancelled), qemu, wireguard-go,
libvirtd, omertad itself (kill -9, then started again).

Afterwards every job has a final state that fits, the audit chain is whole, and nothing of ours is
left: no namespace, link, tap, table, socket, file, process or domain.

    JOBS=100 SEED=7 chaos_test.py     (default: 20 jobs, a seed that is printed)
"""
import collections
import contextlib
import glob
import os
import random
import re
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
import tunnel_rig  # noqa: E402
import omerta  # noqa: E402
from tunnel_rig import sh  # noqa: E402

JOBS = int(os.environ.get("JOBS", "20"))
SEED = int(os.environ.get("SEED", str(random.randrange(1 << 30))))
AT_ONCE = 3
JOB_LIMIT_S = 60  # what one job may add to the whole

GET = r"(exec 3<>/dev/tcp/10.99.0.1/80 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && cat <&3)"  # bash

# Some end by themselves, some do not; some use the tunnel, some break out.
SCRIPTS = {
    "sleep": "sleep 1; echo done",
    "forever": "echo begun; sleep 600",
    "fetch": "for i in 1 2 3; do " + GET + " >/dev/null || exit 1; sleep 0.5; done; echo done",
    "rogue": "sleep 0.5; echo x >/dev/tcp/192.0.2.1/80; sleep 600",
}
FINAL = {"completed", "failed", "cancelled", "rogue_killed", "lost", "timed_out"}


def children(pid):
    try:
        return [int(p) for p in sh("pgrep", "-P", str(pid)).split()]
    except subprocess.CalledProcessError:
        return []


def descendants(pid):
    found = children(pid)
    for child in list(found):
        found += descendants(child)
    return found


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip()
    except OSError:
        return ""


def namespace_ids():
    """Namespaces that the host's knows by number: each to which a link of a job was moved, until it is
    gone, and it is not gone while a socket of it is open."""
    return {line for line in sh("ip", "netns", "list-id").splitlines() if "omtest-" not in line}


def foreign_sockets(pid):
    """Sockets of a process that are not of the host's network namespace: a watch's NFLOG socket."""
    own = set()
    for table in ("unix", "netlink", "packet", "tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{table}") as f:
            own.update(word for line in f for word in line.split())
    found = []
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            inode = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(path))
            if inode and inode[1] not in own:
                found.append(f"socket {inode[1]} in another namespace")
    return found


def namespaces():
    """Network namespaces that processes of this machine hold open or live in."""
    found = set()
    for path in glob.glob("/proc/[0-9]*/ns/net") + glob.glob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(path)
        except OSError:
            continue
        if target.startswith("net:["):
            found.add(target)
    return found


class Chaos(unittest.TestCase):
    def setUp(self):
        self.random = random.Random(SEED)
        print(f"\n   {JOBS} jobs, seed {SEED}", flush=True)
        self.requester = tunnel_rig.Requester()
        self.addCleanup(self.requester.close)
        self.requester.spawn("/usr/bin/python3", "-m", "http.server", "80", "--bind", "10.99.0.1",
                             "--directory", "/nonexistent")
        self.daemon = rig.Daemon(f"[jobs]\nmax_jobs = {AT_ONCE}\nlend_cores = {AT_ONCE}\n"
                                 "[network]\nallow_endpoints = 10.250.0.0/16\n"
                                 "[daemon]\ndrain_timeout = 0s\n").start()
        self.addCleanup(self.daemon.close)
        self.did = collections.Counter()

    # --- what may die --------------------------------------------------------------------------

    def victims(self, name):
        return [p for p in descendants(self.daemon.process.pid) if comm(p).startswith(name)]

    def kill_one(self, name):
        pids = self.victims(name)
        if not pids:
            return False
        try:
            os.kill(self.random.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def do_qemu(self):
        return self.kill_one("qemu-system")

    def do_wireguard(self):
        return self.kill_one("wireguard-go")

    def do_libvirtd(self):
        return self.kill_one("libvirtd")

    def do_cancel(self):
        with self.daemon.connect() as provider:
            live = [r.job for r in provider.list(("queued", "provisioning", "running"))]
            if not live:
                return False
            try:
                provider.cancel(self.random.choice(live[:AT_ONCE + 1]), grace=0)
            except omerta.WrongState:
                return False
            except omerta.Timeout:
                # Answered when the end is recorded, which a slow machine may take long for.  It is
                # asked for all the same: live() sees whether it comes.
                self.did["cancel, answered late"] += 1
            return True

    def do_daemon(self):
        self.daemon.kill9()
        self.daemon.start()
        return True

    def test_chaos(self):
        before = namespaces()
        self.ids = namespace_ids()
        began = time.monotonic()
        names = list(SCRIPTS)
        with self.daemon.connect() as provider:
            kinds = {}
            for i in range(JOBS):
                kind = names[i % len(names)]
                job = provider.submit(script=SCRIPTS[kind], lang="bash", timeout=20,
                                      vpn=self.requester.vpn())
                kinds[job.id] = kind
        actions = [self.do_qemu] * 3 + [self.do_wireguard] * 3 + [self.do_cancel] * 4
        deadline = time.monotonic() + JOBS * JOB_LIMIT_S
        steps = 0
        while self.live():
            self.assertLess(time.monotonic(), deadline, "jobs without an end: " + str(self.live()))
            time.sleep(self.random.uniform(0.5, 5))
            steps += 1
            action = self.random.choice(actions)
            if steps % 17 == 5:
                action = self.do_libvirtd
            if steps % 29 == 11:
                action = self.do_daemon
            if action():
                self.did[action.__name__[3:]] += 1
        self.ends(kinds)
        with self.daemon.connect() as provider:
            self.assertTrue(provider.verify_audit().intact)
            self.works(provider)
        self.nothing_left_of_jobs()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(self.daemon.left(), [])
        self.assertLessEqual(namespaces() - before, self.of_others(), "a namespace was left")
        self.nothing_left_on_the_host()
        print(f"   {JOBS} jobs, {sum(self.did.values())} kills in {time.monotonic() - began:.0f} s, "
              "nothing left", flush=True)

    def works(self, provider):
        """A job with a tunnel from its beginning to its end; while it runs all that must not be left
        later is there to be seen."""
        job = provider.submit(script=GET + " && sleep 4", lang="bash", vpn=self.requester.vpn())
        rig.until(lambda: b"HTTP/1.0" in provider.call("job.output", {"job": job.id})["data"], 120)
        seen = self.of_jobs()
        for kind in ("process", "tunnel", "place", "socket", "namespace", "domain"):
            self.assertTrue([thing for thing in seen if thing.startswith(kind)], f"{kind}: {seen}")
        r = job.wait(timeout=60)
        self.assertEqual(r.state, "completed", r.text)

    def live(self):
        for _ in range(50):
            try:
                with self.daemon.connect() as provider:
                    return [r.job for r in provider.list(("received", "queued", "provisioning",
                                                          "running"))]
            except omerta.Error:
                time.sleep(0.2)
        raise AssertionError("the daemon does not answer\n" + self.daemon.tail())

    def ends(self, kinds):
        table = collections.Counter()
        with self.daemon.connect() as provider:
            for job, kind in kinds.items():
                info = provider.call("job.get", {"job": job})
                self.assertIn(info["state"], FINAL, info)
                table[(kind, info["state"], info.get("reason"))] += 1
                if kind == "rogue":
                    # Nobody but the detector or another's kill ends it.
                    self.assertNotIn(info["state"], ("completed", "timed_out"), info)
                    self.assertNotEqual(info.get("reason"), "exit_code", info)
                if kind == "forever":
                    self.assertNotEqual(info["state"], "completed", info)
        print("   killed: " + ", ".join(f"{n} {what}" for what, n in sorted(self.did.items())))
        for (kind, state, reason), n in sorted(table.items(), key=str):
            print(f"   {n:4} {kind:8} {state:13} {reason}", flush=True)

    # --- what may be left ----------------------------------------------------------------------

    def tunnels(self):
        """A wireguard-go whose daemon was killed is nobody's child; its link is in its command line."""
        return [f"tunnel {line}" for line in
                rig.processes(" omw" + tunnel_rig.instance_of(self.daemon))]

    def of_jobs(self):
        """All that a job makes, and takes away."""
        pid = self.daemon.process.pid
        things = [f"process {p} {comm(p)}" for p in descendants(pid)
                  if comm(p).startswith(("qemu", "wireguard-go"))]
        things += self.tunnels() + foreign_sockets(pid) + tunnel_rig.links_of(self.daemon)
        things += [f"place {path}" for path in glob.glob(f"{self.daemon.dir}/run/jobs/*")]
        things += [f"namespace {line}" for line in namespace_ids() - self.ids]
        for path in glob.glob(f"/proc/{pid}/fd/*"):
            with contextlib.suppress(OSError):
                if os.readlink(path).startswith("net:["):
                    things.append(f"namespace {os.readlink(path)} held open")
        uri = f"qemu+unix:///system?socket={self.daemon.dir}/run/libvirt/run/libvirt-sock"
        domains = subprocess.run(["virsh", "-c", uri, "list", "--all", "--name"],
                                 capture_output=True, text=True)
        return things + [f"domain {name}" for name in domains.stdout.split()]

    def nothing_left_of_jobs(self):
        """With the daemon still up: each job has taken away all that it made."""
        deadline = time.monotonic() + 10
        while self.of_jobs() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.assertEqual(self.of_jobs(), [])

    def nothing_left_on_the_host(self):
        self.assertEqual(tunnel_rig.links_of(self.daemon), [])
        self.assertEqual(self.tunnels(), [])
        ours = "omw" + tunnel_rig.instance_of(self.daemon)
        sockets = [name for name in os.listdir("/var/run/wireguard") if name.startswith(ours)]
        self.assertEqual(sockets, [])
        tables = sh("nft", "list", "tables")
        self.assertNotIn(" om\n", tables + "\n")

    def of_others(self):
        """Namespaces that are held by processes that are not ours."""
        found = set()
        for path in glob.glob("/proc/[0-9]*/ns/net") + glob.glob("/proc/[0-9]*/fd/*"):
            pid = int(path.split("/")[2])
            try:
                target = os.readlink(path)
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    line = f.read().decode(errors="replace")
            except OSError:
                continue
            if target.startswith("net:[") and self.daemon.dir not in line:
                found.add(target)
        return found


if __name__ == "__main__":
    rig.main("chaos")
