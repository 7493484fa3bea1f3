# SPDX-License-Identifier: ISC
"""The Python module against a ROUTER in a thread, which answers as each test says."""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import msgpack
import zmq

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "client" / "python"))
import omerta  # noqa: E402

SOON = 5.0


class Fake:
    """A daemon.  ``answer(kind, body)`` gives (kind, body), a list of frames, or None for silence."""

    def __init__(self, answer, endpoint=None, curve=None):
        self.answer = answer
        self.seen = []
        self.dir = tempfile.TemporaryDirectory(prefix="omerta-test.")
        self.endpoint = endpoint or f"ipc://{self.dir.name}/s"
        self.curve = curve
        self.failure = None
        self.start()

    def start(self):
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.LINGER, 0)
        if self.curve:
            self.router.curve_server = True
            self.router.curve_secretkey = self.curve
        self.router.bind(self.endpoint)
        self.endpoint = self.router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self.stop_in = self.context.socket(zmq.PAIR)
        self.stop_out = self.context.socket(zmq.PAIR)
        self.stop_out.bind("inproc://stop")
        self.stop_in.connect("inproc://stop")
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            self.serve()
        except Exception as e:  # told by close(), in the test's own thread
            self.failure = e

    def serve(self):
        poller = zmq.Poller()
        poller.register(self.router, zmq.POLLIN)
        poller.register(self.stop_out, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self.stop_out in ready:
                return
            sender, frame = self.router.recv_multipart()
            version, kind, request, deadline, body = msgpack.unpackb(frame)
            assert version == 1 and deadline > 0
            self.deadline = deadline
            self.seen.append((kind, body))
            said = self.answer(kind, body)
            if said is None:
                continue
            frames = said if isinstance(said, list) else [
                msgpack.packb([1, said[0], request, 0, said[1]])]
            for f in frames:
                self.router.send_multipart([sender, f(request) if callable(f) else f])

    def stop(self):
        self.stop_in.send(b"")
        self.thread.join()
        self.context.destroy(linger=0)

    def close(self):
        self.stop()
        self.dir.cleanup()
        if self.failure is not None:
            raise self.failure


def ok(kind, body):
    return "ok", {}


class Case(unittest.TestCase):
    def fake(self, answer, **more):
        fake = Fake(answer, **more)
        self.addCleanup(fake.close)
        return fake

    def provider(self, fake, **more):
        provider = omerta.connect(fake.endpoint, **more)
        self.addCleanup(provider.close)
        return provider


class Submit(Case):
    def test_every_argument_is_a_field(self):
        fake = self.fake(lambda k, b: ("job.accepted", {"job": "7f", "state": "queued", "ahead": 2}))
        p = self.provider(fake)
        job = p.submit("print(1)", "python", args=[1, "b"], env={"A": "1"}, stdin=b"\xff",
                       files={"a/b": "text", "c": pathlib.Path(__file__)}, outputs=["o"], cores=2,
                       memory_mib=64, disk_mib=5, timeout=1.2, output_max=10, activity="x", gpu=True,
                       job="mine", requeue=True, retries=1, backoff=0.5, not_before=9.9,
                       after=[omerta.Job(None, "j1"), "j2"], after_any=True, hold=True,
                       bandwidth_kbit=8, on_behalf="bob", network_id="cafe")
        kind, body = fake.seen[0]
        own = pathlib.Path(__file__).read_bytes()
        self.assertEqual(kind, "job.submit")
        self.assertEqual(body, {
            "lang": "python", "script": b"print(1)", "args": ["1", "b"], "env": {"A": "1"},
            "stdin": b"\xff", "files": [{"name": "a/b", "data": b"text"}, {"name": "c", "data": own}],
            "outputs": ["o"], "cores": 2, "mem_mib": 64, "disk_mib": 5, "runtime_s": 2,
            "output_max": 10, "activity": "x", "gpu": True, "job": "mine", "requeue": True,
            "retries": 1, "backoff_s": 1, "not_before": 9, "after": ["j1", "j2"], "after_any": True,
            "hold": True, "bandwidth_kbit": 8, "on_behalf": "bob", "network_id": "cafe",
            "network": "none"})
        self.assertEqual(job.id, "7f")
        self.assertEqual(job.accepted.ahead, 2)
        self.assertIsNone(job.accepted.level)

    def test_network_follows_the_tunnel(self):
        fake = self.fake(lambda k, b: ("job.accepted", {"job": "7f", "state": "queued"}))
        p = self.provider(fake)
        p.submit("x", network=None)
        p.submit("x", vpn={"endpoint": "1.2.3.4:5"})
        p.submit("x", network="tunnel", vpn={"endpoint": "1.2.3.4:5"})
        self.assertEqual([b["network"] for _, b in fake.seen], ["none", "tunnel", "tunnel"])

    def test_every_field_of_the_schema_has_an_argument(self):
        table = (ROOT / "msg" / "schema.tbl").read_text()
        section = table[table.index("OM_BODY(job_submit)"):table.index("OM_BODY_END(job_submit)")]
        fake = self.fake(lambda k, b: ("job.accepted", {"job": "7f", "state": "queued"}))
        p = self.provider(fake)
        p.submit("x", args=["a"], env={"a": "b"}, stdin="", files={"f": ""}, outputs=["o"], cores=1,
                 memory_mib=1, disk_mib=1, timeout=1, output_max=1, vpn={"mtu": 1}, activity="",
                 gpu=False, job="j", requeue=False, retries=0, backoff=0, not_before=0, after=["a"],
                 after_any=False, hold=False, array="0-1", bandwidth_kbit=1, on_behalf="b",
                 network_id="n")
        fields = [line.split(",")[2].strip() for line in section.splitlines()
                  if line.startswith("OM_F(")]
        self.assertGreater(len(fields), 20)
        self.assertEqual(sorted(fake.seen[0][1]), sorted(fields))


class Tunnel(Case):
    """tests/data/wg_quick.txt has the cases; net_config_test.c runs the same ones."""

    @staticmethod
    def cases():
        text = (ROOT / "tests" / "data" / "wg_quick.txt").read_text().rstrip("\n")
        for case in text.split("\n=== ")[1:]:
            head, _, rest = case.partition("\n")
            code, _, says = head.partition(": ")
            file, _, fields = f"{rest}\n".partition("---\n")
            yield code, says, file, [f.partition(" ")[::2] for f in fields.splitlines() if f]

    def test_wg_quick_cases(self):
        count = 0
        for code, says, file, fields in self.cases():
            count += 1
            with self.subTest(code=code, says=says):
                if code == "ok":
                    got = omerta.wg_quick(file)
                    flat = [(k, str(v)) for k in got for v in (
                        got[k] if isinstance(got[k], list) else [got[k]])]
                    want = [f for f in fields if f != ("keepalive", "0")]
                    self.assertEqual(sorted(flat), sorted(want))
                    continue
                with self.assertRaises(omerta.Invalid) as caught:
                    omerta.wg_quick(file)
                self.assertEqual(caught.exception.code, code)
                self.assertIn(says, caught.exception.text)
                self.assertNotIn("AQIDBAUG", caught.exception.text)
        self.assertGreater(count, 30)

    def test_a_file_is_taken_by_path_or_text(self):
        file = next(f for code, says, f, _ in self.cases() if code == "ok")
        fake = self.fake(lambda k, b: ("job.accepted", {"job": "7f", "state": "queued"}))
        p = self.provider(fake)
        with tempfile.TemporaryDirectory() as d:
            path = pathlib.Path(d) / "wg0.conf"
            path.write_bytes(file.replace("\n", "\r\n").encode())
            for vpn in (path, str(path), file, file.encode()):
                p.submit("x", vpn=vpn)
        for _, body in fake.seen:
            self.assertEqual(body["network"], "tunnel")
            self.assertEqual(body["vpn"], omerta.wg_quick(file))
        self.assertEqual(body["vpn"]["endpoint"], "203.0.113.1:51820")

    def test_a_file_that_is_refused_sends_nothing(self):
        fake = self.fake(ok)
        p = self.provider(fake)
        with self.assertRaisesRegex(omerta.Invalid, "line 2: PostUp is refused"):
            p.submit("x", vpn="[Interface]\nPostUp = x\n")
        with self.assertRaises(omerta.Invalid) as caught:
            omerta.wg_quick("#" * 65536 + "\n")
        self.assertEqual(caught.exception.code, "too_big")
        with self.assertRaises(FileNotFoundError):
            p.submit("x", vpn="/nonexistent/wg0.conf")
        self.assertEqual(fake.seen, [])


class Waiting(Case):
    ROW = {"job": "7f", "state": "failed", "exit_code": 3, "cpu_ms": 1500, "wall_ms": 20}

    def test_a_result_has_numbers_and_output(self):
        def answer(kind, body):
            if kind == "job.wait":
                return "job.info", self.ROW
            text = b"out\xff" if body["stream"] == "stdout" else b""
            rest = text[body["offset"]:][:3]
            return "output.data", {"data": rest, "offset": body["offset"], "size": len(text),
                                   "end": body["offset"] + len(rest) == len(text)}
        p = self.provider(self.fake(answer))
        r = omerta.Job(p, "7f").wait()
        self.assertEqual((r.state, r.exit_code, r.cpu_seconds, r.wall_seconds, r.ok),
                         ("failed", 3, 1.5, 0.02, False))
        self.assertIsNone(r.boot_seconds)
        self.assertIsNone(r.signal)
        self.assertEqual(r.stdout, b"out\xff")
        self.assertEqual(r.stderr, b"")
        self.assertEqual(dict(r), self.ROW)

    def test_wait_goes_on_over_timeouts_and_a_restart(self):
        def answer(kind, body):
            if restarted.is_set():
                return "job.info", self.ROW
            return "error", {"code": "timeout"}

        restarted = threading.Event()
        fake = self.fake(answer)
        p = self.provider(fake)

        def restart():
            while not fake.seen:
                time.sleep(0)
            fake.stop()
            restarted.set()
            fake.start()

        thread = threading.Thread(target=restart)
        thread.start()
        self.assertEqual(p.wait("7f").state, "failed")
        thread.join()

    def test_an_idle_client_survives_a_restart(self):
        fake = self.fake(lambda k, b: ("job.info", self.ROW))
        p = self.provider(fake)
        self.assertEqual(p.get("7f").state, "failed")
        begin = time.monotonic()
        for _ in range(3):
            fake.stop()
            fake.start()
            self.assertEqual(p.get("7f").state, "failed")
        self.assertLess(time.monotonic() - begin, 5)

    def test_what_was_in_flight_is_told_when_the_daemon_has_gone(self):
        fake = self.fake(lambda k, b: None)
        p = self.provider(fake)
        ids = [p._transport.start("job.get", {"job": "7f"}, 60) for _ in range(3)]
        fake.stop()
        begin = time.monotonic()
        for request in ids:
            with self.assertRaises(omerta.Disconnected):
                p._transport.finish(request, time.monotonic() + 60)
        self.assertLess(time.monotonic() - begin, 5)
        fake.start()

    def test_wait_has_a_limit(self):
        p = self.provider(self.fake(lambda k, b: ("error", {"code": "timeout"})))
        begin = time.monotonic()
        with self.assertRaises(omerta.Timeout):
            p.wait("7f", timeout=0.05)
        self.assertLess(time.monotonic() - begin, SOON)

    def test_each_change_of_a_job_is_told(self):
        states = ["pending_approval", "queued", "completed"]

        def answer(kind, body):
            if kind == "job.get":
                return "job.info", {"job": "7f", "state": states[0]}
            return "job.info", {"job": "7f", "state": states[states.index(body["from"]) + 1]}
        fake = self.fake(answer)
        job = omerta.Job(self.provider(fake), "7f")
        self.assertEqual([row.state for row in job.changes()], states)
        self.assertEqual([row.state for row in job.changes(state="queued")], ["completed"])
        self.assertEqual(fake.seen[1], ("job.wait", {"job": "7f", "from": "pending_approval"}))

    def test_lines_are_whole(self):
        pieces = [b"one\ntw", b"", b"o\nthr\xffee"]

        def answer(kind, body):
            n = len(fake.seen) - 1
            self.assertTrue(body["follow"])
            return "output.data", {"data": pieces[n], "offset": body["offset"], "size": 99,
                                   "end": n == 2}
        fake = self.fake(answer)
        p = self.provider(fake)
        self.assertEqual(list(omerta.Job(p, "7f").lines()), ["one", "two", "thr\ufffdee"])

    def test_output_from_another_place_is_refused(self):
        p = self.provider(self.fake(
            lambda k, b: ("output.data", {"data": b"x", "offset": 5, "size": 9, "end": False})))
        with self.assertRaises(omerta.ProtocolError):
            list(p.output("7f"))

    def test_a_file_is_saved(self):
        p = self.provider(self.fake(
            lambda k, b: ("output.data", {"data": b"bin"[b["offset"]:], "offset": b["offset"],
                                          "size": 3, "end": True})))
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "f")
            self.assertEqual(omerta.Job(p, "7f").save("model", path), 3)
            self.assertEqual(pathlib.Path(path).read_bytes(), b"bin")


