#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Frames that a job's user cannot send, from a VM through the real daemon: forged addresses, ARP, DHCP,
IPv6, fragments by hand, raw Ethernet types, tags.

A guest with more rights than ours gives a job, or a way around them, could send these.  They are
net_redteam_test's; each is written to the tap through qemu's own descriptor, as qemu writes what its
guest sends, while a job runs in that VM.  The job must end as rogue_killed, with the wall, the word and
the frame's bytes as evidence and in the audit trail, and no capture may see a frame.

    redteam_frames_test.py [NAME...]     only these frames; "all": more than the default ones
"""
import ctypes
import fcntl
import os
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import redteam_test  # noqa: E402
import rig  # noqa: E402
from redteam_test import Capture  # noqa: E402
from tunnel_rig import PEER, sh  # noqa: E402

SYS_PIDFD_GETFD, TUNGETVNETHDRSZ = 438, 0x800454D7
TAGS = ("vlan_tag", "service_tag")  # the kernel takes a tag off before anyone sees it
# One for each wall and word; net_redteam_test sends all of them in every run.
DEFAULT = """first_fragment later_fragment cut_ip_header dhcp_discover spoofed_source_ip spoofed_source_mac
source_route ipv6_tcp ipv6_router_advert arp_spoof_gateway arp_other_sender raw_experimental
vlan_tag""".split()

JOB = redteam_test.PRELUDE + f"""
    tcp('{PEER}', 80)
    with open('/proc/net/arp') as f:
        print("gateway", f.read().split()[-3], flush=True)
    time.sleep(100)
except OSError as e:
    print(e)
"""


class Frame:
    def __init__(self, line):
        self.name, self.rule, self.label, data = line.split(" ")
        self.bytes = bytes.fromhex(data)

    @classmethod
    def all(cls, guest, gateway):
        lines = sh(f"{rig.BUILD}/system/net_redteam_test", "frames", guest, gateway)
        return {frame.name: frame for frame in map(cls, lines.splitlines())}


def tap_of(job, daemon):
    """A copy of the descriptor of the tap that the job's qemu holds."""
    qemu, = [int(line.split()[0]) for line in rig.processes(daemon.dir)
             if "qemu-system" in line and job.id in line]
    tap, = [int(fd) for fd in os.listdir(f"/proc/{qemu}/fd")
            if os.readlink(f"/proc/{qemu}/fd/{fd}") == "/dev/net/tun"]
    pidfd = os.pidfd_open(qemu)
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, pidfd, tap, 0)
    os.close(pidfd)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return fd


def send(fd, data):
    header, = struct.unpack("i", fcntl.ioctl(fd, TUNGETVNETHDRSZ, bytes(4)))
    os.write(fd, bytes(header) + data)
    os.close(fd)


class Frames(redteam_test.Range):
    only = []

    def ready(self, provider, job):
        """The MACs of guest and gateway, once it has talked through the tunnel."""
        deadline = time.monotonic() + 90
        while True:
            words = provider.call("job.output", {"job": job.id})["data"].decode().split()
            if "gateway" in words:
                mac = words[words.index("leave") + 1]
                return ":".join(mac[i:i + 2] for i in range(0, 12, 2)), words[-1]
            if time.monotonic() > deadline:
                raise AssertionError(f"{provider.call('job.get', {'job': job.id})}: {words}")
            time.sleep(0.05)

    def one(self, name):
        """(name, what is wrong or None, milliseconds to the kill or None, what happened)"""
        with self.daemon.connect() as provider:
            job = provider.submit(script=JOB, lang="python", vpn=self.requester.vpn())
            guest, gateway = self.ready(provider, job)
            frame = Frame.all(guest, gateway)[name]
            self.macs |= {mac.replace(":", "") for mac in (guest, gateway)}
            self.macs |= {frame.bytes[6:12].hex()}
            send(tap_of(job, self.daemon), frame.bytes)
            r = job.wait(timeout=30)
            events = [e.event for e in provider.audit(job=job.id)]
        e = r.evidence or {}
        took = int(e["killed_after_us"]) / 1000 if "killed_after_us" in e else None
        return name, self.check(frame, r, e, events), took, r.text

    @staticmethod
    def check(frame, r, e, events):
        if r.state != "rogue_killed":
            return f"{r.state}: {r.text}"
        if (e["kind"], e["rule"]) != (frame.label, frame.rule):
            return f"evidence: {e}"
        packet = bytes.fromhex(e["packet"])
        if frame.name not in TAGS and (not packet or not frame.bytes.startswith(packet)):
            return f"evidence: the packet is not there: {e['packet']}"
        if not any("rogue" in event for event in events):
            return f"audit: {events}"
        return None

    def test_every_frame(self):
        # Those of a guest with IPv6 are net_redteam_test's alone: no job has such a guest.
        everything = [name for name in Frame.all("52:54:00:00:00:01", "52:54:00:00:00:02")
                      if not name.startswith("six_")]
        names = everything if self.only == ["all"] else self.only or DEFAULT
        self.assertLessEqual(set(names), set(everything))
        capture = Capture(self.carrier)
        capture.start()
        # One after the other: a key is one job's, two handshakes with it at a time drop each other.
        results = [self.one(name) for name in names]
        with self.daemon.connect() as provider:
            self.assertTrue(provider.verify_audit().intact)
        capture.finish()
        capture.tell_guests(self.macs)
        print()
        for name, wrong, took, text in results:
            print(f"   {name:28} {'WRONG' if wrong else 'killed'} {took:8} ms  {text[:90]}", flush=True)
        self.assertEqual([f"{name}: {wrong}" for name, wrong, *_ in results if wrong], [])
        self.assertEqual(capture.leaks, [])
        self.assertEqual(capture.lost, 0)
        self.assertGreater(capture.wireguard, 0)


if __name__ == "__main__":
    Frames.only = sys.argv[1:]
    del sys.argv[1:]
    rig.main("redteam_frames")
