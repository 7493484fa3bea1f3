#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Runs the runtime's workloads beside the peers that are installed, interleaved, and prints a table.

    bench/run.py [--runs N] [--workers N ...] [--only W1,W2] [--quick] [--out DIR] [--svg FILE]

Each program is started as `PROGRAM WORKLOAD WORKERS` and prints one JSON object: name, value, unit,
perhaps p99 and rss_mib.  One round runs every program once, so that all sides share the machine's
moods; the cost of a cache line crossing between two cores is measured with each round, because it
moves everything that shares lines.  The figure is the median over the rounds, of which every row
has as many as the table's head says.  Raw results and latest.json go to bench/results/.  A peer that
is not installed, or that does not finish within its limit, is named and skipped.

--workers 1 leaves out what does not depend on the number of workers, unless --only names it.
--svg writes the plot there too.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections import namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", os.path.join("build", "gcc")))
PEERS = os.path.join(ROOT, "build", "peers")
LIMIT_S = 20  # the slowest peer that finishes at all needs 12 s

# `target` is for any number of workers; a text such as "60 %" is a share of the best peer's figure.
# `also`: further rows from figures of the same run, whose `key` is the name in the JSON object.
Row = namedtuple("Row", "name better target what also key unit", defaults=((), "value", None))

# The runtime beside its peers:
WORKLOADS = [
    Row("W1", "higher", 50, "ping-pong, 2 actors"),
    Row("W2", "higher", 45, "counting, 4 producers, 1 consumer",
        (Row("W2rss", "lower", 20, "its peak of resident memory", (), "rss_mib", "MiB"),)),
    Row("W2c", "higher", 55, "counting, producers yield every 1,000"),
    Row("W3", "higher", 45, "thread ring, 1,000 actors"),
    Row("W4", "higher", 12, "spawn 1,000,000"),
    Row("W4c", "higher", 40, "spawn 1,000,000, yielding every 100"),
    Row("W5", "higher", 50, "big, 200 actors, random pings"),
    Row("W6", "lower", 0.08, "skynet, 1,000,000 leaves"),
    Row("W7", "lower", 192, "bytes per idle actor, 1,000,000 live"),
    Row("W8", "lower", 1.2, "request and reply from a foreign thread, p50",
        (Row("W8p99", "lower", 2, "the same, p99", (), "p99", "us"),)),
]
# Ours alone:
ALONE = [
    Row("W8i", "lower", 61, "the same after 1 ms without work, p50"),
    Row("c1k", "lower", None, "a hop in a ring of 1,000 actors"),
    Row("c100k", "lower", None, "a hop in a ring of 100,000"),
    Row("c1m", "lower", None, "a hop in a ring of 1,000,000"),
    Row("c1ms", "lower", None, "the same, actors in random order"),
    Row("d64", "lower", None, "a message with 64 in the queue"),
    Row("d4k", "lower", None, "a message with 4,096 in the queue"),
    Row("d256k", "lower", None, "a message with 262,144 in the queue"),
    Row("t1k", "lower", None, "timer: start and cancel, 1,000 armed"),
    Row("t1m", "lower", None, "timer: start and cancel, 1,000,000 armed"),
    Row("idle", "lower", 0, "wake-ups a second, nothing to do for 10 s"),
]
BUS = [
    Row("B1", "lower", 0.5, "a hop between two services, p50"),
    Row("B2", "higher", 3, "streaming, one pair"),
    Row("B3", "lower", None, "ask and answer on the bus, p50"),
    Row("B4", "lower", None, "a hop, two services write to one, p50"),
]
# Beside bare ZeroMQ:
CONTROL = [
    Row("E1", "higher", "60 %", "control endpoint, 16 clients, 100 in flight"),
    Row("E2", "higher", "60 %", "the same with CURVE"),
]
NOT_PER_WORKER = {"c100k", "c1m", "c1ms", "d64", "d4k", "d256k", "t1k", "t1m", "idle"}
NOT_QUICK = {"c1m", "c1ms", "idle"}  # most of the time of all


def run(cmd, limit=LIMIT_S):
    try:
        out = subprocess.run(cmd, capture_output=True, text=True, timeout=limit, cwd="/tmp")
    except subprocess.TimeoutExpired:
        return None, f"no result within {limit} s"
    if out.returncode != 0:
        return None, (out.stderr.strip() or f"exit status {out.returncode}").splitlines()[-1][:120]
    for line in out.stdout.splitlines():
        if line.startswith("{"):
            return json.loads(line), None
    return None, "no result printed"


