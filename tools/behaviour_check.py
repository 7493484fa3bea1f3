#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Every test that docs/reference-behaviour.md names exists: behaviour_check.py, in the root."""
import pathlib
import re
import sys

bad = []
for line in pathlib.Path("docs/reference-behaviour.md").read_text().splitlines():
    if not line.startswith("|"):
        continue
    for part in line.split("|")[-2].split(";"):
        m = re.fullmatch(r"\s*(\*?)(\w+)\*?: (.*?)\s*", part)
        if not m:
            continue
        system, name, tests = m.groups()
        name = name.removesuffix("_test")
        folder = "system" if system else "unit"
        files = [p for p in map(pathlib.Path, (f"tests/{folder}/{name}_test.c",
                                               f"tests/{folder}/{name}_test.py")) if p.exists()]
        text = "".join(p.read_text() for p in files)
        bad += [f"{name}: {t}" for t in re.split(r",\s*", tests) if not re.search(rf"\b{t}\b", text)]
for what in bad:
    print(f"docs/reference-behaviour.md: there is no test {what}", file=sys.stderr)
sys.exit(1 if bad else 0)