class Errors(Case):
    def test_codes_are_exceptions(self):
        for code, kind in [("not_found", omerta.NotFound), ("denied", omerta.Denied),
                           ("rejected", omerta.Rejected), ("wrong_state", omerta.WrongState),
                           ("rate_limited", omerta.Busy), ("full", omerta.Busy),
                           ("unknown_field", omerta.Invalid), ("a_new_one", omerta.Error)]:
            with self.subTest(code=code):
                p = self.provider(self.fake(
                    lambda k, b: ("error", {"code": code, "text": "why", "details": {"a": "b"}})))
                with self.assertRaises(kind) as caught:
                    p.get("7f")
                self.assertEqual((caught.exception.code, caught.exception.text,
                                  caught.exception.details), (code, "why", {"a": "b"}))
                self.assertIs(type(caught.exception), kind)

    def test_no_daemon_is_said_at_once(self):
        begin = time.monotonic()
        with self.assertRaises(omerta.Unreachable):
            omerta.connect("/nonexistent/omerta.sock")
        with self.assertRaises(omerta.Unreachable):
            omerta.connect("tcp://127.0.0.1:1")
        with self.assertRaises(omerta.Invalid):
            omerta.connect("http://x")
        self.assertLess(time.monotonic() - begin, SOON)

    def test_silence_is_a_timeout(self):
        p = self.provider(self.fake(lambda k, b: None), timeout=0.05)
        with self.assertRaises(omerta.Timeout):
            p.ping()

    def test_a_lost_connection_is_noticed_and_made_again(self):
        fake = self.fake(lambda k, b: None)
        p = self.provider(fake)
        begin = time.monotonic()

        def end():
            while not fake.seen:
                time.sleep(0)
            fake.stop()
        thread = threading.Thread(target=end)
        thread.start()
        with self.assertRaises(omerta.Disconnected):
            p.ping()
        thread.join()
        self.assertLess(time.monotonic() - begin, SOON)
        with self.assertRaises(omerta.Unreachable):
            p.ping()
        fake.answer = ok
        fake.start()
        p.ping()

    def test_hostile_answers_are_dropped(self):
        frames = [b"", b"\xc1", msgpack.packb(7), msgpack.packb([]), msgpack.packb([1, "ok", 999, 0, {}]),
                  b"\xdd\xff\xff\xff\xff", msgpack.packb([1, "ok", "1", 0, {}])]
        p = self.provider(self.fake(lambda k, b: [*frames, lambda request: msgpack.packb(
            [1, "job.info", request, 0, {"job": "7f", "state": "queued", "new": 1}])]))
        row = p.get("7f")
        self.assertEqual((row.state, row.new), ("queued", 1))

    def test_another_version_or_shape_is_a_protocol_error(self):
        for answer in ([2, "ok", 0, 0, {}], [1, 5, 0, 0, {}], [1, "ok", 0, 0, []]):
            def frame(request, answer=answer):
                return msgpack.packb([*answer[:2], request, *answer[3:]])
            p = self.provider(self.fake(lambda k, b: [frame]))
            with self.assertRaises(omerta.ProtocolError):
                p.ping()


