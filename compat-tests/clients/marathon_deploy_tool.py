"""marathon-deploy 3.0.2: `marathon-deploy` with each option, also interrupted by its user, and `marathon-check`."""

import json
import os
import re
import signal
import subprocess
import sys

from common import ADDRESS, HERE, NOBODY, Failure, Marathon, Said, equal, giant, program, until, web
from world import run

PONG = '"pong"\n'
APP = "/deploy/web"
# One deployment from its beginning to its end, or missed because it was so short.
PLACES = rf"Affected apps:\n- {APP}: \S+\n"
WATCHED = rf"(Not found yet\. Grace time of 3 seconds\.\n)?Watching deployment \S+\n{PLACES}Waiting\.*\nDeployment \S+ complete\.\n"
MISSED = r"(No deployments in progress\. Grace time of 3 seconds\.\n)?Deployment [^\n]* not found\. Assuming complete\.\n"
ENDED = f"({WATCHED}|{MISSED})"


def command(name, *words, server=f"http://{ADDRESS}"):
    module = {"marathon-deploy": "deploytool", "marathon-check": "checkappdeploy"}[name]
    start = os.path.join(HERE, "old_python.py")
    # What it prints is seen at once.
    return [sys.executable, "-u", "-W", "ignore", start, f"marathon_deploy.{module}", name, "--marathon", server, *words]


def deploy(*words, stdin="", server=f"http://{ADDRESS}"):
    return program(*command("marathon-deploy", *words, server=server), stdin=stdin, shown=("marathon-deploy", *words))


