#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""The omertad process: start, refusals, signals, systemd's protocol, crash, neighbours."""
import glob
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
from rig import until  # noqa: E402

NULL = "[vm]\ndriver = null\n[jobs]\nmax_jobs = 2\n"  # jobs end at once, no VM
OMERTAD = f"{rig.BUILD}/omertad"


class Process(unittest.TestCase):
    def daemon(self, config=NULL, **more):
        daemon = rig.Daemon(config, **more)
        self.addCleanup(daemon.close)
        return daemon

    def omertad(self, daemon, *args, env=None, code=0):
        done = subprocess.run([OMERTAD, *args], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "OMERTAD_CONFIG": f"{daemon.dir}/omertad.conf",
                                   **(env or {})})
        if code is not None:
            self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def test_orderly_end_leaves_nothing(self):
        d = self.daemon().start()
        self.assertTrue(os.path.exists(f"{d.dir}/run/omertad.pid"))
        self.assertEqual(d.stop(), 0)
        self.assertEqual(d.left(), [])
        self.assertEqual(glob.glob(f"{d.dir}/run/*.sock"), [])
        self.assertFalse(os.path.exists(f"{d.dir}/run/omertad.pid"))

    def test_a_crash_writes_no_memory_to_disk(self):
        # Other people's private keys are in it.
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_CORE, (soft, hard))
        d = self.daemon().start()
        with open(f"/proc/{d.process.pid}/limits") as f:
            cores = [line.split()[4:6] for line in f if line.startswith("Max core file size")]
        self.assertEqual(cores, [["0", "0"]])

    def test_second_daemon_on_the_same_state_is_refused(self):
        d = self.daemon().start()
        done = self.omertad(d, "start", code=1)
        self.assertIn(f"another omertad (pid {d.process.pid}) uses {d.dir}/state", done.stderr)
        done = self.omertad(d, "start", "--state-dir", f"{d.dir}/other", code=1)
        self.assertIn(f"uses {d.dir}/run", done.stderr)
        with d.connect() as provider:  # the first one did not notice
            self.assertEqual(provider.submit(script="true", lang="sh", network="none")
                             .wait(timeout=20).state, "completed")

    def test_neighbours(self):
        a, b = self.daemon().start(), self.daemon().start()
        with a.connect() as pa, b.connect() as pb:
            ja = pa.submit(script="true", lang="sh", network="none")
            self.assertEqual(ja.wait(timeout=20).state, "completed")
            self.assertEqual(list(pb.list()), [])
        self.assertEqual(a.stop(), 0)
        with b.connect() as pb:
            self.assertEqual(pb.submit(script="true", lang="sh", network="none")
                             .wait(timeout=20).state, "completed")

    def test_bad_configuration_is_refused_with_line_and_suggestion(self):
        d = self.daemon("[jobs]\nmax_job = 2\n[vm]\ndriver = nul\n")
        d.write_config()
        done = self.omertad(d, "start", code=1)
        self.assertIn("omertad.conf:5: unknown setting jobs.max_job; did you mean jobs.max_jobs?",
                      done.stderr)
        self.assertIn("omertad.conf:7: vm.driver: 'nul' is none of", done.stderr)
        self.omertad(d, "config", "check", f"{d.dir}/omertad.conf", code=1)
        checked = json.loads(self.omertad(d, "config", "check", "--json", f"{d.dir}/omertad.conf",
                                          code=1).stdout)
        self.assertEqual((checked["ok"], len(checked["problems"])), (False, 2))
        self.assertIn("jobs.max_job", checked["problems"][0])
        made = json.loads(self.omertad(d, "config", "generate", "--json").stdout)
        self.assertIn("jobs.max_jobs", [s["key"] for s in made["settings"]])

    def test_start_tells_all_that_is_missing(self):
        d = self.daemon(f"[vm]\nimage_dir = /nonexistent\n[libvirt]\nuri = test:///nonexistent\n"
                        "private = no\n")
        d.write_config()
        done = self.omertad(d, "start", code=1)
        self.assertRegex(done.stdout, r"fail +libvirt: ")
        self.assertRegex(done.stdout, r"fail +guest image: ")
        self.assertIn("-> build it with: make image", done.stdout)
        self.assertIn("2 of", done.stderr)
        report = json.loads(self.omertad(d, "doctor", "--json", code=1).stdout)
        levels = {c["name"]: c["level"] for c in report["checks"]}
        self.assertEqual((levels["libvirt"], levels["image"], levels["config"]),
                         ("fail", "fail", "ok"))
        self.assertFalse(report["ok"])

    def test_flags_and_environment_beat_the_file(self):
        d = self.daemon()
        d.write_config()
        done = self.omertad(d, "config", "show", "--origin", env={"OMERTAD_MAX_JOBS": "5"})
        self.assertRegex(done.stdout, r"max_jobs = 5 +# environment OMERTAD_MAX_JOBS")
        done = self.omertad(d, "config", "show", "--origin", "--max-jobs", "6",
                            env={"OMERTAD_MAX_JOBS": "5"})
        self.assertRegex(done.stdout, r"max_jobs = 6 +# flag --max-jobs")
        self.omertad(d, "config", "show", env={"OMERTAD_MAX_JBS": "5"}, code=1)

    def value(self, provider, key):
        return {e["key"]: e["value"] for e in provider.call("config.show")["entries"]}[key]

    def test_hup_reloads(self):
        d = self.daemon().start()
        with d.connect() as provider:
            d.config = NULL.replace("max_jobs = 2", "max_jobs = 3")
            d.write_config()
            d.process.send_signal(signal.SIGHUP)
            until(lambda: self.value(provider, "jobs.max_jobs") == "3")
            until(lambda: provider.call("queue.stats")["max_jobs"] == 3)

    def test_hup_takes_rules_and_lists(self):
        d = self.daemon().start()
        with d.connect() as provider:
            provider.block("zoe")
            d.config = NULL + "blocked_peers = eve\n[rule small]\nkind = resources\nmax_cores = 1\n"
            d.write_config()
            d.process.send_signal(signal.SIGHUP)
            until(lambda: [r.name for r in provider.rules()] == ["small"])
            self.assertEqual(sorted(provider.blocked()), ["eve", "zoe"])
            self.assertEqual(provider.test_rules("bob", cores=2).rule, "small")
            self.assertEqual(provider.test_rules("eve").reason, "peer_blocked")
            d.config = d.config.replace("small", "large")
            d.write_config()
            done = self.omertad(d, "config", "reload")
            self.assertIn('rule "large": added\nrule "small": removed', done.stdout)
            details = [e.details for e in provider.audit() if e.event == "config_changed"]
            self.assertEqual(details[1:], ['blocked peer "eve": added, rule "small": added',
                                           'rule "large": added, rule "small": removed'])
            self.assertEqual(provider.reload_config(), [])

    def test_many_moved_jobs_come_back(self):
        # BUG: they were all given to the queue at once, whose mailbox was full then, and no start got ready.
        d = self.daemon().start()
        with d.connect() as provider:
            provider.pause("so that they wait")
            job = {"lang": "sh", "script": b"x", "network": "none"}
            ids = []
            for _ in range(20):
                ids += [j.id for j in provider.submit_batch([job] * 1000)]
        self.assertEqual(d.stop(), 0)
        subprocess.run(["sqlite3", d.ledger, "update job set rank = 1000000000000 - rank"], check=True)
        d.start()
        with d.connect() as provider:
            self.assertEqual(provider.call("queue.stats")["queued"], len(ids))
            self.assertNotIn("provider.recover", "".join(d.log) + d.tail())
            provider.resume()
            until(lambda: provider.call("queue.stats")["queued"] == 0)

    def test_set_is_durable(self):
        d = self.daemon().start()
        self.omertad(d, "config", "set", "daemon.drain_timeout", "7s")
        self.assertEqual(d.stop(), 0)
        done = self.omertad(d, "config", "show", "--origin")
        self.assertRegex(done.stdout, r"drain_timeout = 7s +# .*/state/live.conf:")

    @unittest.skipIf(rig.BUILD.endswith("-tsan"), "ThreadSanitizer has a thread that wakes up by itself")
    def test_no_wake_ups_when_idle(self):
        d = self.daemon().start()

        def switches():
            total = 0
            for path in glob.glob(f"/proc/{d.process.pid}/task/*/status"):
                with open(path) as f:
                    total += sum(int(line.split()[1]) for line in f
                                 if line.startswith("voluntary_ctxt"))
            return total

        # What the start asked for has time-outs; when they are over each service looks once.  So a
        # silence is awaited: what comes again and again leaves none that is longer than its period.
        before, since, began = switches(), time.monotonic(), time.monotonic()
        while time.monotonic() - since < 7:
            time.sleep(0.1)
            now = switches()
            if now != before:
                before, since = now, time.monotonic()
            self.assertLess(since - began, 60, "never silent for 7 s")

    def test_systemd_protocol(self):
        d = self.daemon()
        path = f"{d.dir}/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(path)
            s.settimeout(20)
            os.environ["NOTIFY_SOCKET"] = path
            os.environ["WATCHDOG_USEC"] = "400000"
            try:
                d.start()
            finally:
                del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
            self.assertIn(b"READY=1", s.recv(4096))
            self.assertEqual(s.recv(4096), b"WATCHDOG=1")
            self.assertEqual(s.recv(4096), b"WATCHDOG=1")
            d.process.terminate()
            text = b"WATCHDOG=1"
            while text == b"WATCHDOG=1":
                text = s.recv(4096)
            self.assertIn(b"STOPPING=1", text)
            d.stop()

    def test_other_users_are_requesters(self):
        d = self.daemon(NULL + "[control]\nsocket_group = nogroup\n").start()
        env = {"OMERTA_ENDPOINT": d.endpoint, "PATH": "/usr/bin:/bin", "HOME": "/",
               "TSAN_OPTIONS": os.environ.get("TSAN_OPTIONS", "")}
        omerta = f"{rig.BUILD}/omerta"
        if subprocess.run(["test", "-x", omerta], user=65534, group=65534).returncode != 0:
            self.skipTest("the build directory is closed to other users")

        def ask(*args):
            return subprocess.run([omerta, *args], env=env, user=65534, group=65534,
                                  extra_groups=[], capture_output=True, text=True, timeout=30)
        self.assertEqual(ask("ping").returncode, 0)
        self.assertEqual(ask("stop").returncode, 77)
        with d.connect() as provider:
            theirs = provider.submit(script="true", lang="sh", network="none")
            theirs.wait(timeout=20)
        self.assertNotIn(theirs.id, ask("list", "--json").stdout)
        self.assertNotEqual(ask("show", theirs.id).returncode, 0)


