#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Orderly ends with many running jobs: each is recorded, and nothing is left of it."""
import os
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402

JOBS = 12  # more than a pool of offload threads does at once
CONFIG = f"""[jobs]
max_jobs = {JOBS}
lend_cores = {JOBS}
lend_memory = {JOBS * 128}M
[vm]
boot_timeout = 5m
"""
OMERTAD = f"{rig.BUILD}/omertad"


class Stop(unittest.TestCase):
    def setUp(self):
        self.d = rig.Daemon(CONFIG)
        self.addCleanup(self.d.close)
        self.d.start()

    def submit(self, jobs):
        self.jobs = jobs
        with self.d.connect() as provider:
            for n in range(jobs):
                provider.submit(script="sleep 1000", lang="sh", network="none", memory_mib=128,
                                disk_mib=16, job=f"job{n}")
        self.until(lambda: self.count("running") >= 1 and self.count("queued") == 0)

    def until(self, what, seconds=120):
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                raise AssertionError("it did not happen in time")
            time.sleep(0.05)

    def count(self, state):
        return int(self.d.sqlite(f"SELECT count(*) FROM jobs WHERE state = '{state}'")[0][0])

    def stop(self, *args):
        subprocess.run([OMERTAD, "stop", *args], check=True, timeout=60, capture_output=True,
                       env={**os.environ, "OMERTAD_CONFIG": f"{self.d.dir}/omertad.conf"})

    def assert_all_were_ended(self):
        self.assertEqual(self.d.process.wait(timeout=60), 0)
        self.assertEqual(self.d.sqlite("SELECT state, reason, count(*) FROM jobs GROUP BY 1, 2"),
                         [("cancelled", "daemon_stopping", str(self.jobs))])
        self.assertEqual(self.d.left(), [])

    def test_deadline_of_a_drain(self):
        self.submit(JOBS)
        self.stop("--timeout", "1s")
        self.assert_all_were_ended()

    def test_second_signal(self):
        self.submit(2)
        self.d.process.send_signal(signal.SIGTERM)
        self.until(lambda: "draining" in self.status())
        self.assertGreater(self.count("running"), 0)  # one alone waits for them
        self.d.process.send_signal(signal.SIGTERM)
        self.assert_all_were_ended()

    def status(self):
        with self.d.connect() as provider:
            return str(provider.status())

    def test_a_second_stop_gives_more_time(self):
        self.submit(2)
        self.stop("--timeout", "1m")
        self.stop("--timeout", "10m")
        time.sleep(2)  # the time that the first answer would have taken
        self.assertIsNone(self.d.process.poll())
        self.assertGreater(self.count("running"), 0)
        self.stop("--now")
        self.assert_all_were_ended()


if __name__ == "__main__":
    rig.main("stop")
