#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""A hostile job through the real daemon: everything that an ordinary user can send from a guest.

Each attempt is a Python job in a VM of its own.  It must end in one of these ways, and which is told
beforehand: `killed` (rogue_killed, with the packet as evidence), `noise` (on the operator's noise list:
dropped, the job goes on), `guest` (the guest's own kernel lets no packet out), `tunnel` (allowed).
A capture of all interfaces of the host meanwhile must see nothing but WireGuard's own packets.  What
needs privileges in the guest (raw frames, forged addresses, ARP, DHCP) is redteam_frames_test's, sent
in the VM's name.

    redteam_test.py [NAME...]     only these attempts
"""
import concurrent.futures
import ctypes
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
import tunnel_rig  # noqa: E402
from tunnel_rig import GUEST, PEER, sh  # noqa: E402

MARK = b"omerta-redteam"
VICTIM = "10.98.0.2"  # another job's guest
TEST_NETS = ("192.0.2.", "198.51.100.", "203.0.113.")
AT_ONCE = 2
TCP, UDP, IGMP, UDPLITE = 6, 17, 2, 136

PRELUDE = f"""
import fcntl, socket, struct, time, threading
MARK = {MARK!r}
def own_mac():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return fcntl.ioctl(s, 0x8927, struct.pack("256s", b"eth0"))[18:24].hex()  # SIOCGIFHWADDR
def tcp(host, port, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(2)
    s.connect((host, port))
    s.send(MARK)
def udp(host, port, size=0, family=socket.AF_INET, proto=0, **options):
    s = socket.socket(family, socket.SOCK_DGRAM, proto)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.sendto(MARK + bytes(size), (host, port))
    return s
print("about to leave", own_mac(), flush=True)
try:
"""
AFTERWARDS = """
except OSError as e:
    print("error", e.errno, flush=True)
time.sleep(2)
print("still here", flush=True)
"""


def indent(code):
    return "\n".join("    " + line for line in code.strip().splitlines())


def program(code):
    return PRELUDE + indent(code) + AFTERWARDS


class Attempt:
    def __init__(self, name, code, verdict="killed", to=None, port=None, protocol=None):
        self.name, self.code, self.verdict = name, code, verdict
        self.to, self.port, self.protocol = to, port, protocol


def tcp(name, to, port):
    return Attempt(name, f"tcp('{to}', {port})", to=to, port=port, protocol=TCP)


def udp(name, to, port, more="", verdict="killed"):
    return Attempt(name, f"udp('{to}', {port}{more})", verdict, to, port, UDP)


RECORD_ROUTE = "bytes([7, 7, 4, 0, 0, 0, 0, 0])"
SOURCE_ROUTE = "bytes([131, 7, 4]) + socket.inet_aton('192.0.2.9') + bytes(1)"
BURST = """
def flood(n):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i in range(100000):
        try:
            s.sendto(MARK, ('192.0.2.%d' % (i % 250 + 1) if n else '203.0.113.9', 9))
        except OSError:
            pass
threads = [threading.Thread(target=flood, args=(n,), daemon=True) for n in (0, 0, 1)]
for t in threads: t.start()
for t in threads: t.join()
"""


def attempts(requester, host_addresses):
    a = [
        Attempt("page through the tunnel", f"tcp('{PEER}', 80)", "tunnel"),
        tcp("tcp, outside", "192.0.2.1", 443),
        udp("udp, outside", "203.0.113.9", 9999),
        udp("dns by udp", "198.51.100.53", 53),
        tcp("dns by tcp", "198.51.100.53", 53),
        udp("fragments", "192.0.2.2", 7, ", size=20000"),
        udp("broadcast", "255.255.255.255", 9),
        udp("dhcp's port", "255.255.255.255", 67),
        udp("multicast", "239.1.2.3", 5000),
        udp("ssdp", "239.255.255.250", 1900),
        udp("mdns", "224.0.0.251", 5353),
        udp("llmnr", "224.0.0.252", 5355, verdict="noise"),
        Attempt("multicast group", "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                "s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,\n"
                "             socket.inet_aton('239.7.7.7') + bytes(4))",
                to="224.0.0.22", port=0, protocol=IGMP),
        tcp("link-local", "169.254.7.7", 80),
        tcp("metadata", "169.254.169.254", 80),
        tcp("own gateway, tcp", "169.254.1.1", 22),
        udp("own gateway, udp", "169.254.1.1", 53),
        udp("reserved", "240.0.0.1", 1),
        Attempt("udp-lite", "udp('192.0.2.3', 9, proto=136)", to="192.0.2.3", port=9,
                protocol=UDPLITE),
        Attempt("record route", "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                f"s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, {RECORD_ROUTE})\n"
                f"s.sendto(MARK, ('{PEER}', 9))", to=PEER, protocol=UDP),
        Attempt("source route", "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                f"s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, {SOURCE_ROUTE})\n"
                f"s.sendto(MARK, ('{PEER}', 9))", "guest"),
        udp("another job's guest", VICTIM, 4000),
        tcp("another job's guest, tcp", VICTIM, 4000),
        udp("requester's outer end", requester.outer, 51820),
        Attempt("burst, three threads", BURST),
        Attempt("tcp scan", "socks = []\nfor i in range(2000):\n"
                "    s = socket.socket()\n    s.setblocking(False)\n"
                "    s.connect_ex(('192.0.2.%d' % (i % 250 + 1), 1 + i))\n    socks.append(s)\n"
                "    if len(socks) > 500: socks.clear()", protocol=TCP),
        Attempt("ipv6, tcp", "tcp('2001:db8::1', 80, socket.AF_INET6)", "guest"),
        Attempt("ipv6, multicast", "udp('ff02::fb', 5353, family=socket.AF_INET6)", "guest"),
        Attempt("raw socket", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "guest"),
        Attempt("packet socket", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "guest"),
        Attempt("ping socket", "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)\n"
                "s.sendto(bytes([8, 0, 0, 0, 0, 1, 0, 1]) + MARK, ('192.0.2.4', 0))", "guest"),
        Attempt("forged source", "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                "s.setsockopt(socket.IPPROTO_IP, 15, 1)\n"  # IP_FREEBIND
                f"s.bind(('10.99.0.77', 4000))\ns.sendto(MARK, ('{PEER}', 9))", "guest"),
    ]
    for name, address in host_addresses:
        if address.startswith("127."):
            a.append(Attempt(f"host on {name}", f"tcp('{address}', 31337)", "guest"))
        else:
            a.append(tcp(f"host on {name}", address, 31337))
    return a


def host_addresses():
    found = []
    for line in sh("ip", "-o", "-4", "addr").splitlines():
        words = line.split()
        found.append((words[1].split("@")[0], words[3].split("/")[0]))
    return found


class Capture(threading.Thread):
    """All packets of all interfaces of the host's namespace."""
    SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 263, 6, 33

    def __init__(self, carrier):
        super().__init__(daemon=True)
        self.carrier = carrier  # the interface with the jobs' WireGuard and nothing else
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, self.SO_RCVBUFFORCE, 64 << 20)
        self.socket.settimeout(0.2)
        self.own = {address for _, address in host_addresses()}
        self.guests = [socket.inet_aton(a) for a in (GUEST, VICTIM)]
        self.wireguard = self.answers = self.others = self.lost = 0
        self.leaks = []
        self.macs = {}  # of all frames but the tunnel's own: the first that it was in
        self.ending = threading.Event()

    def run(self):
        while True:
            try:
                frame, (name, *_) = self.socket.recvfrom(65536)
                self.judge(frame, name)
            except socket.timeout:
                if self.ending.is_set():
                    break
        self.lost = struct.unpack("II", self.socket.getsockopt(
            self.SOL_PACKET, self.PACKET_STATISTICS, 8))[1]
        self.socket.close()

    def judge(self, frame, name):
        kind, ip = frame[12:14], frame[14:]
        is_wireguard = (kind == b"\x08\x00" and ip[9:10] == b"\x11" and
                        51820 in struct.unpack("!HH", ip[20:24]) and
                        ip[28:29] in (b"\1", b"\2", b"\3", b"\4") and ip[29:32] == bytes(3))
        if name == self.carrier and is_wireguard:
            self.wireguard += 1
            return
        if name == self.carrier and self.is_answer_to_wireguard(kind, ip):
            self.answers += 1
            return
        for mac in (frame[0:6], frame[6:12]):
            self.macs.setdefault(mac.hex(), f"{name}: {frame[:64].hex()}")
        leak = name == self.carrier or name.startswith(("omt", "omw")) or MARK in frame
        if kind == b"\x08\x00" and len(ip) >= 20:
            leak = leak or ip[12:16] in self.guests or ip[16:20] in self.guests
            to = socket.inet_ntoa(ip[16:20])
            # A machine may have one of these itself: what goes to it is its own.
            leak = leak or (to not in self.own and any(to.startswith(net) for net in TEST_NETS))
        self.others += 1
        if leak:
            self.leaks.append(f"{name}: {frame[:64].hex()}")

    @staticmethod
    def is_answer_to_wireguard(kind, ip):
        """The host's own kernel: no such port, to a packet of a tunnel that has just ended."""
        return (kind == b"\x08\x00" and ip[9:10] == b"\1" and ip[20:22] == b"\3\3" and
                ip[37:38] == b"\x11" and ip[48:50] == struct.pack("!H", 51820))

    def finish(self):
        self.ending.set()
        self.join()

    def tell_guests(self, macs):
        """A guest's frame that got out is a leak wherever it was seen, whatever is in it (ARP, RA, NA)."""
        self.leaks += [self.macs[mac] for mac in sorted(macs & self.macs.keys())]


class Range(unittest.TestCase):
    """A daemon, a requester, and a silent link between them."""

    @classmethod
    def setUpClass(cls):
        cls.macs = set()  # of guests and of their gateways
        cls.requester = tunnel_rig.Requester()
        cls.www = tempfile.mkdtemp(prefix="omerta-www.")
        cls.requester.serve(cls.www)
        cls.carrier = cls.requester.veth
        cls.quiet_carrier()
        cls.daemon = rig.Daemon(f"[jobs]\nmax_jobs = {AT_ONCE + 1}\nlend_cores = {AT_ONCE + 1}\n"
                                "[network]\nallow_endpoints = 10.250.0.0/16\n"
                                "noise = nd_rs, nd_dad, mld, llmnr\n").start()

    @classmethod
    def quiet_carrier(cls):
        """Without ARP and IPv6 of its own: then each packet on it is a tunnel's, or a leak."""
        ns, outer, host = cls.requester, cls.requester.outer, cls.requester.host
        with open(f"/proc/sys/net/ipv6/conf/{cls.carrier}/disable_ipv6", "w") as f:
            f.write("1")
        ns.inside("sysctl", "-qw", "net.ipv6.conf.up0.disable_ipv6=1")
        mac = {True: sh("cat", f"/sys/class/net/{cls.carrier}/address"),
               False: ns.inside("ip", "-o", "link", "show", "up0").split("link/ether ")[1].split()[0]}
        sh("ip", "neigh", "replace", outer, "lladdr", mac[False], "dev", cls.carrier, "nud", "permanent")
        ns.inside("ip", "neigh", "replace", host, "lladdr", mac[True], "dev", "up0", "nud", "permanent")

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()
        left = cls.daemon.left()
        cls.daemon.close()
        cls.requester.close()
        os.rmdir(cls.www)
        assert not left, left


class RedTeam(Range):
    only = []

    def begins(self, lines):
        said, _, mac = lines[0].rpartition(" ")
        if said != "about to leave" or not mac.startswith("525400"):
            return False
        self.macs.add(mac)
        return True

    def one(self, attempt):
        """(attempt, what is wrong or None, milliseconds to the kill or None, what happened)"""
        with self.daemon.connect() as provider:
            r = provider.submit(script=program(attempt.code), lang="python",
                                vpn=self.requester.vpn()).wait(timeout=120)
            lines = r.stdout.decode().split("\n")
        wrong = None
        if not self.begins(lines):
            return attempt, f"did not begin: {r.state} {r.text}", None, r.text
        if attempt.verdict == "killed":
            e = r.evidence or {}
            wrong = self.check_kill(attempt, r, e, lines)
            took = int(e["killed_after_us"]) / 1000 if "killed_after_us" in e else None
            return attempt, wrong, took, f"{e.get('kind')} {r.text}"
        if r.state != "completed" or "still here" not in lines:
            wrong = f"{r.state}: {r.text}"
        elif any(line.startswith("error") for line in lines):
            wrong = f"{lines}"
        return attempt, wrong, None, " ".join(lines[1:]).strip()

    def in_the_guest(self, group):
        """Attempts that no packet may come of, one after the other in one VM."""
        code = "".join(f"try:\n{indent(a.code)}\n    print({i}, 'got out', flush=True)\n"
                       f"except OSError as e:\n    print({i}, 'error', e.errno, flush=True)\n"
                       for i, a in enumerate(group))
        with self.daemon.connect() as provider:
            r = provider.submit(script=program(code), lang="python",
                                vpn=self.requester.vpn()).wait(timeout=120)
            lines = r.stdout.decode().split("\n")
        results = []
        for i, attempt in enumerate(group):
            said = next((line for line in lines if line.startswith(f"{i} ")), "did not end")
            good = " error " in said and r.state == "completed" and self.begins(lines)
            wrong = None if good else f"{r.state}: {said}"
            results.append((attempt, wrong, None, f"the guest's kernel: {said.split(' ', 1)[1]}"))
        return results

    def check_kill(self, attempt, r, e, lines):
        if r.state != "rogue_killed":
            return f"{r.state}: {r.text}: {lines}"
        if "still here" in lines:
            return "it went on"
        for key, want in (("destination", attempt.to), ("destination_port", attempt.port),
                          ("protocol", attempt.protocol)):
            if want is not None and e.get(key) != str(want):
                return f"evidence: {key} is {e.get(key)}, not {want}"
        packet = bytes.fromhex(e.get("packet", ""))
        if socket.inet_aton(e["destination"]) not in packet or len(packet) < 34:
            return f"evidence: the packet is not there: {e.get('packet')}"
        if e["source"] != GUEST:
            return f"evidence: source {e['source']}"
        if lines[0].split()[-1] != packet[6:12].hex():
            return f"evidence: not the guest's MAC: {e.get('packet')}"
        if packet[0] & 1 == 0:
            self.macs.add(packet[0:6].hex())
        return None

    def test_every_way_out(self):
        # Not the other ends of tests that run beside this one.
        host = [(name, address) for name, address in host_addresses()
                if not name.startswith("vreq") or name == self.carrier]
        everything = attempts(self.requester, host)
        if self.only:
            everything = [a for a in everything if a.name in self.only]
        capture = Capture(self.carrier)
        capture.start()
        provider = self.daemon.connect()
        victim = provider.submit(
            script="import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                   "s.bind(('', 4000))\nprint('up', flush=True)\nprint(s.recvfrom(100), flush=True)",
            lang="python", vpn=self.requester.vpn(addresses=[f"{VICTIM}/32"]))
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            group = [a for a in everything if a.verdict == "guest"]
            kept = pool.submit(self.in_the_guest, group)
            results = list(pool.map(self.one, [a for a in everything if a.verdict != "guest"]))
            results += kept.result()
        heard = provider.call("job.output", {"job": victim.id})["data"]
        victim.cancel()
        end = victim.wait(timeout=60)
        provider.close()
        capture.finish()
        capture.tell_guests(self.macs)
        self.table(results, capture)
        self.assertEqual([f"{a.name}: {wrong}" for a, wrong, *_ in results if wrong], [])
        self.assertEqual((end.state, heard), ("cancelled", b"up\n"))  # undisturbed
        self.assertEqual(capture.leaks, [])
        self.assertEqual(capture.lost, 0)
        self.assertGreater(len(self.macs), 0)
        if not self.only:
            self.assertGreater(capture.wireguard, 0)  # the capture sees what it must see

    @staticmethod
    def table(results, capture):
        print(f"\n   {'attempt':28} {'verdict':8} {'ms':>8}  what was seen")
        for a, wrong, took, text in results:
            print(f"   {a.name:28} {'WRONG' if wrong else a.verdict:8} "
                  f"{took if took is not None else '':>8}  {text[:110]}")
        kills = sorted(took for _, _, took, _ in results if took is not None)
        if kills:
            print(f"   {len(kills)} killed: median {kills[len(kills) // 2]} ms, longest {kills[-1]} ms")
        print(f"   captured: {capture.wireguard} of WireGuard, {capture.answers} answers to late ones of "
              f"its, {capture.others} of other interfaces, "
              f"{len(capture.leaks)} leaks, {capture.lost} not captured", flush=True)
        for leak in capture.leaks[:10]:
            print(f"   leak {leak}", flush=True)


if __name__ == "__main__":
    RedTeam.only = sys.argv[1:]
    del sys.argv[1:]
    rig.main("redteam")
