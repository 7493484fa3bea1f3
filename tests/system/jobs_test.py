#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Jobs in real VMs through a real daemon: what goes in, what comes out, and what a limit does."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
import omerta  # noqa: E402


DATA = os.urandom(300000)
AT_ONCE_NS = 20_000_000  # a VM's boot takes a hundred times as long

# Submitted before the first test begins, so that two run at a time while the tests take them in turn:
# jobs that cannot disturb each other.
EARLY = {
    "test_arguments_environment_stdin": dict(
        script="import os,sys; print(sys.argv[1:], os.environ['WHO'], sys.stdin.read())",
        lang="python", args=["a b", "--c"], env={"WHO": "me"}, stdin=b"in"),
    "test_exit_code": dict(script="exit 42"),
    "test_files_in_and_out": dict(
        script="sha256sum data.bin > sum.txt; tr a-z A-Z < sub/small.txt > big.txt",
        files={"data.bin": DATA, "sub/small.txt": b"abc"},
        outputs=["sum.txt", "big.txt", "missing.txt"]),
    "test_measurements_are_real": dict(
        script="x = bytearray(60_000_000)\nfor i in range(300000): pass", lang="python"),
    "test_no_network_card": dict(script="ls /sys/class/net"),
    "test_output_forged_by_the_job_is_only_output": dict(
        script="printf '=== WORKLOAD OUTPUT END ===\\nOMERTA_EXIT_CODE:0\\n'; exit 7"),
    "test_signal": dict(script="kill -SEGV $$"),
    "test_simple_echo_execution": dict(script="echo Hello from Omerta VM"),
    "test_streams_are_separate_and_binary": dict(
        script="import sys; sys.stdout.buffer.write(bytes(range(256)));"
               "sys.stderr.write('err\\n')", lang="python"),
    "test_unknown_interpreter": dict(script="x", lang="cobol"),
}


class Jobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = rig.Daemon("[jobs]\nmax_jobs = 2\ntrusted_networks = home\n").start()
        cls.provider = cls.daemon.connect()
        cls.early = {name: cls.provider.submit(**{"lang": "sh", "network": "none", **job})
                     for name, job in EARLY.items()}

    @classmethod
    def tearDownClass(cls):
        cls.provider.close()
        code = cls.daemon.stop()
        left = cls.daemon.left()
        cls.daemon.close()
        assert code == 0, f"exit status {code}"
        assert not left, left

    def result(self):
        """Of the test's own job among the early ones."""
        return self.early[self._testMethodName].wait(timeout=180)

    def run_job(self, script, lang="sh", **more):
        more.setdefault("network", "none")
        return self.provider.submit(script=script, lang=lang, **more).wait(timeout=180)

    def test_simple_echo_execution(self):
        r = self.result()
        self.assertEqual((r.state, r.exit_code, r.stdout), ("completed", 0, b"Hello from Omerta VM\n"))
        self.assertGreater(r.wall_seconds, 0)

    def test_exit_code(self):
        r = self.result()
        self.assertEqual((r.state, r.exit_code, r.reason), ("failed", 42, "exit_code"))

    def test_signal(self):
        r = self.result()
        self.assertEqual((r.state, r.signal), ("failed", 11))

    def test_streams_are_separate_and_binary(self):
        r = self.result()
        self.assertEqual((r.stdout, r.stderr), (bytes(range(256)), b"err\n"))

    def test_arguments_environment_stdin(self):
        r = self.result()
        self.assertEqual(r.stdout, b"['a b', '--c'] me in\n")

    def test_files_in_and_out(self):
        r = self.result()
        self.assertEqual(r.state, "completed", r.text)
        self.assertEqual(r.file("big.txt"), b"ABC")
        import hashlib
        self.assertTrue(r.file("sum.txt").startswith(hashlib.sha256(DATA).hexdigest().encode()))
        self.assertEqual(r.files_missing, {"missing.txt": "No such file or directory"})

    def test_measurements_are_real(self):
        r = self.result()
        self.assertEqual(r.state, "completed", r.text)
        self.assertGreater(r.mem_peak_kib, 55_000)
        self.assertLess(r.mem_peak_kib, 200_000)
        self.assertGreater(r.cpu_seconds, 0.02)
        self.assertLess(r.cpu_seconds, r.wall_seconds * 1.5)

    def test_unknown_interpreter(self):
        r = self.result()
        self.assertEqual(r.state, "failed")
        self.assertIn("cobol", r.text)

    def test_no_network_card(self):
        r = self.result()
        self.assertEqual(r.stdout.split(), [b"lo"])

    def test_runtime_limit_keeps_the_partial_output(self):
        r = self.run_job("echo before; sleep 1000", timeout=2)
        self.assertEqual((r.state, r.reason, r.stdout), ("timed_out", "runtime_limit", b"before\n"))

    def test_cancel_of_a_running_job(self):
        job = self.provider.submit(script="echo started; sleep 1000", lang="sh", network="none")
        for line in job.lines():
            self.assertEqual(line.strip(), "started")
            break
        job.cancel(grace=1, reason="no longer needed")
        r = job.wait(timeout=60)
        self.assertEqual((r.state, r.stdout), ("cancelled", b"started\n"))
        self.assertIn("no longer needed", r.text)

    def test_cancel_without_a_grace_lets_the_job_say_goodbye(self):
        job = self.provider.submit(script="trap 'echo bye; exit 9' TERM; echo started; "
                                          "while :; do sleep 0.1; done", lang="sh", network="none")
        for line in job.lines():
            self.assertEqual(line.strip(), "started")
            break
        job.cancel()
        r = job.wait(timeout=60)
        self.assertEqual((r.state, r.stdout, r.exit_code), ("cancelled", b"started\nbye\n", 9))

    def test_output_forged_by_the_job_is_only_output(self):
        r = self.result()
        self.assertEqual((r.state, r.exit_code), ("failed", 7))

    # --- scripts that try to harm ---------------------------------------------------------------

    def assert_next_job_is_fine(self):
        r = self.run_job("echo fine")
        self.assertEqual((r.state, r.stdout), ("completed", b"fine\n"))

    def test_fork_bomb(self):
        r = self.run_job("b() { b | b & }; b; sleep 5; exit 3", timeout=20)
        self.assertIn(r.state, ("failed", "timed_out"), r.text)
        self.assert_next_job_is_fine()

    def test_endless_output_is_counted_and_dropped(self):
        r = self.run_job("yes", timeout=3, output_max=100000)
        self.assertEqual(r.state, "timed_out", r.text)
        self.assertLessEqual(len(r.stdout), 100000)
        self.assertGreater(len(r.stdout), 30000)
        self.assertGreater(r.output_dropped, 0)
        self.assert_next_job_is_fine()

    def test_full_disk(self):
        r = self.run_job("dd if=/dev/zero of=fill bs=1M count=500; exit $?", disk_mib=64)
        self.assertEqual(r.state, "failed", r.text)
        self.assertIn(b"No space left", r.stderr)
        self.assert_next_job_is_fine()

    def test_out_of_memory(self):
        r = self.run_job("x = []\nwhile True: x.append(bytearray(10_000_000))", lang="python",
                         memory_mib=192, timeout=60)
        self.assertEqual(r.state, "failed", r.text)

    def test_kill_the_agent(self):
        r = self.run_job("kill -9 1 2>&1; for p in /proc/[0-9]*; do kill -9 ${p#/proc/} 2>/dev/null; "
                         "done; echo survived", timeout=20)
        self.assertIn(r.state, ("failed", "completed", "timed_out"), r.text)
        self.assert_next_job_is_fine()

    # --- order and concurrency, proven from the ledger --------------------------------------------

    def test_twenty_jobs_of_mixed_priority_two_at_a_time(self):
        """Order, concurrency and results, as sqlite3 reads them from the ledger."""
        who = [{}, {"on_behalf": "bob", "network_id": "home"}, {"on_behalf": "eve", "network_id": "cafe"}]
        self.provider.pause("collecting")
        jobs = [self.provider.submit(script=f"echo {n}", lang="sh", **who[(n * 7) % 3])
                for n in range(20)]
        self.provider.approve(*[j for j in jobs if j.state == "pending_approval"])
        self.provider.resume()
        for n, job in enumerate(jobs):
            self.assertEqual(job.wait(timeout=300).stdout, b"%d\n" % n)
        ids = ",".join(f"'{j.id}'" for j in jobs)
        rows = self.daemon.sqlite("select id, level, picked, finished, state, exit_code from job "
                                  f"where id in ({ids}) order by picked, seq")
        self.assertEqual({r[4:] for r in rows}, {("completed", "0")})
        want = [j.id for level in (0, 1, 2) for n, j in enumerate(jobs) if (n * 7) % 3 == level]
        # Two that the queue gave out at once are written by two actors, in either order.
        for i in range(len(rows) - 1):
            if rows[i][0] == want[i + 1] and int(rows[i + 1][2]) - int(rows[i][2]) < AT_ONCE_NS:
                rows[i], rows[i + 1] = rows[i + 1], rows[i]
        self.assertEqual([r[0] for r in rows], want)
        self.assertEqual([int(r[1]) for r in rows], [100] * 7 + [50] * 7 + [10] * 6)
        for _, _, start, _, _, _ in rows:
            at_once = sum(1 for r in rows if int(r[2]) <= int(start) < int(r[3]))
            self.assertLessEqual(at_once, 2)


if __name__ == "__main__":
    rig.main("jobs")
