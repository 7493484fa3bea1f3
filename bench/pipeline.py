#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Submit and whole cycle through a daemon with the null executor, beside beanstalkd, Redis and
PostgreSQL where they are installed: 200-byte bodies, acknowledged after the sync.  And without
peers: what a queued job costs in time and memory, and a decision of the filter.

    bench/pipeline.py [--runs N] [--only submit|cycle|queue] [--point 16x100] [--peers NAME,...]
                      [--dir DIR]

Everything is started by this script in private directories below --dir (a real disk, not a tmpfs:
the sync is what is measured) and listens on sockets of its own.  All sides run in turn, round by
round; the figure is the median over the rounds.  docs/benchmarks.md says what each side does.

A hundred in flight are a hundred requests of one job to omertad; in a row `batch` one request of a
hundred jobs (job.submit_batch), as they always are one statement to PostgreSQL and one write to Redis
and beanstalkd.  Both rows are of the same rounds.
"""
import argparse
import glob
import json
import os
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run as harness  # noqa: E402

ROOT, BUILD, PEERS = harness.ROOT, harness.BUILD, harness.PEERS

#         what, clients, in flight, jobs, target jobs/s
POINTS = [
    ("submit", 1, 1, 4000, 3800),
    ("submit", 1, 100, 60000, 100000),
    ("submit", 16, 1, 40000, 30000),
    ("submit", 16, 100, 120000, 150000),
    ("cycle", 1, 1, 3000, 1300),
    ("cycle", 1, 100, 30000, 58000),
    ("cycle", 16, 1, 20000, 12000),
    ("cycle", 16, 100, 60000, 51000),
]

# Programs without a daemon; each prints its rows, medians of its own rounds.
PROGRAMS = ["schedule_bench", "queue_bench", "filter_bench"]
# Jobs that are queued in a daemon before its memory is looked at, and once more.
QUEUED = (100000, 400000)
MEMORY_TARGET = 256  # bytes a job

# The null executor runs nothing, so what the machine has is no limit: as many jobs may be on their
# way as the peers are asked for.
CONF = """[daemon]
state_dir = {0}/state
run_dir = {0}/run
log_level = warn
[vm]
driver = null
[network]
wireguard = none
[jobs]
max_jobs = 1000
lend_cores = 1024
lend_memory = 4096G
"""


class Daemon:
    """A fresh daemon and ledger for each measurement."""
    name = "omerta"
    more = []  # arguments of submit_bench
    in_flight_min = 1

    def __init__(self, base):
        self.base = base

    def measure(self, args):
        return self.during(lambda endpoint, _: harness.run(
            [f"{BUILD}/bench/submit_bench", endpoint] + args + self.more, 120))

    def queued_bytes(self):
        """Resident memory of one job that is queued: its body and its row are in the ledger."""
        def fill(endpoint, pid):
            resident = []
            for jobs in (QUEUED[0], QUEUED[1] - QUEUED[0]):
                result, why = harness.run(
                    [f"{BUILD}/bench/submit_bench", endpoint, "16", "100", str(jobs)], 300)
                if result is None:
                    return None, why
                with open(f"/proc/{pid}/status") as f:
                    resident += [int(line.split()[1]) for line in f if line.startswith("VmRSS")]
            return (resident[1] - resident[0]) * 1024 / (QUEUED[1] - QUEUED[0]), None
        return self.during(fill)

    def during(self, what):
        """what(endpoint, pid) while a daemon runs."""
        path = tempfile.mkdtemp(prefix="omerta-bench.", dir=self.base)
        conf = os.path.join(path, "omertad.conf")
        with open(conf, "w") as f:
            f.write(CONF.format(path))
        process = subprocess.Popen([f"{BUILD}/omertad", "start", "--config", conf],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            if not any(line.startswith("ready:") for line in process.stdout):
                return None, "omertad did not start"
            return what(f"ipc://{path}/run/control.sock", process.pid)
        finally:
            process.terminate()
            process.communicate()
            shutil.rmtree(path)

    def close(self):
        pass


class Batches(Daemon):
    """The same, a client's jobs in flight in one request."""
    name = "batch"
    more = ["batch"]
    in_flight_min = 2


