#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""A daemon whose state directory is on a disk that fills up, or turns read-only, while it works."""
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
import omerta  # noqa: E402
from rig import until  # noqa: E402

SIZE_MIB = 100  # a daemon does not start with less than 64 free
CONFIG = "[jobs]\nmax_jobs = 2\n[store]\nwal_size = 1M\n"
NULL = CONFIG + "[vm]\ndriver = null\n"
BODY = 200_000  # of a job that is to fill the disk


class Disk(unittest.TestCase):
    def daemon(self, config, *mount):
        """Its state directory is a file system of its own."""
        self.d = rig.Daemon(config)
        self.state = f"{self.d.dir}/state"
        os.mkdir(self.state, 0o700)
        done = subprocess.run(["mount", *mount, self.state], capture_output=True, text=True)
        if done.returncode != 0:
            self.d.close()
            self.skipTest(f"no such file system here: {done.stderr.strip()}")
        self.addCleanup(self.d.close)  # the last first
        self.addCleanup(subprocess.run, ["umount", "-l", self.state])
        self.addCleanup(self.d.stop)
        return self.d.start()

    def small(self, config):
        return self.daemon(config, "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0700", "tmpfs")

    def fill(self):
        """Somebody else takes all the room that there is."""
        with open(f"{self.state}/filler", "wb", buffering=0) as f:
            for piece in (1 << 20, 4096):
                try:
                    while True:
                        f.write(bytes(piece))
                except OSError:
                    pass

    def make_room(self):
        os.unlink(f"{self.state}/filler")

    def until_refused(self, provider):
        """Submits until there is no room in what the ledger had taken beforehand either."""
        accepted = []
        refusal = None
        for size in (BODY, BODY // 10, 0):  # a small one may have room where a large one has none
            try:
                for _ in range((SIZE_MIB << 20) // BODY * 10):
                    accepted.append(provider.submit(script="true", lang="sh", hold=True,
                                                    stdin=os.urandom(size)).id)
                raise AssertionError("all were accepted, and there is no room")
            except omerta.Error as e:
                refusal = e
        return accepted, refusal

    def all_there(self, provider, accepted):
        for job in accepted:
            self.assertEqual(provider.get(job).state, "queued", job)
        self.assertTrue(provider.verify_audit().intact)
        self.assertEqual(self.d.sqlite("pragma integrity_check"), [("ok",)])

    def test_full_disk_and_room_again(self):
        d = self.small(NULL)
        with d.connect() as provider:
            self.fill()
            accepted, refusal = self.until_refused(provider)
            self.assertEqual(refusal.code, "disk")
            self.assertRegex(str(refusal), "full")
            for _ in range(3):  # it goes on to say so, and to answer questions
                with self.assertRaises(omerta.Error) as again:
                    provider.submit(script="true", lang="sh", stdin=os.urandom(BODY))
                self.assertEqual(again.exception.code, "disk")
                self.assertEqual(len(list(provider.list())), len(accepted))
            self.make_room()
            # Back by itself: nobody asks it to.
            r = provider.submit(script="true", lang="sh").wait(timeout=30)
            self.assertEqual(r.state, "completed")
            self.all_there(provider, accepted)
        d.kill9()
        d.start()
        with d.connect() as provider:
            self.all_there(provider, accepted)

    def test_no_start_on_a_full_disk(self):
        d = self.small(NULL)
        with d.connect() as provider:
            accepted = [provider.submit(script="true", lang="sh", hold=True).id for _ in range(5)]
        d.kill9()
        self.fill()
        with self.assertRaises(AssertionError) as refused:
            d.start()
        self.assertIn(f"fail  {self.state}: only 0 MiB free", str(refused.exception))
        self.assertEqual(d.process.wait(timeout=10), 1)
        d.pipes_end()
        self.make_room()
        d.start()
        with d.connect() as provider:
            self.all_there(provider, accepted)

    def qemus(self):
        return [line for line in rig.processes(self.d.dir) if "qemu-system" in line]

    def test_a_running_job_ends_and_its_end_is_recorded_when_there_is_room(self):
        d = self.small(CONFIG)
        with d.connect() as provider:
            job = provider.submit(script="echo begun; sleep 8; echo done; exit 3", lang="sh")
            until(lambda: provider.call("job.output", {"job": job.id})["data"] == b"begun\n", 90)
            self.fill()
            accepted, refusal = self.until_refused(provider)
            self.assertEqual(refusal.code, "disk")
            over = time.monotonic() + 10  # then it has ended, and that cannot be written
            while time.monotonic() < over:
                self.assertEqual(provider.get(job.id).state, "running")
                time.sleep(0.5)
            self.make_room()
            r = job.wait(timeout=60)
            self.assertEqual((r.state, r.exit_code, r.stdout), ("failed", 3, b"begun\ndone\n"), r.text)
            self.assertEqual(self.qemus(), [])
            self.all_there(provider, accepted)
            self.assertEqual(provider.submit(script="echo on", lang="sh").wait(timeout=90).stdout,
                             b"on\n")

    def test_read_only_in_the_middle(self):
        with open(f"/tmp/omerta-disk.{os.getpid()}", "wb") as image:
            self.addCleanup(os.unlink, image.name)
            image.truncate(SIZE_MIB << 20)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image.name], check=True)
        d = self.daemon(NULL, "-o", "loop,errors=remount-ro", image.name)
        with d.connect() as provider:
            accepted = [provider.submit(script="true", lang="sh", hold=True).id for _ in range(5)]
            device = os.path.basename(subprocess.run(
                ["findmnt", "-no", "SOURCE", self.state], capture_output=True, text=True,
                check=True).stdout.strip())
            with open(f"/sys/fs/ext4/{device}/trigger_fs_error", "w") as f:
                f.write("1")  # what an ext4 does that has found an error of its disk
            more, refusal = self.until_refused(provider)
            self.assertEqual((more, refusal.code), ([], "disk"))
            self.assertEqual(len(list(provider.list())), 5)
            with self.assertRaises(omerta.Error) as changed:
                provider.call("config.block", {"value": "eve"})
            self.assertEqual(changed.exception.code, "disk")
            self.assertEqual(provider.call("config.blocked")["values"], [])
        d.kill9()
        subprocess.run(["umount", self.state], check=True)
        subprocess.run(["fsck.ext4", "-p", image.name], capture_output=True)
        subprocess.run(["mount", "-o", "loop", image.name, self.state], check=True)
        d.start()
        with d.connect() as provider:
            self.all_there(provider, accepted)
            self.assertEqual(provider.submit(script="true", lang="sh").wait(timeout=30).state,
                             "completed")


if __name__ == "__main__":
    rig.main("disk")