def build_peers():
    """name -> function(workload, workers) giving a command."""
    os.makedirs(PEERS, exist_ok=True)
    peers = {}

    def attempt(name, needs, build, command):
        if not shutil.which(needs):
            print(f"skip {name}: {needs} is not installed")
            return
        result = subprocess.run(build, capture_output=True, text=True,
                                env=dict(os.environ, GOFLAGS="-mod=mod", HOME="/tmp"))
        if result.returncode != 0:
            why = (result.stderr.strip() or "no reason given").splitlines()[-1][:100]
            print(f"skip {name}: does not build: {why}")
            return
        peers[name] = command

    src = os.path.join(ROOT, "bench", "peers")
    attempt("Go", "go", ["go", "build", "-o", f"{PEERS}/gopeer", f"{src}/go/peer.go"],
            lambda w, n: [f"{PEERS}/gopeer", w, str(n)])
    attempt("Erlang", "erlc", ["erlc", "+inline", "-o", PEERS, f"{src}/erlang/bench_peer.erl"],
            lambda w, n: ["erl", "-noshell", "+S", f"{n}:{n}", "+P", "2000000", "-pa", PEERS,
                          "-run", "bench_peer", "main", w])
    attempt("CAF", "g++", ["g++", "-O2", "-std=c++17", "-o", f"{PEERS}/cafpeer",
                           f"{src}/caf/peer.cpp", "-lcaf_core"],
            lambda w, n: [f"{PEERS}/cafpeer", w, str(n)])
    return peers


def machine():
    cpu = "?"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True).stdout.strip()
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(),
            "commit": commit, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "load": os.getloadavg()[0]}


def show(target):
    return "-" if target is None else target


class Bench:
    """The rows of one invocation."""

    def __init__(self, runs, peers):
        self.runs, self.peers = runs, peers
        self.ours = os.path.join(BUILD, "bench", "runtime_bench")
        self.bus = os.path.join(BUILD, "bench", "hop_bench")
        self.control = os.path.join(BUILD, "bench", "control_echo")
        self.columns = ["omerta"] + list(peers) + ["ZeroMQ"]
        self.raw, self.results, self.missed = [], [], {}
        self.start = time.monotonic()

    def groups(self):
        """What is measured: rows, name -> function(workload, workers) giving a command, prefix."""
        ours = {"omerta": lambda w, n: [self.ours, w, str(n)]}
        bus = {"omerta": lambda w, n: [self.bus, w, str(n)]}
        control = {"omerta": lambda w, n: [self.control, w, str(n)],
                   "ZeroMQ": lambda w, n: [self.control, w + "raw", str(n)]}
        return [(WORKLOADS, dict(ours, **self.peers), "runtime"), (ALONE, ours, "runtime"),
                (BUS, bus, "bus"), (CONTROL, control, "bus")]

    def head(self, workers):
        names = "".join(f"{n:>11}" for n in self.columns)
        print(f"\n{workers} worker{'s' if workers > 1 else ''}, median of {self.runs}")
        print(f"{'':5} {'':11}{names}{'target':>8} {'to best':>8} {'probe':>6}  at second", flush=True)

    def turn(self, row, workers, programs, number):
        """Every program once.  name -> its result."""
        probe, _ = run([self.ours, "probe", "2"], 10)
        probe = probe["value"] if probe else None
        results = {}
        for name, command in programs.items():
            if (name, row.name, workers) in self.missed:
                continue
            result, why = run(command(row.name, workers))
            if result is None:
                self.missed[(name, row.name, workers)] = why
                continue
            result.update(program=name, workers=workers, turn=number, cross_core_ns=probe)
            self.raw.append(result)
            results[name] = result
        return results

    def row(self, row, workers, programs, prefix):
        turns = [self.turn(row, workers, programs, i) for i in range(self.runs)]
        probes = [r["cross_core_ns"] for t in turns for r in list(t.values())[:1]
                  if r["cross_core_ns"]]
        for one in (row,) + row.also:
            # A program that missed a turn has no figure: a median of fewer would claim too much.
            medians = {n: statistics.median(t[n][one.key] for t in turns) for n in programs
                       if all(one.key in t.get(n, {}) for t in turns)}
            if "omerta" not in medians:
                print(f"{one.name:5} no result of ours: "
                      f"{self.missed.get(('omerta', row.name, workers), 'no such figure')}")
                continue
            mine = [t["omerta"][one.key] for t in turns]
            self.result(one, workers, one.unit or turns[0]["omerta"]["unit"], medians,
                        (min(mine), max(mine)), probes, prefix)

    def result(self, row, workers, unit, medians, span, probes, prefix):
        peers = {n: v for n, v in medians.items() if n != "omerta"}
        mine, ratio, target, best = medians["omerta"], None, row.target, None
        if peers:
            best = max(peers.values()) if row.better == "higher" else min(peers.values())
            ratio = mine / best if row.better == "higher" else best / mine
        if isinstance(target, str):
            target = best and float(f"{best * float(target.split()[0]) / 100:.3g}")
        cells = "".join(f"{medians[n]:11.3g}" if n in medians else f"{'-':>11}" for n in self.columns)
        print(f"{row.name:5} {unit:11}{cells}{show(target):>8} "
              + (f"{ratio:7.2f}x" if ratio else f"{'':8}")
              + (f" {statistics.median(probes):4.0f}ns" if probes else f"{'':7}")
              + f" {time.monotonic() - self.start:5.0f}  {row.what}", flush=True)
        self.results.append({
            "name": f"{prefix}/{row.name}/{workers}w", "unit": unit, "better": row.better,
            "ours": mine, "target": target, "peers": peers, "ratio_to_best": ratio,
            "low": span[0], "high": span[1], "rounds": self.runs,
            "cross_core_ns": statistics.median(probes) if probes else None, "what": row.what})


