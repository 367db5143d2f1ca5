#!/usr/bin/env python3
"""The user manual from section 1 to section 6, typed at a terminal by two people with accounts on the machine: images, passwords, services,
names, and that neither sees or touches what is the other's.

    compat-tests/people/walk.py        (as root; a few minutes; logs in target/test-logs/people)
"""

import base64
import http.client
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from accounts import Accounts, home
from marathon import Marathon
from report import walk
from terminal import Terminal
from world import NODE_ADDRESS, TOP, Failure, binary, run, until

USER, PASSWORD, OTHER, OTHER_PASSWORD = "zmfsea", "p@ssw0rd", "xtother", "0ther-secret"
IMAGE = "zmfsea/cmp-postgresql"
DATA = "/var/lib/pgsql/9.6/data/"
PROMPT = r"\(xtcli-compute\) "
# The manual's commands, letter by letter.
SERVICE = (f'mgmt service --id testdb --image {IMAGE} --cpu 0.5 --mem 512 --env "DBUSER=zmfsea,DBPASSWD=123456,DBNAME=MYDB,DBPORT=@PORT" '
           f'--volume "/var/crash:/var/crash" --brick "131072:{DATA}"')
SERVICE2 = (f'mgmt service --id testdb2 --image {IMAGE} --cpu 0.5 --mem 512 --env "DBUSER=zmfsea,DBPASSWD=123456,DBNAME=MYDB" '
            f'--port @PORT:5432 --volume "/var/crash:/var/crash" --brick "131072:{DATA}"')


