#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Jobs in real VMs, timed from outside: how fast one starts, how fast a rogue one is dead, what a job's
network costs, and what its tunnel carries beside plain wireguard-go.

    bench/vm.py [--kills N] [--starts N] [--streams N] [--bytes MIB] [--only start,kill,tunnel]

Needs root and an image (make image).  Starts a daemon of its own, one job at a time.  With the
defaults it makes more than 100 networks and takes about 8 minutes; leave the machine alone meanwhile.
"""
import argparse
import calendar
import glob
import math
import os
import re
import select
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run as harness  # noqa: E402

sys.path.insert(0, os.path.join(harness.ROOT, "tests", "system"))
import rig  # noqa: E402
import tunnel_rig  # noqa: E402
from tunnel_rig import GUEST, PEER, sh  # noqa: E402

PIDFD_THREAD = os.O_EXCL  # of pidfd_open
ROGUE = "echo x >/dev/udp/192.0.2.1/9; sleep 30"  # bash
# One stream each way.  The requester's end has the clock: the guest's is an emulation.
TO_REQUESTER = ("import socket\ns = socket.create_connection(('{peer}', 81))\nblock = bytes(65536)\n"
                "for _ in range({blocks}): s.sendall(block)\ns.close()\n")
TO_GUEST = ("import socket\ns = socket.create_connection(('{peer}', 82))\nblock = bytearray(1 << 18)\n"
            "while s.recv_into(block): pass\ns.close()\n")
REQUESTER = """
import socket, sys, time
blocks, listeners = {blocks}, {{}}
for port in (81, 82):
    listeners[port] = socket.create_server(('{peer}', port))
print('up', flush=True)
for line in sys.stdin:
    c, _ = listeners[int(line)].accept()
    if int(line) == 81:
        c.recv(65536)
        n, t = 0, time.monotonic()
        while d := c.recv(1 << 20):
            n += len(d)
    else:
        block, n, t = bytes(65536), blocks * 65536, time.monotonic()
        for _ in range(blocks):
            c.sendall(block)
        c.shutdown(socket.SHUT_WR)
        c.recv(1)  # it has all
    print(n, time.monotonic() - t, flush=True)
    c.close()
