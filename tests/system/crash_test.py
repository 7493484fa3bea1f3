#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""kill -9 and the other ends of a daemon: what was acknowledged is there afterwards, the rest is gone.

CYCLES=1000 tests/system/crash_test.py Cycles   is the long run; SEED repeats one.
"""
import contextlib
import glob
import itertools
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
import unittest

import msgpack
import zmq

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
import tunnel_rig  # noqa: E402
import omerta  # noqa: E402
from rig import until  # noqa: E402

CYCLES = int(os.environ.get("CYCLES", "100"))
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
CYCLES_S = 2 * CYCLES       # the whole of the test, on two busy cores; a start takes longer with more jobs
WINDOW = 32                 # submissions under way
LIFE_JOBS = 200             # submissions in one life; about half of them run in it
LIFE_S = 0.2                # a life lasts at most so long
START_S = 0.06              # killed in the start: at most so long after exec
ALREADY_DEAD = 0.15         # of the lives end in their start
# What is asked for each job; of some more is asked once they are acknowledged.
FATES = (("plain",) * 50 + ("requeue",) * 18 + ("retries",) * 8 + ("after",) * 8 + ("array",) * 3
         + ("cancel held",) * 3 + ("cancel",) * 3 + ("approve",) * 3 + ("deny",) * 2
         + ("hold", "pending"))
PENDING = ("approve", "deny", "pending")
ARRAY = 3                   # jobs of each
RETRIES = 2
CHANGES = 4                 # of rules and settings under way in each life
FINAL = ("completed", "lost")


class Op:
    """A request that is sent again in each life until it is answered."""

    def __init__(self, kind, body, want, done, errors=()):
        self.kind, self.body, self.want, self.done, self.errors = kind, body, want, done, errors
        self.sent = False


class Policy:
    """Rules, blocked peers and a setting that are changed all the time.  Of each name one change is
    under way, so what the last answer said is what must be in force at the end."""

    def __init__(self, rnd):
        self.rnd = rnd
        self.rules = {f"r{n}": None for n in range(6)}  # None: not there; else: is it enabled?
        self.blocked = {f"b{n}": False for n in range(6)}
        self.max_jobs = 8
        self.changed = 0
        self.busy = set()

    def change(self):
        """An Op, or None when what was chosen is being changed already."""
        name = self.rnd.choice([*self.rules, *self.blocked, "max_jobs"])
        if name in self.busy:
            return None
        self.busy.add(name)
        if name == "max_jobs":
            return self.set_max_jobs(self.rnd.randrange(6, 11))
        if name in self.blocked:
            return self.block(name, not self.blocked[name])
        return self.rule(name)

    def done(self, name, table, value):
        self.busy.discard(name)
        self.changed += 1
        table[name] = value

    def set_max_jobs(self, value):
        def done(_):
            self.max_jobs = value
            self.done("max_jobs", {}, value)
        return Op("config.set", {"key": "jobs.max_jobs", "value": str(value)}, "ok", done)

    def block(self, name, on):
        return Op("config.block" if on else "config.unblock", {"value": name}, "ok",
                  lambda _: self.done(name, self.blocked, on))

    def rule(self, name):
        verb = self.rnd.choice(["add"] if self.rules[name] is None else
                               ["change", "remove", "disable" if self.rules[name] else "enable"])
        body = {"name": name}
        if verb in ("add", "change"):
            body.update(kind="resources", settings={"max_cores": "900"})
        after = {"add": True, "change": self.rules[name], "remove": None, "disable": False,
                 "enable": True}[verb]
        # Once more after a crash it may have been done already.
        return Op(f"rules.{verb}", body, "ok", lambda _: self.done(name, self.rules, after),
                  {"add": ("exists",), "remove": ("not_found",)}.get(verb, ()))

    def check(self, test, provider):
        rules = {r.name: r.enabled for r in provider.rules()}
        test.assertEqual(rules, {n: on for n, on in self.rules.items() if on is not None})
        test.assertEqual(set(provider.call("config.blocked")["values"]),
                         {n for n, on in self.blocked.items() if on})
        shown = {e["key"]: e["value"] for e in provider.call("config.show")["entries"]}
        test.assertEqual(shown["jobs.max_jobs"], str(self.max_jobs))
        test.assertEqual(provider.queue().max_jobs, self.max_jobs)


class Load:
    """Submits under ids of its own and remembers what was acknowledged, over all lives."""

    def __init__(self, rnd):
        self.rnd = rnd
        self.policy = Policy(rnd)
        self.next = 0
        self.acknowledged = {}  # id -> fate
        self.cancelled = set()  # a cancel was acknowledged
        self.after = {}         # id -> what it waits for
        self.plain = []
        self.unknown = []       # ops: sent, and the daemon died before the answer
        self.duplicates = 0
        self.follow = []

    def submit(self):
        job, fate = f"c{self.next}", self.rnd.choice(FATES)
        self.next += 1
        body = {"job": job, "lang": "sh", "script": b"true", "network": "none"}
        if fate in PENDING:
            body.update(on_behalf="eve", network_id="cafe")
        elif fate == "cancel held":
            body["hold"] = True
        elif fate in ("requeue", "hold"):
            body[fate] = True
        elif fate == "retries":
            body.update(retries=RETRIES, backoff_s=1)
        elif fate == "array":
            body["array"] = f"0-{ARRAY - 1}"
        elif fate == "after" and self.plain:
            self.after[job] = self.rnd.choice(self.plain)
            body.update(after=[self.after[job]], after_any=True)
        return Op("job.submit", body, "job.accepted", lambda answer: self.accepted(job, fate, answer))

    def accepted(self, job, fate, answer):
        if answer["job"] != job:
            raise AssertionError(f"{job} became {answer['job']}")
        self.duplicates += answer.get("duplicate", False)
        self.acknowledged[job] = fate
        if fate == "plain":
            self.plain.append(job)
        elif fate.startswith("cancel"):
            def done(answer):
                if answer.get("count"):
                    self.cancelled.add(job)
            self.follow.append(Op("job.cancel", {"job": job, "grace_ms": 0}, "count", done,
                                  ("wrong_state",)))
        elif fate in ("approve", "deny"):
            # Once more after a crash: it is no longer pending.
            self.follow.append(Op(f"job.{fate}", {"jobs": [job]}, "count", lambda _: None,
                                  ("wrong_state",)))

    def run(self, endpoint, seconds, new):
        """Asks again for what is not known, then submits `new` jobs; ends after `seconds`."""
        deadline = time.monotonic() + seconds
        todo = self.unknown + [self.submit() for _ in range(new)]
        if new:
            todo += filter(None, [self.policy.change() for _ in range(CHANGES)])
            self.rnd.shuffle(todo)
        self.unknown = todo
        numbers = itertools.count()
        sent = {}
        with zmq.Context() as context, context.socket(zmq.DEALER) as s:
            s.setsockopt(zmq.LINGER, 0)
            s.connect(endpoint)
            todo = list(reversed(todo))
            while time.monotonic() < deadline and (todo or sent or new):
                while todo and len(sent) < WINDOW:
                    op = todo.pop()
                    number = next(numbers)
                    sent[number] = op
                    op.sent = True
                    s.send(msgpack.packb([1, op.kind, number, 0, op.body]))
                if s.poll(max(0, int((deadline - time.monotonic()) * 1000))):
                    self.take(msgpack.unpackb(s.recv()), sent)
                todo += self.follow
                self.unknown += self.follow
                self.follow = []
        # A job that was never sent is none; a change that a job or a name waits for stays.
        self.unknown = [op for op in self.unknown if op.sent or op.kind != "job.submit"]

    def take(self, answer, sent):
        _, kind, number, _, body = answer
        op = sent.pop(number)
        if kind != op.want and not (kind == "error" and body["code"] in op.errors):
            raise AssertionError(f"{op.kind} {op.body}: {body}")
        self.unknown.remove(op)
        op.done(body)


class Cycles(unittest.TestCase):
    """Many short lives with jobs that end at once."""

    def setUp(self):
        print(f"   SEED={SEED}", flush=True)
        self.rnd = random.Random(SEED)
        self.daemon = rig.Daemon("[vm]\ndriver = null\n[jobs]\nmax_jobs = 8\n")
        self.addCleanup(self.daemon.close)
        self.load = Load(self.rnd)

    def ask(self, query):
        """Of the file, when the daemon has nothing that is committed and not yet in it."""
        with contextlib.closing(sqlite3.connect(self.daemon.ledger, timeout=30,
                                                isolation_level=None)) as db:
            db.execute("begin immediate")
            rows = db.execute(query).fetchall()
            db.execute("rollback")
            return rows

    def live_and_die(self):
        self.daemon.launch()
        if self.rnd.random() < ALREADY_DEAD:
            time.sleep(self.rnd.random() * START_S)  # the moment is the point, nothing is awaited
        else:
            self.daemon.until_ready()
            self.load.run(self.daemon.endpoint, self.rnd.random() * LIFE_S, LIFE_JOBS)
        self.daemon.kill9()

    def test_kill_9_at_any_moment(self):
        began = time.monotonic()
        for _ in range(CYCLES):
            self.live_and_die()
        before = time.monotonic()
        self.daemon.start()
        last_start = time.monotonic() - before
        with self.daemon.connect() as provider:
            self.load.run(self.daemon.endpoint, 30, 0)
            self.assertEqual(self.load.unknown, [])
            self.load.policy.check(self, provider)
            self.settle()
            report = provider.verify_audit()
            held = provider.get(next(j for j, f in self.load.acknowledged.items() if f == "hold"))
            self.assertEqual(held.state, "queued")
            provider.release(held.job)
            self.assertEqual(provider.wait(held.job, timeout=30).state, "completed")
        self.assertTrue(report.intact, report)
        self.check()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(self.daemon.left(), [])
        took = time.monotonic() - began
        print(f"   {CYCLES} lives in {took:.1f} s, {len(self.load.acknowledged)} jobs acknowledged, "
              f"{self.load.duplicates} of them found again, {self.load.policy.changed} changes of rules "
              f"and settings, {report.entries} audit entries, last start {last_start * 1000:.0f} ms\n"
              "   acknowledged and lost 0, run twice 0, orphans 0, broken links of the chain 0",
              flush=True)
        self.assertLess(took, CYCLES_S)

    def settle(self):
        """Until nothing is queued but what is held."""
        until(lambda: self.ask("select count(*) from job where finished is null and not held and "
                               "state != 'pending_approval'") == [(0,)], 60)

    def check(self):
        rows = {r[0]: r[1:] for r in self.ask("select id, state, held, reason from job")}
        self.runs = dict(self.ask("select job, count(*) from audit_log where event = 'started' group by job"))
        ends = dict(self.ask("select job, count(*) from audit_log where event = 'completed' group by job"))
        fates = {}
        for job, fate in self.load.acknowledged.items():
            for one in [f"{job}_{n}" for n in range(ARRAY)] if fate == "array" else [job]:
                fates[one] = fate
        self.assertEqual([j for j in fates if j not in rows], [], "acknowledged, and not there")
        states = {}
        released = 0
        for job, fate in fates.items():
            state, held, reason = rows[job]
            states[fate, state] = states.get((fate, state), 0) + 1
            self.assertEqual(ends.get(job, 0), state == "completed", (job, fate, state))
            if fate == "hold" and state == "completed":
                released += 1
            else:
                self.check_one(job, fate, state, held, reason)
        self.assertEqual(released, 1)
        self.check_order()
        print(f"   {states}")

    def check_one(self, job, fate, state, held, reason):
        """How it may have ended, how often it may have run."""
        end = {"requeue": ("completed",), "pending": ("pending_approval",), "deny": ("denied",),
               "hold": ("queued",), "cancel held": ("cancelled",), "cancel": (*FINAL, "cancelled"),
               "retries": ("completed", "dead")}.get(fate, FINAL)
        most = {"requeue": 4, "retries": 1 + RETRIES, "pending": 0, "deny": 0, "hold": 0,
                "cancel held": 0}.get(fate, 1)
        self.assertIn(state, end, (job, fate, reason))
        self.assertLessEqual(self.runs.get(job, 0), most, (job, fate))
        if state == "lost":
            self.assertEqual(reason, "provider_crash", job)
        if fate == "hold":
            self.assertEqual(held, 1, job)
        if job in self.load.cancelled:
            self.assertEqual(state, "cancelled", job)

    def check_order(self):
        """Nothing has begun before what it waited for had ended."""
        began = dict(self.ask("select job, min(seq) from audit_log where event = 'started' group by job"))
        ended = dict(self.ask("select job, max(seq) from audit_log where event in ('completed', 'lost') "
                              "group by job"))
        self.assertGreater(len(self.load.after), 0)
        for job, other in self.load.after.items():
            if job in began:
                self.assertGreater(began[job], ended[other], (job, other))


class Machine(unittest.TestCase):
    """With real VMs and tunnels."""

    CONFIG = ("[jobs]\nmax_jobs = 3\nlend_cores = 3\n[network]\nallow_endpoints = 10.250.0.0/16\n"
              "[daemon]\ndrain_timeout = 2m\n")

    def tunnels(self):
        """(pid, name of the link, parent's pid) of each wireguard-go on this machine."""
        for pid in subprocess.run(["pgrep", "-x", "wireguard-go"], capture_output=True,
                                  text=True).stdout.split():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as f:
                args = f.read().split("\0")
                with open(f"/proc/{pid}/stat") as stat:
                    parent = int(stat.read().split()[3])
                if len(args) > 1:  # else it is dead, and nobody has looked yet
                    yield pid, args[-2], parent

    def learn_mark(self):
        """Four letters in the names of all that is this daemon's: others may run beside us."""
        names = [name for _, name, parent in self.tunnels() if parent == self.daemon.process.pid]
        self.assertEqual(len(names), 1, "one job with a tunnel runs")
        self.mark = re.compile(r"\bom." + names[0][3:7])

    def ours(self):
        """What the daemon has outside its own process: processes, links, namespaces, places."""
        found = {("process", line.split()[0]) for line in rig.processes(self.daemon.dir)}
        found |= {("tunnel", pid) for pid, name, _ in self.tunnels() if self.mark.match(name)}
        found |= {("link", line.split()[1]) for line in tunnel_rig.sh("ip", "-o", "link").splitlines()
                  if self.mark.search(line)}
        found |= {("namespace", line.split()[0]) for line in tunnel_rig.sh("ip", "netns").splitlines()
                  if self.mark.search(line)}
        found |= {("socket", p) for p in glob.glob("/var/run/wireguard/*") if self.mark.search(p)}
        found |= {("table", line) for line in tunnel_rig.sh("nft", "list", "tables").splitlines()
                  if self.mark.search(line)}
        found |= {("place", p) for p in glob.glob(f"{self.daemon.dir}/run/jobs/*")}
        return found

    def test_kill_9_with_jobs_in_every_state(self):
        requester = tunnel_rig.Requester()
        self.addCleanup(requester.close)
        self.daemon = d = rig.Daemon(self.CONFIG)
        self.addCleanup(d.close)
        d.start()
        long = "echo here; sleep 300"
        with d.connect() as provider:
            running = provider.submit(script=long, lang="sh")
            again = provider.submit(script="echo here; sleep 12; echo done", lang="sh", requeue=True)
            tunnel = provider.submit(script=long, lang="sh", vpn=requester.vpn())
            queued = [provider.submit(script=f"echo {n}", lang="sh") for n in range(2)]
            held = provider.submit(script="echo held", lang="sh", hold=True)
            pending = provider.submit(script="x", lang="sh", on_behalf="eve", network_id="cafe")
            ended = provider.submit(script="x", lang="sh", hold=True)
            ended.cancel()
            for job in (running, again, tunnel):
                until(lambda: provider.call("job.output", {"job": job.id})["data"] == b"here\n", 90)
            self.assertEqual({j.state for j in queued}, {"queued"})
            self.assertEqual({j.state for j in (running, again, tunnel)}, {"running"})
        self.learn_mark()
        first_life = self.ours()
        kinds = {kind for kind, _ in first_life}
        self.assertLessEqual({"process", "tunnel", "link", "socket", "place"}, kinds)  # we do see them
        d.kill9()
        d.start()
        with d.connect() as provider:
            for job in (running, tunnel):
                r = provider.get(job.id)
                self.assertEqual((r.state, r.reason), ("lost", "provider_crash"), r.text)
                self.assertTrue(r.text)
                self.assertEqual(b"".join(provider.output(job.id)), b"here\n")  # what came is kept
            self.assertEqual(provider.get(held.id).state, "queued")
            self.assertEqual(provider.get(pending.id).state, "pending_approval")
            self.assertEqual(provider.get(ended.id).state, "cancelled")
            # The one that is queued again has its old place again.
            first_life.discard(("place", f"{d.dir}/run/jobs/{again.id}"))
            until(lambda: not first_life & self.ours(), 10)
            for n, job in enumerate(queued):
                self.assertEqual(provider.wait(job.id, timeout=90).stdout, b"%d\n" % n)
            r = provider.wait(again.id, timeout=90)
            self.assertEqual((r.state, r.attempt, r.stdout), ("completed", 2, b"here\ndone\n"))
            self.assertEqual(provider.get(held.id).state, "queued")
            provider.release(held.id)
            self.assertEqual(provider.wait(held.id, timeout=90).stdout, b"held\n")
            self.assertTrue(provider.verify_audit().intact)
            self.drain(provider)
        self.assertEqual(self.ours(), set())

    def drain(self, provider):
        """TERM: what runs may end, what waits stays, nothing new is taken."""
        job = provider.submit(script="echo here; sleep 3; echo done", lang="sh")
        until(lambda: provider.call("job.output", {"job": job.id})["data"] == b"here\n", 90)
        waits = provider.submit(script="x", lang="sh", hold=True)
        self.daemon.process.terminate()
        until(lambda: provider.status().state == "draining")
        with self.assertRaises(omerta.Busy) as caught:
            provider.submit(script="x", lang="sh")
        self.assertEqual(caught.exception.code, "shutting_down")
        self.assertEqual(self.daemon.process.wait(timeout=60), 0)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(self.daemon.left(), [])
        rows = dict(self.daemon.sqlite("select id, state from job"))
        self.assertEqual((rows[job.id], rows[waits.id]), ("completed", "queued"))
        out = self.daemon.sqlite(f"select hex(data) from outputs where job = '{job.id}' order by off")
        self.assertEqual(bytes.fromhex("".join(r[0] for r in out)), b"here\ndone\n")


class Reload(unittest.TestCase):
    def test_broken_file_changes_nothing(self):
        null = "[vm]\ndriver = null\n[jobs]\nmax_jobs = 2\n"
        d = rig.Daemon(null)
        self.addCleanup(d.close)
        d.start()
        with d.connect() as provider:
            def settings():
                return {e["key"]: e["value"] for e in provider.call("config.show")["entries"]}
            before = settings()
            for broken in ("[jobs]\nmax_jobs = 7\nmax_job = 3\n", "[jobs]\nmax_jobs = many\n", "[jobs\n",
                           "[jobs]\nmax_jobs = 7\n[daemon]\nlog_level = loud\n", "\0\xff" * 100):
                d.config = "[vm]\ndriver = null\n" + broken
                d.write_config()
                seen = d.tail().count("config.refused")
                d.process.send_signal(signal.SIGHUP)
                until(lambda: d.tail().count("config.refused") > seen)
                self.assertEqual(settings(), before, broken)
                self.assertEqual(provider.call("queue.stats")["max_jobs"], 2)
                with self.assertRaises(omerta.Error):
                    provider.reload_config()
            os.unlink(f"{d.dir}/omertad.conf")
            with self.assertRaises(omerta.Error):
                provider.reload_config()
            self.assertEqual(settings(), before)
            d.config = null.replace("2", "3")
            d.write_config()
            d.process.send_signal(signal.SIGHUP)
            until(lambda: provider.call("queue.stats")["max_jobs"] == 3)
            self.assertEqual(provider.submit(script="x", lang="sh").wait(timeout=20).state, "completed")
        self.assertEqual(d.stop(), 0)


if __name__ == "__main__":
    rig.main("crash")