class Machine(unittest.TestCase):
    """With real VMs."""

    def running(self, d, provider):
        job = provider.submit(script="echo here; sleep 300", lang="sh", network="none")
        until(lambda: provider.call("job.output", {"job": job.id})["data"] == b"here\n", 90)
        return job

    def test_second_term_is_at_once(self):
        d = rig.Daemon("[jobs]\nmax_jobs = 2\n[daemon]\ndrain_timeout = 10m\n").start()
        self.addCleanup(d.close)
        with d.connect() as provider:
            self.running(d, provider)
            d.process.terminate()
            until(lambda: provider.call("daemon.status")["state"] == "draining")
            self.assertIsNone(d.process.poll())
        d.process.terminate()
        self.assertEqual(d.process.wait(timeout=40), 0)
        self.assertEqual(d.left(), [])

    def test_kill_9_and_start_again(self):
        d = rig.Daemon("[jobs]\nmax_jobs = 1\n").start()
        self.addCleanup(d.close)
        with d.connect() as provider:
            job = self.running(d, provider)
            waiting = provider.submit(script="echo later", lang="sh", network="none")
        d.kill9()
        # Its socket is still there; it answers nobody, and the files are shown.
        shown = subprocess.run([OMERTAD, "config", "show"], capture_output=True, text=True, timeout=60,
                               env={**os.environ, "OMERTAD_CONFIG": f"{d.dir}/omertad.conf"})
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertIn("max_jobs = 1", shown.stdout)
        d.start()
        self.assertEqual(glob.glob(f"{d.dir}/run/jobs/{job.id}"), [])
        with d.connect() as provider:
            self.assertEqual(provider.call("job.get", {"job": job.id})["state"], "lost")
            end = provider.call("job.wait", {"job": waiting.id}, timeout=120)
            self.assertEqual((end["state"], end["exit_code"]), ("completed", 0))
        self.assertEqual(d.stop(), 0)
        self.assertEqual(d.left(), [])


if __name__ == "__main__":
    rig.main("daemon_life")