class People:
    def __init__(self, world):
        self.world, self.marathon = world, Marathon(world)
        self.bin = os.path.join(world.dir, "bin")
        self.places = {}
        self.heard = b""
        # Where everybody may reach: the programs, and the sockets in the work directory.
        os.chmod(world.dir, 0o711)
        os.makedirs(self.bin, mode=0o755)
        for name in ("xtao", "xtcli-compute", "imgcli"):
            shutil.copy(os.path.join(os.path.dirname(binary()), name), self.bin)

    # === somebody at a terminal ===

    def environment(self, user):
        return {"PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": home(self.world, user), "USER": user, "LOGNAME": user, "TERM": "xterm",
                "LANG": "C.UTF-8", "XTAO_WORK_DIR": self.world.work_dir}

    def as_user(self, user, *command):
        return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command] if user != "root" else list(command)

    def terminal(self, user, *command):
        return Terminal(self.as_user(user, *command), env=self.environment(user), cwd=home(self.world, user))

    def call(self, user, *command, code=0, seconds=120):
        """A command that is not typed at a prompt; its output, both streams. Failure for another exit code."""
        done = subprocess.run(self.as_user(user, *command), env=self.environment(user), cwd=home(self.world, user), text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds)
        if done.returncode != code and not (code is None and done.returncode != 0):
            raise Failure(f"{user}: {' '.join(command)}: exit {done.returncode}: {done.stdout[-1500:]}")
        return done.stdout

    def docker(self, *command, seconds=300):
        return run("docker", "--host", f"unix://{self.world.socket}", *command, seconds=seconds)

    def api(self, user, method, path, body=None):
        secret = {USER: PASSWORD, OTHER: OTHER_PASSWORD}.get(user)
        headers = {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()} if secret else {}
        return self.world.api(method, path, body, headers)

    # === section 1: the image, on a developer's machine ===

    def image_is_built_and_saved(self):
        self.docker("tag", IMAGE, "developers-postgresql")
        context = os.path.join(self.world.dir, "context")
        os.makedirs(context)
        shutil.copy(os.path.join(TOP, "scripts/images/cmp-postgresql/entrypoint.sh"), context)
        with open(os.path.join(context, "Dockerfile"), "w") as file:
            file.write('FROM developers-postgresql\nADD ./entrypoint.sh /entrypoint.sh\nENTRYPOINT ["/entrypoint.sh"]\n')
        env = dict(os.environ, DOCKER_HOST=f"unix://{self.world.socket}", DOCKER_BUILDKIT="0")
        run("docker", "build", "--rm", "-t", IMAGE, context, env=env, seconds=300)
        archive = os.path.join(home(self.world, USER), "cmp-postgresql.tar")
        run("bash", "-c", f"docker save {IMAGE} >{archive}", env=env, seconds=300)
        run("chown", f"{USER}:{USER}", archive)
        # Not on this machine any more: the platform has to bring it.
        self.docker("rmi", "--force", IMAGE, "developers-postgresql")

    # === the platform's own registry ===

    def registry_is_installed(self):
        print(self.call("root", "xtao", "registry", "install", seconds=300).strip())
        self.marathon.running("/registry", seconds=120)

    # === section 2: push ===

    def pushed_before_any_password(self):
        user = self.terminal(USER, "imgcli", "push", "cmp-postgresql.tar")
        code, text = user.end(seconds=300)
        if code != 0 or IMAGE not in user.text():
            raise Failure(f"exit {code}: {user.text()[-1500:]}")

    def pushed_again_in_no_time(self):
        out = self.call(USER, "imgcli", "push", "cmp-postgresql.tar")
        shown = self.call(USER, "imgcli", "list")
        if IMAGE not in shown:
            raise Failure(f"imgcli list shows:\n{shown}\nafter\n{out}")

    def refused_as_another(self):
        stolen = os.path.join(home(self.world, OTHER), "cmp-postgresql.tar")
        shutil.copy(os.path.join(home(self.world, USER), "cmp-postgresql.tar"), stolen)
        run("chown", f"{OTHER}:{OTHER}", stolen)
        out = self.call(OTHER, "imgcli", "push", "cmp-postgresql.tar", code=None)
        if USER not in out or OTHER not in out:
            raise Failure(f"the refusal does not say whose image it is and who pushed:\n{out}")
        shown = self.call(OTHER, "imgcli", "list")
        if IMAGE in shown:
            raise Failure(f"the other account sees it:\n{shown}")

    def refused_by_the_registry_itself(self):
        """Somebody who bypasses the client: a token for the own prefix is no good for another's."""
        out = self.call(OTHER, "curl", "-sS", "--unix-socket", f"{self.world.work_dir}/xtao.sock",
                        f"http://localhost/v2/registry/token?service=xtao&scope=repository:{IMAGE}:push,pull")
        answer = json.loads(out)
        place, token = answer["registry"], answer["token"]
        status = run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", f"Authorization: Bearer {token}",
                     f"http://{place}/v2/{IMAGE}/blobs/uploads/")
        if status not in ("401", "403"):
            raise Failure(f"an upload under another's name: {status}")
        status = run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{place}/v2/{IMAGE}/manifests/latest")
        if status != "401":
            raise Failure(f"a read without any token: {status}")

    # === section 3: an ordinary user is authorised ===

    def password_is_set(self):
        administrator = self.terminal("root", "xtao", "auth", "password", USER, PASSWORD)
        code, _ = administrator.end()
        if code != 0 or json.loads(administrator.text()) != {"output": "success to set the passwd", "error": 0}:
            raise Failure(f"exit {code}: {administrator.text()}")
        if '     "output": "success to set the passwd",' not in administrator.text():
            raise Failure(f"laid out in another way: {administrator.text()}")

    def the_others_password_is_asked_for(self):
        administrator = self.terminal("root", "xtao", "auth", "password", OTHER)
        administrator.expect(r"[Pp]assword")
        administrator.type(OTHER_PASSWORD)
        administrator.expect("Once more:")
        administrator.type(OTHER_PASSWORD)
        code, _ = administrator.end()
        if code != 0 or OTHER_PASSWORD in administrator.text():
            raise Failure(f"exit {code}: {administrator.text()}")

    def nobody_without_credentials(self):
        status, headers, answer = self.world.api("GET", "/v2/apps")
        challenge = {name.lower(): value for name, value in headers.items()}.get("www-authenticate", "")
        if status != 401 or not challenge.startswith("Basic"):
            raise Failure(f"{status} {challenge} {answer}")

    def asked_for_user_and_password(self):
        user = self.terminal(USER, "xtcli-compute", "-d", "127.0.0.1:8080", "-c")
        user.expect("User:")
        user.type(USER)
        user.expect("Password:")
        user.type(PASSWORD)
        user.expect(PROMPT)
        user.press("\x04")
        code, _ = user.end()
        if code != 0 or PASSWORD in user.text():
            raise Failure(f"exit {code}: {user.text()}")

    def a_wrong_password_is_refused(self):
        user = self.terminal(USER, "xtcli-compute", "-d", "127.0.0.1:8080", "-c")
        user.expect("User:")
        user.type(USER)
        user.expect("Password:")
        user.type("wrong")
        user.expect("does not accept user 'zmfsea' with this password")
        # It asks again; Ctrl-D leaves.
        user.expect("User:")
        user.press("\x04")
        code, text = user.end()
        if code == 0 or PROMPT in text:
            raise Failure(f"exit {code}: {text}")

    # === section 4: services ===

    def service(self, app, command, host):
        """Types the command in the shell; the JSON answer is the last thing on the screen before the next prompt."""
        user = self.terminal(USER, "xtcli-compute", "-c")
        user.expect("User:")
        user.type(USER)
        user.expect("Password:")
        user.type(PASSWORD)
        user.expect(PROMPT)
        user.type(command)
        user.expect(r"^\{", seconds=240)
        rest = user.expect(r"^\}", seconds=10)
        user.expect(PROMPT)
        user.type("exit")
        user.end()
        answer = json.loads("{" + rest)
        if answer.get("host") != host or not isinstance(answer.get("port"), int) or f'    "port": {answer["port"]}' not in rest:
            raise Failure(f"it says {rest}")
        place = (answer["host"], answer["port"])
        if self.places.setdefault(app, place) != place:
            raise Failure(f"{app} was at {self.places[app]} and is at {place}")
        print(f"       {place[0]} port {place[1]}")

    def image_was_pulled_by_the_platform(self):
        image = json.loads(run("docker", "--host", f"unix://{self.world.socket}", "image", "inspect", IMAGE))[0]
        shown = self.world.api("GET", "/v2/apps/testdb", headers=self.header(USER))[2]["app"]["container"]["docker"]["image"]
        if shown != IMAGE:
            raise Failure(f"the API shows {shown} (Docker has {image['RepoTags']})")

    def header(self, user):
        secret = {USER: PASSWORD, OTHER: OTHER_PASSWORD}[user]
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}

    # === section 5: check ===

    def pinged(self):
        for host, _ in self.places.values():
            out = self.world.from_client("ping", "-c", "1", "-W", "2", host)
            if NODE_ADDRESS not in out:
                raise Failure(f"{host}: {out}")

    def psql(self, app, sql):
        host, port = self.places[app]
        env = dict(os.environ, PGPASSWORD="123456", PGCONNECT_TIMEOUT="5")
        return self.world.from_client("psql", "--no-psqlrc", "-h", host, "-p", str(port), "-U", "zmfsea", "-d", "MYDB", "-Atqc", sql, env=env).split()

    def rows_are_written(self):
        for app in self.places:
            until(f"{app} to answer", lambda: self.psql(app, "select 1") == ["1"], 60, pause=0.2)
            self.psql(app, "create table walk (i int primary key); insert into walk values (42)")

    def rows_are_there(self):
        for app in self.places:
            until(f"{app} to answer", lambda: self.psql(app, "select 1") == ["1"], 60, pause=0.2)
            if self.psql(app, "select i from walk") != ["42"]:
                raise Failure(f"{app} has {self.psql(app, 'select i from walk')}")

    def listed_in_a_table(self):
        out = self.call(USER, "xtcli-compute", "-c", "mgmt", "service", "list")
        lines = out.strip().splitlines()
        if len(lines) < 3 or not any("testdb2" in line for line in lines):
            raise Failure(out)
        listed = json.loads(self.call(USER, "xtcli-compute", "-c", "-j", "mgmt", "service", "list"))
        if "testdb2" not in json.dumps(listed):
            raise Failure(f"-j shows {listed}")

    def logs_and_exec(self):
        logs = self.call(USER, "xtcli-compute", "-c", "mgmt", "service", "logs", "testdb", "--stderr", "--tail", "50")
        if "database system" not in logs and "listening" not in logs:
            raise Failure(f"logs: {logs[-800:]}")
        out = self.call(USER, "xtcli-compute", "-c", "mgmt", "service", "exec", "testdb", "--", "cat", "/proc/1/comm")
        if "postgres" not in out:
            raise Failure(f"exec: {out}")

    # === what the other one may ===

    def the_other_sees_nothing(self):
        for path in ("/v2/apps", "/v2/tasks", "/v2/queue", "/v2/deployments", "/v2/groups", "/v2/ports", "/v2/bricks", "/v2/info", "/v2/images",
                     "/v2/nodes", "/v2/pods", "/v2/pods/::status", "/v2/groups/versions", "/v2/apps?embed=apps.tasks&embed=apps.counts",
                     "/v2/groups?embed=group.apps&embed=group.groups"):
            status, _, answer = self.api(OTHER, "GET", path)
            text = json.dumps(answer)
            if status != 200 or "testdb" in text or "123456" in text or IMAGE in text:
                raise Failure(f"{path}: {status} {text[:600]}")
        for path in ("/v2/apps/testdb", "/v2/apps/testdb/tasks", "/v2/apps/testdb/versions"):
            status, _, answer = self.api(OTHER, "GET", path)
            if status != 404:
                raise Failure(f"{path}: {status} {answer}")
        out = self.call(OTHER, "xtcli-compute", "-c", "mgmt", "service", "list")
        if "testdb" in out:
            raise Failure(out)

    def the_other_cannot_have_it(self):
        app = {"id": "/testdb", "cpus": 0.1, "mem": 32, "cmd": "sleep 1000", "container": {"type": "DOCKER", "docker": {"image": "anna"}}}
        for method, path, body, statuses in (
            ("POST", "/v2/apps", app, (403, 409)),
            ("PUT", "/v2/apps/testdb", {"instances": 0}, (403, 404, 409)),
            ("DELETE", "/v2/apps/testdb", None, (403, 404)),
            ("POST", "/v2/apps/testdb/restart", None, (403, 404)),
            ("DELETE", "/v2/apps/testdb/tasks", None, (403, 404)),
        ):
            status, _, answer = self.api(OTHER, method, path, body)
            if status not in statuses or "123456" in json.dumps(answer):
                raise Failure(f"{method} {path}: {status} {answer}")
        out = self.call(OTHER, "xtcli-compute", "-c", *shlex.split(SERVICE2), code=None)
        if "123456" in out:
            raise Failure(out)

    def the_other_cannot_mount_its_brick(self):
        brick = next(brick["name"] for brick in self.api(USER, "GET", "/v2/bricks")[2]["bricks"] if brick["app"] == "/testdb")
        for method, path in (("GET", f"/v2/bricks/{brick}"), ("DELETE", f"/v2/bricks/{brick}"), ("GET", f"/v2/bricks/{brick}/backup")):
            status, _, answer = self.api(OTHER, method, path)
            if status not in (403, 404):
                raise Failure(f"{method} {path}: {status} {answer}")
        image = os.path.join(self.world.work_dir, "bricks")
        thief = {"id": "/thief", "cpus": 0.1, "mem": 32, "cmd": "sleep 1000",
                 "container": {"type": "DOCKER", "docker": {"image": "anna"}, "volumes": [{"containerPath": "/x", "hostPath": image, "mode": "RW"}]}}
        status, _, answer = self.api(OTHER, "POST", "/v2/apps", thief)
        if status != 422:
            raise Failure(f"our own directory as a volume: {status} {answer}")

    def the_other_listens(self):
        """From before the services are there until the end: what the other is told of what happens."""
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=1800)
        connection.request("GET", "/v2/events", headers={**self.header(OTHER), "Accept": "text/event-stream"})
        stream = connection.getresponse()
        if stream.status != 200:
            raise Failure(f"/v2/events: {stream.status}")

        def listen():
            while part := stream.read1(65536):
                self.heard += part
        threading.Thread(target=listen, name="events", daemon=True).start()

    def the_other_heard_nothing(self):
        own = {"id": "/others-own", "cmd": "sleep 1", "cpus": 0.1, "mem": 32, "instances": 0}
        status, _, answer = self.api(OTHER, "POST", "/v2/apps", own)
        if status != 201:
            raise Failure(f"{status} {answer}")
        until("the other to hear of what is its own", lambda: b"others-own" in self.heard, 30)
        # What the other asked for and was refused names the app, as the answer did.
        told = [event for event in self.heard.split(b"\r\n\r\n") if not event.lstrip().startswith(b"event: group_change_failed")]
        for word, heard in (("testdb", b"\n".join(told)), ("123456", self.heard), (IMAGE, self.heard), ("DBUSER", self.heard)):
            if word.encode() in heard:
                raise Failure(f"the other was told of {word}: {heard[-1500:]}")

    def the_attack_of_metasploit_is_refused(self):
        for user in (OTHER, USER):
            app = {"id": "/pwn", "cmd": "sleep 1", "cpus": 0.1, "mem": 32,
                   "container": {"type": "DOCKER", "docker": {"image": "anna"}, "volumes": [{"containerPath": "/mnt/x", "hostPath": "/", "mode": "RW"}]}}
            status, _, answer = self.api(user, "POST", "/v2/apps", app)
            if status != 422:
                raise Failure(f"{user}: {status} {answer}")

    def the_audit_log_knows(self):
        out = self.call("root", "xtao", "audit")
        for word in (USER, OTHER, "/v2/apps"):
            if word not in out:
                raise Failure(f"no {word} in:\n{out[-1500:]}")
        if "123456" in out or PASSWORD in out:
            raise Failure("the audit log has a secret in it")

    # === section 6: stop and start again ===

    def destroyed(self):
        for app in self.places:
            status, _, answer = self.api(USER, "DELETE", f"/v2/apps{app}")
            if status != 200:
                raise Failure(f"{app}: {status} {answer}")
        for app in self.places:
            until(f"{app} to be gone", lambda: self.api(USER, "GET", f"/v2/apps{app}")[0] == 404, 60)
        until("their deployments to be over", lambda: self.api(USER, "GET", "/v2/deployments")[2] == [], 60)

    def a_brick_is_backed_up(self):
        """While its service is destroyed: by whose it is, and by nobody else."""
        self.brick = next(brick["name"] for brick in self.api(USER, "GET", "/v2/bricks")[2]["bricks"] if brick["app"] == "/testdb")
        words = ("xtcli-compute", "-c", "mgmt", "brick", "backup", self.brick)
        stolen = os.path.join(home(self.world, OTHER), "stolen.backup")
        out = self.call(OTHER, *words, stolen, code=None)
        if os.path.exists(stolen) or self.brick not in out:
            raise Failure(out)
        self.call(USER, *words, "testdb.backup", seconds=300)

    def what_came_after_the_backup_is_gone(self):
        self.psql("/testdb", "insert into walk values (43)")
        self.destroyed()
        self.call(USER, "xtcli-compute", "-c", "mgmt", "brick", "restore", "-y", self.brick, "testdb.backup", seconds=300)
        self.service("/testdb", SERVICE, "testdb.marathon.mesos")
        self.service("/testdb2", SERVICE2, "testdb2.marathon.slave.mesos")
        self.rows_are_there()

    def the_other_cannot_take_the_id(self):
        app = {"id": "/testdb", "cpus": 0.1, "mem": 32, "cmd": "sleep 1000", "container": {"type": "DOCKER", "docker": {"image": "anna"}}}
        status, _, answer = self.api(OTHER, "POST", "/v2/apps", app)
        if status != 409 or USER in json.dumps(answer):
            raise Failure(f"{status} {answer}")