class Several(Case):
    def test_answers_find_their_request(self):
        kept = []

        def answer(kind, body):
            kept.append(body["job"])
            if len(kept) < 3:
                return None
            # All three at once, the last first; ids are 1, 2, 3 on a fresh connection.
            return [msgpack.packb([1, "job.info", n + 1, 0, {"job": kept[n], "state": "queued"}])
                    for n in (2, 1)] + [msgpack.packb([1, "error", 1, 0, {"code": "not_found"}])]
        p = self.provider(self.fake(answer))
        rows = p.call_many([("job.get", {"job": j}) for j in "abc"])
        self.assertIsInstance(rows[0], omerta.NotFound)
        self.assertEqual([r["job"] for r in rows[1:]], ["b", "c"])

    def test_list_goes_over_pages(self):
        def answer(kind, body):
            n = int(body.get("cursor", 0))
            rows = [{"job": str(n), "state": "queued"}] * min(body["limit"], 2)
            return "job.table", {"jobs": rows, **({"next": str(n + 1)} if n < 3 else {})}
        fake = self.fake(answer)
        p = self.provider(fake)
        self.assertEqual(len(list(p.list())), 8)
        self.assertEqual(len(list(p.list(limit=3, states=["queued"]))), 3)
        self.assertEqual(fake.seen[-1][1], {"states": ["queued"], "limit": 1, "cursor": "1"})


    def test_an_empty_page_is_not_the_end_of_a_list(self):
        pages = {None: {"jobs": [], "next": "90"}, "80": {"jobs": []},
                 "90": {"jobs": [{"job": "7f", "state": "pending_approval"}], "next": "80"}}
        p = self.provider(self.fake(lambda k, b: ("job.table", pages[b.get("cursor")])))
        self.assertEqual([j.job for j in p.list()], ["7f"])
        self.assertEqual([j.job for j in p.pending()], ["7f"])


    def test_an_empty_page_is_not_the_end_of_the_trail(self):
        def answer(kind, body):
            scanned = min(body["after_seq"] + 1000, 2501)
            fits = body["after_seq"] < 2501 == scanned
            return "audit.table", {"entries": [{"seq": 2501}] if fits else [], "scanned": scanned,
                                   "more": scanned < 2501}
        p = self.provider(self.fake(answer))
        self.assertEqual([e.seq for e in p.audit(job="a1")], [2501])

    def test_a_count_names_those_that_failed(self):
        p = self.provider(self.fake(lambda k, b: ("count", {"count": 1, "failed": [
            {"job": "b", "code": "wrong_state", "text": "job b is denied"}]})))
        for verb in (p.approve, p.deny, p.hold, p.release, p.retry, p.purge, p.move):
            n = verb("a", "b")
            self.assertEqual(n, 1)
            self.assertEqual([(e.job, e.text) for e in n.failed], [("b", "job b is denied")])
            self.assertIsInstance(n.failed[0], omerta.WrongState)

    def test_a_cancel_is_waited_for_as_long_as_its_grace(self):
        lives = []

        def answer(kind, body):
            lives.append(fake.deadline)
            return "count", {"count": 1}
        fake = self.fake(answer)
        p = self.provider(fake, timeout=10)
        p.cancel("a", grace=60)
        omerta.Job(p, "a").cancel()
        self.assertEqual(lives, [70000, 15000])


