#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Jobs behind their requester's tunnel: what gets through, and what ends a job."""
import base64
import glob
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
import tunnel_rig  # noqa: E402
import omerta  # noqa: E402

FETCH = """
import urllib.request
print(urllib.request.urlopen("http://10.99.0.1/page", timeout=20).read().decode(), end="")
"""

CONNECT = """
import socket, sys, time
print("about to leave", flush=True)
s = socket.socket(socket.AF_INET, socket.SOCK_{kind})
s.settimeout(5)
try:
    s.connect(("{host}", {port}))
    s.send(b"x")
except OSError as e:
    print(e)
time.sleep(5)
print("still here")
"""


class Tunnel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.requester = tunnel_rig.Requester()
        cls.www = tempfile.mkdtemp(prefix="omerta-www.")
        with open(f"{cls.www}/page", "w") as f:
            f.write("page through the tunnel\n")
        with open(f"{cls.www}/big", "wb") as f:
            f.write(os.urandom(1 << 20) * 8)
        cls.requester.serve(cls.www)
        cls.daemon = rig.Daemon("[jobs]\nmax_jobs = 2\n[network]\nallow_endpoints = 10.250.0.0/16, "
                                "fd50::/16\n")
        cls.daemon.start()
        cls.provider = cls.daemon.connect()

    @classmethod
    def tearDownClass(cls):
        cls.provider.close()
        cls.daemon.stop()
        left = cls.daemon.left()
        links = tunnel_rig.links_of(cls.daemon)
        cls.daemon.close()
        cls.requester.close()
        import shutil
        shutil.rmtree(cls.www)
        assert not left, left
        assert not links, links

    def run_job(self, script, vpn=None, **more):
        return self.provider.submit(script=script, lang="python", vpn=vpn or self.requester.vpn(),
                                    **more).wait(timeout=180)

    def test_a_page_through_the_tunnel(self):
        before = self.requester.counters()
        r = self.run_job(FETCH)
        self.assertEqual((r.state, r.stdout), ("completed", b"page through the tunnel\n"), r.text)
        after = self.requester.counters()
        self.assertGreater(r.rx_bytes, 300)
        self.assertGreater(r.tx_bytes, 300)
        self.assertEqual(after[0] - before[0], r.tx_bytes)  # both ends counted the same

    def test_much_data(self):
        r = self.run_job("import urllib.request, hashlib\n"
                         "d = urllib.request.urlopen('http://10.99.0.1/big').read()\n"
                         "print(len(d), hashlib.sha256(d).hexdigest())")
        import hashlib
        with open(f"{self.www}/big", "rb") as f:
            want = hashlib.sha256(f.read()).hexdigest()
        self.assertEqual(r.stdout.decode().split(), [str(8 << 20), want], r.text)

    def test_a_name_by_the_tunnels_resolver(self):
        log = f"{self.www}/names"
        self.requester.resolve(log)
        r = self.run_job(FETCH.replace(tunnel_rig.PEER, "files.requester.test"),
                         vpn=self.requester.vpn(dns=[tunnel_rig.PEER]))
        self.assertEqual((r.state, r.stdout), ("completed", b"page through the tunnel\n"), r.text)
        with open(log) as f:
            self.assertIn("files.requester.test", f.read().split())
        # Without one there are no names, and nobody outside is asked.
        r = self.run_job(FETCH.replace(tunnel_rig.PEER, "other.requester.test"))
        self.assertEqual((r.state, r.exit_code), ("failed", 1), r.text)
        with open(log) as f:
            self.assertNotIn("other.requester.test", f.read())

    def second(self):
        """Another requester, with the same page."""
        requester = tunnel_rig.Requester()
        self.addCleanup(requester.close)
        requester.serve(self.www)
        return requester

    def test_preshared_key(self):
        requester = self.second()
        key = requester.want_preshared_key()
        r = self.run_job(FETCH, vpn=requester.vpn(preshared_key=key))
        self.assertEqual((r.state, r.stdout), ("completed", b"page through the tunnel\n"), r.text)
        r = self.run_job(FETCH.replace("timeout=20", "timeout=3"), vpn=requester.vpn())
        self.assertEqual((r.state, r.exit_code), ("failed", 1), r.text)

    def test_endpoint_by_ip6(self):
        requester = self.second()
        endpoint = requester.also_by_ip6()
        r = self.run_job(FETCH, vpn=requester.vpn(endpoint=endpoint))
        self.assertEqual((r.state, r.stdout), ("completed", b"page through the tunnel\n"), r.text)
        self.assertIn("[fd50:", tunnel_rig.sh("wg", "show", requester.wg, "endpoints"))

    def test_bandwidth(self):
        script = ("import time, urllib.request\nbegan = time.monotonic()\n"
                  "d = urllib.request.urlopen('http://10.99.0.1/big').read()\n"
                  "print(len(d), time.monotonic() - began)")
        free = self.run_job(script).stdout.split()
        held = self.run_job(script, bandwidth_kbit=16000).stdout.split()
        self.assertEqual((free[0], held[0]), (b"%d" % (8 << 20),) * 2)
        print(f"   8 MiB in {float(free[1]):.1f} s, at 16 Mbit/s in {float(held[1]):.1f} s")
        self.assertGreater(float(held[1]), 3)  # 4.2 s, less the one that may come at once
        self.assertLess(float(held[1]), 60)

    def assert_killed(self, host, port, kind="STREAM"):
        r = self.run_job(CONNECT.format(host=host, port=port, kind=kind))
        self.assertEqual((r.state, r.stdout), ("rogue_killed", b"about to leave\n"), r.text)
        self.assertEqual(r.evidence["destination"], host)
        self.assertEqual(r.evidence["destination_port"], str(port))
        self.assertIn("killed", r.text)
        print(f"   {kind} {host}:{port}: {r.text}")
        return r

    def test_the_host_is_out_of_reach(self):
        self.assert_killed(self.requester.host, 22)

    def test_an_outside_address_is_out_of_reach(self):
        self.assert_killed("192.0.2.77", 443)

    def test_the_metadata_address_is_out_of_reach(self):
        self.assert_killed("169.254.169.254", 80)

    def test_udp_dns_to_anywhere(self):
        self.assert_killed("198.51.100.53", 53, "DGRAM")

    def test_the_audit_names_it(self):
        r = self.assert_killed("192.0.2.78", 25)
        events = [e.event for e in self.provider.audit(job=r.job)]
        self.assertTrue(any("rogue" in e for e in events), events)
        self.assertTrue(self.provider.verify_audit().intact)

    def test_endpoint_in_the_providers_network_is_refused(self):
        with self.assertRaisesRegex(omerta.Denied, "endpoint"):
            self.run_job(FETCH, vpn=self.requester.vpn(endpoint="127.0.0.1:51820"))

    def test_what_cannot_be_brought_up_is_not_acknowledged(self):
        with self.assertRaisesRegex(omerta.Invalid, "private_key"):
            self.run_job(FETCH, vpn=self.requester.vpn(private_key="key"))
        with self.assertRaisesRegex(omerta.Error, "IPv6"):
            self.run_job(FETCH, vpn=self.requester.vpn(addresses=["10.99.0.2/32", "fd99::2/128"]))

    def test_wrong_key(self):
        other, _ = tunnel_rig.keypair()
        r = self.run_job(FETCH.replace("timeout=20", "timeout=3"),
                         vpn=self.requester.vpn(private_key=other))
        self.assertEqual(r.state, "failed")
        self.assertEqual(r.exit_code, 1, r.text)  # it runs, nobody answers

    def in_the_state_dir(self, *needles):
        found = []
        for path in glob.glob(f"{self.daemon.dir}/state/**", recursive=True):
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    held = f.read()
                found += [path for n in needles if n in held]
        return found

    def test_keys_are_on_no_disk(self):
        vpn = self.requester.vpn()
        key = vpn["private_key"]
        jobs = [self.provider.submit(script=FETCH, lang="python", vpn=vpn, hold=True)
                for _ in range(2)]
        self.assertEqual(self.in_the_state_dir(key.encode(), base64.b64decode(key)), [])
        self.assertNotEqual(self.in_the_state_dir(vpn["peer_public_key"].encode()), [])
        self.daemon.kill9()
        self.daemon.start()
        self.provider.release(jobs[0].id)
        r = jobs[0].wait(timeout=180)
        self.assertEqual((r.state, r.stdout), ("completed", b"page through the tunnel\n"), r.text)
        # The machine restarts: what was in memory is gone.
        self.assertEqual(self.daemon.stop(), 0)
        os.unlink(f"{self.daemon.dir}/run/keys.seal")
        self.daemon.start()
        self.provider.release(jobs[1].id)
        r = jobs[1].wait(timeout=180)
        self.assertEqual((r.state, r.reason), ("failed", "keys_lost"), r.text)

    def test_hooks_never_arrive(self):
        with self.assertRaises(omerta.Error) as caught:
            self.run_job(FETCH, vpn=self.requester.vpn(post_up="touch /tmp/owned"))
        self.assertIn("post_up", str(caught.exception))


if __name__ == "__main__":
    rig.main("tunnel")
