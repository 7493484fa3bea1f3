#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""What jobs wait for, attempts, holds, moves, pauses, approval, purging and the rules' trace, through a
real daemon: most of it with the null driver, two short cases of failing jobs in real VMs."""
import json
import os
import re
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
import omerta  # noqa: E402

NULL = """[vm]
driver = null
[jobs]
max_jobs = 1
lend_cores = 16
trusted_networks = home
[rule small]
kind = resources
max_cores = 4
"""
BOB = {"on_behalf": "bob", "network_id": "home"}
EVE = {"on_behalf": "eve", "network_id": "cafe"}


def almost_always():
    """Quiet hours of a whole day but for a minute, which is not this one."""
    end = time.time() + 7200
    return {"start": time.strftime("%H:%M", time.gmtime(end + 60)),
            "end": time.strftime("%H:%M", time.gmtime(end)), "zone": "utc"}


def names(rows):
    return [r[0] for r in rows]


class Base(unittest.TestCase):
    config = NULL

    def setUp(self):
        self.daemon = rig.Daemon(self.config).start()
        self.p = self.daemon.connect()

    def tearDown(self):
        self.p.close()
        self.daemon.close()

    def submit(self, job=None, **kw):
        return self.p.submit("true", "sh", job=job, network="none", **kw)

    def crash_and_start(self):
        self.p.close()
        self.daemon.kill9()
        self.daemon.start()
        self.p = self.daemon.connect()

    def cli(self, *args):
        out = subprocess.run([f"{rig.BUILD}/omerta", "--endpoint", self.daemon.endpoint, *args],
                             capture_output=True, text=True, timeout=60)
        return out.returncode, out.stdout, out.stderr

    def wait_state(self, job, *states):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            row = self.p.get(job)
            if row.state in states:
                return row
            time.sleep(0.05)
        self.fail(f"{job} is {self.p.get(job).state}, not {states}")


class Policy(Base):
    def test_pause_holds_and_moves_survive_a_kill(self):
        self.p.pause("new disk")
        for n in range(5):
            self.submit(f"q{n}", **BOB)
        self.assertEqual(self.p.move("q3", to="front"), 1)
        self.assertEqual(self.p.move("q0", to="back"), 1)
        self.assertEqual(self.p.move("q4", level="owner"), 1)
        self.assertEqual(self.p.hold("q1"), 1)
        self.crash_and_start()
        state = self.p.queue()
        self.assertEqual((state.paused, state.pause_reason, state.held), (True, "new disk", 1))
        self.assertTrue(self.p.get("q1").held)
        self.p.resume()
        for n in (0, 2, 3, 4):
            self.assertEqual(self.p.wait(f"q{n}", timeout=30).state, "completed")
        order = names(self.daemon.sqlite("select id from job where picked is not null order by picked"))
        self.assertEqual(order, ["q4", "q3", "q2", "q0"])
        self.assertEqual(self.p.get("q1").state, "queued")
        self.p.release("q1")
        self.assertEqual(self.p.wait("q1", timeout=30).state, "completed")
        self.crash_and_start()
        self.assertFalse(self.p.queue().paused)

    def test_arrays(self):
        self.p.pause("collecting")
        array = self.submit("a", array="0-19:2,5%3")
        self.assertEqual((array.id, array.accepted.array), ("a", 11))
        plain = self.submit("a_x")
        self.assertEqual([r.array_index for r in array.rows()], [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 5])
        self.assertEqual({(r.array, r.array_limit, r.state) for r in array.rows()}, {("a", 3, "queued")})
        again = self.submit("a", array="0-19:2,5%3")
        self.assertTrue(again.accepted.duplicate)
        with self.assertRaises(omerta.Error) as caught:
            self.submit("a", array="0-3")  # some of them are there: not one is written
        self.assertEqual(caught.exception.code, "exists")
        with self.assertRaises(omerta.Invalid):
            self.submit("b", array="3-1")
        self.assertEqual(self.daemon.sqlite("select count(*) from job"), [("12",)])
        self.assertEqual(self.p.cancel("a_18"), 1)
        self.crash_and_start()
        array = self.p.array("a")
        self.assertEqual(array.hold(), 10)
        self.assertEqual(array.release(), 10)
        with self.assertRaises(omerta.Invalid) as caught:
            self.p.get("a")
        self.assertEqual(caught.exception.details["array"], "a")
        self.p.resume()
        self.assertEqual([r.state for r in array.wait(timeout=30)], 9 * ["completed"] + ["cancelled", "completed"])
        status, out, _ = self.cli("list", "--array", "a")
        self.assertEqual(out.splitlines()[0].split("\t")[0], "a_0")
        self.assertEqual(len(out.splitlines()), 11)
        status, out, _ = self.cli("show", "a")
        self.assertIn("11 jobs: 10 completed, 1 cancelled", out)
        self.assertEqual(self.cli("wait", "-q", "a")[0], 125)
        self.assertEqual(self.p.wait(plain.id, timeout=30).state, "completed")
        with self.assertRaises(omerta.Error) as caught:
            array.cancel()
        self.assertEqual(caught.exception.code, "wrong_state")
        self.assertEqual(self.p.purge("a"), 11)
        self.assertEqual(self.daemon.sqlite("select id from job"), [("a_x",)])

    def test_an_array_is_decided_as_a_whole(self):
        self.p.add_rule("few", "concurrency", max=5)
        with self.assertRaises(omerta.Rejected):
            self.submit("big", array="0-5", **BOB)
        self.assertEqual(self.daemon.sqlite("select id, state from job"), [("big", "rejected")])
        self.assertEqual(len(self.submit("fits", array="0-4", **BOB).wait(timeout=30)), 5)
        held = self.submit("held", array="1-3", **EVE)
        self.assertEqual({r.state for r in held.rows()}, {"pending_approval"})
        self.assertEqual(self.p.approve("held"), 3)
        self.assertEqual({r.state for r in held.wait(timeout=30)}, {"completed"})

    def test_a_thousand_jobs_in_an_array(self):
        status, out, err = self.cli("submit", "--lang", "sh", "--network", "none", "--array", "0-999%10",
                                    "--wait", "--json", "/dev/null")
        self.assertEqual((status, err), (0, ""))
        rows = json.loads(out)["jobs"]
        self.assertEqual([r["array_index"] for r in rows], list(range(1000)))
        self.assertEqual({r["state"] for r in rows}, {"completed"})

    def test_quiet_hours_hold_starts_over_a_kill(self):
        self.p.add_rule("night", "quiet_hours", action="low_priority", jobs="no_starts", **almost_always())
        bob = self.submit("bob", **BOB)
        self.assertEqual(self.submit("mine").wait(timeout=30).state, "completed")  # the owner's
        self.crash_and_start()
        self.assertEqual(self.submit("mine2").wait(timeout=30).state, "completed")
        self.assertEqual(self.p.get(bob.id).state, "queued")
        self.assertEqual(self.p.queue().levels["external"], "1")
        with self.assertRaises(omerta.Invalid):
            self.p.change_rule("night", "quiet_hours", jobs="sleep", **almost_always())
        self.p.remove_rule("night")
        self.assertEqual(self.p.wait(bob.id, timeout=30).state, "completed")

    def test_settings_change_at_once_and_survive_a_kill(self):
        self.p.pause()
        self.assertEqual(self.submit("held", **EVE).accepted.state, "pending_approval")
        for key, value in (("default_action", "accept_everyone"), ("peer_max", "2"), ("queue_max", "4"),
                           ("age_after", "1h"), ("approval_expiry", "7d")):
            status, out, err = self.cli("config", "set", f"jobs.{key}", value)
            self.assertEqual((status, err), (0, ""))
            self.assertIn("in force and kept", out)
        for life in range(2):
            accepted = self.submit(f"eve{life}", **{**EVE, "on_behalf": f"eve{life}"}).accepted
            self.assertEqual((accepted.state, accepted.level), ("queued", "external"))
            if life == 0:
                self.crash_and_start()
        self.submit("one", **BOB)
        with self.assertRaises(omerta.Busy) as caught:
            self.submit("two", **BOB)
        self.assertEqual(caught.exception.code, "full")
        self.p.cancel("eve0")
        self.submit("two", **BOB)
        self.p.cancel("eve1")
        with self.assertRaises(omerta.Busy) as caught:
            self.submit("three", **BOB)
        self.assertEqual(caught.exception.code, "limit")

    def test_metrics(self):
        self.p.add_rule("none", "peers", block="mallory", action="reject")
        for n in range(3):
            self.submit(f"m{n}").wait(timeout=30)
        with self.assertRaises(omerta.Rejected):
            self.submit(on_behalf="mallory")
        self.p.pause()
        self.submit("waits", **BOB)
        status, text, err = self.cli("metrics")
        self.assertEqual((status, err), (0, ""))
        values, types = {}, {}
        for line in text.splitlines():  # the grammar of the format, as a scraper reads it
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.assertNotIn(name, types)
                types[name] = kind
            elif not line.startswith("# HELP "):
                series = re.fullmatch(r'(omertad_[a-z0-9_]+)(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"]*")*\})? ([0-9.e+-]+)', line)
                self.assertIsNotNone(series, line)
                base = re.sub("_(bucket|sum|count)$", "", series[1]) if "commit_seconds" in line else series[1]
                self.assertIn(base, types)
                self.assertNotIn(series[1] + (series[2] or ""), values)
                values[series[1] + (series[2] or "")] = float(series[4])
        self.assertEqual(values['omertad_jobs_total{state="completed"}'], 3)
        self.assertEqual(values['omertad_jobs_total{state="rejected"}'], 1)
        self.assertEqual(values["omertad_job_starts_total"], 3)
        self.assertEqual(values["omertad_rogue_kills_total"], 0)
        self.assertEqual(values['omertad_queue_ready_jobs{level="network"}'], 1)
        self.assertEqual(values['omertad_queue_ready_jobs{level="owner"}'], 0)
        self.assertEqual(values["omertad_queue_paused"], 1)
        self.assertEqual(values['omertad_filter_decisions_total{verdict="rejected"}'], 1)
        commits = values["omertad_store_commit_seconds_count"]
        self.assertGreaterEqual(commits, 3)
        self.assertEqual(values['omertad_store_commit_seconds_bucket{le="+Inf"}'], commits)
        self.assertGreater(values["omertad_store_used_bytes"], 0)
        self.assertIn('omertad_actor_mailbox_depth{actor="ledger"}', values)
        self.assertEqual(self.p.metrics().splitlines()[0], text.splitlines()[0])

    def test_jobs_wait_for_others(self):
        self.p.pause("collecting")
        self.submit("a")
        self.submit("b", after=["a"])
        self.submit("c", after=["a", "b"])
        self.submit("gone")
        self.submit("d", after=["gone"])
        self.submit("e", after=["gone"], after_any=True)
        self.assertEqual(self.p.get("b").reason, "dependency")
        self.assertEqual(self.p.cancel("gone"), 1)
        row = self.wait_state("d", "failed")
        self.assertEqual(row.reason, "dependency_failed")
        self.assertIn("gone", row.text)
        with self.assertRaises(omerta.NotFound):
            self.submit("x", after=["nobody"])
        with self.assertRaises(omerta.Invalid):
            self.submit("x", after=["x"])
        self.crash_and_start()
        self.p.resume()
        for job in ("a", "b", "c", "e"):
            self.assertEqual(self.p.wait(job, timeout=30).state, "completed")
        order = names(self.daemon.sqlite("select id from job where picked is not null order by picked"))
        self.assertLess(order.index("a"), order.index("b"))
        self.assertLess(order.index("b"), order.index("c"))

    def test_approval(self):
        jobs = [self.submit(f"h{n}", **EVE) for n in range(3)]
        self.assertEqual({j.state for j in jobs}, {"pending_approval"})
        self.crash_and_start()
        self.assertEqual({r.job for r in self.p.pending()}, {"h0", "h1", "h2"})
        heard = {}

        def listen(job):
            with self.daemon.connect() as provider:
                heard[job] = [(r.state, r.text) for r in
                              provider.job(job).changes("pending_approval", timeout=30)]
        threads = [threading.Thread(target=listen, args=(job,)) for job in ("h0", "h1")]
        for thread in threads:
            thread.start()
        self.assertEqual(self.p.deny("h1", reason="not today"), 1)
        self.assertEqual(self.p.get("h1").text, "not today")
        self.assertEqual(self.p.approve("h0", always="network"), 1)
        self.assertEqual(self.p.wait("h0", timeout=30).state, "completed")
        for thread in threads:
            thread.join()
        self.assertEqual(heard["h1"], [("denied", "not today")])
        self.assertEqual(heard["h0"][-1][0], "completed")
        self.assertEqual(self.submit("h3", **EVE).wait(timeout=30).state, "completed")

    def test_batch_usage_and_purge(self):
        bodies = [{"lang": "sh", "script": b"true", "network": "none", "job": f"m{n}"} for n in range(200)]
        bodies.append({"lang": "sh", "script": b"true", "network": "none", "cores": 250})
        results = self.p.submit_batch(bodies)
        self.assertEqual(len(results), 201)
        self.assertIsInstance(results[200], omerta.Rejected)
        for job in results[:200]:
            self.assertEqual(job.wait(timeout=60).state, "completed")
        owner = [e for e in self.p.usage().levels if e["name"] == "owner"][0]
        self.assertEqual(owner["completed"], 200)
        self.assertGreaterEqual(owner["wait_p99_ms"], owner["wait_p50_ms"])
        self.assertEqual(self.p.purge("m0", "m1"), 2)
        with self.assertRaises(omerta.NotFound):
            self.p.get("m0")
        self.assertEqual(self.p.purge(states=["completed"]), 198)
        self.assertEqual(self.daemon.sqlite("select count(*) from job where state='completed'"), [("0",)])
        self.assertEqual(self.cli("audit", "verify")[0], 0)

    def test_the_command_line_has_the_verbs(self):
        self.p.pause()
        self.submit("abc1")
        self.submit("abc2")
        self.assertEqual(self.cli("move", "abc2", "--to", "front")[0], 0)
        self.assertEqual(self.cli("move", "abc2")[0], 2)
        status, _, err = self.cli("show", "abc")
        self.assertNotEqual(status, 0)
        self.assertIn("abc1", err)
        with self.assertRaises(omerta.Invalid) as caught:
            self.p.get("abc")
        self.assertEqual(caught.exception.details["candidates"].split(), ["abc1", "abc2"])
        for verb in (self.p.cancel, self.p.hold, self.p.release, self.p.move, self.p.retry, self.p.approve,
                     self.p.wait):
            with self.assertRaises(omerta.Invalid) as caught:
                verb("abc", **({"to": "front"} if verb == self.p.move else {}))
            self.assertEqual(caught.exception.details["candidates"].split(), ["abc1", "abc2"])
        self.submit("abc")  # a whole id is meant, however many begin so
        self.assertEqual(self.p.hold("abc"), 1)
        self.assertEqual(self.p.purge("abc") if self.p.cancel("abc") == 1 else 0, 1)
        self.p.cancel("abc1")
        status, out, _ = self.cli("purge", "--state", "cancelled", "--json")
        self.assertIn('"count": 1', out.replace('":1', '": 1'))
        status, out, _ = self.cli("queue", "usage")
        self.assertEqual(status, 0)
        self.assertIn("owner", out)

    def test_rules_test_tells_the_whole_trace(self):
        path = f"{self.daemon.dir}/job"
        with open(path, "w") as f:
            f.write("from = eve\nnetwork = cafe\ncores = 8\n")
        before = self.p.call("filter.stats")["evaluated"]
        status, out, err = self.cli("rules", "test", path)
        self.assertEqual(status, 0, err)
        self.assertIn("small", out)
        self.assertIn("hit", out)
        self.assertIn("=> rejected", out)
        self.assertEqual(self.p.call("filter.stats")["evaluated"], before)  # it decides nothing
        status, out, _ = self.cli("rules", "test", path, "--cores", "2")
        self.assertIn("=> pending_approval", out)


class Attempts(Base):
    config = "[jobs]\nmax_jobs = 2\ntrusted_networks = home\n"

    def output(self, job):
        return b"".join(self.p.output(job)).decode()

    def wait_output(self, job, at_least):
        deadline = time.monotonic() + 60
        while len(self.output(job)) < at_least:
            self.assertLess(time.monotonic(), deadline, self.output(job))
            time.sleep(0.05)

    def test_quiet_hours_pause_what_runs(self):
        quiet = dict(almost_always(), jobs="pause", action="low_priority")
        ticks = "i=0; while [ $i -lt 40 ]; do printf x; i=$((i + 1)); sleep 0.1; done"
        bob = self.p.submit(ticks, "sh", network="none", timeout=20, **BOB)
        cancelled = self.p.submit("trap 'echo asked; exit 0' TERM; printf x; while :; do sleep 0.1; done", "sh",
                                  network="none", **BOB)
        self.wait_output(bob.id, 1)
        self.wait_output(cancelled.id, 1)
        self.p.add_rule("night", "quiet_hours", **quiet)
        row = self.wait_reason(bob.id, "quiet_hours")
        self.assertEqual(row.state, "running")
        self.assertIn("quiet hours", row.text)
        time.sleep(0.5)  # what was printed before the pause arrives
        before = len(self.output(bob.id))
        later = self.p.submit("true", "sh", network="none", **BOB)
        time.sleep(2)
        self.assertEqual(len(self.output(bob.id)), before)
        self.assertEqual(later.state, "queued")
        self.assertIn("quiet hours", "".join(self.p.queue().waiting_reasons))
        # A cancel is answered: the job runs for its grace, and ends.
        self.assertEqual(self.p.cancel(cancelled.id, grace=5), 1)
        self.assertIn("asked", self.output(cancelled.id))
        self.p.disable_rule("night")
        result = bob.wait(timeout=60)
        self.assertEqual((result.state, result.stdout), ("completed", 40 * b"x"))
        self.assertEqual(later.wait(timeout=60).state, "completed")
        started, finished = self.daemon.sqlite(
            f"select started / 1000000, finished / 1000000 from job where id = '{bob.id}'")[0]
        self.assertLess(result.wall_ms, int(finished) - int(started) - 2000)  # without its pause
        events = names(self.daemon.sqlite(f"select event from audit_log where job = '{bob.id}' order by seq"))
        self.assertEqual(events[-3:], ["paused", "resumed", "completed"])

    def wait_reason(self, job, reason):
        deadline = time.monotonic() + 30
        while self.p.get(job).reason != reason:
            self.assertLess(time.monotonic(), deadline, self.p.get(job))
            time.sleep(0.05)
        return self.p.get(job)

    def test_jobs_of_an_array_know_their_index(self):
        array = self.p.submit("echo $OMERTA_ARRAY_ID $OMERTA_ARRAY_INDEX of $OMERTA_ARRAY_COUNT $MINE", "sh",
                              network="none", job="many", array="3,7%1", env={"MINE": "too"})
        outs = [r.stdout.decode() for r in array.wait(timeout=120)]
        self.assertEqual(outs, ["many 3 of 2 too\n", "many 7 of 2 too\n"])
        self.assertEqual(array[7].info().array_index, 7)

    def test_output_is_followed_over_attempts(self):
        job = self.p.submit("echo one two; sleep 1; exit 3", "sh", network="none", retries=1, backoff=1)
        seen, restarts = [], []
        for piece in job.output(follow=True, on_restart=restarts.append):
            seen.append(piece)
        self.assertEqual((b"".join(seen), restarts), (b"one two\none two\n", [2]))
        again = self.p.submit("echo one two; sleep 1; exit 3", "sh", network="none", retries=1, backoff=1)
        path = f"{self.daemon.dir}/out"
        status, _, err = self.cli("output", "--follow", "--to", path, again.id)
        self.assertEqual(status, 0)
        self.assertIn("another attempt", err)
        with open(path) as f:
            self.assertEqual(f.read(), "one two\n")
        last = self.p.submit("echo one two; exit 3", "sh", network="none", retries=1, backoff=1)
        status, out, err = self.cli("wait", "--follow", last.id)
        self.assertEqual((status, out), (3, "one two\none two\n"))
        self.assertIn("attempt 2", err)

    def test_a_job_that_fails_is_tried_again_then_dead(self):
        job = self.p.submit("echo try; exit 3", "sh", network="none", retries=1, backoff=1)
        waits = self.submit("waits", after=[job.id])
        result = job.wait(timeout=120)
        self.assertEqual((result.state, result.exit_code, result.stdout), ("dead", 3, b"try\n"))
        row = self.p.get(job.id)
        self.assertEqual((row.attempt, row.reason), (2, "attempts_used"))
        self.assertEqual(waits.wait(timeout=10).state, "failed")
        self.assertEqual([r.job for r in self.p.list(states=["dead"])], [job.id])
        events = names(self.daemon.sqlite(
            f"select event from audit_log where job='{job.id}' order by seq"))
        self.assertEqual(events.count("failed"), 2)
        self.assertEqual(events[-1], "dead")
        self.assertEqual(self.p.retry(job.id), 1)
        result = job.wait(timeout=120)
        self.assertEqual((result.state, self.p.get(job.id).attempt), ("dead", 3))


if __name__ == "__main__":
    rig.main("policy")