class Peer:
    """A server that lives for the whole run; its program empties it first."""
    server = source = ""
    libs = []
    jobs_max = 10 ** 9
    in_flight_min = 1

    def __init__(self, base):
        self.process = None
        self.program = os.path.join(PEERS, f"queue_{self.name}")
        if self.find() is None:
            raise LookupError(f"{self.server} is not installed")
        os.makedirs(PEERS, exist_ok=True)
        built = subprocess.run(["gcc", "-O2", "-o", self.program,
                                f"{ROOT}/bench/peers/queues/{self.source}"] + self.libs +
                               ["-lpthread"], capture_output=True, text=True)
        if built.returncode != 0:
            raise LookupError("does not build: " + built.stderr.strip().splitlines()[0][:100])
        self.dir = tempfile.mkdtemp(prefix="omerta-bench.", dir=base)
        os.chmod(self.dir, 0o755)
        self.log = open(os.path.join(self.dir, "log"), "w")
        self.start()

    def find(self):
        return shutil.which(self.server)

    def spawn(self, cmd, **more):
        self.process = subprocess.Popen(cmd, stdout=self.log, stderr=self.log, cwd=self.dir, **more)

    def wait(self, probe):
        for _ in range(200):
            if probe():
                return
            time.sleep(0.05)
        self.close()
        raise LookupError("did not start")

    def measure(self, args):
        jobs = min(int(args[2]), self.jobs_max)
        return harness.run([self.program, self.endpoint, args[0], args[1], str(jobs)] + args[3:], 120)

    def close(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir)