def merge(path, results):
    """latest.json is a list of objects; a run replaces the rows that it measured.  Gives all rows."""
    old = []
    if os.path.exists(path):
        with open(path) as f:
            old = json.load(f)
    names = {r["name"] for r in results}
    rows = [r for r in old if r["name"] not in names] + results
    with open(path, "w") as f:
        json.dump(rows, f, indent=1)
    return rows


def plot(svg, results, header, runs):
    """How many times as fast as each peer, two workers."""
    order = [f"runtime/{w.name}/2w" for w in WORKLOADS]
    rows = sorted((r for r in results if r["peers"] and r["name"] in order),
                  key=lambda r: order.index(r["name"]))
    names = sorted({n for r in rows for n in r["peers"]}, reverse=True)
    if not rows or not shutil.which("gnuplot"):
        return
    data = os.path.splitext(svg)[0] + ".dat"
    with open(data, "w") as f:
        for r in rows:
            cells = [r["name"].split("/")[1]]
            for n in names:
                theirs = r["peers"].get(n)
                times = (r["ours"] / theirs if r["better"] == "higher" else theirs / r["ours"]) \
                    if theirs else None
                cells.append(f"{times:.3f}" if times else "?")
            f.write(" ".join(cells) + "\n")
    colours = ["#3465a4", "#cc7a00", "#73a946"]
    bars = ", ".join(f"'{data}' using {i + 2}:xtic(1) title 'than {n}' lc rgb '{colours[i % 3]}'"
                     for i, n in enumerate(names))
    script = f"""set terminal svg size 860,380 font 'sans,12' background '#ffffff'
set datafile missing '?'
set output '{svg}'
set title "omerta's runtime: how many times as fast (W7: as small)\\n{{/*0.75 {header['cpu']}, \
{header['cores']} cores, Linux {header['kernel']}, two workers, median of {runs}, \
{header['when'][:10]}, commit {header['commit']}}}"
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.85 noborder
set logscale y
set yrange [0.3:*]
set ylabel 'times'
set grid y
set key top left horizontal
plot {bars}, 1 notitle lc rgb '#555555'
"""
    subprocess.run(["gnuplot"], input=script, text=True)
    os.remove(data)


def main():
    ap = argparse.ArgumentParser(description="omerta's runtime beside its peers")
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--workers", type=int, nargs="+", default=[2, 1])
    ap.add_argument("--only", default="")
    ap.add_argument("--quick", action="store_true", help="ours alone, three rounds, two workers")
    ap.add_argument("--out", default=os.path.join(ROOT, "bench", "results"))
    ap.add_argument("--svg", help="write the plot here too")
    args = ap.parse_args()
    if args.quick:
        args.runs, args.workers = 3, [2]

    header = machine()
    print("machine: " + ", ".join(f"{k} {v}" for k, v in header.items()), flush=True)
    bench = Bench(args.runs, {} if args.quick else build_peers())
    only = [w for w in args.only.split(",") if w]
    for workers in args.workers:
        bench.head(workers)
        for rows, programs, prefix in bench.groups():
            for row in rows:
                if row.name in only or not only and not (
                        workers == 1 and row.name in NOT_PER_WORKER
                        or args.quick and row.name in NOT_QUICK):
                    bench.row(row, workers, programs, prefix)
    for (name, workload, workers), why in bench.missed.items():
        print(f"note: {name} {workload}, {workers} workers: {why}")

    os.makedirs(args.out, exist_ok=True)
    stamp = header["when"].replace(":", "")
    with open(os.path.join(args.out, f"runtime-{stamp}.json"), "w") as f:
        json.dump({"machine": header, "raw": bench.raw}, f, indent=1)
    rows = merge(os.path.join(args.out, "latest.json"), bench.results)
    if bench.peers and 2 in args.workers:
        plot(os.path.join(args.out, "runtime.svg"), rows, header, args.runs)
        if args.svg:
            shutil.copy(os.path.join(args.out, "runtime.svg"), args.svg)
    print(f"{time.monotonic() - bench.start:.0f} s; {args.out}/latest.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
