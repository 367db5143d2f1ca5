#!/usr/bin/env python3
"""Kills the server (-9) at random moments while clients create, change, restart and delete services on real Docker, and starts it again.

    compat-tests/kill9/kill9.py [--rounds 24] [--seed N] [--clients 3]        (as root; logs in target/test-logs/kill9)

After every start it must hold that
  * no acknowledged write is lost: an app reads as last acknowledged, or as the one request says that was under way when the server died;
  * no container is unaccounted for: within 10 s every running container of ours belongs to a task that /v2/tasks knows, and to one only;
  * nothing is restarted: the containers of services that nobody touches are the same ones, started at the same moment, to the end.
And when the clients have stopped, every service has as many tasks as were last acknowledged, and no deployment is left.
"""

import argparse
import http.client
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from marathon import Marathon
from report import Report
from world import Failure, World, until

APPS_PER_CLIENT = 2
UNTOUCHED = ("/still-a", "/still-b", "/deep/still-c")
# A shell that ends at once on SIGTERM, which the first process of a container ignores unless it has a trap.
COMMAND = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"


def definition(app, generation, instances):
    return {
        "id": app, "cmd": COMMAND, "cpus": 0.01, "mem": 16, "instances": instances, "labels": {"generation": str(generation)},
        "container": {"type": "DOCKER", "docker": {"image": "xtao/web"}}, "portDefinitions": [],
        "backoffSeconds": 1, "taskKillGracePeriodSeconds": 2, "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.5},
    }


class Client(threading.Thread):
    """Changes apps of its own, one request at a time, and knows what each of them must read as.

    `known`: app to (generation, instances), or None for 'not there', as last acknowledged. `maybe`: what an app reads as if the request
    whose answer never came was carried out.
    """

    def __init__(self, name, world, seed):
        super().__init__(name=name, daemon=True)
        self.world, self.random = world, random.Random(seed)
        self.known = {f"/{name}-{index}": None for index in range(APPS_PER_CLIENT)}
        self.maybe = {}
        self.generation, self.acknowledged = 0, 0
        self.go, self.paused = threading.Event(), threading.Event()
        self.ending = False
        self.answered = threading.Event()
        self.wrong = []

    def run(self):
        while True:
            if not self.go.is_set():
                self.paused.set()
                self.go.wait()
                self.paused.clear()
            if self.ending:
                return
            try:
                self.change(self.random.choice(sorted(self.known)))
            except (OSError, http.client.HTTPException):
                # The server died under the request: nothing is sent until it has been looked at.
                self.go.clear()

    def change(self, app):
        method, path, body, after = self.choose(app)
        self.maybe[app] = after
        status, _, answer = self.world.api(method, path, body)
        if status in (200, 201):
            self.known[app] = after
            del self.maybe[app]
            self.acknowledged += 1
            self.answered.set()
            if self.random.random() < 0.3:
                self.read(app, "just after the acknowledgement")
            if self.random.random() < 0.6:
                self.let_it_get_somewhere(app)
        elif status == 503:
            # 'Busy, try again' does not say whether it was carried out: what is read now decides.
            self.read(app, "after a 503")
        else:
            del self.maybe[app]
            self.wrong.append(f"{method} {path}: {status} {answer}")

    def let_it_get_somewhere(self, app):
        """Some deployments end, some are overtaken half-way, some meet the kill."""
        deadline = time.monotonic() + self.random.uniform(0.05, 2.5)
        while time.monotonic() < deadline and self.go.is_set():
            status, _, answer = self.world.api("GET", f"/v2/apps{app}")
            if status == 404 or (status == 200 and not answer["app"]["deployments"]):
                return
            time.sleep(0.05)

    def choose(self, app):
        """A request, and what the app reads as when it has been carried out."""
        state = self.known[app]
        self.generation += 1
        if state is None:
            new = self.generation, self.random.randint(1, 2)
            return "POST", "/v2/apps?force=true", definition(app, *new), new
        generation, instances = state
        kind = self.random.choice(("scale", "update", "restart", "delete"))
        if kind == "scale":
            new = generation, self.random.randint(0, 3)
            return "PUT", f"/v2/apps{app}?force=true", {"instances": new[1]}, new
        if kind == "update":
            new = self.generation, instances
            return "PUT", f"/v2/apps{app}?force=true", {"labels": {"generation": str(new[0])}}, new
        if kind == "restart":
            return "POST", f"/v2/apps{app}/restart?force=true", None, state
        return "DELETE", f"/v2/apps{app}?force=true", None, None

    def read(self, app, when):
        """The app must read as known, or as the unanswered request would have it; what is read is known from then on."""
        status, _, answer = self.world.api("GET", f"/v2/apps{app}")
        if status == 200:
            seen = int(answer["app"]["labels"]["generation"]), answer["app"]["instances"]
        elif status == 404:
            seen = None
        else:
            self.wrong.append(f"GET {app} {when}: {status} {answer}")
            return
        allowed = [self.known[app]] + ([self.maybe.pop(app)] if app in self.maybe else [])
        if seen not in allowed:
            self.wrong.append(f"{app} {when} reads {seen}; acknowledged or under way: {allowed}")
        self.known[app] = seen

    def read_all(self, when):
        for app in self.known:
            self.read(app, when)


