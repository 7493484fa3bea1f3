# SPDX-License-Identifier: ISC
"""The requester's side of a tunnel, in a network namespace of its own.

    host --- veth 10.250.N.0/30 --- namespace: plain wireguard-go set up by wg(8), a web server

Plain tools on purpose: the two ends of the tunnel must not share a mistake of ours.  Needs root,
iproute2, wireguard-tools.  Everything goes with close(), or with the next sweep after a kill.
"""
import fcntl
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time

PEER = "10.99.0.1"   # the requester, inside the tunnel
GUEST = "10.99.0.2"  # the job, inside the tunnel


RESOLVER = r"""
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
while True:
    q, who = s.recvfrom(512)
    at, name = 12, []
    while q[at]:
        name.append(q[at + 1:at + 1 + q[at]].decode())
        at += 1 + q[at]
    question, kind = q[12:at + 5], q[at + 1:at + 3]
    with open(sys.argv[2], "a") as f:
        print(".".join(name), file=f)
    answers = b""
    if kind == b"\0\1":  # A
        answers = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(sys.argv[1])
    s.sendto(q[:2] + b"\x81\x80\0\1\0" + bytes([len(answers) > 0]) + bytes(4) + question + answers, who)
"""


def instance_of(daemon):
    """The four digits that are in the names of all its jobs' links and sockets (net/jobnet_env.c)."""
    h = 2166136261
    for byte in f"{daemon.dir}/state".encode():
        h = ((h ^ byte) * 16777619) & 0xffffffff
    return f"{(h >> 16 ^ h) & 0xffff:04x}"


def links_of(daemon):
    """The links in the host's namespace that this daemon's jobs made."""
    return [line for line in sh("ip", "-o", "link").splitlines()
            if re.search(f": om[a-z]{instance_of(daemon)}", line)]


counter = itertools.count(1)


def sh(*cmd, **more):
    return subprocess.run(cmd, check=True, capture_output=True, text=True, **more).stdout.strip()


def keypair():
    private = sh("wg", "genkey")
    return private, sh("wg", "pubkey", input=private)


def sweep():
    """What a killed test left: namespaces named omtest-<pid>-<n> whose process is gone."""
    for line in sh("ip", "netns", "list").splitlines():
        found = re.match(r"(omtest-(\d+)-\d+)", line)
        if found and not os.path.exists(f"/proc/{found[2]}"):
            for pid in sh("ip", "netns", "pids", found[1]).split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", found[1]], capture_output=True)