class Curve(Case):
    def test_keys_are_needed_and_checked(self):
        server, secret = zmq.curve_keypair()
        pair = tuple(k.decode() for k in zmq.curve_keypair())
        fake = self.fake(ok, endpoint="tcp://127.0.0.1:*", curve=secret)
        self.provider(fake, key=pair, server=server.decode()).ping()
        for wrong in ({"key": pair, "server": pair[0]}, {}):
            with self.assertRaises((omerta.Unauthorized, omerta.Unreachable)):
                omerta.connect(fake.endpoint, timeout=2, **wrong)

    def test_a_key_file_is_private(self):
        server, secret = zmq.curve_keypair()
        public, own = (k.decode() for k in zmq.curve_keypair())
        fake = self.fake(ok, endpoint="tcp://127.0.0.1:*", curve=secret)
        with tempfile.TemporaryDirectory() as d:
            path = pathlib.Path(d) / "key"
            path.write_text(f"# ours\npublic = {public}\nsecret = {own}\n")
            path.chmod(0o644)
            with self.assertRaises(omerta.Invalid):
                omerta.connect(fake.endpoint, key=str(path), server=server.decode())
            path.chmod(0o600)
            self.provider(fake, key=str(path), server=server.decode()).ping()


class Verbs(Case):
    CALLS = [
        (lambda p: p.ping(), "ping", {}),
        (lambda p: p.cancel("a", grace=1.5, reason="r"), "job.cancel",
         {"job": "a", "grace_ms": 1500, "reason": "r"}),
        (lambda p: p.cancel(state="queued", level="external"), "job.cancel",
         {"state": "queued", "level": "external"}),
        (lambda p: p.hold("a", omerta.Job(p, "b")), "job.hold", {"jobs": ["a", "b"]}),
        (lambda p: p.release("a"), "job.release", {"jobs": ["a"]}),
        (lambda p: p.approve("a", always="peer"), "job.approve", {"jobs": ["a"], "trust": "peer"}),
        (lambda p: p.deny("a", reason="no"), "job.deny", {"jobs": ["a"], "reason": "no"}),
        (lambda p: p.pending(), "job.list", {"states": ["pending_approval"], "limit": 1000}),
        (lambda p: p.status(), "daemon.status", {}),
        (lambda p: p.queue(), "queue.stats", {}),
        (lambda p: p.pause(), "queue.pause", {}),
        (lambda p: p.drain("why"), "queue.drain", {"reason": "why"}),
        (lambda p: p.resume(), "queue.resume", {}),
        (lambda p: p.limit(3), "queue.limits", {"max_jobs": 3}),
        (lambda p: p.rules(), "rules.list", {}),
        (lambda p: p.add_rule("r", "rate", 5, per_hour=3), "rules.add",
         {"name": "r", "kind": "rate", "priority": 5, "settings": {"per_hour": "3"}}),
        (lambda p: p.change_rule("r", "rate", enabled=False), "rules.change",
         {"name": "r", "kind": "rate", "enabled": False}),
        (lambda p: p.remove_rule("r"), "rules.remove", {"name": "r"}),
        (lambda p: p.enable_rule("r"), "rules.enable", {"name": "r"}),
        (lambda p: p.disable_rule("r"), "rules.disable", {"name": "r"}),
        (lambda p: p.test_rules("bob", cores=2), "rules.test",
         {"peer": "bob", "cores": 2, "trace": True}),
        (lambda p: p.filter_stats(), "filter.stats", {}),
        (lambda p: p.reset_filter(), "filter.reset", {}),
        (lambda p: list(p.audit(job="a")), "audit.list", {"after_seq": 0, "job": "a", "limit": 1000}),
        (lambda p: p.verify_audit(), "audit.verify", {}),
        (lambda p: p.config(), "config.show", {}),
        (lambda p: p.set_config("a.b", 1), "config.set", {"key": "a.b", "value": "1"}),
        (lambda p: p.unset_config("a.b"), "config.unset", {"key": "a.b"}),
        (lambda p: p.reload_config(), "config.reload", {}),
        (lambda p: p.trust("n"), "config.trust", {"value": "n"}),
        (lambda p: p.untrust("n"), "config.untrust", {"value": "n"}),
        (lambda p: p.trusted(), "config.trusted", {}),
        (lambda p: p.trust_peer("b"), "config.trust_peer", {"value": "b"}),
        (lambda p: p.untrust_peer("b"), "config.untrust_peer", {"value": "b"}),
        (lambda p: p.trusted_peers(), "config.trusted_peers", {}),
        (lambda p: p.block("b"), "config.block", {"value": "b"}),
        (lambda p: p.unblock("b"), "config.unblock", {"value": "b"}),
        (lambda p: p.blocked(), "config.blocked", {}),
        (lambda p: p.actors(), "daemon.actors", {}),
        (lambda p: p.metrics(), "daemon.metrics", {}),
        (lambda p: p.trace(), "daemon.trace", {}),
        (lambda p: p.trace("job_queue", off=True), "daemon.trace",
         {"actor": "job_queue", "off": True}),
        (lambda p: p.stop(now=True, timeout=2), "daemon.stop", {"now": True, "timeout_ms": 2000}),
        (lambda p: p.get("a"), "job.get", {"job": "a"}),
        (lambda p: p.wait("a"), "job.wait", {"job": "a"}),
        (lambda p: list(p.output("a")), "job.output",
         {"job": "a", "stream": "stdout", "offset": 0, "limit": 262144, "follow": False}),
        (lambda p: p.retry("a"), "job.retry", {"jobs": ["a"]}),
        (lambda p: p.purge(states=["dead"], before=2), "job.purge",
         {"states": ["dead"], "before_ms": 2000}),
        (lambda p: p.move("a", to="front", level="owner"), "job.move",
         {"jobs": ["a"], "to": "front", "level": "owner"}),
        (lambda p: p.submit_batch([{"lang": "sh", "script": b"x"}]), "job.submit_batch",
         {"jobs": [{"lang": "sh", "script": b"x"}]}),
        (lambda p: p.usage(), "queue.usage", {}),
        (lambda p: p.submit("x").id, "job.submit",
         {"lang": "python", "script": b"x", "network": "none"}),
    ]

    @staticmethod
    def answer(kind, body):
        # One body that has something of every answer: the module looks at what it knows.
        return "x", {"count": 1, "jobs": [], "rules": [], "entries": [], "values": [], "actors": [], "results": [],
                     "changes": [],
                     "job": "a", "state": "queued", "text": "", "data": b"", "offset": 0, "size": 0, "end": True}

    def test_each_sends_its_message(self):
        for call, kind, body in self.CALLS:
            with self.subTest(kind=kind):
                fake = self.fake(self.answer)
                call(self.provider(fake))
                self.assertEqual(fake.seen, [(kind, body)])

    def test_every_request_of_the_schema_has_a_verb(self):
        lines = (ROOT / "msg" / "schema.tbl").read_text().splitlines()
        requests = set()
        for line in lines:
            if line.startswith('OM_MSG("'):
                wire, _, _, who, route, answer = [x.strip() for x in line[7:].split(",")][:6]
                if who in ("PEER", "OPERATOR") and route != "NONE" and answer != "NONE":
                    requests.add(wire.strip('"'))
        self.assertGreater(len(requests), 30)
        self.assertEqual(requests - {kind for _, kind, _ in self.CALLS}, set())


