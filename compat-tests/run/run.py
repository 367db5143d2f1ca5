#!/usr/bin/env python3
"""scripts/run as a stranger would use it, with a Docker daemon and a work directory of its own: start, start again, kill, stop, start, stop
all.

    compat-tests/run/run.py        (as root; the images come from the cache that earlier runs filled, or are built)

What scripts/run starts in the background becomes a child of this process, which waits for none of it: every process that ends stays as a
zombie, as on a machine whose first process is slow to wait. None of them may be taken for one that runs.
"""

import ctypes
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from report import walk
from world import TOP, Failure, loop_devices, run


PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def runs(pid):
    """Is it a process that has not ended? (One that has ended stays listed until its parent has waited for it.)"""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Stranger:
    def __init__(self, world):
        self.world = world
        self.work, self.docker = f"{world.dir}/work", f"{world.dir}/d"

    def script(self, *arguments, check=True):
        return run(os.path.join(TOP, "scripts", "run"), *arguments, "--work_dir", self.work, "--docker_root", self.docker, seconds=540, check=check)

    def pids(self):
        return [open(f"{self.work}/run/{name}.pid").read().strip() for name in ("xtao", "dockerd")]

    def started(self):
        out = self.script()
        print("       " + out.strip().replace("\n", "\n       "))
        if "testdb.marathon.mesos port" not in out or "psql" not in out:
            raise Failure("it does not say where the service is and what to type next")
        psql = next(line.strip() for line in out.splitlines() if line.strip().startswith("psql"))
        if run("bash", "-c", f"{psql} -Atc 'select 40 + 2'").strip() != "42":
            raise Failure(f"what it says to type does not work: {psql}")
        self.stop = next(line.strip() for line in out.splitlines() if line.strip().startswith("scripts/run stop"))

    def again(self):
        before, task = self.pids(), self.task()
        began = time.monotonic()
        self.script()
        spent = time.monotonic() - began
        if (self.pids(), self.task()) != (before, task):
            raise Failure("running it again changed something")
        if spent > 20:
            raise Failure(f"running it again took {spent:.1f} s")

    def task(self):
        tasks = self.world.api("GET", "/v2/tasks")[2]["tasks"]
        return [(task["id"], task["startedAt"]) for task in tasks]

    def killed(self):
        """kill -9 of the server, and at once what starts it."""
        server, task = int(self.pids()[0]), self.task()
        os.kill(server, signal.SIGKILL)
        os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
        out = self.script()
        if "starting the server" not in out or "replaced" in out or "did not end" in out:
            raise Failure(f"a killed server is started, and not replaced: {out}")
        if self.task() != task:
            raise Failure(f"the service was {task} and is {self.task()}")

    def stopped(self, *arguments):
        """By what it has said to type."""
        pids = self.pids()
        out = run("bash", "-c", f"cd {TOP} && {self.stop.partition('#')[0]} {' '.join(arguments)}", seconds=540)
        left = [pid for pid in pids if runs(pid)]
        if left:
            raise Failure(f"still there: {left}")
        if "did not end" in out:
            raise Failure(f"what has ended is waited for: {out}")

    def taken_up_again(self):
        port = self.endpoint()
        self.stopped()
        self.script()
        if self.endpoint() != port:
            raise Failure(f"the service was at {port} and is at {self.endpoint()}")

    def endpoint(self):
        return self.world.api("GET", "/v2/apps/testdb")[2]["app"]["endpoints"][0]

    def stopped_with_services(self):
        self.stopped("--services")
        left = [device for device in loop_devices() if device["file"].startswith(self.work)]
        if left:
            raise Failure(f"loop devices are left: {json.dumps(left)}")

    def bad_option(self):
        out = self.script("--colour", "blue", check=False)
        if "unknown option --colour" not in out:
            raise Failure(out)


def steps(world, report):
    adopt_orphans()

    def images():
        world.start_docker()
        world.make_images("zmfsea/cmp-postgresql")
        world.dockerd.stop()
        world.containerd.stop()
    stranger = Stranger(world)
    report.need("the image is in the cache", images)
    report.step("an unknown option is named", stranger.bad_option)
    report.need("scripts/run: what it says to type works", stranger.started)
    report.step("scripts/run again: quick, nothing changes", stranger.again)
    report.step("kill -9 of the server, and run: the service has not noticed", stranger.killed)
    report.step("scripts/run stop, and run: same name and port", stranger.taken_up_again)
    report.step("scripts/run stop --services: nothing is left", stranger.stopped_with_services)


if __name__ == "__main__":
    walk("run", steps)
