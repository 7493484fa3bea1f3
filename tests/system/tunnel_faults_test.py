#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""The requester's end fails in every way it can; each job ends, or goes on, as docs/network.md says.

The limits are seconds here (network.no_reply and its kin), minutes by default.
"""
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
import tunnel_rig  # noqa: E402
from tunnel_rig import PEER, sh  # noqa: E402

NO_REPLY_S, EVERY_S = 3, 0.2
SLACK_S = 3  # a busy machine, and the guest's first packet

TALK = f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.1)
print("talking", flush=True)
heard = False
while True:
    s.sendto(b"hello", ("{PEER}", 7))
    try:
        s.recv(10)
        if not heard:
            print("heard", flush=True)
        heard = True
    except OSError:
        pass
    time.sleep(0.05)
"""
ECHO = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("{PEER}", 7))
while True:
    data, who = s.recvfrom(100)
    try:
        s.sendto(data, who)
    except OSError:
        pass
"""


class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = rig.Daemon("[jobs]\nmax_jobs = 2\n[network]\nallow_endpoints = 10.0.0.0/8\n"
                                f"health_every = {int(EVERY_S * 1000)}ms\n"
                                f"no_reply = {NO_REPLY_S}s\n").start()
        cls.provider = cls.daemon.connect()

    @classmethod
    def tearDownClass(cls):
        cls.provider.close()
        cls.daemon.stop()
        left = cls.daemon.left() + tunnel_rig.links_of(cls.daemon)
        cls.daemon.close()
        assert not left, left

    def setUp(self):
        self.requester = tunnel_rig.Requester()
        self.addCleanup(self.requester.close)
        self.requester.spawn("/usr/bin/python3", "-c", ECHO)

    def talk(self, until=b"heard\n", script=TALK, **vpn):
        job = self.provider.submit(script=script, lang="python", vpn=self.requester.vpn(**vpn))
        deadline = time.monotonic() + 90
        while until not in self.output(job):
            self.assertLess(time.monotonic(), deadline, self.provider.call("job.get", {"job": job.id}))
            time.sleep(0.05)
        return job

    def output(self, job):
        return self.provider.call("job.output", {"job": job.id})["data"]

    def assert_lost(self, job, within, since, at_least=0.0):
        r = job.wait(timeout=60)
        took = time.monotonic() - since
        self.assertEqual((r.state, r.reason), ("failed", "tunnel_lost"), r.text)
        self.assertLess(took, within)
        self.assertGreater(took, at_least)
        print(f"   tunnel_lost after {took:.1f} s: {r.text}")
        return r

    def test_unreachable_endpoint(self):
        for endpoint in (f"{self.requester.outer}:51999", "10.252.7.7:51820"):
            job = self.talk(b"talking\n", endpoint=endpoint)
            self.assert_lost(job, NO_REPLY_S + SLACK_S, time.monotonic(), NO_REPLY_S - 1)

    def test_wrong_key(self):
        other, _ = tunnel_rig.keypair()
        job = self.talk(b"talking\n", private_key=other)
        r = self.assert_lost(job, NO_REPLY_S + SLACK_S, time.monotonic(), NO_REPLY_S - 1)
        self.assertEqual(r.stdout, b"talking\n")  # what it said is kept

    def test_disappears_in_the_middle(self):
        job = self.talk()
        since = time.monotonic()
        for pid in sh("ip", "netns", "pids", self.requester.ns).split():
            with open(f"/proc/{pid}/comm") as f:
                if f.read().strip() == "wireguard-go":
                    os.kill(int(pid), signal.SIGKILL)
        self.assert_lost(job, NO_REPLY_S + SLACK_S, since, NO_REPLY_S - 1)

    def silent(self, **vpn):
        """A job that only computes, with a requester that does not know it."""
        other, _ = tunnel_rig.keypair()
        r = self.provider.submit(script=f"import time; time.sleep({2 * NO_REPLY_S}); print('slept')",
                                 lang="python", vpn=self.requester.vpn(private_key=other, **vpn)).wait(90)
        self.assertEqual((r.state, r.stdout), ("completed", b"slept\n"), r.text)
        return r

    def test_silence_is_health(self):
        r = self.silent()
        self.assertEqual(r.tx_bytes or 0, 0)

    def test_a_keepalive_without_an_answer_is_health_too(self):
        r = self.silent(keepalive=1)
        self.assertGreater(r.tx_bytes, 100)  # it did try

    def test_shows_itself_while_it_runs(self):
        job = self.talk()
        info = {}

        def is_there():
            info.update(self.provider.call("job.get", {"job": job.id}))
            return info.get("rx_bytes", 0) > 300 and "handshake_age_ms" in info

        self.requester.until(is_there)
        self.assertEqual(info["state"], "running")
        self.assertGreater(info["tx_bytes"], 300)
        self.assertLess(info["handshake_age_ms"], 60000)
        self.assertLess(abs(info["handshake_ms"] / 1000 - time.time()), 60)
        job.cancel()
        r = job.wait(timeout=60)
        self.assertGreaterEqual(r.rx_bytes, info["rx_bytes"])
        self.assertGreaterEqual(r.handshake_ms, info["handshake_ms"])

    def move_to(self, net):
        carrier = self.requester.veth
        inside = self.requester.inside
        host, outer = f"{net}.{self.requester.number}.1", f"{net}.{self.requester.number}.2"
        sh("ip", "addr", "add", f"{host}/30", "dev", carrier)
        inside("ip", "addr", "add", f"{outer}/30", "dev", "up0")
        inside("ip", "addr", "del", f"{self.requester.outer}/30", "dev", "up0")
        inside("ip", "route", "add", f"{self.requester.host}/32", "dev", "up0", "src", outer)
        # WireGuard's own way: the end that moved speaks first.  wireguard-go holds on to the address
        # that it had; told the peer's endpoint once more it looks for a new one.
        peer, endpoint = sh("wg", "show", self.requester.wg, "endpoints").split()
        sh("wg", "set", self.requester.wg, "peer", peer, "endpoint", endpoint)
        self.requester.say()

    def test_moves_to_where_no_tunnel_may_end(self):
        job = self.talk()
        self.move_to("192.168")
        r = job.wait(timeout=60)
        self.assertEqual((r.state, r.reason), ("failed", "endpoint_denied"), r.text)
        self.assertIn("192.168.", r.text)

    def test_reconnects_from_another_address(self):
        job = self.talk()
        before = self.requester.counters()[0]
        self.move_to("10.251")
        deadline = time.monotonic() + 2 * NO_REPLY_S
        while time.monotonic() < deadline:
            self.assertEqual(self.provider.call("job.get", {"job": job.id})["state"], "running")
            time.sleep(0.5)
        self.assertGreater(self.requester.counters()[0], before + 1000)  # it hears the job
        job.cancel()
        self.assertEqual(job.wait(timeout=60).state, "cancelled")

    def test_our_end_dies(self):
        job = self.talk()
        ours = [int(p) for p in sh("pgrep", "-P", str(self.daemon.process.pid), "-x",
                                   "wireguard-go").split()]
        self.assertEqual(len(ours), 1)
        since = time.monotonic()
        os.kill(ours[0], signal.SIGKILL)
        r = self.assert_lost(job, 1.5, since)
        # Whoever notices first: the process's end, or the next reading of its counters.
        self.assertRegex(r.text, "WireGuard process died|wireguard-go")


if __name__ == "__main__":
    rig.main("tunnel_faults")
