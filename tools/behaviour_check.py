#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""behaviour_check.py, in the root: every row of docs/reference-behaviour.md names tests, each of which is
a function that its file defines and runs, or says `none:` and why."""
import pathlib
import re
import sys


def text_of(system, name):
    name = name.removesuffix("_test")
    folder = "system" if system else "unit"
    files = [pathlib.Path(f"tests/{folder}/{name}_test{end}") for end in (".c", ".py")]
    return "".join(p.read_text() for p in files if p.exists())


def is_test(text, test):
    """Defined in C and named again where the tests are listed; or a function that the rig finds by name."""
    in_c = re.search(rf"^{test}\(void \*\*state\)", text, re.M)
    in_python = re.search(rf"^\s*def {test}\(", text, re.M) and test.startswith("test_")
    return in_python or (in_c and len(re.findall(rf"\b{test}\b", text)) > 1)


bad = []
for number, line in enumerate(pathlib.Path("docs/reference-behaviour.md").read_text().splitlines(), 1):
    if not line.startswith("|") or re.match(r"\|[-|]+$", line) or line.endswith(("| test |", "| ours |")):
        continue
    cell = line.rstrip("| ").split("|")[-1].strip() if line.endswith("|") else ""
    if re.fullmatch(r"none: .+", cell):
        continue
    for part in cell.split(";"):
        m = re.fullmatch(r"\s*(\*?)(\w+)\*?: (\w+(?:,\s*\w+)*)\s*", part)
        if not m:
            bad.append(f"line {number}: \"{part.strip()}\" names no test")
            continue
        system, name, tests = m.groups()
        text = text_of(system, name)
        bad += [f"line {number}: there is no test {name}: {t}" for t in re.split(r",\s*", tests)
                if not is_test(text, t)]
for what in bad:
    print(f"docs/reference-behaviour.md: {what}", file=sys.stderr)
sys.exit(1 if bad else 0)
