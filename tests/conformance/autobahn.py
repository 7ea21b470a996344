#!/usr/bin/env python3
"""Holds a WebSocket echo server to the Autobahn test suite, strictly.

    autobahn.py URL [--name NAME] [--reports DIRECTORY] [--jobs N] [--messages N] [GROUP...]

A case passes when both its behaviour and its closing are OK or INFORMATIONAL; NON-STRICT is a
failure here, and so is a case that was planned and never reported. Prints each failure with
where its report is, then `N passed, N failed`; the exit status is 0 only if nothing failed.
`prepare` (beside this file) installs the suite.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse

TREE = pathlib.Path(__file__).resolve().parents[2]
PYTHON27 = TREE / "target/tools/autobahn/python27"
# In a folder of its own: the suite must not find this file when it imports the library `autobahn`.
WSTEST = TREE / "tests/conformance/python27/scaled.py"

# How many cases each group of the suite has: what is missing from a report cannot hide.
CASES = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
PASSING = {"OK", "INFORMATIONAL"}
# Group 9 moves megabytes in fragments of 64 bytes: about half a minute; groups 12 and 13 compress,
# and take ten minutes with all their messages; the others are many and short, except that some wait
# a second to see whether the server acts too early.
SECONDS_MAX = 1800


def run_part(name, url, groups, reports, messages):
    """One wstest process over `groups`; returns {case id: result}."""
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", RINGCAST_AUTOBAHN_MESSAGES=str(messages))
    directory = reports / "groups-{}".format("-".join(map(str, groups)))
    directory.mkdir(parents=True)
    plan = {
        "outdir": str(directory),
        "servers": [{"agent": name, "url": url}],
        "cases": ["{}.*".format(group) for group in groups],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (directory / "plan.json").write_text(json.dumps(plan))
    with open(directory / "wstest.log", "wb") as log:
        try:
            subprocess.run(
                [str(PYTHON27), str(WSTEST), "-m", "fuzzingclient", "-s", str(directory / "plan.json")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, env=environment,
                timeout=SECONDS_MAX,
            )
        except subprocess.TimeoutExpired:
            print("  {} did not end within {} s".format(directory.name, SECONDS_MAX))
    try:
        results = json.loads((directory / "index.json").read_text())[name]
    except (OSError, KeyError, ValueError):
        print("  no report from {}; its log ends:".format(directory.name))
        print((directory / "wstest.log").read_text(errors="replace")[-2000:])
        return {}
    for result in results.values():
        result["where"] = os.path.relpath(directory / result["reportfile"])
    return results


def reachable(url):
    parts = urllib.parse.urlsplit(url)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((parts.hostname, parts.port or 80), timeout=1).close()
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url")
    arguments.add_argument("--name", default="server")
    arguments.add_argument("--reports", type=pathlib.Path, default=TREE / "target/artifacts/autobahn")
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--messages", type=int, default=1000, help="in each compression case")
    arguments.add_argument("groups", nargs="*", type=int, metavar="GROUP")
    given = arguments.parse_args()
    groups = given.groups or sorted(CASES)
    if not PYTHON27.exists():
        sys.exit("autobahn: the suite is not installed: run tests/conformance/prepare")
    if not reachable(given.url):
        sys.exit("autobahn: nobody listens at {}".format(given.url))

    reports = given.reports.resolve() / given.name
    shutil.rmtree(reports, ignore_errors=True)
    # The long groups each on their own, the longest first, the rest together: about even on two cores.
    alone = (13, 12, 9, 6)
    parts = [[group] for group in alone if group in groups]
    parts.append([group for group in groups if group not in alone])
    results = {}
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        runs = [pool.submit(run_part, given.name, given.url, part, reports, given.messages) for part in parts if part]
        for run in runs:
            results.update(run.result())

    failed = 0
    for case, result in sorted(results.items(), key=lambda item: [int(n) for n in item[0].split(".")]):
        behaviour, closing = result["behavior"], result["behaviorClose"]
        if behaviour not in PASSING or closing not in PASSING:
            failed += 1
            print("  case {}: behaviour {}, close {} ({})".format(case, behaviour, closing, result["where"]))
    for group in groups:
        reported = sum(1 for case in results if int(case.split(".")[0]) == group)
        if reported < CASES[group]:
            failed += CASES[group] - reported
            print("  group {}: {} of {} cases reported".format(group, reported, CASES[group]))
    passed = sum(CASES[group] for group in groups) - failed
    print("{} passed, {} failed".format(passed, failed))
    sys.exit(1 if failed else 0)


main()
