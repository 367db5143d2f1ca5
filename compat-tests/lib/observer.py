"""Watches, from outside, that no storage ever has two holders.

Reads only the kernel: which processes live in containers of one Docker data directory (their mount namespaces), which block device each
namespace has mounted at the watched path, and which file stands behind that loop device. It asks neither Docker nor our server, so it sees
the truth while both are dead. A holder is a container's mount namespace; its process may be PostgreSQL or whatever runs before it.
"""

import os
import threading
import time

from world import loop_devices


class Observer(threading.Thread):
    """Samples until `stop`. `violations`: texts; `seen`: for each backing file, how many samples had exactly one holder."""

    def __init__(self, docker_data, path, interval=0.05):
        super().__init__(name="observer", daemon=True)
        self.docker_data, self.path, self.interval = docker_data, path.rstrip("/"), interval
        self.samples, self.violations, self.seen = 0, [], {}
        self.longest_gap = 0.0
        self._end = threading.Event()

    def run(self):
        last = time.monotonic()
        while not self._end.wait(self.interval):
            # Looked at before and after: a container may come or go between the two looks.
            before = files_by_number()
            holders = container_mounts(self.docker_data, self.path)
            files = {**files_by_number(), **before}
            self.samples += 1
            now = time.monotonic()
            self.longest_gap, last = max(self.longest_gap, now - last), now
            for text in judge(holders, files):
                self.violations.append(f"sample {self.samples}: {text}")
            for number in holders.values():
                if number in files:
                    self.seen[files[number]] = self.seen.get(files[number], 0) + 1

    def stop(self):
        self._end.set()
        self.join()


def files_by_number():
    return {device["number"]: device["file"] for device in loop_devices()}


def judge(holders, files):
    """What is wrong in one sample. `holders`: mount namespace to device number; `files`: device number to backing file."""
    wrong = []
    by_file = {}
    for namespace, number in sorted(holders.items()):
        if number not in files:
            wrong.append(f"container {namespace} has device {number}, which is no brick, where its brick belongs")
        else:
            by_file.setdefault(files[number], []).append(namespace)
    for file, namespaces in by_file.items():
        if len(namespaces) > 1:
            wrong.append(f"{file} has {len(namespaces)} holders: {', '.join(namespaces)}")
    numbers = {}
    for number, file in sorted(files.items()):
        numbers.setdefault(file, []).append(number)
    for file, devices in numbers.items():
        if len(devices) > 1 and file in by_file:
            wrong.append(f"{file} stands behind {len(devices)} loop devices: {', '.join(devices)}")
    return wrong


def container_mounts(docker_data, path):
    """Mount namespace to the number (major:minor) of the device mounted at `path`, for every container of this Docker that has one."""
    found, looked = {}, set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            namespace = os.readlink(f"/proc/{name}/ns/mnt")
            if namespace in looked:
                continue
            with open(f"/proc/{name}/mountinfo") as file:
                mounts = [line.split() for line in file]
        except OSError:
            continue  # it ended meanwhile
        looked.add(namespace)
        in_container = any(mount[4] == "/" and docker_data + "/" in " ".join(mount) for mount in mounts)
        for mount in mounts:
            if in_container and mount[4] == path:
                found[namespace] = mount[2]
    return found


def self_test():
    """An observer that never found anything is not trusted: it is shown what it must see."""
    files = {"7:0": "/b/one", "7:1": "/b/two"}
    assert judge({"a": "7:0", "b": "7:1"}, files) == []
    assert "2 holders" in judge({"a": "7:0", "b": "7:0"}, files)[0]
    assert "no brick" in judge({"a": "8:1"}, files)[0]
    two_devices = judge({"a": "7:0", "b": "7:2"}, dict(files, **{"7:2": "/b/one"}))
    assert len(two_devices) == 2, two_devices


self_test()
