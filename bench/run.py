#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Runs the runtime's workloads beside the peers that are installed, interleaved, and prints a table.

    bench/run.py [--runs N] [--workers N ...] [--only W1,W2] [--quick] [--out DIR] [--svg FILE]

Each program is started as `PROGRAM WORKLOAD WORKERS` and prints one JSON object: name, value, unit,
perhaps p99 and rss_mib.  One round runs every program once, so that all sides share the machine's
moods; the cost of a cache line crossing between two cores is measured with each round, because it
moves everything that shares lines.  The figure is the median over the rounds.  Raw results and
latest.json go to bench/results/.  A peer that is not installed, or that does not finish within its
limit, is named and skipped.

--workers 1 measures only what depends on the number of workers.  --svg writes the plot there too.
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

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", os.path.join("build", "gcc")))
PEERS = os.path.join(ROOT, "build", "peers")
LIMIT_S = 15  # the slowest peer that finishes at all needs 4 s
ROW_S = 100  # a row that takes longer has fewer rounds

# The runtime beside its peers:
#            workload  better    target with two workers, what it is
WORKLOADS = [
    ("W1", "higher", 50, "ping-pong, 2 actors"),
    ("W2", "higher", 45, "counting, 4 producers, 1 consumer"),
    ("W2c", "higher", 55, "counting, producers yield every 1,000"),
    ("W3", "higher", 45, "thread ring, 1,000 actors"),
    ("W4", "higher", 12, "spawn 1,000,000"),
    ("W4c", "higher", 40, "spawn 1,000,000, yielding every 100"),
    ("W5", "higher", 50, "big, 200 actors, random pings"),
    ("W6", "lower", 0.08, "skynet, 1,000,000 leaves"),
    ("W7", "lower", 192, "bytes per idle actor, 1,000,000 live"),
    ("W8", "lower", 1.2, "request and reply from a foreign thread, p50"),
]
# Ours alone:
ALONE = [
    ("W8i", "lower", 61, "the same after 1 ms without work, p50"),
    ("c1k", "lower", None, "a hop in a ring of 1,000 actors"),
    ("c100k", "lower", None, "a hop in a ring of 100,000"),
    ("c1m", "lower", None, "a hop in a ring of 1,000,000"),
    ("c1ms", "lower", None, "the same, actors in random order"),
    ("d64", "lower", None, "a message with 64 in the queue"),
    ("d4k", "lower", None, "a message with 4,096 in the queue"),
    ("d256k", "lower", None, "a message with 262,144 in the queue"),
    ("idle", "lower", 0, "wake-ups a second, nothing to do for 10 s"),
]
BUS = [
    ("B1", "lower", 0.5, "a hop between two services, p50"),
    ("B2", "higher", 3, "streaming, one pair"),
    ("B3", "lower", None, "ask and answer on the bus, p50"),
]
ROUNDS = {"idle": 1, "W7": 3}  # hardly moves from run to run
NOT_PER_WORKER = {"W7", "W8i", "c100k", "c1m", "c1ms", "d64", "d4k", "d256k", "idle"}


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


class Bench:
    """The rows of one invocation."""

    def __init__(self, runs, peers):
        self.runs, self.peers = runs, peers
        self.ours = os.path.join(BUILD, "bench", "runtime_bench")
        self.bus = os.path.join(BUILD, "bench", "hop_bench")
        self.raw, self.results, self.missed = [], [], {}
        self.start = time.monotonic()

    def head(self, workers):
        names = "".join(f"{n:>11}" for n in ["omerta"] + list(self.peers))
        print(f"\n{workers} worker{'s' if workers > 1 else ''}, median of {self.runs}")
        print(f"{'':5} {'':11}{names}{'target':>8} {'to best':>8} {'probe':>6}  at second", flush=True)

    def row(self, workload, workers, better, target, what, programs, prefix):
        values, extra, probes, unit = {n: [] for n in programs}, {}, [], ""
        began = time.monotonic()
        for turn in range(min(self.runs, ROUNDS.get(workload, self.runs))):
            probe, _ = run([self.ours, "probe", "2"], 10)
            probes += [probe["value"]] if probe else []
            for name, command in programs.items():
                if (name, workload) in self.missed:
                    continue
                result, why = run(command(workload, workers))
                if result is None:
                    self.missed[(name, workload)] = why
                    continue
                result.update(program=name, workers=workers, turn=turn,
                              cross_core_ns=probes[-1] if probes else None)
                self.raw.append(result)
                values[name].append(result["value"])
                unit = result["unit"]
                if "p99" in result:
                    extra.setdefault(name, []).append(result["p99"])
            if time.monotonic() - began > ROW_S:
                break
        medians = {n: statistics.median(v) for n, v in values.items() if v}
        if "omerta" not in medians:
            print(f"{workload:5} no result of ours: {self.missed.get(('omerta', workload))}")
            return
        peers = {n: v for n, v in medians.items() if n != "omerta"}
        mine, ratio = medians["omerta"], None
        if peers:
            best = max(peers.values()) if better == "higher" else min(peers.values())
            ratio = mine / best if better == "higher" else best / mine
        self.print_row(workload, unit, medians, extra, target, ratio, probes, what)
        self.results.append({
            "name": f"{prefix}/{workload}/{workers}w", "unit": unit, "better": better, "ours": mine,
            "target": target if workers == 2 or prefix == "bus" else None, "peers": peers,
            "ratio_to_best": ratio, "low": min(values["omerta"]), "high": max(values["omerta"]),
            "cross_core_ns": statistics.median(probes) if probes else None, "what": what})

    def print_row(self, workload, unit, medians, extra, target, ratio, probes, what):
        names = ["omerta"] + list(self.peers)
        cells = "".join(f"{medians[n]:11.3g}" if n in medians else f"{'-':>11}" for n in names)
        print(f"{workload:5} {unit:11}{cells}{'-' if target is None else target:>8} "
              + (f"{ratio:7.2f}x" if ratio else f"{'':8}")
              + (f" {statistics.median(probes):4.0f}ns" if probes else f"{'':7}")
              + f" {time.monotonic() - self.start:5.0f}  {what}")
        if extra.get("omerta"):
            print(f"{'':5} {'p99':11}" + "".join(
                f"{statistics.median(extra[n]):11.3g}" if n in extra else f"{'-':>11}" for n in names))
        sys.stdout.flush()


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
    order = [f"runtime/{w[0]}/2w" for w in WORKLOADS]
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
    ours = {"omerta": lambda w, n: [bench.ours, w, str(n)]}
    bus = {"omerta": lambda w, n: [bench.bus, w, str(n)]}
    groups = [(WORKLOADS, dict(ours, **bench.peers), "runtime"), (ALONE, ours, "runtime"),
              (BUS, bus, "bus")]
    for workers in args.workers:
        bench.head(workers)
        for rows, programs, prefix in groups:
            for workload, better, target, what in rows:
                if only and workload not in only or workers == 1 and workload in NOT_PER_WORKER \
                        and not only or args.quick and workload == "idle":
                    continue
                bench.row(workload, workers, better, target, what, programs, prefix)
    for (name, workload), why in bench.missed.items():
        print(f"note: {name} {workload}: {why}")

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
