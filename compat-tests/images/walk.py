#!/usr/bin/env python3
"""Images on the platform itself: the registry installed as its service, an archive of `docker save` pushed by the account whose it is and by nobody else,
pulled by the platform when Docker has lost it, and all of it still there after the registry, and after the server, was killed.

    compat-tests/images/walk.py

As root. Two accounts are made on this machine, and removed at the end.
"""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from accounts import Accounts, home
from report import walk
from world import NODE_ADDRESS, Failure, binary, run, until

OWNER, OTHER = "xtimgowner", "xtimgother"
PROGRAMS = os.path.dirname(binary())


class Images:
    def __init__(self, world):
        self.world = world
        self.archive = os.path.join(world.dir, "web.tar")
        self.image = f"{OWNER}/web"

    def program(self, account, name, *words, check=True):
        command = [os.path.join(PROGRAMS, name), *words, "--work_dir", self.world.work_dir]
        if account != "root":
            command = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups", "env", f"HOME={home(self.world, account)}", *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        if check and done.returncode != 0:
            raise Failure(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def expect(self, done, code, words):
        said = done.stdout + done.stderr
        if done.returncode != code or words not in said:
            raise Failure(f"expected {code} and '{words}', got {done.returncode}: {said}")

    def docker(self, *words):
        return run("docker", "--host", f"unix://{self.world.socket}", *words)

    def ask(self, account, method, path, body=None):
        """The API through the users' socket, as an account."""
        command = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups"] if account != "root" else []
        command += ["curl", "-sS", "--unix-socket", f"{self.world.work_dir}/xtao.sock", "-X", method, f"http://localhost{path}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        answer = run(*command)
        return json.loads(answer) if answer.strip() else None

    # === the steps ===

    def installed(self):
        begun = json.loads(self.program("root", "xtao", "registry", "install", "--size", "1024").stdout)
        if begun != {"name": "registry.marathon.mesos:5000", "state": "running", "address": f"{NODE_ADDRESS}:5000"}:
            raise Failure(begun)
        app = self.ask("root", "GET", "/v2/apps/registry")["app"]
        endpoint = {key: app["endpoints"][0][key] for key in ("host", "port")}
        if endpoint != {"host": "registry.marathon.mesos", "port": 5000}:
            raise Failure(endpoint)
        self.world.from_client("getent", "hosts", "registry.marathon.mesos")
        ports = self.ask("root", "GET", "/v2/ports")["ports"]
        if [port["port"] for port in ports] != [5000]:
            raise Failure(ports)

    def installed_again(self):
        before = self.registry_task()
        self.program("root", "xtao", "registry", "install", "--size", "1024")
        if self.registry_task() != before:
            raise Failure("installing it again started it anew although nothing had changed")

    def registry_task(self):
        tasks = self.ask("root", "GET", "/v2/apps/registry/tasks")["tasks"]
        return [task["id"] for task in tasks]

    def base_pushed(self):
        file = os.path.join(self.world.dir, "anna.tar")
        self.docker("save", "--output", file, "anna")
        self.expect(self.program("root", "imgcli", "push", file), 0, "pushed anna:latest")
        self.expect(self.program(OWNER, "imgcli", "list"), 0, "anna")

    def pulled_by_docker(self):
        """The commands of the README: on a node, and on a developer's machine."""
        for pulled, name in (("anna", "anna"), (f"{NODE_ADDRESS}:5000/anna", f"{NODE_ADDRESS}:5000/anna")):
            if name == "anna":
                self.docker("rmi", "anna")
            self.docker("pull", "--quiet", pulled)
            self.docker("image", "inspect", name)
            self.docker("rmi", name)
        command = f"{PROGRAMS}/imgcli pull anna - --work_dir {self.world.work_dir} | docker --host unix://{self.world.socket} load"
        run("bash", "-o", "pipefail", "-c", command)
        for name in ("anna", "registry.marathon.mesos:5000/anna"):
            self.docker("image", "inspect", name)
        context = os.path.join(self.world.dir, "from-anna")
        os.makedirs(context)
        with open(os.path.join(context, "Dockerfile"), "w") as file:
            file.write("FROM anna\nRUN echo built >/built\n")
        env = dict(os.environ, DOCKER_HOST=f"unix://{self.world.socket}", DOCKER_BUILDKIT="0")
        run("docker", "build", "--network", "none", "--tag", "from-anna", context, env=env, seconds=120)
        written = self.docker("run", "--rm", "--network", "none", "--entrypoint", "cat", "from-anna", "/built")
        if written.strip() != "built":
            raise Failure(f"what was built FROM anna says {written!r}")
        self.docker("rmi", "from-anna")

    def pushed(self):
        self.docker("tag", "xtao/web", self.image)
        self.docker("save", "--output", self.archive, self.image)
        self.docker("rmi", self.image)
        os.chmod(self.archive, 0o644)
        self.expect(self.program(OWNER, "imgcli", "push", self.archive), 0, f"pushed {self.image}:latest")
        self.expect(self.program(OWNER, "imgcli", "push", self.archive), 0, "there already")
        self.expect(self.program(OWNER, "imgcli", "show", self.image), 0, f"{self.image}:latest")

    def refused_to_others(self):
        self.expect(self.program(OTHER, "imgcli", "push", self.archive, check=False), 4, f"you are {OTHER}, and may not push or remove {self.image}")
        words = ("push", "--name", f"{OTHER}/web", self.archive)
        self.expect(self.program(OWNER, "imgcli", *words, check=False), 4, f"you are {OWNER}, and may not")
        self.expect(self.program(OTHER, "imgcli", "show", self.image, check=False), 1, "does not exist")
        self.expect(self.program(OTHER, "imgcli", "pull", self.image, "/tmp/never.tar", check=False), 1, "there is no image")
        self.expect(self.program(OTHER, "imgcli", "rm", "-y", self.image, check=False), 4, "may not")

    def refused_by_the_registry(self):
        """A client that looks at nothing: the registry itself says no, with every token that the other account can get, and with none."""
        scope = f"/v2/registry/token?service=xtao-registry&scope=repository:{self.image}:pull,push"
        answer = self.ask(OTHER, "GET", scope)
        if answer["access"]:
            raise Failure(f"a token for somebody else's image: {answer['access']}")
        for header in ([], ["-H", f"Authorization: Bearer {answer['token']}"]):
            for method, path in (("POST", "blobs/uploads/"), ("GET", "manifests/latest"), ("GET", "tags/list")):
                url = f"http://{NODE_ADDRESS}:5000/v2/{self.image}/{path}"
                status = run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, *header, url).strip()
                if status != "401":
                    raise Failure(f"{method} {path}: {status}")

    def app(self, name):
        return {"id": f"/{name}", "cpus": 0.1, "mem": 32, "networks": [{"mode": "container/bridge"}], "backoffSeconds": 1,
                "container": {"type": "DOCKER", "docker": {"image": self.image}, "portMappings": [{"containerPort": 80, "hostPort": 0}]}}

    def pulled_by_the_platform(self):
        if self.image in self.docker("images", "--format", "{{.Repository}}"):
            raise Failure("the image is in Docker already")
        self.ask(OWNER, "POST", "/v2/apps", self.app("web"))
        until("the app to run", lambda: self.ask(OWNER, "GET", "/v2/apps/web")["app"]["tasksRunning"] == 1, 60)
        if self.ask(OWNER, "GET", "/v2/apps/web")["app"]["container"]["docker"]["image"] != self.image:
            raise Failure("the app shows another name of the image than its owner wrote")
        names = set(self.docker("images", "--format", "{{.Repository}}").split())
        if self.image not in names or any(name.startswith("127.") for name in names):
            raise Failure(names)

    def not_run_for_others(self):
        self.ask(OTHER, "POST", "/v2/apps", self.app("theft"))
        failure = lambda: self.ask(OTHER, "GET", "/v2/apps/theft?embed=app.lastTaskFailure")["app"].get("lastTaskFailure")
        until("the failure", failure, 60)
        message = failure()["message"]
        if f"belongs to the user {OWNER}, and this app to {OTHER}" not in message:
            raise Failure(message)
        self.ask(OTHER, "DELETE", "/v2/apps/theft?force=true")

    def survives(self):
        """The registry killed, and then the server: what was pushed is there."""
        before = self.registry_task()
        container = next(c for c in self.world.containers() if any(before[0] in name for name in c["Names"]))
        self.world.docker("POST", f"/containers/{container['Id']}/kill")
        until("another registry", lambda: self.registry_task() not in ([], before), 60)
        self.world.server.kill()
        self.world.start_server()
        state = lambda: json.loads(self.program("root", "xtao", "registry", "status").stdout)["state"]
        until("the registry", lambda: state() == "running", 60)
        until("its answer", lambda: self.program(OWNER, "imgcli", "push", self.archive, check=False).returncode == 0, 30)
        self.expect(self.program(OWNER, "imgcli", "list"), 0, self.image)

    def removed(self):
        self.expect(self.program(OWNER, "imgcli", "rm", "-y", f"{self.image}:latest"), 0, "")
        self.expect(self.program(OWNER, "imgcli", "show", self.image, check=False), 1, "does not exist")


def steps(world, report):
    os.chmod(world.dir, 0o711)
    images = Images(world)

    def begun():
        world.start_docker("--registry-mirror", "http://127.0.0.1:5001", "--insecure-registry", f"{NODE_ADDRESS}:5000")
        world.make_images("anna", "registry", "xtao/web")
        world.start_server()

    report.need("Docker, the images and the server are there", begun)
    report.need("xtao registry install: a service with a name, port 5000 and a brick", images.installed)
    report.step("installed again, nothing changes", images.installed_again)
    report.step("the base image is pushed by root, and seen by everybody", images.base_pushed)
    report.step("Docker pulls it on a node and takes it on another machine, as the README says", images.pulled_by_docker)
    report.need("an archive of docker save is pushed by whose it is, quickly the second time", images.pushed)
    report.step("other accounts and other names are refused", images.refused_to_others)
    report.step("a client that does not ask is refused by the registry", images.refused_by_the_registry)
    report.step("the platform pulls what Docker does not have", images.pulled_by_the_platform)
    report.step("it runs for nobody else, although Docker has it", images.not_run_for_others)
    report.step("what was pushed outlives the registry's task and the server", images.survives)
    report.step("and is removed by whose it is", images.removed)


if __name__ == "__main__":
    walk("images", steps, Accounts(OWNER, OTHER))