def wrong_words(people):
    """What a user gets who types something wrong: the offending word is in the answer, and nothing was made."""
    for command, words in (
        (["mgmt", "service", "--id", "No_Good", "--image", "anna", "--cpu", "0.1", "--mem", "32"], ["No_Good"]),
        (["mgmt", "service", "--id", "x", "--image", "anna", "--cpu", "many", "--mem", "32"], ["many", "--cpu"]),
        (["mgmt", "service", "--id", "x", "--image", "anna", "--cpu", "0.1", "--mem", "32", "--port", "@PORT:99999"], ["99999"]),
        (["mgmt", "service", "--id", "x", "--image", "anna", "--cpu", "0.1", "--mem", "32", "--brick", "big:/data"], ["big"]),
        (["mgmt", "service", "--id", "x", "--image", "anna", "--cpu", "0.1", "--mem", "32", "--env", "NOVALUE"], ["NOVALUE"]),
        (["mgmt", "service", "--id", "x", "--image", "anna", "--cpu", "0.1", "--mem", "32", "--colour", "red"], ["--colour"]),
        (["mgmt", "nonsense"], ["nonsense"]),
    ):
        out = people.call(USER, "xtcli-compute", "-c", *command, code=None)
        missing = [word for word in words if word not in out]
        if missing:
            raise Failure(f"{' '.join(command)}: nothing of {missing} in: {out}")
    status, _, answer = people.api(USER, "GET", "/v2/apps/x")
    if status != 404:
        raise Failure(f"/x was made: {status} {answer}")


