"""Runs the soak: a world for each way of driving sockets, all at the same time, and sums up.
Started by tests/soak."""

import pathlib
import random
import re
import signal
import subprocess
import sys
import threading

from links import Links, inside

WORLDS = [
    # name, driver, descriptors
    ("uring", "uring", "regular"),
    ("direct", "uring", "direct"),
    ("epoll", "epoll", "regular"),
]


def follow(name, process, log, counted):
    """Passes on what a world says."""
    with open(log, "w") as file:
        for line in process.stdout:
            file.write(line)
            print(f"[{name}] {line}", end="", flush=True)
            if match := re.match(r"(\d+) passed, (\d+) failed$", line):
                counted[name] = (int(match[1]), int(match[2]))


def main(binary, artifacts, minutes, seed=None):
    seed = seed or str(random.randrange(1 << 32))
    print(f"seed {seed}; again: tests/soak {minutes} {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    started, worlds, counted = [], [], {}
    run = f"soak{random.randrange(1 << 24):06x}"
    try:
        for name, driver, descriptors in WORLDS:
            links = Links(f"{run}-{name}")
            worlds.append(links)
            links.build()
            options = dict(name=name, run=links.run, driver=driver, descriptors=descriptors, binary=binary,
                           artifacts=artifacts, seed=seed, minutes=minutes)
            command = [sys.executable, "tests/soaking/world.py"]
            command += [f"--{option}={value}" for option, value in options.items()]
            process = subprocess.Popen(inside(links.clients, *command), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            log = pathlib.Path(artifacts, f"{name}.txt")
            thread = threading.Thread(target=follow, args=(name, process, log, counted))
            thread.start()
            started.append((name, process, thread))
        for name, process, thread in started:
            process.wait()
            thread.join()
    finally:
        for _, process, _ in started:
            if process.poll() is None:
                process.kill()
        for links in worlds:
            links.remove()
    for name, process, _ in started:
        # A world that did not get to its end has failed, whatever it said.
        if name not in counted:
            print(f"[{name}] it ended with {process.returncode} and no result")
            counted[name] = (0, 1)
    passed, failed = (sum(count[at] for count in counted.values()) for at in (0, 1))
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
