#!/usr/bin/env python3
"""scripts/run as a stranger would use it, with a Docker daemon and a work directory of its own: start, start again, stop, start, stop all.

    compat-tests/run/run.py        (as root; the images come from the cache that earlier runs filled, or are built)
"""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from report import walk
from world import TOP, Failure, loop_devices, run


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

    def stopped(self, *arguments):
        """By what it has said to type."""
        pids = self.pids()
        run("bash", "-c", f"cd {TOP} && {self.stop.partition('#')[0]} {' '.join(arguments)}", seconds=540)
        left = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        if left:
            raise Failure(f"still there: {left}")

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
    report.step("scripts/run stop, and run: same name and port", stranger.taken_up_again)
    report.step("scripts/run stop --services: nothing is left", stranger.stopped_with_services)


if __name__ == "__main__":
    walk("run", steps)