class Events(Case):
    def test_events_come_with_and_without_a_topic(self):
        with tempfile.TemporaryDirectory() as d, zmq.Context() as context, \
                context.socket(zmq.XPUB) as pub:
            pub.setsockopt(zmq.LINGER, 0)
            endpoint = f"ipc://{d}/e"
            pub.bind(endpoint)
            p = self.provider(self.fake(ok))
            got = []
            thread = threading.Thread(
                target=lambda: got.extend(e.state for e in p.events(endpoint, timeout=0.3)))
            thread.start()
            pub.recv()  # the subscription is there
            frame = msgpack.packb([1, "job.event", 0, 0, {"job": "7f", "state": "running", "at_ms": 1}])
            pub.send_multipart([b"7f", frame])
            pub.send(msgpack.packb([1, "other", 0, 0, {}]))
            pub.send(frame)
            thread.join()
            self.assertEqual(got, ["running", "running"])


class Examples(Case):
    """The scripts run against a daemon that accepts and answers everything."""

    def daemon(self, kind, body):
        if kind == "job.submit":
            self.count = getattr(self, "count", 0) + 1
            return "job.accepted", {"job": f"j{self.count}", "state": "queued", "level": "external"}
        if kind == "job.wait":
            return "job.info", {"job": body["job"], "state": "completed", "level": "external",
                                "cpu_ms": 5, "started_ms": int(body["job"][1:])}
        return "output.data", {"data": b"42\n"[body["offset"]:], "offset": body["offset"], "size": 3,
                               "end": True}

    def run_example(self, name, *args):
        with tempfile.TemporaryDirectory() as d:
            return subprocess.run(
                [sys.executable, str(ROOT / "client/python/examples" / name), *args], cwd=d, timeout=60,
                env={**os.environ, "PYTHONPATH": str(ROOT / "client/python")},
                capture_output=True, text=True)

    def test_submit_many(self):
        fake = self.fake(self.daemon)
        ran = self.run_example("submit_many.py", "--endpoint", fake.endpoint, "--owner", "alice")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(ran.stdout.count("completed 42"), 20)
        behalf = [b.get("on_behalf") for k, b in fake.seen if k == "job.submit"]
        self.assertEqual({p: behalf.count(p) for p in behalf}, {"carol": 7, "bob": 7, "alice": 6})

    def test_stream_output(self):
        fake = self.fake(self.daemon)
        ran = self.run_example("stream_output.py", fake.endpoint)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(ran.stdout, "42\n")
        self.assertIn("lengths.txt: 3 bytes", ran.stderr)


if __name__ == "__main__":
    unittest.main()