class Interrupted:
    """It runs in the background, with all its answers given; the user presses Ctrl-C."""

    def __init__(self, *words, stdin):
        self.words = words
        self.popen = subprocess.Popen(command("marathon-deploy", *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.popen.stdin.write(stdin.encode())
        self.popen.stdin.flush()
        self.out = b""

    def until_it_says(self, words):
        while not self.out.endswith(words.encode()):
            piece = self.popen.stdout.read(1)
            if not piece:
                raise Failure(f"it has ended: {self.out!r} {self.popen.stderr.read()!r}")
            self.out += piece

    def press(self):
        self.popen.send_signal(signal.SIGINT)
        rest, err = self.popen.communicate(timeout=30)
        done = subprocess.CompletedProcess([], self.popen.returncode, (self.out + rest).decode(), err.decode())
        return Said(("marathon-deploy", *self.words), done)


class Section:
    def __init__(self, world):
        self.world, self.api = world, Marathon(world)
        self.directory = os.path.join(world.dir, "deploy")
        os.makedirs(self.directory)
        self.check = None

    def file(self, name, definition):
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            json.dump(definition, file)
        return path

    def definition(self, **more):
        check = {"protocol": "HTTP", "path": "/", "intervalSeconds": 1, "gracePeriodSeconds": 30}
        app = web(APP, **{"instances": 1, "healthChecks": [check], **more})
        app["container"]["docker"]["image"] = "clients.example/web:1"
        return app

    def ids(self):
        wanted = self.api.app(APP)["instances"]
        settled = self.api.running(APP, wanted)
        return {task["id"] for task in settled} if wanted else set()

    def says(self, said, pattern):
        said.is_(0, re.compile(re.escape(PONG) + pattern, re.DOTALL), None)

    # === the steps ===

    def put_new(self):
        for tag in ("1", "2"):
            run("docker", "--host", f"unix://{self.world.socket}", "tag", "xtao/web", f"clients.example/web:{tag}")
        path = self.file("web.json", self.definition())
        self.says(deploy("--put", path), rf"\nCreating app: {APP} \(from: {re.escape(path)}\)\nNo deployments active\. Assuming complete\.\n")
        equal(len(self.ids()), 1)
        # It waits for 20 seconds before it looks: that goes on beside the other steps.
        self.check = subprocess.Popen(command("marathon-check", "--appid", APP), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def instances(self):
        deploy("--appid", "deploy/web", "--instances").is_(0, PONG + "1\n")
        deploy("--appid", "/deploy/none", "--instances").is_(0, PONG + "-1\n", None)

    def scale(self):
        self.says(deploy("--appid", APP, "--scale", "2"), ENDED)
        equal(len(self.ids()), 2)

    def put_again(self):
        before = self.ids()
        path = self.file("web.json", self.definition(instances=2, env={"CHANGED": "1"}))
        # When it has missed the deployment it restarts the app too, and looks again.
        self.says(deploy("--put", path), rf"Updating app: {APP} \(from: {re.escape(path)}\)\n({ENDED}){{2}}")
        equal((self.api.app(APP)["env"], before & self.ids()), ({"CHANGED": "1"}, set()))

    def restart(self):
        before = self.ids()
        self.says(deploy("--appid", APP, "--restart"), ENDED)
        equal(before & self.ids(), set())

    def restart_in_place(self):
        before = self.ids()
        self.says(deploy("--appid", APP, "--inplacerestart"), rf"{ENDED}Scaled {APP} down to 0\n{ENDED}{APP} back at 2 again\n")
        equal((before & self.ids(), len(self.ids())), (set(), 2))

    def tag(self):
        self.says(deploy("--appid", APP, "--tag", "2"), ENDED)
        self.ids()
        equal(self.api.app(APP)["container"]["docker"]["image"], "clients.example/web:2")

    def put_directory(self):
        for name in ("1.json", "2.json", "#3.json"):
            self.file(f"all/{name}", web(f"/deploy/all{name.strip('#')[0]}"))
        directory = os.path.join(self.directory, "all")
        question = f"The path {directory} is a directory. Deploy applications defined in it?\nType 'YES' to confirm: "
        deploy("--put", directory, stdin="no\n").is_(2, f"{PONG}{question}Aborting\n")
        equal(self.world.api("GET", "/v2/apps/deploy/all1")[0], 404)
        self.says(deploy("--put", directory, stdin="YES\n"), f"{re.escape(question)}.*Creating app: /deploy/all1 .*Creating app: /deploy/all2 .*")
        equal([self.world.api("GET", f"/v2/apps/deploy/all{number}")[0] for number in (1, 2, 3)], [200, 200, 404])
        for number in (1, 2):
            self.api.destroy(f"/deploy/all{number}")

    def interrupted_rollback(self):
        self.api.ask("POST", "/v2/apps", {**giant("/deploy/giant"), "instances": 0}, expect=(201,))
        until("it to be there", lambda: self.api.ask("GET", "/v2/deployments") == [])
        tool = Interrupted("--appid", "/deploy/giant", "--scale", "1", stdin="YES\nno\n")
        tool.until_it_says("Waiting")
        said = tool.press().is_(0, re.compile(r".*Roll back deployment\?.*Force it\?.*Rollback deployment launched: [0-9a-f-]{36}\n", re.DOTALL), None)
        self.api.deployed(said.out.split()[-1])
        equal(self.api.app("/deploy/giant")["instances"], 0)

    def interrupted_force(self):
        tool = Interrupted("--appid", "/deploy/giant", "--scale", "1", stdin="YES\nYES\n")
        tool.until_it_says("Waiting")
        tool.press().is_(2, re.compile(r".*Deployment deleted\. Check status of applications:\n- /deploy/giant: \S+\n", re.DOTALL), None)
        until("the deployment to be gone", lambda: self.api.ask("GET", "/v2/deployments") == [])
        equal(self.api.app("/deploy/giant")["instances"], 1)

    def interrupted_only(self):
        tool = Interrupted("--appid", "/deploy/giant", "--scale", "2", stdin="no\n")
        tool.until_it_says("Waiting")
        tool.press().is_(1, re.compile(r".*Deployment monitoring aborted\. Check status in:\n.*", re.DOTALL), None)
        equal([plan["affectedApps"] for plan in self.api.ask("GET", "/v2/deployments")], [["/deploy/giant"]])
        self.api.ask("DELETE", "/v2/apps/deploy/giant")

    def full_rollback(self):
        """The second of two apps does not come; its user gives up, and the first is deleted again."""
        self.file("rollback/1.json", web("/deploy/first"))
        self.file("rollback/2.json", giant("/deploy/giant"))
        tool = Interrupted("--put", os.path.join(self.directory, "rollback"), "--fullrollback", stdin="YES\nYES\nYES\n")
        tool.until_it_says("Creating app: /deploy/giant")
        until("its deployment", lambda: any(plan["affectedApps"] == ["/deploy/giant"] for plan in self.api.ask("GET", "/v2/deployments")))
        self.it_polls()
        pattern = r".*Aborting\. Rollback creation or delete application manually\.\n-+\nPerforming rollback in order:\n/deploy/first\n-+\n.*"
        tool.press().is_(0, re.compile(pattern, re.DOTALL), None)
        until("the first app to be gone", lambda: self.world.api("GET", "/v2/apps/deploy/first")[0] == 404)
        self.api.ask("DELETE", "/v2/apps/deploy/giant")

    def it_polls(self):
        """Waits until somebody but us has asked for something twice."""
        count = lambda: self.api.ask("GET", "/metrics")["timers"]["marathon.http.requests.get.duration.timer.seconds"]["count"]
        first, asked = count(), 0

        def polled():
            nonlocal asked
            asked += 1
            return count() - first - asked >= 2
        until("it to poll", polled)

    def refused(self):
        path = self.file("bad.json", {**web("/deploy/bad"), "mem": "much"})
        ended = lambda error: re.compile(rf".*\n\S*{error}: MarathonHttpError: HTTP [^\n]*\n", re.DOTALL)
        said = deploy("--put", path).is_(1, None, ended("MarathonHttpError"))
        if 'HTTP 422 returned with message, "Invalid JSON"' not in said.err:
            raise Failure(said)
        for words in (("--restart",), ("--inplacerestart",), ("--tag", "2")):
            said = deploy("--appid", "/deploy/none", *words).is_(1, PONG, ended("NotFoundError"))
            if "HTTP 404 returned with message, \"App '/deploy/none' does not exist\"" not in said.err:
                raise Failure(said)
        self.says(deploy("--appid", "/deploy/none", "--scale", "1"), MISSED)
        deploy("--scale", "1").is_(1, PONG + "Error! --appid is required for the requested operation.\n")
        deploy("--appid", APP, "--list").is_(0, PONG + "Nothing done\n")

    def servers(self):
        deploy("--appid", APP, "--list", server=f"http://{NOBODY}").is_(1, f"Could not connect to Marathon in ['http://{NOBODY}']\n", None)
        deploy("--appid", APP, "--list", server=f"http://{NOBODY},http://{ADDRESS}").is_(0, PONG + "Nothing done\n", None)

    def checked(self):
        if self.check is None:
            raise Failure("it was not started")
        out, _ = self.check.communicate(timeout=60)
        equal((self.check.returncode, out), (0, f"{PONG}APP deploy on Marathon\n"))
        self.api.change("DELETE", "/v2/groups/deploy")

    STEPS = [
        ("--put of a new app", put_new),
        ("--instances", instances),
        ("--scale", scale),
        ("--put of a changed app", put_again),
        ("--restart", restart),
        ("--inplacerestart", restart_in_place),
        ("--tag", tag),
        ("--put of a directory", put_directory),
        ("Ctrl-C rolls the deployment back", interrupted_rollback),
        ("Ctrl-C deletes the deployment by force", interrupted_force),
        ("Ctrl-C leaves the deployment alone", interrupted_only),
        ("--put of a directory with --fullrollback, given up", full_rollback),
        ("refused: 422, four of no such app, no app named", refused),
        ("no server; one of two servers", servers),
        ("marathon-check", checked),
    ]