class Beanstalkd(Peer):
    name, server, source, jobs_max = "beanstalkd", "beanstalkd", "beanstalkd.c", 10000

    def start(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.endpoint = str(s.getsockname()[1])
        os.mkdir(f"{self.dir}/wal")
        self.spawn(["beanstalkd", "-l", "127.0.0.1", "-p", self.endpoint, "-b", f"{self.dir}/wal",
                    "-f0"])
        self.wait(self.answers)

    def answers(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", int(self.endpoint))) == 0


class Redis(Peer):
    name, server, source, libs = "Redis", "redis-server", "redis.c", ["-lhiredis"]

    def start(self):
        self.endpoint = f"{self.dir}/redis.sock"
        self.spawn(["redis-server", "--port", "0", "--unixsocket", self.endpoint, "--dir", self.dir,
                    "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
        self.wait(lambda: os.path.exists(self.endpoint))


class Postgres(Peer):
    name, server, source = "PostgreSQL", "postgres", "postgres.c"
    libs = ["-I/usr/include/postgresql", "-lpq"]

    def find(self):
        self.bin = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        try:
            self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        except KeyError:
            return None
        return self.bin[-1] if self.bin else None

    def start(self):
        # It refuses to run as root.
        who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} \
            if self.user else {}
        if self.user:
            os.chown(self.dir, self.user.pw_uid, self.user.pw_gid)
        done = subprocess.run([f"{self.bin[-1]}/initdb", "-D", f"{self.dir}/data", "-A", "trust",
                               "-U", "bench"], stdout=self.log, stderr=self.log, cwd=self.dir, **who)
        if done.returncode != 0:
            self.close()
            raise LookupError("initdb failed")
        self.endpoint = f"host={self.dir} user=bench dbname=postgres"
        self.spawn([f"{self.bin[-1]}/postgres", "-D", f"{self.dir}/data", "-k", self.dir,
                    "-c", "listen_addresses=", "-c", "synchronous_commit=on", "-c", "fsync=on",
                    "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB"], **who)
        self.wait(lambda: os.path.exists(f"{self.dir}/.s.PGSQL.5432"))


def sides(base, wanted):
    found = [Daemon(base), Batches(base)]
    for kind in [Beanstalkd, Redis, Postgres]:
        if wanted is not None and kind.name.lower() not in wanted.lower().split(","):
            continue
        try:
            found.append(kind(base))
        except LookupError as why:
            print(f"skip {kind.name}: {why}")
    return found


def point(found, what, clients, in_flight, jobs, target, runs):
    """A row for each way to ask omertad, beside the same peers."""
    sides = [side for side in found if in_flight >= side.in_flight_min]
    results = {side.name: [] for side in sides}
    args = [str(clients), str(in_flight), str(jobs)] + (["cycle"] if what == "cycle" else [])
    for _ in range(runs):
        for side in sides:
            result, why = side.measure(args)
            if result is None:
                print(f"note: {side.name} {what}/{clients}x{in_flight}: {why}")
            else:
                results[side.name].append(result)
    peers = {side.name: statistics.median(r["value"] for r in results[side.name])
             for side in sides if isinstance(side, Peer) and results[side.name]}
    rows = []
    for side in sides:
        if isinstance(side, Peer):
            continue
        if not results[side.name]:
            raise SystemExit(1)
        mine, p50, p99 = (statistics.median(r[key] for r in results[side.name])
                          for key in ("value", "p50_us", "p99_us"))
        name = f"{what}/{clients}x{in_flight}" + "".join(f" {word}" for word in side.more)
        print(f"{name:20}{mine:10.0f}" +
              "".join(f"{peers[s.name]:12.0f}" if s.name in peers else f"{'-':>12}"
                      for s in found if isinstance(s, Peer)) +
              f"{target:10}{p50:10.0f}{p99:10.0f}", flush=True)
        rows.append({"name": f"pipeline/{name}", "unit": "jobs/s", "better": "higher", "ours": mine,
                     "target": target, "peers": peers,
                     "ratio_to_best": mine / max(peers.values()) if peers else None,
                     "p50_us": p50, "p99_us": p99})
    return rows


def alone(base):
    """The rows that have no peers."""
    rows = []
    for program in PROGRAMS:
        out = subprocess.run([f"{BUILD}/bench/{program}"], capture_output=True, text=True, check=True)
        rows += [json.loads(line) for line in out.stdout.splitlines()]
    value, why = Daemon(base).queued_bytes()
    if value is None:
        raise SystemExit(f"queue/resident: {why}")
    rows.append({"name": "queue/resident", "value": value, "unit": "B/job", "target": MEMORY_TARGET})
    results = []
    for row in rows:
        name, ours, target = row.pop("name"), row.pop("value"), row.pop("target", None)
        unit = row.pop("unit")
        print(f"{name:18}{ours:10.4g} {unit:8}{'-' if target is None else target:>8}   "
              + ", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        results.append({"name": f"pipeline/{name}", "unit": unit, "better": "lower", "ours": ours,
                        "target": target, "peers": {}, "ratio_to_best": None, **row})
    return results


def main():
    ap = argparse.ArgumentParser(description="jobs through omertad beside its peers")
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--only", default="", choices=["", "submit", "cycle", "queue"])
    ap.add_argument("--point", default="", help="one column, such as 16x100")
    ap.add_argument("--peers", help="only these: beanstalkd,redis,postgresql; empty: none")
    ap.add_argument("--dir", default="/var/tmp")
    ap.add_argument("--out", default=os.path.join(ROOT, "bench", "results"))
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    header = harness.machine()
    print("machine: " + ", ".join(f"{k} {v}" for k, v in header.items()))
    results = alone(args.dir) if args.only in ("", "queue") and args.point == "" else []
    found = sides(args.dir, args.peers) if args.only != "queue" else []
    try:
        print(f"{'jobs/s':20}" + f"{'omerta':>10}" +
              "".join(f"{s.name:>12}" for s in found if isinstance(s, Peer)) +
              f"{'target':>10}{'p50 us':>10}{'p99 us':>10}   median of {args.runs}")
        for p in POINTS:
            if args.only in ("", p[0]) and args.point in ("", f"{p[1]}x{p[2]}"):
                results += point(found, *p, args.runs)
    finally:
        for side in found:
            side.close()
    print(f"load at the end: {os.getloadavg()[0]:.1f}")
    os.makedirs(args.out, exist_ok=True)
    harness.merge(os.path.join(args.out, "latest.json"), results)
    with open(os.path.join(args.out, "pipeline-" + header["when"].replace(":", "") + ".json"),
              "w") as f:
        json.dump({"machine": header, "results": results}, f, indent=1)


if __name__ == "__main__":
    main()
