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

CYCLES = int(os.environ.get("CYCLES", "100"))
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
CYCLES_S = 0.9 * CYCLES     # the whole of the test, on two busy cores
WINDOW = 32                 # submissions under way
LIFE_JOBS = 200             # submissions in one life; about half of them run in it
LIFE_S = 0.2                # a life lasts at most so long
START_S = 0.06              # killed in the start: at most so long after exec
ALREADY_DEAD = 0.15         # of the lives end in their start
FATES = ("plain",) * 70 + ("requeue",) * 28 + ("hold", "pending")
FINAL = ("completed", "lost")


def until(what, seconds=30):
    """Polls a condition that another process brings about."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)


class Load:
    """Submits under ids of its own and remembers what was acknowledged, over all lives."""

    def __init__(self, rnd):
        self.rnd = rnd
        self.next = 0
        self.acknowledged = {}  # id -> fate
        self.unknown = {}       # sent, and the daemon died before the answer
        self.duplicates = 0

    def body(self, job, fate):
        body = {"job": job, "lang": "sh", "script": b"true", "network": "none"}
        if fate == "pending":
            body.update(on_behalf="eve", network_id="cafe")
        elif fate != "plain":
            body[fate] = True
        return body

    def run(self, endpoint, seconds, new):
        """Asks again for what is not known, then submits `new` jobs; ends after `seconds`."""
        deadline = time.monotonic() + seconds
        todo = list(self.unknown.items())
        for _ in range(new):
            todo.append((f"c{self.next}", self.rnd.choice(FATES)))
            self.next += 1
        todo.reverse()
        numbers = itertools.count()
        by_request = {}
        with zmq.Context() as context, context.socket(zmq.DEALER) as s:
            s.setsockopt(zmq.LINGER, 0)
            s.connect(endpoint)
            while time.monotonic() < deadline:
                if not todo and not by_request and not new:
                    return
                while todo and len(by_request) < WINDOW:
                    job, fate = todo.pop()
                    self.unknown[job] = fate
                    number = next(numbers)
                    by_request[number] = job
                    s.send(msgpack.packb([1, "job.submit", number, 0, self.body(job, fate)]))
                if s.poll(max(0, int((deadline - time.monotonic()) * 1000))):
                    self.take(msgpack.unpackb(s.recv()), by_request)

    def take(self, answer, by_request):
        _, kind, number, _, body = answer
        job = by_request.pop(number)
        if kind != "job.accepted":
            raise AssertionError(f"{job}: {body}")
        if body["job"] != job:
            raise AssertionError(f"{job} became {body['job']}")
        self.duplicates += body.get("duplicate", False)
        self.acknowledged[job] = self.unknown.pop(job)


class Cycles(unittest.TestCase):
    """Many short lives with jobs that end at once."""

    def setUp(self):
        print(f"   SEED={SEED}", flush=True)
        self.rnd = random.Random(SEED)
        self.daemon = rig.Daemon("[vm]\ndriver = null\n[jobs]\nmax_jobs = 8\n")
        self.addCleanup(self.daemon.close)
        self.load = Load(self.rnd)

    def ask(self, query):
        with contextlib.closing(sqlite3.connect(f"file:{self.daemon.ledger}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()

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
            self.assertEqual(self.load.unknown, {})
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
              f"{self.load.duplicates} of them found again, {report.entries} audit entries, "
              f"last start {last_start * 1000:.0f} ms", flush=True)
        self.assertLess(took, CYCLES_S)

    def settle(self):
        """Until nothing is queued but what is held."""
        until(lambda: self.ask("select count(*) from job where finished is null and not held and "
                               "state != 'pending_approval'") == [(0,)], 60)

    def check(self):
        rows = {r[0]: r[1:] for r in self.ask("select id, state, held, reason from job")}
        runs = dict(self.ask("select job, count(*) from audit where event = 'started' group by job"))
        ends = dict(self.ask("select job, count(*) from audit where event = 'completed' group by job"))
        lost = [j for j in self.load.acknowledged if j not in rows]
        self.assertEqual(lost, [], "acknowledged, and not there")
        states = {}
        released = 0
        for job, fate in self.load.acknowledged.items():
            state, held, reason = rows[job]
            states[fate, state] = states.get((fate, state), 0) + 1
            self.assertEqual(ends.get(job, 0), state == "completed", (job, fate, state))
            if fate == "plain":
                self.assertIn(state, FINAL, job)
                self.assertLessEqual(runs.get(job, 0), 1, job)
                self.assertTrue(state == "completed" or reason == "provider_crash", (job, reason))
            elif fate == "requeue":
                self.assertEqual(state, "completed", job)
            elif fate == "pending":
                self.assertEqual(state, "pending_approval", job)
            elif state == "completed":
                released += 1
            else:
                self.assertEqual((state, held), ("queued", 1), job)
        self.assertEqual(released, 1)
        print(f"   {states}")


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
        requester = tunnel_rig.Requester(3)
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
