"""Another machine for as long as a few programs take: a kernel under qemu, whose whole system is
one shell (busybox), the programs with their libraries, and a list of steps.

Emulated throughout, on x86-64 too, so that a run says the same wherever it is made. What it says
about time means nothing.
"""

import lzma
import os
import pathlib
import re
import shlex
import stat
import subprocess
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
TOOLS = TREE / "target/tools/machines"

# Where a program's libraries come from. For ARM64 those of Debian 11, the oldest that the release
# build promises to run on; for x86-64 those of the machine that compiled it.
LIBRARIES = {
    "arm64": [TOOLS / "toolchain/sysroot" / at for at in ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib")],
    "amd64": [pathlib.Path(at) for at in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64")],
}
STRIP = {"arm64": "aarch64-linux-gnu-strip", "amd64": "strip"}
QEMU = {
    "arm64": ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72"],
    "amd64": ["qemu-system-x86_64", "-M", "q35", "-cpu", "max"],
}
CONSOLE = {"arm64": "ttyAMA0", "amd64": "ttyS0"}

# A guest that did not get as far as its first step is booted again: emulators stumble sometimes.
# One that did is never repeated, because that would hide what it found.
BOOTS_MAX = 3
BOOT_SECONDS_MAX = 120

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t devtmpfs dev /dev; mkdir -p /dev/shm; mount -t proc proc /proc; mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
ip link set lo up; ulimit -n 65536; ulimit -c 0
for module in {modules}; do insmod /modules/$module; done
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
fi
uptime() {{ read -r up rest </proc/uptime; echo "$up"; }}
step() {{
  echo; echo "@@begin $1 $(uptime)"
  timeout -s KILL "$2" sh -c "$3" </dev/null 2>&1
  status=$?; echo; echo "@@end $1 $status $(uptime)"
}}
cd /programs
{steps}
poweroff -f
"""


class Step:
    """One shell command of a guest: what it said, its status (None: it never ended)."""

    def __init__(self, name, command, seconds_max):
        self.name, self.command, self.seconds_max = name, command, seconds_max
        self.status, self.output, self.seconds = None, "", 0.0


class Guest:
    """`machine` is one of `prepare`'s names; `files` maps names below the guest's /programs to files
    here; `read` are files that stand there where they stand here; `port` (here) leads to the guest's
    port 8080 when given; `log` takes all that is said."""

    def __init__(self, machine, files, steps, log, port=None, read=()):
        self.machine, self.steps, self.log = machine, steps, log
        self.architecture = machine.split("-")[0]
        self.directory = TOOLS / machine
        self.kernel = (self.directory / "name").read_text().strip()
        self.process = None
        self.image = log.with_suffix(".initramfs")
        self.files, self.network, self.modules = files, [], []
        self.read = list(read)
        if port is not None:
            self.modules = self.modules_for("virtio_pci", "virtio_net")
            forward = "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{}-:8080".format(port)
            self.network = ["-netdev", forward, "-device", "virtio-net-pci,netdev=net,romfile="]

    # ---- running ----

    def start(self):
        command = QEMU[self.architecture] + [
            "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", *self.network,
            "-nographic", "-nodefaults", "-no-reboot", "-serial", "stdio", "-monitor", "none",
            "-kernel", str(self.directory / "kernel"), "-initrd", str(self.image),
            "-append", "console={} panic=-1 mitigations=off quiet loglevel=0".format(CONSOLE[self.architecture]),
        ]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self):
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()

    def close(self):
        self.stop()
        self.image.unlink(missing_ok=True)

    def said(self):
        return self.log.read_text(errors="replace").replace("\r", "")

    def until(self, text, seconds_max):
        """Whether the guest says `text` before it ends or the time is up."""
        deadline = time.monotonic() + seconds_max
        while text not in self.said():
            if self.process.poll() is not None or time.monotonic() > deadline:
                return text in self.said()
            time.sleep(0.1)
        return True

    def boot(self):
        """Starts it; whether it got as far as its first step."""
        self.write_image()
        for _ in range(BOOTS_MAX):
            self.start()
            if self.until("@@begin", BOOT_SECONDS_MAX):
                return True
            self.stop()
        return False

    def run(self):
        """Runs all steps to their end, and reads what became of them."""
        try:
            if self.boot():
                self.process.wait(timeout=30 + sum(step.seconds_max for step in self.steps))
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.close()
        said = self.said()
        for step in self.steps:
            name = re.escape(step.name)
            begun = re.search(r"^@@begin {} ([\d.]+)\n".format(name), said, re.M)
            ended = re.search(r"^@@end {} (\d+) ([\d.]+)$".format(name), said, re.M)
            if begun:
                step.output = said[begun.end():ended.start() if ended else len(said)]
            if begun and ended:
                step.status = int(ended.group(1))
                step.seconds = float(ended.group(2)) - float(begun.group(1))

    # ---- what it is made of ----

    def modules_for(self, *wanted):
        """Files of these kernel modules and of what they need, each after what it needs. What
        is built into the kernel has no file."""
        there = {path.name.split(".")[0].replace("-", "_"): path for path in (self.directory / "modules").iterdir()}
        found = []

        def add(name):
            path = there.get(name.replace("-", "_"))
            if path is None or path in found:
                return
            needs = re.search(rb"\0depends=([^\0]*)\0", b"\0" + contents(path))
            for need in needs.group(1).decode().split(",") if needs else []:
                add(need)
            found.append(path)

        for name in wanted:
            add(name)
        return found

    def write_image(self):
        steps = "\n".join(
            "step {} {} {}".format(step.name, step.seconds_max, shlex.quote(step.command)) for step in self.steps
        )
        plain = [path.name.removesuffix(".xz") for path in self.modules]
        init = INIT.format(modules=" ".join(plain), steps=steps)
        with open(self.image, "wb") as out:
            archive = Archive(out)
            for name in ("bin", "dev", "etc", "lib", "modules", "proc", "sys", "tmp", "programs"):
                archive.add(name, stat.S_IFDIR | 0o755)
            archive.add("lib64", stat.S_IFLNK | 0o777, b"lib")
            archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
            archive.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
            archive.add("init", stat.S_IFREG | 0o755, init.encode())
            archive.add("bin/busybox", stat.S_IFREG | 0o755, (self.directory / "busybox").read_bytes())
            for path, name in zip(self.modules, plain):
                archive.add("modules/" + name, stat.S_IFREG | 0o644, contents(path))
            libraries = {}
            for name, path in self.files.items():
                data = pathlib.Path(path).read_bytes()
                if data.startswith(b"\x7fELF"):
                    self.collect_libraries(path, libraries)
                    data = self.stripped(path)
                archive.add("programs/" + name, stat.S_IFREG | 0o755, data)
            folders = set()
            for path in self.read:
                for folder in reversed(path.relative_to("/").parents[:-1]):
                    if str(folder) not in folders:
                        folders.add(str(folder))
                        archive.add(str(folder), stat.S_IFDIR | 0o755)
                archive.add(str(path.relative_to("/")), stat.S_IFREG | 0o644, path.read_bytes())
            for name, path in libraries.items():
                archive.add("lib/" + name, stat.S_IFREG | 0o755, path.read_bytes())
            archive.end()

    def stripped(self, path):
        """A program without what only a debugger reads: most of its size."""
        thin = self.image.with_suffix(".stripped")
        subprocess.run([STRIP[self.architecture], "--strip-debug", "-o", str(thin), str(path)], check=True)
        try:
            return thin.read_bytes()
        finally:
            thin.unlink()

    def collect_libraries(self, path, found):
        told = subprocess.run(
            ["readelf", "--wide", "--program-headers", "--dynamic", str(path)],
            check=True, capture_output=True, text=True,
        ).stdout
        loader = re.findall(r"interpreter: ([^\]]+)\]", told)
        for name in [os.path.basename(at) for at in loader] + re.findall(r"\(NEEDED\).*\[(.*)\]", told):
            if name in found:
                continue
            place = next((at / name for at in LIBRARIES[self.architecture] if (at / name).exists()), None)
            if place is None:
                raise FileNotFoundError("{} needs {}, which is not here".format(path, name))
            found[name] = place
            self.collect_libraries(place, found)


def contents(path):
    """A kernel module, unpacked."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


class Archive:
    """The format in which a kernel takes its first files: cpio, "newc"."""

    def __init__(self, out):
        self.out, self.count = out, 0

    def add(self, name, mode, data=b"", device=(0, 0)):
        self.count += 1
        name = name.encode() + b"\0"
        numbers = (self.count, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
        self.out.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))

    def end(self):
        self.add("TRAILER!!!", 0)
        self.out.write(bytes(512))
