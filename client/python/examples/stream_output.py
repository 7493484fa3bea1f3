#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Runs a job that counts slowly, shows its lines as they come, and fetches the file that it leaves."""

import sys

import omerta

SCRIPT = """
import sys, time
with open(sys.argv[1]) as words, open("lengths.txt", "w") as out:
    for word in words.read().split():
        print(word, len(word), flush=True)
        out.write(f"{word} {len(word)}\\n")
        time.sleep(0.5)
"""


def main():
    with omerta.connect(sys.argv[1] if len(sys.argv) > 1 else None) as provider:
        job = provider.submit(SCRIPT, args=["words.txt"], files={"words.txt": "three little words"},
                              outputs=["lengths.txt"], network=None, timeout=60)
        print("job", job.id, file=sys.stderr)
        for line in job.lines():
            print(line, flush=True)
        result = job.wait()
        print(result.state, result.cpu_seconds, "s of CPU", file=sys.stderr)
        if not result.ok:
            sys.stderr.buffer.write(result.stderr)
            return 1
        size = job.save("lengths.txt", "lengths.txt")
        print(f"lengths.txt: {size} bytes", file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main())
