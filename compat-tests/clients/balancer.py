"""Debian's haproxy with a configuration from /v2/apps: it carries traffic on service ports, and follows its apps without losing a request."""

import http.client
import os
import signal
import socket
import threading
import urllib.error
import urllib.request

from common import Failure, Marathon, equal, program, sleeper, until, web
from haproxy_config import configuration, may_have_traffic, service_ports
from world import NODE_ADDRESS, Process

BY_NAME = 9080
GROUP = {"HAPROXY_GROUP": "external"}


def fetch(url, host=None):
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


class Load(threading.Thread):
    """Asks one after the other, until it is stopped: every request must be answered."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.failures, self.answers, self.over = url, [], 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.01):
            try:
                fetch(self.url)
                self.answers += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))

    def stop(self):
        self.over.set()
        self.join()
        if self.failures or self.answers < 20:
            raise Failure(f"{len(self.failures)} requests failed, {self.answers} did not: {self.failures[:5]}")


class Section:
    def __init__(self, world):
        self.world, self.api = world, Marathon(world)
        self.directory = os.path.join(world.dir, "haproxy")
        os.makedirs(self.directory)
        self.path = os.path.join(self.directory, "haproxy.cfg")
        self.haproxy = Process("haproxy", ["haproxy", "-W", "-db", "-f", self.path], os.path.join(world.dir, "haproxy.log"))
        self.port = None

    def write(self):
        apps = self.api.ask("GET", "/v2/apps?embed=apps.tasks")["apps"]
        resolve = {"node1": NODE_ADDRESS}.__getitem__
        with open(self.path, "w") as file:
            file.write(configuration(apps, "external", self.directory, BY_NAME, resolve))

    def accepted(self):
        program("haproxy", "-c", "-f", self.path).is_(0, "Configuration file is valid\n", "")

    def follow(self):
        """Writes the configuration anew and has it loaded."""
        self.write()
        self.accepted()
        self.haproxy.signal(signal.SIGUSR2)

    def answering(self, count=40):
        """The tasks that answer on the app's service port."""
        return {fetch(f"http://127.0.0.1:{self.port}/cgi-bin/whoami").strip() for _ in range(count)}

    def all_answer(self, instances):
        ids = {task["id"] for task in self.api.running("/lb/web", instances)}

        def same():
            found = self.answering()
            if found != ids:
                raise Failure(f"{found} answer, {ids} run")
            return True
        until("exactly the tasks that run to answer", same)

    # === the steps ===

    def nothing(self):
        self.write()
        self.accepted()
        with open(self.path, "a") as file:
            file.write("nonsense\n")
        said = program("haproxy", "-c", "-f", self.path)
        equal((said.code, "unknown keyword 'nonsense'" in said.err), (1, True), said)

    def created(self):
        check = {"protocol": "HTTP", "path": "/", "intervalSeconds": 1, "gracePeriodSeconds": 30}
        labels = {**GROUP, "HAPROXY_0_MODE": "http", "HAPROXY_0_VHOST": "web.example"}
        self.api.create(web("/lb/web", 2, healthChecks=[check], labels=labels))
        serve = "echo $MESOS_TASK_ID > index.html; exec python3 -m http.server $PORT0"
        self.api.create(sleeper("/lb/process", cmd=serve, portDefinitions=[{"port": 10500}], labels=GROUP))
        self.api.create(web("/lb/internal", labels={"HAPROXY_GROUP": "internal"}))
        until("all to be healthy", lambda: self.api.app("/lb/web")["tasksHealthy"] == 2)
        apps = {app["id"]: service_ports(app) for app in self.api.ask("GET", "/v2/apps")["apps"]}
        equal((apps["/lb/process"], len(apps["/lb/web"])), ([10500], 1))
        every = [port for ports in apps.values() for port in ports]
        equal((len(set(every)), all(10000 <= port <= 20000 for port in every)), (len(every), True), every)
        self.port = apps["/lb/web"][0]

    def begun(self):
        self.write()
        self.accepted()
        self.haproxy.start()
        self.all_answer(2)

    def by_name(self):
        equal(fetch(f"http://127.0.0.1:{BY_NAME}/cgi-bin/whoami", "web.example").strip() in self.answering(), True)
        try:
            fetch(f"http://127.0.0.1:{BY_NAME}/", "other.example")
        except urllib.error.HTTPError as error:
            equal(error.code, 503)
        else:
            raise Failure("a name that nobody has was answered")

    def host_network(self):
        task = self.api.running("/lb/process")[0]["id"]
        until("it to answer", lambda: fetch("http://127.0.0.1:10500/").strip() == task)

    def of_the_group_only(self):
        port = service_ports(self.api.app("/lb/internal"))[0]
        with socket.socket() as probe:
            equal(probe.connect_ex(("127.0.0.1", port)) != 0, True, "the port of another group's app is open")

    def scaled(self):
        load = Load(f"http://127.0.0.1:{self.port}/")
        for instances in (4, 1):
            self.api.change("PUT", "/v2/apps/lb/web", {"instances": instances})
            until("all to be healthy", lambda: self.api.app("/lb/web")["tasksHealthy"] == instances)
            self.follow()
            self.all_answer(instances)
        load.stop()

    def upgraded(self):
        """A new version: haproxy learns of its tasks before the old ones, which have been told to end, do so. The port stays the same."""
        gate = os.path.join(self.world.dir, "gate")
        # It goes on to serve when all are asked to end, in whatever session they are.
        serve = "echo $MESOS_TASK_ID > index.html; (trap '' TERM; exec python3 -m http.server $PORT0) & "
        wait = f"trap 'while [ ! -e {gate} ]; do sleep 0.05; done; exit 0' TERM; while true; do sleep 0.05 & wait $!; done"
        check = {"protocol": "HTTP", "path": "/", "intervalSeconds": 1, "gracePeriodSeconds": 60}
        self.api.create(sleeper("/lb/drained", 2, cmd=serve + wait, portDefinitions=[{"port": 10501}], labels={**GROUP, "HAPROXY_0_MODE": "http"},
                                healthChecks=[check], taskKillGracePeriodSeconds=300))
        ids = lambda: {task["id"] for task in self.api.tasks("/lb/drained") if may_have_traffic({"healthChecks": [check]}, task)}
        until("both to be healthy", lambda: len(ids()) == 2)
        self.follow()
        answering = lambda: {fetch("http://127.0.0.1:10501/").strip() for _ in range(40)}
        until("both to answer", lambda: answering() == ids())
        load = Load("http://127.0.0.1:10501/")
        before = ids()
        deployment = self.api.ask("PUT", "/v2/apps/lb/drained", {"env": {"NEW": "1"}})["deploymentId"]
        until("two more to be healthy", lambda: len(ids()) == 4, 60)
        self.follow()
        until("the new ones to answer, too", lambda: answering() == ids())
        open(gate, "w").close()
        self.api.deployed(deployment)
        self.follow()
        until("the new ones alone to answer", lambda: answering() == ids())
        load.stop()
        equal((len(ids()), ids() & before, service_ports(self.api.app("/lb/drained"))), (2, set(), [10501]))

    def stable(self):
        before = {app["id"]: service_ports(app) for app in self.api.ask("GET", "/v2/apps")["apps"]}
        with open(self.path) as file:
            written = file.read()
        self.world.server.kill()
        # There is nobody to ask, and traffic goes on.
        equal(len(self.answering()), 1)
        self.world.start_server()
        equal({app["id"]: service_ports(app) for app in self.api.ask("GET", "/v2/apps")["apps"]}, before)

        def same():
            self.write()
            with open(self.path) as file:
                return file.read() == written
        until("the configuration to be the same", same)

    def over(self):
        self.haproxy.stop()
        self.api.ask("DELETE", "/v2/groups/lb?force=true")
        until("nothing to be left", lambda: self.api.ask("GET", "/v2/apps")["apps"] == [] and self.api.ask("GET", "/v2/deployments") == [])

    STEPS = [
        ("haproxy -c takes a configuration without apps, and not everything", nothing),
        ("service ports are given out, each once", created),
        ("all tasks of an app answer on its service port", begun),
        ("and by name", by_name),
        ("a command on the node's network on the service port that it asked for", host_network),
        ("only apps of the group are served", of_the_group_only),
        ("scaled up and down under load: haproxy follows, no request fails", scaled),
        ("upgraded under load: no request fails, the service port stays", upgraded),
        ("the server killed: traffic goes on; then the same configuration", stable),
        ("nothing is left", over),
    ]
