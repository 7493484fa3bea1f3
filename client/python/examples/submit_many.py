#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Submits 20 jobs of three requesters and shows in which order they were run.

    submit_many.py                                  as oneself: one level
    submit_many.py --owner alice --trusted home     as the operator, on behalf of three peers:
                                                    the owner, one of a trusted network, a stranger

The provider runs owner jobs before those of trusted networks, and those before the others; inside a
level the first comes first.
"""

import argparse

import omerta


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoint")
    parser.add_argument("--owner", help="the owner peer of the provider")
    parser.add_argument("--trusted", default="home", help="a network that the provider trusts")
    parser.add_argument("--jobs", type=int, default=20)
    args = parser.parse_args()

    if args.owner:
        who = [{"on_behalf": "carol", "network_id": "cafe"},
               {"on_behalf": "bob", "network_id": args.trusted},
               {"on_behalf": args.owner}]
    else:
        who = [{}]

    with omerta.connect(args.endpoint) as provider:
        jobs = [provider.submit(script=f"print({n} ** 2)", network=None, activity=f"square {n}",
                                **who[n % len(who)])
                for n in range(args.jobs)]
        for job in jobs:
            print(job.id, job.accepted.level, job.accepted.state)
        results = [job.wait() for job in jobs if job.accepted.state == "queued"]
        print("in the order in which they started:")
        for result in sorted(results, key=lambda r: r.started_ms or 0):
            print(result.job, result.level, result.state, result.stdout.decode().strip(),
                  result.cpu_seconds)


if __name__ == "__main__":
    main()
