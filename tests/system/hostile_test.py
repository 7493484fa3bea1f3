#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""What hostile clients send and do, and that nobody else notices.

Every attack is watched by a well-behaved client in a process of its own, which submits jobs and times
each answer; after each attack the daemon's counters, memory and file descriptors are looked at.
`Wire` speaks ZMTP by hand (https://rfc.zeromq.org/spec/23), so that it can break it.
"""
import contextlib
import json
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import time
import unittest

import msgpack
import zmq

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402
import omerta  # noqa: E402

MIB = 1 << 20
FRAME_MIB = 8
UNREAD_MIB = 4
IN_FLIGHT = 64
PENDING_MIB = 64
CLIENTS_MAX = 1600
CLIENTS = 2500
CONNECTIONS_MAX = 3 * CLIENTS
RECEIVING_MIB = 64
NOBODY = 65534
# A sanitizer's own memory beside the daemon's, and its time.
SHADOW = 20 if rig.BUILD.endswith("-tsan") else 2 if rig.SANITIZED else 1
RSS_GROWTH_MIB = 160 * SHADOW  # what the allocator may keep when all is over
RSS_AGAIN_MIB = 48 * SHADOW    # and may still grow when it is done again; each time it is less
RSS_PEAK_MIB = 700 * SHADOW    # never more, whatever is under way
INNER_FDS = 32        # sockets between services, made when they first talk
LATENCY_P99_S = 0.5 * SHADOW  # of the well-behaved client, while two cores do all this
LATENCY_MAX_S = 3 * SHADOW
HANDSHAKE_S = 5       # the daemon's own limit
ANSWER_S = 120 if rig.SANITIZED else 20
CONFIG = f"""[vm]
driver = null
[jobs]
max_jobs = 2
[control]
socket_group = nogroup
max_frame = {FRAME_MIB}M
max_unread = {UNREAD_MIB}M
max_in_flight = {IN_FLIGHT}
max_clients = {CLIENTS_MAX}
max_pending = {PENDING_MIB}M
max_connections = {CONNECTIONS_MAX}
max_receiving = {RECEIVING_MIB}M
[store]
cache = 8M
"""
SUBMIT = {"lang": "sh", "script": b"true", "network": "none"}


def request(kind="ping", body=None, id=1, version=1, deadline=20000):
    return msgpack.packb([version, kind, id, deadline, {} if body is None else body])


class Wire:
    """A ZMTP 3.0 client on the unix socket, by hand."""
    GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)

    def __init__(self, path, kind=b"DEALER", hello=True):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.s.connect(path)  # waits while the backlog is full
        self.s.settimeout(ANSWER_S)
        self.kind = kind
        if hello:
            self.s.sendall(self.GREETING)

    def shake(self):
        """The rest of the handshake."""
        self.exactly(64)
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(self.kind)) + self.kind
        self.s.sendall(bytes([4, len(ready)]) + ready)
        self.frame()
        return self

    def exactly(self, n):
        data = b""
        while len(data) < n:
            piece = self.s.recv(n - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def frame(self):
        flags = self.exactly(1)[0]
        size = struct.unpack(">Q", self.exactly(8))[0] if flags & 2 else self.exactly(1)[0]
        return self.exactly(size)

    @staticmethod
    def framed(data, more=False):
        return struct.pack(">BQ", 2 | more, len(data)) + data

    def send(self, data):
        self.s.sendall(self.framed(data))

    def answer(self):
        return msgpack.unpackb(self.frame())

    def is_closed_within(self, seconds):
        self.s.settimeout(seconds)
        try:
            while self.s.recv(65536):
                pass
            return True
        except ConnectionError:
            return True
        except socket.timeout:
            return False

    def close(self):
        self.s.close()


class Good:
    """The well-behaved client: its own process, its own times."""

    def __init__(self, endpoint):
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--good", endpoint],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def report(self):
        """Seconds of each of its calls since the last report."""
        self.process.stdin.write("report\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the well-behaved client has failed")
        return sorted(json.loads(line))

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(timeout=30)


def be_good(endpoint):
    import select
    times = []
    with omerta.connect(endpoint, timeout=ANSWER_S / 2) as provider:
        while True:
            began = time.monotonic()
            provider.ping()
            times.append(time.monotonic() - began)
            began = time.monotonic()
            job = provider.submit(**{**SUBMIT, "network": None})
            times.append(time.monotonic() - began)
            if job.wait(timeout=ANSWER_S).state != "completed":
                raise SystemExit("a job did not complete")
            if select.select([sys.stdin], [], [], 0.005)[0]:
                if sys.stdin.readline() == "":
                    return
                print(json.dumps(times), flush=True)
                times = []


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(16384, limit[1]), limit[1]))
        cls.daemon = rig.Daemon(CONFIG).start()
        cls.path = f"{cls.daemon.dir}/run/control.sock"
        cls.operator = cls.daemon.connect()
        cls.times = []
        cls.context = zmq.Context()
        cls.good = Good(cls.daemon.endpoint)
        cls.good.report()
        for _ in range(200):  # the allocator and SQLite's cache are warm
            cls.operator.submit(**{**SUBMIT, "network": None})
        cls.operator.status(), list(cls.operator.list()), list(cls.operator.audit())
        cls.rss_before, cls.fds_before = cls.memory("VmRSS"), cls.fds()

    @classmethod
    def tearDownClass(cls):
        after = cls.memory("VmRSS")
        fds = cls.fds()
        p99 = sorted(cls.times)[len(cls.times) * 99 // 100]
        print(f"   well-behaved: {len(cls.times)} calls, p99 {p99 * 1000:.1f} ms")
        print(f"   files {cls.fds_before} -> {fds}")
        print(f"   memory {cls.rss_before} -> {after} MiB, at most {cls.memory('VmHWM')} MiB")
        print(f"   counters {dict(cls.operator.status().counters)}")
        bad = cls.good.close()
        cls.operator.close()
        cls.context.destroy(linger=0)
        code = cls.daemon.stop()
        left = cls.daemon.left()
        tail = cls.daemon.tail()
        cls.daemon.close()
        assert not bad, "the well-behaved client has failed"
        assert code == 0, f"exit status {code}\n{tail}"
        assert not left, left
        assert p99 < LATENCY_P99_S, p99
        assert fds - cls.fds_before < INNER_FDS, f"files {cls.fds_before} -> {fds}"
        assert after - cls.rss_before < RSS_GROWTH_MIB, f"{cls.rss_before} -> {after} MiB"

    def setUp(self):
        self.counters_before = self.counters()
        self.connections_before = self.connections()
        self.good.report()

    def tearDown(self):
        """Whatever was done: nobody else noticed, and nothing is kept."""
        self.doCleanups()
        time_limit = time.monotonic() + HANDSHAKE_S + 10
        while self.connections() > self.connections_before and time.monotonic() < time_limit:
            time.sleep(0.05)
        self.assertEqual(self.connections(), self.connections_before)
        self.assertEqual(self.counters()["connections"], self.connections_before)
        self.assertLess(self.memory("VmHWM"), RSS_PEAK_MIB)
        times = self.good.report()
        self.times.extend(times)
        print(f"   well-behaved: {len(times)} calls, p50 {times[len(times) // 2] * 1000:.1f} ms, "
              f"p99 {times[len(times) * 99 // 100] * 1000:.1f} ms, max {times[-1] * 1000:.0f} ms; "
              f"{self.memory('VmRSS')} MiB", flush=True)
        self.assertLess(times[-1], LATENCY_MAX_S)

    # --- looking at the daemon ----------------------------------------------------------------

    @classmethod
    def memory(cls, what):
        with open(f"/proc/{cls.daemon.process.pid}/status") as f:
            return next(int(line.split()[1]) // 1024 for line in f if line.startswith(what))

    @classmethod
    def fds(cls):
        return len(os.listdir(f"/proc/{cls.daemon.process.pid}/fd"))

    @classmethod
    def connections(cls):
        """To the control socket; the first is the one that listens."""
        with open("/proc/net/unix") as f:
            return sum(1 for line in f if line.rstrip().endswith(cls.path)) - 1

    def counters(self):
        return {k: int(v) for k, v in self.operator.status().counters.items()}

    def counted(self, name):
        """How far a counter has come in this test."""
        return self.counters()[name] - self.counters_before[name]

    def until(self, what, seconds=ANSWER_S):
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                raise AssertionError("it did not happen in time")
            time.sleep(0.01)

    # --- clients ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def client(self, kind=zmq.DEALER, **options):
        with self.context.socket(kind) as s:
            s.setsockopt(zmq.LINGER, 0)
            s.setsockopt(zmq.RCVTIMEO, ANSWER_S * 1000)
            for name, value in options.items():
                s.setsockopt(getattr(zmq, name), value)
            s.connect(self.daemon.endpoint)
            yield s

    def wire(self, shake=True, **more):
        w = Wire(self.path, **more)
        self.addCleanup(w.close)
        return w.shake() if shake else w

    def answers(self, s, n):
        """Exactly n answers, then none."""
        got = [msgpack.unpackb(s.recv()) for _ in range(n)]
        self.assertEqual(s.poll(100), 0, "an answer too many")
        return got

    def held_job(self):
        job = self.operator.submit(hold=True, **{**SUBMIT, "network": None})
        self.addCleanup(self.end, job)
        return job

    @staticmethod
    def end(job):
        with contextlib.suppress(omerta.WrongState):
            job.cancel()

    # --- requests that are none ---------------------------------------------------------------

    def assert_refused(self, cases):
        """Each frame is answered once, with its code; nothing else comes."""
        with self.client() as s:
            for frame, codes in cases:
                s.send(frame)
                answer = msgpack.unpackb(s.recv())
                self.assertEqual((answer[0], answer[1], answer[3]), (1, "error", 0), frame[:80])
                self.assertIn(answer[4]["code"], codes.split("|"), (frame[:80], answer[4]))
                self.assertTrue(answer[4]["text"])
            self.answers(s, 0)
            s.send(request(id=77))
            self.assertEqual(self.answers(s, 1)[0][1:3], ["ok", 77])

    def test_envelopes(self):
        good = request("job.get", {"job": "x"})
        cases = [(b"", "invalid"), (b"x", "invalid"), (b"GET / HTTP/1.1\r\n\r\n", "invalid"),
                 (b"\0" * 1000, "invalid"), (b"\xff" * 1000, "invalid"), (b"\xc1", "invalid"),
                 (good + b"\0", "invalid"), (b"\x91" * 40, "invalid"),
                 (b"\x91" * MIB, "invalid"), (b"\x81\xa1a" * 300000, "invalid")]
        cases += [(good[:n], "invalid") for n in range(1, len(good))]
        for bomb in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
                     b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xdc\xff\xff"):
            cases += [(bomb, "invalid"), (good[:-1] + bomb, "invalid"),
                      (msgpack.packb([1, "job.submit", 1, 0])[:-4][:1] + bomb, "invalid")]
        for version in (0, 2, -1, 1 << 63, "1", None, 1.0):
            cases.append((request(version=version), "version|invalid"))
        for kind in ("", "job.explode", "a" * 100000, 7, None, b"ping", "ping\0", "PING"):
            cases.append((request(kind), "unknown_type|invalid"))
        for id in (-1, "1", None, 1.5, [], True):
            cases.append((request(id=id), "invalid"))
            cases.append((request(deadline=id), "invalid"))
        for body in ([], 1, "x", b"x", None):
            cases.append((msgpack.packb([1, "ping", 1, 0, body]), "invalid"))
        cases += [(msgpack.packb(v), "invalid") for v in (
            [1, "ping", 1, 0], [1, "ping", 1, 0, {}, 1], {}, [], {"type": "ping"}, None, 1)]
        cases += [(request("job.info", {"job": "x"}), "invalid"), (request("ok"), "invalid"),
                  (request("ledger.move"), "denied"), (request("queue.add"), "denied")]
        self.assert_refused(cases)
        self.assertGreater(self.counted("malformed"), 50)
        self.assertGreater(self.counted("errors"), 90)
        self.assertEqual(self.counted("denied"), 2)

    def test_bodies(self):
        body = dict(SUBMIT)
        cases = [(request("ping", {"colour": 1}), "unknown_field"),
                 (request("job.submit", {**body, "scirpt": b""}), "unknown_field"),
                 (request("job.submit", {**body, "vpn": {"post_up": "touch /x"}}), "unknown_field"),
                 (request("job.submit", {}), "invalid"), (request("job.get"), "invalid"),
                 (request("job.submit", {1: 2}), "invalid|unknown_field")]
        for missing in ("lang", "script"):
            cases.append((request("job.submit", {k: v for k, v in body.items() if k != missing}),
                          "invalid"))
        twice = msgpack.packb([1, "job.submit", 1, 0])[1:]
        pairs = b"".join(msgpack.packb(x) for x in ("lang", "sh", "script", b"1", "lang", "python"))
        cases.append((b"\x95" + twice + b"\x83" + pairs, "invalid"))
        wrong = {"lang": [1, None, [], {}, True, b"\xff\xfe"], "script": [1, None, [], {}],
                 "args": ["x", 1, [1], [None], {"a": "b"}, [["a"]]], "env": [[], "x", {"a": 1}, {1: "a"}],
                 "files": [{}, ["x"], [{}], [{"name": "a"}], [{"name": 1, "data": b""}]],
                 "cores": ["1", -1, 1.5, None, [], True], "gpu": [1, "yes", None],
                 "vpn": [1, "x", [], {}], "after": ["id", [1]], "hold": ["no", 0],
                 "job": [1, None, ["x"]], "stdin": [1, [], None]}
        cases += [(request("job.submit", {**body, k: v}), "invalid")
                  for k, values in wrong.items() for v in values]
        cases += [(request("job.submit", {**body, k: v}), "too_big|invalid") for k, v in {
            "lang": "x" * 33, "script": bytes(4 * MIB + 1), "args": ["x"] * 257, "job": "x" * 65,
            "env": {str(n): "" for n in range(257)}, "activity": "x" * 1025, "cores": 1025,
            "outputs": ["x"] * 65, "after": ["x"] * 65, "runtime_s": 1 << 63}.items()]
        cases += [(request("job.submit", {**body, "files": [{"name": name, "data": b""}]}), "invalid")
                  for name in ("../x", "/etc/passwd", "a/../../b", "", ".", "a\0b")]
        deep = 0
        for _ in range(40):
            deep = {"a": deep}
        cases.append((request("job.submit", {**body, "env": deep}), "invalid"))
        before = self.operator.status().queue.get("queued", 0)
        self.assert_refused(cases)
        self.assertEqual(self.operator.status().queue.get("queued", 0), before)

    def test_every_request_answers_noise_once(self):
        """All requests of the protocol with bodies of noise, and bit flips of good ones."""
        rnd = random.Random(4711)
        with open(os.path.join(rig.ROOT, "docs/protocol.md")) as f:
            kinds = [line.split("`")[1] for line in f if line.startswith("| `") and "." in line.split("`")[1]]
        kinds = [k for k in kinds if k not in ("daemon.stop", "filter.reset", "queue.pause", "queue.drain")]
        self.assertGreater(len(kinds), 30)
        frames = []
        for kind in kinds:
            for _ in range(10):
                head = b"\x95" + msgpack.packb([1, kind, 1, 1000])[1:]
                frames.append(head + b"\x81" + bytes(rnd.randrange(256) for _ in range(rnd.randrange(60))))
        good = request("job.submit", {**SUBMIT, "env": {"A": "b"}, "hold": True, "after": ["nothing"]})
        for _ in range(1000):
            flipped = bytearray(good)
            flipped[rnd.randrange(len(good))] ^= 1 << rnd.randrange(8)
            frames.append(bytes(flipped))
        with self.client() as s:
            for n in range(0, len(frames), IN_FLIGHT // 2):
                batch = frames[n:n + IN_FLIGHT // 2]
                for frame in batch:
                    s.send(frame)
                for _ in batch:
                    version, kind, _, _, body = msgpack.unpackb(s.recv())
                    self.assertEqual(version, 1)
                    self.assertTrue(kind != "error" or body["code"] != "internal", body)
            self.answers(s, 0)
        self.operator.cancel(state="queued")

    # --- sockets of the wrong kind, and none at all ----------------------------------------------

    def test_other_sockets(self):
        with self.client(zmq.REQ) as s:
            s.send(request(id=5))
            self.assertEqual(msgpack.unpackb(s.recv())[1:3], ["ok", 5])
            s.send(b"garbage")
            self.assertEqual(msgpack.unpackb(s.recv())[4]["code"], "invalid")
            s.send_multipart([request(), request()])
            self.assertEqual(msgpack.unpackb(s.recv())[4]["code"], "invalid")
        with self.client(zmq.DEALER, ROUTING_ID=b"operator") as s:
            s.send(request())
            self.assertEqual(self.answers(s, 1)[0][4]["code"], "invalid")
        with self.client() as s:
            for parts in ([b"a", b"b", b"c"], [request(), request()], [b"", request(), b"x"],
                          [b"", b""], [b"x"] * 4, [b"", b"", request()]):
                s.send_multipart(parts)
                answer = msgpack.unpackb(s.recv_multipart()[-1])
                self.assertEqual(answer[4]["code"], "invalid", parts[:3])
            self.answers(s, 0)
        with self.client(zmq.ROUTER) as s:  # cannot address us: it only connects
            self.assertEqual(s.poll(50), 0)

    def assert_closed(self, attacks, seconds=ANSWER_S):
        clients = []
        for shake, data in attacks:
            w = self.wire(shake=shake, hello=shake)
            clients.append(w)
            with contextlib.suppress(OSError):
                w.s.sendall(data)
        for (_, data), w in zip(attacks, clients):
            self.assertTrue(w.is_closed_within(seconds), data[:60])

    def test_bytes_that_are_not_zeromq(self):
        """Also those who say nothing at all are cut off, by the limit for handshakes."""
        g = Wire.GREETING
        attacks = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 5000, bytes(range(256)) * 20, b"",
                   g[:1], g[:30], g, g[:12] + b"PLAIN".ljust(20, b"\0") + g[32:],
                   g[:12] + b"CURVE".ljust(20, b"\0") + g[32:], g + b"\x04\x05\x05RE", g + b"\xff" * 100,
                   g + struct.pack(">BQ", 6, 1 << 62), g + b"\x04\x06\x05READY" + b"\x00" * 50]
        self.assert_closed([(False, a) for a in attacks], HANDSHAKE_S + 10)
        self.assertGreater(self.counted("handshakes_failed"), 5)
        self.assertGreaterEqual(self.counted("disconnects"), len(attacks))

    def test_oversized(self):
        """Over control.max_frame: never read, the connection ends."""
        big = FRAME_MIB * MIB
        attacks = [struct.pack(">BQ", 2, size) + b"x" for size in (
            big + 1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)]
        attacks.append(Wire.framed(bytes(big + 1)))
        attacks.append(struct.pack(">BQ", 3, 1 << 50))
        self.assert_closed([(True, a) for a in attacks])
        self.until(lambda: self.counted("disconnects") >= len(attacks))
        w = self.wire()
        w.send(request("job.submit", {**SUBMIT, "script": bytes(MIB)}).ljust(big, b"\0"))
        self.assertEqual(w.answer()[4]["code"], "invalid")  # the largest that is read

    # --- many, and those who do not listen ---------------------------------------------------------

    @contextlib.contextmanager
    def being_nobody(self):
        """Whoever connects now is another user (SO_PEERCRED tells what it was at connect)."""
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    def test_thousands_of_clients(self):
        """They get half of control.max_clients; everyone else is served, and then they are, too."""
        clients = self.crowd()
        self.assertGreaterEqual(self.counters()["connections"], CLIENTS)
        clients[0].send(request("job.submit", SUBMIT))
        job = clients[0].answer()[4]["job"]
        for n, w in enumerate(clients):
            w.send(request("job.wait", {"job": job}, id=n, deadline=60000))
        self.until(lambda: self.counted("limit_clients") >= CLIENTS - CLIENTS_MAX)
        self.assertEqual(self.operator.get(job).state, "pending_approval")
        self.operator.cancel(job)
        ends = {"cancelled": 0, "limit": 0}
        for n, w in enumerate(clients):
            _, _, id, _, body = w.answer()
            self.assertEqual(id, n)
            ends[body.get("state", body.get("code"))] += 1
        print(f"   {ends}")
        # The operator's own two clients and the well-behaved one take places, too.
        self.assertAlmostEqual(ends["cancelled"], CLIENTS_MAX // 2, delta=2)
        for n, w in enumerate(clients):  # in turns that fit
            w.send(request(id=n))
            self.assertEqual(w.answer()[1:3], ["ok", n])
            w.close()
        self.until(lambda: self.counters()["connections"] < 10)
        memory = self.memory("VmRSS")
        for w in self.crowd():
            w.close()
        self.until(lambda: self.counters()["connections"] < 10)
        self.assertLess(self.memory("VmRSS") - memory, RSS_AGAIN_MIB)  # what was kept is used again

    def crowd(self):
        with self.being_nobody():
            clients = [self.wire(shake=False) for _ in range(CLIENTS)]
        return [w.shake() for w in clients]

    def test_many_in_flight(self):
        job = self.held_job()
        with self.client() as s:
            for n in range(3 * IN_FLIGHT):
                s.send(request("job.wait", {"job": job.id}, id=n))
            refused = [msgpack.unpackb(s.recv()) for _ in range(2 * IN_FLIGHT)]
            self.assertEqual({a[4].get("code") for a in refused}, {"limit"})
            self.operator.cancel(job.id)
            ended = self.answers(s, IN_FLIGHT)
            self.assertEqual({a[4].get("state") for a in ended}, {"cancelled"})
            self.assertEqual(sorted(a[2] for a in refused + ended), list(range(3 * IN_FLIGHT)))

    def test_a_client_that_never_reads(self):
        """Its answers are held up to control.max_unread, then it is cut off."""
        for _ in range(300):
            self.operator.call("job.submit", {**SUBMIT, "activity": "x" * 1024})
        deaf = [self.wire() for _ in range(8)]
        for w in deaf:
            w.s.settimeout(0.2)
            with contextlib.suppress(socket.timeout):
                for n in range(200):
                    w.send(request("job.list", {"limit": 300}, id=n))
        self.until(lambda: self.counted("cut_off") > 0)
        self.assertGreater(self.counted("limit_unread") + self.counted("cut_off"), 0)
        self.assertLess(self.memory("VmRSS") - self.rss_before, RSS_GROWTH_MIB + UNREAD_MIB)
        for w in deaf:
            w.close()

    def test_it_is_told_when_it_reads_again(self):
        for _ in range(300):
            self.operator.call("job.submit", {**SUBMIT, "activity": "x" * 1024})
        w = self.wire()
        for n in range(IN_FLIGHT):
            w.send(request("job.list", {"limit": 300}, id=n))
        self.until(lambda: self.counted("cut") > 0)
        w.send(request(id=1000))
        answers = []
        while not answers or answers[-1][1] != "error":
            answers.append(w.answer())
        self.assertEqual((answers[-1][2], answers[-1][4]["code"]), (1000, "limit"))
        self.assertLess(len(answers), IN_FLIGHT)
        answer, id = [], 1001  # behind what was asked before, where it may lose some again
        while answer[1:3] != ["ok", id]:
            if answer[1:2] != ["job.table"]:
                id += 1
                w.send(request(id=id))
            answer = w.answer()

    def test_large_bodies_in_flight(self):
        """Memory has a limit also where each request is within its own."""
        body = request("job.submit", {**SUBMIT, "stdin": bytes((FRAME_MIB - 1) * MIB), "hold": True})
        clients = [self.client() for _ in range(4)]
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(c) for c in clients]
            for _ in range(12):
                for s in sockets:
                    s.send(body)
            answers = [msgpack.unpackb(s.recv()) for s in sockets for _ in range(12)]
        kinds = [a[4].get("code", a[1]) for a in answers]
        print("   ", {k: kinds.count(k) for k in set(kinds)})
        self.assertLessEqual(set(kinds), {"job.accepted", "limit", "full"})
        self.assertIn("job.accepted", kinds)
        self.operator.cancel(state="queued")

    # --- requests that are never whole -------------------------------------------------------------

    def assert_bounded(self, memory, mib=0):
        """Beside what was allowed, nothing is kept of it while it lasts."""
        self.assertLess(self.memory("VmRSS") - memory, mib + RSS_AGAIN_MIB)
        self.operator.ping()

    def test_a_message_without_an_end(self):
        """Parts and parts, of every size: ZeroMQ itself would keep them all."""
        memory = self.memory("VmRSS")
        for part in (b"", b"x", b"x" * 40, b"x" * 65536):
            for _ in range(8):
                w = self.wire()
                sent, chunk = 0, Wire.framed(part, more=True) * (1 + MIB // (len(part) + 9))
                with contextlib.suppress(ConnectionError):
                    while sent < 256 * MIB:
                        w.s.sendall(chunk)
                        sent += len(chunk)
                self.assertLess(sent, FRAME_MIB * MIB)
                self.assert_bounded(memory)
        self.assertEqual(self.counted("limit_receiving"), 4 * 8)

    def begun(self, size, sent):
        """A connection on which a request of that size has begun; None: it was ended."""
        w = self.wire()
        w.s.settimeout(5)
        with contextlib.suppress(ConnectionError):
            w.s.sendall(struct.pack(">BQ", 2, size) + bytes(sent))
            return w
        return None

    def test_requests_that_only_begin(self):
        """Everyone's together have a limit, another user gets half of it, small ones are always served."""
        memory = self.memory("VmRSS")
        size = FRAME_MIB * MIB - 1
        with self.being_nobody():
            crowd = [self.begun(size, size - 1) for _ in range(40)]
            slow = [self.begun(16000, 15999) for _ in range(500)]
        room = RECEIVING_MIB // FRAME_MIB // 2
        self.until(lambda: self.counted("limit_receiving") >= 40 - room)
        self.assertEqual(self.counted("limit_receiving"), 40 - room)
        self.assertEqual(self.counters()["receiving_bytes"], room * size)
        self.assert_bounded(memory, RECEIVING_MIB // 2 + 500 * 64 // 1024)
        body = {**SUBMIT, "stdin": bytes(size - 65536), "hold": True}
        self.operator.cancel(self.operator.call("job.submit", body)["job"])  # there is room for others
        for w in crowd + slow:
            if w:
                w.close()
        self.until(lambda: self.counters()["receiving_bytes"] == 0)

    def test_connections_without_an_end(self):
        with self.being_nobody():
            crowd = [Wire(self.path, hello=False) for _ in range(CONNECTIONS_MAX)]
        self.until(lambda: self.counted("limit_connections") >= CONNECTIONS_MAX // 2 - 100)
        self.assertLessEqual(self.counters()["connections"], CONNECTIONS_MAX // 2 + 100)
        self.wire().send(request())  # root still comes in
        for w in crowd:
            w.close()

    def test_disconnects_in_the_middle(self):
        whole = Wire.framed(request("job.submit", SUBMIT))
        for n in range(300):
            w = self.wire()
            if n % 3 == 0:
                w.s.sendall(whole[:n % len(whole)])
            elif n % 3 == 1:
                w.s.sendall(whole)  # and never hears of it
            else:
                w.s.sendall(Wire.framed(b"", more=True) + whole[:20])
            w.close()
        waiting = [self.wire() for _ in range(100)]
        job = self.held_job()
        for w in waiting:
            w.send(request("job.wait", {"job": job.id}))
        self.until(lambda: self.counters()["in_flight"] >= 100)
        for w in waiting:
            w.close()
        self.operator.cancel(job.id)
        self.until(lambda: self.counters()["in_flight"] <= 2)
        self.assertGreaterEqual(self.counted("client_gone"), 1)

    # --- other users -------------------------------------------------------------------------------

    def as_nobody(self, work, groups=()):
        """Runs work(endpoint) as another user; gives what it returns."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.setgroups(list(groups))
                os.setgid(NOBODY if groups else 12345)
                os.setuid(NOBODY)
                try:
                    result = work(self.daemon.endpoint)
                except Exception as e:
                    result = f"{type(e).__name__}: {getattr(e, 'code', '')} {e}"
                os.write(write, json.dumps(result).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as f:
            result = json.loads(f.read() or '"nothing"')
        os.waitpid(child, 0)
        return result

    def test_the_sockets_permission(self):
        def plain(_):
            for name in ("control.sock", "events.sock"):
                with socket.socket(socket.AF_UNIX) as s, contextlib.suppress(PermissionError):
                    s.connect(f"{self.daemon.dir}/run/{name}")
                    return name
            return "refused"
        self.assertEqual(self.as_nobody(plain), "refused")

    def test_what_a_requester_may(self):
        theirs = self.held_job()
        refused = {
            "job.get": {"job": theirs.id}, "job.wait": {"job": theirs.id},
            "job.output": {"job": theirs.id}, "job.cancel": {"job": theirs.id},
            "job.hold": {"jobs": [theirs.id]}, "job.release": {"jobs": [theirs.id]}}
        denied = {
            "job.approve": {"jobs": [theirs.id]}, "job.deny": {"jobs": [theirs.id]},
            "daemon.stop": {}, "daemon.actors": {}, "config.show": {}, "queue.resume": {},
            "config.set": {"key": "jobs.max_jobs", "value": "9"}, "config.reload": {},
            "config.trust": {"value": "x"}, "config.block": {"value": "x"}, "queue.pause": {}, "queue.drain": {},
            "queue.limits": {"max_jobs": 9}, "rules.list": {}, "rules.remove": {"name": "x"},
            "audit.list": {}, "audit.verify": {}, "filter.reset": {}}

        def work(endpoint):
            def code(kind, body):
                try:
                    provider.call(kind, body)
                    return "done"
                except omerta.Error as e:
                    return e.code
            with omerta.connect(endpoint) as provider:
                mine = provider.call("job.submit", SUBMIT)
                result = {k: code(k, v) for k, v in {**refused, **denied}.items()}
                result["on_behalf"] = code("job.submit", {**SUBMIT, "on_behalf": "uid:0"})
                result["network_id"] = code("job.submit", {**SUBMIT, "network_id": "home"})
                code("job.cancel", {"state": "queued"})  # all of its own
                result["same id"] = code("job.submit", {**SUBMIT, "job": theirs.id})
                result["mine"] = [mine["job"], mine["state"]]
                result["approve mine"] = code("job.approve", {"jobs": [mine["job"]]})
                result["list"] = [(j.job, j.peer) for j in provider.list()]
                result["list others"] = [j.job for j in provider.list(peer="uid:0")]
                status = provider.status()
                result["status"] = sorted(status)
                result["cancel mine"] = code("job.cancel", {"job": mine["job"]})
                return result
        result = self.as_nobody(work, groups=[NOBODY])
        self.assertIsInstance(result, dict, result)
        self.assertEqual({k: result[k] for k in refused}, dict.fromkeys(refused, "not_found"))
        self.assertEqual({k: result[k] for k in denied}, dict.fromkeys(denied, "denied"))
        self.assertEqual((result["on_behalf"], result["network_id"]), ("denied", "denied"))
        self.assertEqual(result["same id"], "exists")
        self.assertEqual(result["mine"][1], "pending_approval")  # not the owner, no network
        self.assertEqual(result["approve mine"], "denied")
        self.assertEqual(result["list"][0], [result["mine"][0], f"uid:{NOBODY}"])
        self.assertEqual({peer for _, peer in result["list"]}, {f"uid:{NOBODY}"})
        self.assertNotIn(theirs.id, result["list others"])
        self.assertNotIn("counters", result["status"])
        self.assertEqual(result["cancel mine"], "done")
        self.assertEqual(theirs.state, "queued")
        self.assertEqual(self.operator.get(result["mine"][0]).peer, f"uid:{NOBODY}")
        self.assertEqual(self.operator.get(result["mine"][0]).state, "cancelled")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--good"]:
        be_good(sys.argv[2])
    else:
        rig.main("hostile")