"""


def percentile(values, p):
    """Nearest rank."""
    values = sorted(values)
    return values[max(0, math.ceil(p / 100 * len(values)) - 1)]


class Bench:
    def __init__(self, args):
        self.args = args
        self.rows = []
        self.requester = tunnel_rig.Requester()
        self.daemon = rig.Daemon("[jobs]\nmax_jobs = 1\n[daemon]\nlog_level = debug\n"
                                 "[network]\nallow_endpoints = 10.250.0.0/16\n").start()
        self.provider = self.daemon.connect()

    def close(self):
        self.provider.close()
        self.daemon.close()
        self.requester.close()

    def row(self, name, unit, value, target=None, better="lower", peers=None):
        ratio = None
        if peers:
            best = max(peers.values()) if better == "higher" else min(peers.values())
            ratio = value / best if better == "higher" else best / value
        self.rows.append({"name": f"vm/{name}", "unit": unit, "better": better,
                          "ours": round(value, 3), "target": target,
                          "peers": {k: round(v, 3) for k, v in (peers or {}).items()},
                          "ratio_to_best": None if ratio is None else round(ratio, 3)})
        beside = "".join(f"   {k} {v:.1f}" for k, v in (peers or {}).items())
        print(f"{name:34}{value:12.2f} {unit:5} target {'-' if target is None else round(target, 1)}{beside}",
              flush=True)

    # --- from submit to the first byte ------------------------------------------------------------

    def start_once(self, lang, script, **more):
        begin = time.monotonic()
        job = self.provider.submit(script=script, lang=lang, **more)
        next(iter(job.output(follow=True)))
        took = (time.monotonic() - begin) * 1000
        job.wait(timeout=60)
        self.until_gone(job.id)  # else the next one waits for libvirt to have tidied up
        return took

    def starts(self):
        for lang, script in (("sh", "echo x"), ("python", "print('x')")):
            for name, more in (("", {"network": "none"}), ("+tunnel", {"vpn": self.requester.vpn()})):
                times = [self.start_once(lang, script, **more) for _ in range(self.args.starts)]
                self.row(f"cold_start/{lang}{name}/p50", "ms", statistics.median(times), 2200)

    # --- a rogue packet ---------------------------------------------------------------------------

    def qemu_of(self, job):
        while True:
            for path in glob.glob("/proc/[0-9]*/cmdline"):
                try:
                    with open(path, "rb") as f:
                        line = f.read()
                except OSError:
                    continue
                if b"qemu-system" in line and job.encode() in line:
                    return int(path.split("/")[2])
            if self.provider.call("job.get", {"job": job})["state"] == "failed":
                raise SystemExit("the VM did not start")
            time.sleep(0.02)

    def is_left(self, job):
        """Whether anything of this job is still there: the only job that the daemon has."""
        pid = self.daemon.process.pid
        runs = (f"{self.daemon.dir}/run/libvirt/run/qemu", "/run/libvirt/qemu")
        if os.path.exists(f"{self.daemon.dir}/run/jobs/{job}") or \
                any(os.path.exists(f"{run}/omerta-{job}.xml") for run in runs):  # the domain's state
            return True
        for path in glob.glob(f"/proc/{pid}/fd/*"):
            try:
                if os.readlink(path).startswith("net:["):
                    return True
            except OSError:
                pass
        return self.tunnel_alive()

    def tunnel_alive(self):
        for path in glob.glob(f"/proc/{self.daemon.process.pid}/task/*/children"):
            with open(path) as f:
                for child in f.read().split():
                    try:
                        with open(f"/proc/{child}/comm") as c:
                            if c.read().startswith("wireguard-go"):
                                return True
                    except OSError:
                        pass
        return False

    def until_gone(self, job):
        deadline = time.monotonic() + 30
        while self.is_left(job):
            if time.monotonic() > deadline:
                raise SystemExit("something of the job was left")
            time.sleep(0.001)

    @staticmethod
    def vcpu_fd(pid):
        """A pidfd of the thread that runs the guest, or of the process where Linux (< 6.9) has none."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for task in glob.glob(f"/proc/{pid}/task/*"):
                with open(f"{task}/comm") as f:
                    if f.read().startswith("CPU 0/"):
                        try:
                            return os.pidfd_open(int(os.path.basename(task)), PIDFD_THREAD)
                        except OSError:
                            return os.pidfd_open(pid)
            time.sleep(0.01)
        raise SystemExit("qemu made no thread for the guest")

    def kill_once(self):
        """(us from the packet to the kill, until the guest runs no more, until all is gone)

        The packet's time is cut to whole milliseconds, so the last two are up to 1 ms too long.
        """
        job = self.provider.submit(script=ROGUE, lang="bash", vpn=self.requester.vpn())
        fd = self.vcpu_fd(self.qemu_of(job.id))
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(60000):
            raise SystemExit("the VM was not killed")
        stopped = time.time()
        os.close(fd)
        self.until_gone(job.id)
        gone = time.time()
        r = job.wait(timeout=60)
        if r.state != "rogue_killed":
            raise SystemExit(f"not killed: {r.state} {r.text}")
        whole, fraction = re.match(r"(.*)\.(\d+)Z", r.evidence["time"]).groups()
        seen = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + fraction)
        return int(r.evidence["killed_after_us"]), (stopped - seen) * 1e6, (gone - seen) * 1e6

    def kills(self):
        results = []
        try:
            while len(results) < self.args.kills:
                results.append(self.kill_once())
        except KeyboardInterrupt:  # it takes minutes: what there is counts
            if not results:
                raise
        # Killed: the signal is sent.  Stopped: the thread that runs the guest has ended.  Gone: process,
        # domain, tunnel, namespace and files are.
        for which, name, target in ((0, "killed", None), (1, "stopped", 10), (2, "gone", 400)):
            times = [r[which] / 1000 for r in results]
            self.row(f"packet_to_{name}/p50", "ms", percentile(times, 50))
            self.row(f"packet_to_{name}/p99", "ms", percentile(times, 99), target)
            self.row(f"packet_to_{name}/max", "ms", max(times))
        print(f"   {len(results)} kills")

    # --- the network's own steps, as the daemon logged them ----------------------------------------

    def steps(self):
        found = {}
        self.daemon.logfile.flush()
        with open(f"{self.daemon.dir}/log", errors="replace") as f:
            for m in re.finditer(r"vpn\.step \S+ (\w+) took (\d+) us", f.read()):
                found.setdefault(m[1], []).append(int(m[2]) / 1000)
        if not found:
            return
        for step in ("reserve", "up", "attach", "down"):
            self.row(f"network/{step}/p50", "ms", statistics.median(found[step]),
                     50 if step == "down" else None)
            self.row(f"network/{step}/p99", "ms", percentile(found[step], 99))
        both = [a + b for a, b in zip(found["reserve"], found["attach"])]
        # The rest is done while the VM boots.
        self.row("network/on_the_way/p50", "ms", statistics.median(both), 30)
        self.row("network/on_the_way/p99", "ms", percentile(both, 99))
        print(f"   {len(found['down'])} networks")

    # --- what the tunnel carries ------------------------------------------------------------------

    def job(self, script):
        r = self.provider.submit(script=script, lang="python",
                                 vpn=self.requester.vpn()).wait(timeout=300)
        if r.state != "completed":
            raise SystemExit(f"{r.state}: {r.text}")

    def tunnel(self):
        blocks = self.args.bytes * 16
        end = subprocess.Popen(["ip", "netns", "exec", self.requester.ns, "/usr/bin/python3", "-c",
                                REQUESTER.format(peer=PEER, blocks=blocks)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        end.stdout.readline()
        ways = {"guest_to_requester": (81, TO_REQUESTER.format(peer=PEER, blocks=blocks)),
                "requester_to_guest": (82, TO_GUEST.format(peer=PEER))}
        rates = {way: ([], []) for way in ways}

        def rate(port, run):
            end.stdin.write(f"{port}\n")
            end.stdin.flush()
            run()
            n, seconds = end.stdout.readline().split()
            return int(n) / float(seconds) / 1e6

        other = PlainEnd(self.requester)
        try:
            for _ in range(self.args.streams):  # in turn: both see the machine's moods
                for way, (port, script) in ways.items():
                    ours, plain = rates[way]
                    ours.append(rate(port, lambda: self.job(script)))
                    other.take_over()
                    plain.append(rate(port, lambda: other.inside("/usr/bin/python3", "-c", script)))
        finally:
            end.kill()
            end.wait()
            other.close()
        for way, (ours, plain) in rates.items():
            best = statistics.median(plain)
            self.row(f"tunnel/{way}", "MB/s", statistics.median(ours), better="higher",
                     target=0.6 * best, peers={"plain wireguard-go": best})
            print("   each: " + ", ".join(f"{a:.0f}/{b:.0f}" for a, b in zip(ours, plain)))


class PlainEnd:
    """The job's end without a job: wireguard-go by hand in a namespace, to the same requester."""
    def __init__(self, requester):
        self.requester = requester
        self.ns, self.wg = f"omtest-{os.getpid()}-99", f"wgp{os.getpid() % 1000000}"
        self.outer = f"10.251.{requester.number}.1"
        sh("ip", "netns", "add", self.ns)
        sh("ip", "link", "add", "up1", "netns", requester.ns, "type", "veth", "peer", "name", "up0",
           "netns", self.ns)
        requester.inside("ip", "addr", "add", f"{self.outer}/30", "dev", "up1")
        requester.inside("ip", "link", "set", "up1", "up")
        self.inside("ip", "addr", "add", f"10.251.{requester.number}.2/30", "dev", "up0")
        self.inside("ip", "link", "set", "up0", "up")
        self.process = subprocess.Popen(["ip", "netns", "exec", self.ns, "wireguard-go", "-f", self.wg],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        requester.until(lambda: os.path.exists(f"/var/run/wireguard/{self.wg}.sock"))
        sh("wg", "set", self.wg, "private-key", "/dev/stdin", "peer", requester.public, "endpoint",
           f"{self.outer}:51820", "allowed-ips", "10.99.0.0/24", input=requester.job_private)
        self.inside("ip", "addr", "add", f"{GUEST}/24", "dev", self.wg)
        self.inside("ip", "link", "set", self.wg, "mtu", "1420", "up")

    def inside(self, *cmd):
        return sh("ip", "netns", "exec", self.ns, *cmd)

    def take_over(self):
        """The job used the same key: make the requester's end follow us now."""
        sh("wg", "set", self.wg, "peer", self.requester.public, "remove")
        sh("wg", "set", self.wg, "peer", self.requester.public, "endpoint",
           f"{self.outer}:51820", "allowed-ips", "10.99.0.0/24")

    def close(self):
        self.process.terminate()
        self.process.wait()
        sh("ip", "netns", "del", self.ns)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--kills", type=int, default=100)
    ap.add_argument("--starts", type=int, default=7)
    ap.add_argument("--streams", type=int, default=5)
    ap.add_argument("--bytes", type=int, default=32, metavar="MIB")
    ap.add_argument("--only", default="start,kill,tunnel")
    ap.add_argument("--out", default=os.path.join(harness.ROOT, "bench", "results"))
    args = ap.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when it was started with &
    if os.geteuid() != 0:
        raise SystemExit("bench/vm.py: needs root")
    print("machine: " + ", ".join(f"{k} {v}" for k, v in harness.machine().items()))
    b = Bench(args)
    try:
        if "start" in args.only:
            b.starts()
        if "kill" in args.only:
            b.kills()
        if "tunnel" in args.only:
            b.tunnel()
        b.steps()
    finally:
        b.close()
        os.makedirs(args.out, exist_ok=True)
        harness.merge(os.path.join(args.out, "latest.json"), b.rows)  # also what there was before a failure


if __name__ == "__main__":
    main()
