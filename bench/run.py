#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Runs the runtime's workloads beside the peers that are installed, interleaved, and prints a table.

    bench/run.py [--runs N] [--workers N ...] [--only W1,W2] [--quick] [--out DIR]

Each program is started as `PROGRAM WORKLOAD WORKERS` and prints one JSON object: name, value, unit,
perhaps p99 and rss_mib.  One round runs every program once, so that all sides share the machine's
moods; the cost of a cache line crossing between two cores is printed with each round, because it
moves everything that shares lines.  The figure is the median over the rounds.  Raw results and
latest.json go to bench/results/.  A peer that is not installed, or that does not finish within its
limit, is named and skipped.
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
LIMIT_S = 60

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
            print(f"skip {name}: does not build: {result.stderr.strip().splitlines()[-1][:100]}")
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


def main():
    ap = argparse.ArgumentParser(description="omerta's runtime beside its peers")
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--workers", type=int, nargs="+", default=[2, 1])
    ap.add_argument("--only", default="")
    ap.add_argument("--quick", action="store_true", help="ours alone, three rounds, two workers")
    ap.add_argument("--out", default=os.path.join(ROOT, "bench", "results"))
    args = ap.parse_args()
    if args.quick:
        args.runs, args.workers = 3, [2]

    ours = os.path.join(BUILD, "bench", "runtime_bench")
    programs = {"omerta": lambda w, n: [ours, w, str(n)]}
    if not args.quick:
        programs.update(build_peers())
    only = [w for w in args.only.split(",") if w]
    workloads = [w for w in WORKLOADS if not only or w[0] in only]
    header = machine()
    print("machine: " + ", ".join(f"{k} {v}" for k, v in header.items()))

    raw, results, missed = [], [], {}
    for workers in args.workers:
        print(f"\n{workers} worker{'s' if workers > 1 else ''}, median of {args.runs}")
        names = list(programs)
        print(f"{'':5} {'':12}" + "".join(f"{n:>11}" for n in names) + f"{'target':>9}  ratio to best peer")
        for workload, better, target, what in workloads:
            values = {n: [] for n in names}
            unit, extra = "", {}
            for turn in range(args.runs):
                probe, _ = run([ours, "probe", "2"], 10)
                for name in names:
                    if (name, workload) in missed:
                        continue
                    result, why = run(programs[name](workload, workers))
                    if result is None:
                        missed[(name, workload)] = why
                        continue
                    result.update(program=name, workers=workers, turn=turn,
                                  cross_core_ns=probe["value"] if probe else None)
                    raw.append(result)
                    values[name].append(result["value"])
                    unit = result["unit"]
                    if "p99" in result:
                        extra.setdefault(name, []).append(result["p99"])
            medians = {n: statistics.median(v) for n, v in values.items() if v}
            if "omerta" not in medians:
                print(f"{workload:5} no result of ours: {missed.get(('omerta', workload))}")
                continue
            peers = {n: v for n, v in medians.items() if n != "omerta"}
            mine, ratio = medians["omerta"], None
            if peers:
                best = max(peers.values()) if better == "higher" else min(peers.values())
                ratio = mine / best if better == "higher" else best / mine
            print(f"{workload:5} {unit:12}" +
                  "".join(f"{medians[n]:11.3g}" if n in medians else f"{'-':>11}" for n in names) +
                  f"{target:9} " + (f" {ratio:5.2f}x" if ratio else "") + f"  {what}")
            if extra.get("omerta"):
                print(f"{'':5} {'p99':12}" + "".join(
                    f"{statistics.median(extra[n]):11.3g}" if n in extra else f"{'-':>11}" for n in names))
            results.append({"name": f"runtime/{workload}/{workers}w", "unit": unit, "better": better,
                            "ours": mine, "target": target if workers == 2 else None,
                            "peers": peers, "ratio_to_best": ratio})
    for (name, workload), why in missed.items():
        print(f"note: {name} {workload}: {why}")

    os.makedirs(args.out, exist_ok=True)
    stamp = header["when"].replace(":", "")
    with open(os.path.join(args.out, f"runtime-{stamp}.json"), "w") as f:
        json.dump({"machine": header, "raw": raw}, f, indent=1)
    merge(os.path.join(args.out, "latest.json"), results)
    if not args.quick:
        plot(args.out, results)
    return 0


def merge(path, results):
    """latest.json is a list of objects; a run replaces the rows that it measured."""
    old = []
    if os.path.exists(path):
        with open(path) as f:
            old = json.load(f)
    names = {r["name"] for r in results}
    with open(path, "w") as f:
        json.dump([r for r in old if r["name"] not in names] + results, f, indent=1)


def plot(out, results):
    """Ratio to the best peer, one bar a workload."""
    rows = [(r["name"].split("/")[1], r["ratio_to_best"]) for r in results
            if r["ratio_to_best"] and r["name"].endswith("/2w")]
    if not rows or not shutil.which("gnuplot"):
        return
    data = os.path.join(out, "runtime.dat")
    with open(data, "w") as f:
        f.writelines(f"{name} {ratio:.3f}\n" for name, ratio in rows)
    script = f"""set terminal svg size 720,320 font 'sans,12'
set output '{out}/runtime.svg'
set title 'omerta beside the fastest of Go, Erlang and CAF (two workers; higher is better)'
set style fill solid 0.8
set boxwidth 0.6
set logscale y
set yrange [0.5:*]
set ylabel 'times as fast'
set grid y
plot '{data}' using 0:2:xtic(1) with boxes notitle lc rgb '#3465a4', 1 notitle lc rgb '#888888'
"""
    subprocess.run(["gnuplot"], input=script, text=True)


if __name__ == "__main__":
    sys.exit(main())