class Test:
    def __init__(self, world, seed, clients):
        self.world, self.marathon = world, Marathon(world)
        self.random = random.Random(seed)
        self.clients = [Client(f"c{index}", world, seed * 1000 + index) for index in range(clients)]
        self.untouched = {}
        # task id -> container id, for ever
        self.task_containers = {}
        self.slowest_account = 0.0

    def begin(self):
        for app in UNTOUCHED:
            self.marathon.create(definition(app, 0, 1))
        self.untouched = self.untouched_now()
        for client in self.clients:
            client.start()

    def untouched_now(self):
        """App to (task id, container id, start) for the services that nobody touches."""
        found = {}
        for app in UNTOUCHED:
            tasks = self.marathon.tasks(app)
            if len(tasks) != 1 or tasks[0]["state"] != "TASK_RUNNING":
                raise Failure(f"{app} has tasks {[(task['id'], task['state']) for task in tasks]}")
            container = self.marathon.container(tasks[0]["id"])
            found[app] = tasks[0]["id"], container["Id"], container["State"]["StartedAt"]
        return found

    def round(self):
        for client in self.clients:
            client.paused.clear()
            client.go.set()
        # The clients wait for answers, not for us: the server is killed wherever it happens to be.
        time.sleep(self.random.uniform(0.05, 2.0))
        if self.random.random() < 0.5:
            # Or right after an acknowledgement, when what was acknowledged is youngest.
            client = self.random.choice(self.clients)
            client.answered.clear()
            client.answered.wait(3)
        self.world.server.kill()
        for client in self.clients:
            client.go.clear()
        for client in self.clients:
            if not client.paused.wait(60):
                raise Failure(f"{client.name} still waits for an answer from a dead server")
        self.world.start_server()
        for client in self.clients:
            client.read_all("after the server was killed")
        self.all_accounted_for()
        if self.untouched_now() != self.untouched:
            raise Failure(f"untouched services changed: {self.untouched} became {self.untouched_now()}")
        self.nothing_wrong()

    def all_accounted_for(self):
        began = time.monotonic()
        def accounted():
            running = [one for one in self.world.containers(everything=False) if "MESOS_TASK_ID" in one["Labels"]]
            known = {task["id"] for task in self.marathon.ask("GET", "/v2/tasks")["tasks"]}
            ids = [one["Labels"]["MESOS_TASK_ID"] for one in running]
            for one in running:
                first = self.task_containers.setdefault(one["Labels"]["MESOS_TASK_ID"], one["Id"])
                if first != one["Id"]:
                    self.clients[0].wrong.append(f"task {one['Labels']['MESOS_TASK_ID']} ran in {first[:12]} and in {one['Id'][:12]}")
            strangers = sorted(set(ids) - known)
            if strangers or len(ids) != len(set(ids)):
                raise Failure(f"not known in /v2/tasks: {strangers}; all containers: {ids}")
            return True
        until("every container to belong to a known task", accounted, 10)
        self.slowest_account = max(self.slowest_account, time.monotonic() - began)

    def nothing_wrong(self):
        wrong = [text for client in self.clients for text in client.wrong]
        for client in self.clients:
            client.wrong.clear()
        if wrong:
            raise Failure("; ".join(wrong[:6]))

    def end(self):
        """With the clients stopped: what was acknowledged comes true."""
        for client in self.clients:
            client.ending = True
            client.go.set()
            client.join(60)
        wanted = {app: state for client in self.clients for app, state in client.known.items() if state}
        for app, (_, instances) in wanted.items():
            self.marathon.running(app, instances, 90)
        until("no deployment to be left", lambda: self.marathon.ask("GET", "/v2/deployments") == [], 60)
        count = len(UNTOUCHED) + sum(instances for _, instances in wanted.values())
        until(f"{count} containers, no more, no less", lambda: len(self.world.containers(everything=False)) == count, 30)
        self.all_accounted_for()
        self.nothing_wrong()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=24)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options.add_argument("--clients", type=int, default=3)
    chosen = options.parse_args()
    print(f"seed {chosen.seed}: {chosen.rounds} rounds, {chosen.clients} clients", flush=True)
    report = Report()
    with World("kill9") as world:
        report.need("Docker, the image and the server are there", lambda: (world.start_docker(), world.make_images("xtao/web"), world.start_server()))
        test = Test(world, chosen.seed, chosen.clients)
        report.need("services that nobody will touch run", test.begin)
        for number in range(1, chosen.rounds + 1):
            if len(report.failed) > 3:
                print("too much is wrong to go on")
                break
            report.step(f"killed {number}", test.round)
        report.step("what was acknowledged comes true", test.end)
        print(f"{sum(client.acknowledged for client in test.clients)} acknowledged writes, {len(test.task_containers)} tasks seen; containers were"
              f" accounted for within {test.slowest_account:.1f} s; seed {chosen.seed}")
    sys.exit(report.close())


if __name__ == "__main__":
    main()