def steps(world, report):
    if not os.path.isdir("/var/crash"):
        os.makedirs("/var/crash")
        os.chmod("/var/crash", 0o1777)
    need = report.need
    need("Docker", world.start_docker)
    need("images", world.make_images, "anna", IMAGE, "registry")
    need("the server", world.start_server)
    manual(People(world), report.step, need)


def manual(people, step, need):
    need("section 1: the image is built and saved", people.image_is_built_and_saved)
    need("the platform's registry runs on the platform", people.registry_is_installed)
    need("section 2: pushed as zmfsea, before any password exists", people.pushed_before_any_password)
    step("pushed again: nothing to upload", people.pushed_again_in_no_time)
    step("refused as another account, by the client", people.refused_as_another)
    step("refused as another account, by the registry", people.refused_by_the_registry_itself)
    need("section 3: the password is set", people.password_is_set)
    step("the other's password is asked for, and not shown", people.the_others_password_is_asked_for)
    step("from now on nobody without credentials", people.nobody_without_credentials)
    step("xtcli-compute asks for user and password", people.asked_for_user_and_password)
    step("a wrong password is refused", people.a_wrong_password_is_refused)
    need("the other listens to events from now on", people.the_other_listens)
    need("section 4: testdb", people.service, "/testdb", SERVICE, "testdb.marathon.mesos")
    need("section 4: testdb2", people.service, "/testdb2", SERVICE2, "testdb2.marathon.slave.mesos")
    step("the platform pulled the image; the API shows the name that was written", people.image_was_pulled_by_the_platform)
    step("section 5: ping", people.pinged)
    step("section 5: psql", people.rows_are_written)
    step("services in a table, and as JSON", people.listed_in_a_table)
    step("logs and exec", people.logs_and_exec)
    step("wrong words are named", wrong_words, people)
    step("the other sees none of it", people.the_other_sees_nothing)
    step("the other cannot create, change or destroy it", people.the_other_cannot_have_it)
    step("the other cannot have its brick", people.the_other_cannot_mount_its_brick)
    step("Metasploit's request is refused", people.the_attack_of_metasploit_is_refused)
    step("section 6: destroyed over the API", people.destroyed)
    step("the other cannot take the id that still has a port and a brick", people.the_other_cannot_take_the_id)
    step("its brick is backed up, for its owner alone", people.a_brick_is_backed_up)
    step("section 6: testdb again: same host, same port", people.service, "/testdb", SERVICE, "testdb.marathon.mesos")
    step("section 6: testdb2 again: same host, same port", people.service, "/testdb2", SERVICE2, "testdb2.marathon.slave.mesos")
    step("section 6: the same rows", people.rows_are_there)
    step("restored from the backup, it has the rows of then", people.what_came_after_the_backup_is_gone)
    step("the other was told of no event of it, and of the own", people.the_other_heard_nothing)
    step("the audit log knows who did what, and no secrets", people.the_audit_log_knows)


if __name__ == "__main__":
    walk("people", steps, Accounts(USER, OTHER))
