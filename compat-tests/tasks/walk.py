#!/usr/bin/env python3
"""Walks through tasks without an image on a machine that has no Docker daemon: Marathon's first tutorial, a web server, a fetched archive, a host
volume and a command beside a task.

    compat-tests/tasks/walk.py        (as root; logs in target/test-logs/tasks)

In the middle the server is killed (-9): the same processes go on, and what ended meanwhile is told.
"""

import functools
import http.server
import io
import json
import os
import sys
import tarfile
import tempfile
import threading
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from marathon import Marathon
from report import walk
from world import NODE_ADDRESS, PREFIX, Failure, binary, run, until

SMALL = {"cpus": 0.1, "mem": 64, "portDefinitions": [], "backoffSeconds": 0.2, "taskKillGracePeriodSeconds": 2}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def equal(found, expected, what):
    if found != expected:
        raise Failure(f"{what}: {found!r}, expected {expected!r}")


def alive(pid):
    """False also for what has ended and waits for its parent, which is not ours to hurry."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Walk:
    def __init__(self, world):
        self.world, self.marathon = world, Marathon(world)
        self.pids = {}
        # Not below the world's own directory, which is closed to apps.
        self.mapped = tempfile.TemporaryDirectory(prefix=PREFIX, dir="/var/tmp")

    def started(self, app):
        """The records of an app's only task."""
        task = self.marathon.running(app)[0]["id"]
        with open(os.path.join(self.world.work_dir, "processes", task, "started.json")) as file:
            return task, json.load(file)

    def remember(self, app):
        task, started = self.started(app)
        self.pids[app] = task, started["process"], started["shim"]

    def logs(self, task, stream="stdout"):
        status, _, text = self.world.api("GET", f"/v2/tasks/{task}/logs?stream={stream}")
        equal(status, 200, "logs")
        return str(text)

    def first_tutorial(self):
        self.marathon.create({"id": "/first", "cmd": "sleep 100", "cpus": 0.1, "mem": 32})
        self.remember("/first")
        with open(f"/proc/{self.pids['/first'][1]['pid']}/environ") as file:
            names = {entry.split("=")[0] for entry in file.read().split("\0") if entry}
        for name in ("MARATHON_APP_ID", "MESOS_TASK_ID", "MESOS_SANDBOX", "HOST", "PORT0"):
            if name not in names:
                raise Failure(f"{name} is not among {sorted(names)}")

    def web(self):
        definition = {**SMALL, "id": "/web", "cmd": "echo hello > index.html; exec python3 -m http.server $PORT0", "portDefinitions": [{"port": 0}]}
        self.marathon.create(definition)
        self.remember("/web")
        self.reach_web()

    def reach_web(self):
        port = self.marathon.tasks("/web")[0]["ports"][0]
        read = lambda: urllib.request.urlopen(f"http://{NODE_ADDRESS}:{port}/", timeout=5).read().decode()
        equal(until("the web server to answer", read), "hello\n", "its page")

    def fetched(self):
        directory = os.path.join(self.world.dir, "served")
        os.makedirs(directory, exist_ok=True)
        with tarfile.open(os.path.join(directory, "app.tar.gz"), "w:gz") as archive:
            text = b"#!/bin/sh\necho fetched; exec sleep 1000\n"
            entry = tarfile.TarInfo("app/run")
            entry.size, entry.mode = len(text), 0o755
            archive.addfile(entry, io.BytesIO(text))
        handler = functools.partial(Quiet, directory=directory)
        server = http.server.ThreadingHTTPServer((NODE_ADDRESS, 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://{NODE_ADDRESS}:{server.server_address[1]}/app.tar.gz"
        self.marathon.create({**SMALL, "id": "/fetched", "cmd": "exec app/run", "fetch": [{"uri": uri}]})
        self.remember("/fetched")
        until("its output", lambda: self.logs(self.pids["/fetched"][0]) == "fetched\n")
        self.marathon.ask("POST", "/v2/apps", {**SMALL, "id": "/missing", "cmd": "true", "uris": [uri + ".none"]}, expect=(201,))
        failure = until("the failure", lambda: self.marathon.app("/missing").get("lastTaskFailure"))
        if "could not fetch" not in failure["message"] or "404" not in failure["message"]:
            raise Failure(failure["message"])
        self.marathon.ask("DELETE", "/v2/apps/missing?force=true")

    def volume(self):
        with open(os.path.join(self.mapped.name, "in"), "w") as file:
            file.write("from the node\n")
        volumes = [{"hostPath": self.mapped.name, "containerPath": "data", "mode": "RO"}]
        self.marathon.create({**SMALL, "id": "/volume", "cmd": "exec sleep 1000", "container": {"type": "MESOS", "volumes": volumes}})
        self.remember("/volume")
        cli = os.path.join(os.path.dirname(binary()), "xtcli-compute")
        inside = lambda *words, check=True: run(cli, "-d", "127.0.0.1:8080", "-c", "mgmt", "service", "exec", "volume", "--", *words, check=check)
        equal(inside("cat", "data/in"), "from the node\n", "what the task sees")
        words = inside("touch", "data/out", check=False)
        if "Read-only file system" not in words:
            raise Failure(words)
        with open("/proc/self/mountinfo") as file:
            equal([line for line in file if "/sandboxes/" in line], [], "what the node sees")

    def ends_without_the_server(self):
        go = os.path.join(self.world.dir, "go")
        self.marathon.create({**SMALL, "id": "/ends", "cmd": f"[ -e {go} ] && sleep 1000; while [ ! -e {go} ]; do sleep 0.05; done; exit 9"})
        self.remember("/ends")
        task = self.pids.pop("/ends")[0]
        self.world.server.kill()
        open(go, "w").close()
        ended = os.path.join(self.world.work_dir, "processes", task, "ended.json")
        until("the end to be written down", lambda: os.path.exists(ended))
        self.world.start_server()
        failure = until("the failure", lambda: self.marathon.app("/ends").get("lastTaskFailure"))
        equal((failure["taskId"], failure["state"], failure["message"]), (task, "TASK_FAILED", "Command exited with status 9"), "the end")
        self.marathon.running("/ends")

    def same_processes(self):
        for app, before in self.pids.items():
            task, started = self.started(app)
            equal((task, started["process"], started["shim"]), before, app)
            with open(f"/proc/{started['process']['pid']}/stat") as file:
                equal(int(file.read().rsplit(")", 1)[1].split()[19]), started["process"]["start_time"], f"{app}: start time")
        self.reach_web()

    def needs_docker(self):
        app = {**SMALL, "id": "/image", "cmd": "true", "container": {"type": "DOCKER", "docker": {"image": "busybox"}}}
        self.marathon.ask("POST", "/v2/apps", app, expect=(201,))
        failure = until("the failure", lambda: self.marathon.app("/image").get("lastTaskFailure"))
        if not failure["message"].startswith("Docker cannot be reached on this node"):
            raise Failure(failure["message"])
        self.marathon.ask("DELETE", "/v2/apps/image?force=true")

    def nothing_left(self):
        for app in [*self.pids, "/ends"]:
            self.marathon.destroy(app)
        until("no records to be left", lambda: os.listdir(os.path.join(self.world.work_dir, "processes")) == [])
        for _, process, shim in self.pids.values():
            for one in (process, shim):
                until(f"process {one['pid']} to end", lambda one=one: not alive(one["pid"]))
        equal(os.listdir(self.mapped.name), ["in"], "the directory that was mapped")


def steps(world, report):
    walked = Walk(world)
    report.need("the server is there, and no Docker", world.start_server)
    report.need("Marathon's first tutorial: sleep 100", walked.first_tutorial)
    report.step("a web server on $PORT0", walked.web)
    report.step("an archive is fetched and run", walked.fetched)
    report.step("a host volume, and a command beside the task", walked.volume)
    report.step("killed -9: an end that nobody saw is told", walked.ends_without_the_server)
    report.step("the others are the same processes", walked.same_processes)
    report.step("an app with an image says what is missing", walked.needs_docker)
    report.step("destroyed: nothing is left", walked.nothing_left)


if __name__ == "__main__":
    walk("tasks", steps)