class Requester:
    def __init__(self, number=None):
        sweep()
        count = next(counter)
        self.ns = f"omtest-{os.getpid()}-{count}"
        self.wg = f"wgr{os.getpid() % 1000000}n{count}"
        self.veth = f"vreq{os.getpid() % 1000000}n{count}"
        self.private, self.public = keypair()
        self.job_private, self.job_public = keypair()
        self.children = []
        sh("ip", "netns", "add", self.ns)
        sh("ip", "link", "add", self.veth, "type", "veth", "peer", "name", "up0", "netns", self.ns)
        self.take_number(number)
        sh("ip", "link", "set", self.veth, "up")
        self.inside("ip", "addr", "add", f"{self.outer}/30", "dev", "up0")
        self.inside("ip", "link", "set", "up0", "up")
        self.inside("ip", "link", "set", "lo", "up")
        os.makedirs("/var/run/wireguard", exist_ok=True)
        self.forget_socket()
        self.spawn("wireguard-go", "-f", self.wg, env=dict(os.environ, LOG_LEVEL="error"))
        self.until(lambda: os.path.exists(f"/var/run/wireguard/{self.wg}.sock"))
        sh("wg", "set", self.wg, "private-key", "/dev/stdin", "listen-port", "51820", "peer",
           self.job_public, "allowed-ips", f"{GUEST}/32", input=self.private)
        self.inside("ip", "addr", "add", f"{PEER}/24", "dev", self.wg)
        self.inside("ip", "link", "set", self.wg, "mtu", "1420", "up")

    def take_number(self, number):
        """Several tests may run on one machine: each has a number that is no other's."""
        with open("/run/omerta-test.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            taken = sh("ip", "-o", "-4", "addr")
            self.number = number or random.choice([n for n in range(3, 250)
                                                   if f"10.250.{n}." not in taken])
            self.outer = f"10.250.{self.number}.2"
            self.host = f"10.250.{self.number}.1"
            sh("ip", "addr", "add", f"{self.host}/30", "dev", self.veth)

    def forget_socket(self):
        """One that was killed leaves its control socket."""
        try:
            os.unlink(f"/var/run/wireguard/{self.wg}.sock")
        except FileNotFoundError:
            pass

    def inside(self, *cmd):
        return sh("ip", "netns", "exec", self.ns, *cmd)

    def say(self, to=GUEST):
        """A packet through the tunnel, from this end."""
        self.inside("/usr/bin/python3", "-c", "import socket; socket.socket(socket.AF_INET, "
                    f"socket.SOCK_DGRAM).sendto(b'x', ('{to}', 9))")

    def spawn(self, *cmd, **more):
        p = subprocess.Popen(["ip", "netns", "exec", self.ns, *cmd], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, **more)
        self.children.append(p)
        return p

    @staticmethod
    def until(is_so, seconds=10):
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                raise AssertionError("waited too long")
            time.sleep(0.02)

    def serve(self, directory, port=80):
        """A web server inside the tunnel."""
        self.spawn("/usr/bin/python3", "-m", "http.server", str(port), "--bind", PEER, "--directory",
                   directory)
        self.until(lambda: f":{port} " in self.inside("ss", "-ltnH"))

    def vpn(self, **more):
        """The `vpn` of a job.submit."""
        vpn = dict(private_key=self.job_private, addresses=[f"{GUEST}/32"],
                   peer_public_key=self.public, endpoint=f"{self.outer}:51820",
                   allowed_ips=["10.99.0.0/24"])
        vpn.update(more)
        return vpn

    def want_preshared_key(self):
        """From now on; gives it."""
        key = sh("wg", "genpsk")
        sh("wg", "set", self.wg, "peer", self.job_public, "preshared-key", "/dev/stdin", input=key)
        return key

    def also_by_ip6(self):
        """Gives its endpoint by IPv6."""
        host, outer = (f"fd50:0:0:{self.number:x}::{n}" for n in (1, 2))
        sh("ip", "addr", "add", f"{host}/64", "dev", self.veth, "nodad")
        self.inside("ip", "addr", "add", f"{outer}/64", "dev", "up0", "nodad")
        return f"[{outer}]:51820"

    def resolve(self, log):
        """A resolver inside the tunnel that knows one address for all names, its own; the names that it
        is asked for go to a file."""
        self.spawn("/usr/bin/python3", "-c", RESOLVER, PEER, log)
        self.until(lambda: ":53 " in self.inside("ss", "-lunH"))

    def wg_quick(self):
        return (f"[Interface]\nPrivateKey = {self.job_private}\nAddress = {GUEST}/32\n"
                f"[Peer]\nPublicKey = {self.public}\nEndpoint = {self.outer}:51820\n"
                "AllowedIPs = 10.99.0.0/24\nPersistentKeepalive = 25\n")

    def counters(self):
        """(received, sent) bytes of this end."""
        line = sh("wg", "show", self.wg, "transfer").split()
        return int(line[1]), int(line[2])

    def close(self):
        for p in self.children:
            p.terminate()
        for pid in sh("ip", "netns", "pids", self.ns).split():
            try:
                os.kill(int(pid), signal.SIGTERM)
            except ProcessLookupError:
                pass
        for p in self.children:
            p.wait()
        self.forget_socket()
        sh("ip", "link", "del", self.veth)  # at once; the namespace goes when the kernel has time
        sh("ip", "netns", "del", self.ns)


if __name__ == "__main__":
    # For `make demo`: prints the wg-quick file's path and stays until it is told to end.
    directory = sys.argv[1]
    r = Requester(2)
    r.serve(directory)
    with open(os.path.join(directory, "job.conf"), "w") as f:
        os.chmod(f.fileno(), 0o600)
        f.write(r.wg_quick())
    print(f"ready {r.host} {r.outer} {r.wg}", flush=True)
    sys.stdin.read()
    print("requester's end: %d bytes received, %d sent" % r.counters(), flush=True)
    r.close()
