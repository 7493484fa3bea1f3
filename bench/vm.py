#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Jobs in real VMs, timed from outside: how fast one starts, how fast a rogue one is dead, what a job's
network costs, and what its tunnel carries beside plain wireguard-go.

    bench/vm.py [--kills N] [--starts N] [--bytes MIB] [--only start,kill,tunnel]

Needs root and an image (make image).  Starts a daemon of its own, one job at a time.
"""
import argparse
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

ROGUE = "echo x >/dev/udp/192.0.2.1/9; sleep 30"  # bash
SENDER = ("import socket\ns = socket.create_connection(('{peer}', 81))\nblock = bytes(65536)\n"
          "for _ in range({blocks}): s.sendall(block)\ns.close()\n")
SINK = ("import socket, sys, time\nl = socket.create_server(('{peer}', 81))\nprint('up', flush=True)\n"
        "while True:\n"
        "    c, _ = l.accept()\n    n = len(c.recv(65536)); t = time.monotonic(); first = n\n"
        "    while True:\n        d = c.recv(1 << 20)\n        if not d: break\n        n += len(d)\n"
        "    print(n - first, time.monotonic() - t, flush=True)\n")


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

    def kill_once(self):
        """(us from the packet to the kill, us until the process of the VM is gone)

        The packet's time is cut to whole milliseconds, so the second is up to 1 ms too long.
        """
        job = self.provider.submit(script=ROGUE, lang="bash", vpn=self.requester.vpn())
        pidfd = os.pidfd_open(self.qemu_of(job.id))
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(60000):
            raise SystemExit("the VM was not killed")
        dead = time.time()
        os.close(pidfd)
        r = job.wait(timeout=60)
        if r.state != "rogue_killed":
            raise SystemExit(f"not killed: {r.state} {r.text}")
        whole, fraction = re.match(r"(.*)\.(\d+)Z", r.evidence["time"]).groups()
        seen = time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) - time.timezone
        return int(r.evidence["killed_after_us"]), (dead - seen - float("0." + fraction)) * 1e6

    def kills(self):
        results = []
        try:
            while len(results) < self.args.kills:
                results.append(self.kill_once())
        except KeyboardInterrupt:  # it takes minutes: what there is counts
            if not results:
                raise
        # Killed: the guest runs no more.  Destroyed: its process and memory are gone.
        for which, name, target in ((0, "killed", 10), (1, "destroyed", 400)):
            times = [r[which] / 1000 for r in results]
            self.row(f"packet_to_{name}/p50", "ms", percentile(times, 50))
            self.row(f"packet_to_{name}/p99", "ms", percentile(times, 99), target)
        print(f"   {len(results)} kills; longest {max(r[1] for r in results) / 1000:.2f} ms")

    # --- the network's own steps, as the daemon logged them ----------------------------------------

    def steps(self):
        found = {}
        self.daemon.logfile.flush()
        with open(f"{self.daemon.dir}/log", errors="replace") as f:
            for m in re.finditer(r"vpn\.step \S+ (\w+) took (\d+) us", f.read()):
                found.setdefault(m[1], []).append(int(m[2]) / 1000)
        if not found:
            return
        for step, target in (("reserve", None), ("up", None), ("attach", None), ("down", 50)):
            self.row(f"network/{step}/p50", "ms", statistics.median(found[step]))
            self.row(f"network/{step}/p90", "ms", percentile(found[step], 90), target)
        both = [a + b for a, b in zip(found["reserve"], found["attach"])]
        # The rest is done while the VM boots.
        self.row("network/on_the_way/p50", "ms", statistics.median(both), 30)
        print(f"   {len(found['down'])} networks")

    # --- what the tunnel carries ------------------------------------------------------------------

    def sink(self, ns):
        p = subprocess.Popen(["ip", "netns", "exec", ns, "/usr/bin/python3", "-c",
                              SINK.format(peer=PEER)], stdout=subprocess.PIPE, text=True)
        p.stdout.readline()
        return p

    @staticmethod
    def rate(sink):
        n, seconds = sink.stdout.readline().split()
        return int(n) / float(seconds) / 1e6

    def tunnel(self):
        script = SENDER.format(peer=PEER, blocks=self.args.bytes * 16)
        sink = self.sink(self.requester.ns)
        ours, plain = [], []
        other = PlainEnd(self.requester)
        try:
            for _ in range(3):  # in turn: both see the machine's moods
                r = self.provider.submit(script=script, lang="python",
                                         vpn=self.requester.vpn()).wait(timeout=300)
                if r.state != "completed":
                    raise SystemExit(f"{r.state}: {r.text}")
                ours.append(self.rate(sink))
                other.take_over()
                subprocess.run(["ip", "netns", "exec", other.ns, "/usr/bin/python3", "-c", script],
                               check=True)
                plain.append(self.rate(sink))
        finally:
            sink.kill()
            sink.wait()
            other.close()
        self.row("tunnel/guest_to_requester", "MB/s", statistics.median(ours), better="higher",
                 target=0.6 * statistics.median(plain), peers={"plain wireguard-go": statistics.median(plain)})


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
    ap.add_argument("--kills", type=int, default=30)
    ap.add_argument("--starts", type=int, default=7)
    ap.add_argument("--bytes", type=int, default=16, metavar="MIB")
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
    harness.merge(os.path.join(args.out, "latest.json"), b.rows)


if __name__ == "__main__":
    main()
