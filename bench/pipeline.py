#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Submit and whole cycle through a daemon with the null executor: 200-byte bodies, acknowledged
after the commit.  Starts its own omertad in private directories below --dir (a real disk, not a
tmpfs: the sync is what is measured).

    bench/pipeline.py [--runs N] [--only submit|cycle] [--dir DIR]

Targets are those of docs/benchmarks.md.  The median over the runs is printed; every run gets a
fresh daemon and ledger.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run as harness  # noqa: E402

ROOT, BUILD = harness.ROOT, harness.BUILD

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


class Daemon:
    def __init__(self, base):
        self.dir = tempfile.mkdtemp(prefix="omerta-bench.", dir=base)
        conf = os.path.join(self.dir, "omertad.conf")
        with open(conf, "w") as f:
            f.write(f"[daemon]\nstate_dir = {self.dir}/state\nrun_dir = {self.dir}/run\n"
                    "log_level = warn\n[vm]\ndriver = null\n[network]\nwireguard = none\n"
                    "[jobs]\nmax_jobs = 64\n")
        self.process = subprocess.Popen([f"{BUILD}/omertad", "start", "--config", conf],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if line.startswith("ready:"):
                return
        raise SystemExit("omertad did not start")

    def close(self):
        self.process.terminate()
        self.process.communicate()
        shutil.rmtree(self.dir)


def measure(what, clients, in_flight, jobs, base):
    d = Daemon(base)
    try:
        result, why = harness.run(
            [f"{BUILD}/bench/submit_bench", f"ipc://{d.dir}/run/control.sock", str(clients),
             str(in_flight), str(jobs)] + (["cycle"] if what == "cycle" else []), 120)
    finally:
        d.close()
    if result is None:
        raise SystemExit(f"{what}/{clients}x{in_flight}: {why}")
    return result


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--only", default="")
    ap.add_argument("--dir", default="/var/tmp")
    ap.add_argument("--out", default=os.path.join(ROOT, "bench", "results"))
    args = ap.parse_args()
    header = harness.machine()
    print("machine: " + ", ".join(f"{k} {v}" for k, v in header.items()))
    print(f"{'':16}{'jobs/s':>12}{'p50 us':>10}{'p99 us':>10}{'target':>10}   median of {args.runs}")
    results = []
    for what, clients, in_flight, jobs, target in POINTS:
        if args.only and args.only != what:
            continue
        runs = [measure(what, clients, in_flight, jobs, args.dir) for _ in range(args.runs)]
        value = statistics.median(r["value"] for r in runs)
        p50 = statistics.median(r["p50_us"] for r in runs)
        p99 = statistics.median(r["p99_us"] for r in runs)
        name = f"{what}/{clients}x{in_flight}"
        print(f"{name:16}{value:12.0f}{p50:10.0f}{p99:10.0f}{target:10}", flush=True)
        results.append({"name": f"pipeline/{name}", "unit": "jobs/s", "better": "higher",
                        "ours": value, "target": target, "peers": {}, "ratio_to_best": None})
    os.makedirs(args.out, exist_ok=True)
    harness.merge(os.path.join(args.out, "latest.json"), results)


if __name__ == "__main__":
    main()
