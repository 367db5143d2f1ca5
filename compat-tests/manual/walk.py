#!/usr/bin/env python3
"""The user manual's example, walked through on real Docker as a user would: two PostgreSQL services with storage, one in each network mode,
reached by name and port from another host, through everything that can die; then a stateless service, waiting, and refusals.

    compat-tests/manual/walk.py        (as root; about three minutes; logs in target/test-logs/manual)
"""

import http.client
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from marathon import Marathon
from observer import Observer
from report import Report
from world import NODE_ADDRESS, Failure, World, binary, loop_devices, run, until

DATA = "/var/lib/pgsql/9.6/data/"
BRICK_MIB = 131072
# A range of one number more than the walk uses: a third service finds it used up.
HOST_PORTS = "1066-1067"
SERVER_OPTIONS = ("--host_mode_ports", HOST_PORTS)
USER, PASSWORD, DATABASE = "zmfsea", "123456", "MYDB"


def database(name, bridge, brick=BRICK_MIB):
    """The manual's `mgmt service` commands as app JSON."""
    env = {"DBUSER": USER, "DBPASSWD": PASSWORD, "DBNAME": DATABASE}
    container = {
        "type": "DOCKER",
        "docker": {"image": "zmfsea/cmp-postgresql"},
        "volumes": [
            {"containerPath": "/var/crash", "hostPath": "/var/crash", "mode": "RW"},
            {"containerPath": DATA, "mode": "RW", "brick": {"size": brick}},
        ],
    }
    app = {"id": f"/{name}", "cpus": 0.5, "mem": 512, "instances": 1, "env": env, "container": container}
    if bridge:
        app["networks"] = [{"mode": "container/bridge"}]
        container["portMappings"] = [{"containerPort": 5432, "hostPort": "@PORT"}]
    else:
        app["networks"] = [{"mode": "host"}]
        env["DBPORT"] = "@PORT"
    return app


class Walk:
    def __init__(self, world):
        self.world, self.marathon = world, Marathon(world)
        # app id -> (host, port) as first told
        self.places = {}
        self.rows = {"/testdb": [], "/testdb2": []}

    # === what a user does from another host ===

    def psql(self, app, sql, seconds=15):
        host, port = self.places[app]
        env = dict(os.environ, PGPASSWORD=PASSWORD, PGCONNECT_TIMEOUT="5")
        out = self.world.from_client("psql", "--no-psqlrc", "-h", host, "-p", str(port), "-U", USER, "-d", DATABASE, "-Atqc", sql, env=env,
                                     seconds=seconds)
        return out.split()

    def ping(self, name):
        out = self.world.from_client("ping", "-c", "1", "-W", "2", name)
        if NODE_ADDRESS not in out:
            raise Failure(f"{name} answers, but not from {NODE_ADDRESS}: {out}")

    def dig(self, name, kind="A"):
        return sorted(self.world.from_client("dig", "+short", "+time=2", "+tries=2", name, kind).split("\n"))[1:]

    def write_row(self, app):
        """Writes one row and remembers that it was acknowledged."""
        row = str(len(self.rows[app]) + 1)
        self.psql(app, f"insert into walk values ({row})")
        self.rows[app].append(row)

    def same_place_same_rows(self, app):
        """The endpoint is the first one, and every acknowledged row is there; then one more is written."""
        if self.marathon.endpoint(app) != self.places[app]:
            raise Failure(f"{app} was at {self.places[app]} and is at {self.marathon.endpoint(app)}")
        until(f"{app} to answer at {self.places[app]}", lambda: self.psql(app, "select 1") == ["1"], 45, pause=0.2)
        self.ping(self.places[app][0])
        seen = self.psql(app, "select i from walk order by i")
        if seen != self.rows[app]:
            raise Failure(f"{app} had rows {self.rows[app]} and has {seen}")
        self.write_row(app)

    def container(self, app):
        return self.marathon.container(self.marathon.tasks(app)[0]["id"])

    def replaced(self, app, old):
        """Waits until the one running task of an app has another container than `old`."""
        def other():
            tasks = self.marathon.running(app, seconds=60)
            now = self.marathon.container(tasks[0]["id"])
            return now if now["Id"] != old["Id"] else None
        return until(f"{app} to have a new container", other, 60)

    def posted(self, definition):
        """Posts an app; gives where it will be, which is certain as soon as the post is answered."""
        self.marathon.ask("POST", "/v2/apps", definition, expect=(201,))
        return self.marathon.endpoint(definition["id"])

    # === the steps ===

    def create(self, app, definition, host):
        place = self.posted(definition)
        if place[0] != host:
            raise Failure(f"{app} is at {place[0]}, not {host}")
        self.places[app] = place
        self.marathon.running(app, seconds=120)
        until(f"{app} to answer", lambda: self.psql(app, "select 1") == ["1"], 60, pause=0.2)
        self.psql(app, "create table walk (i int primary key)")
        self.write_row(app)
        print(f"       {place[0]} port {place[1]}")

    def names_lead_to_the_node(self):
        for app in self.places:
            self.ping(self.places[app][0])
            if self.dig(self.places[app][0]) != [NODE_ADDRESS]:
                raise Failure(f"A of {self.places[app][0]}: {self.dig(self.places[app][0])}")
        srv = self.dig("_testdb2._tcp.marathon.slave.mesos", "SRV")
        if len(srv) != 1 or str(self.places["/testdb2"][1]) not in srv[0].split():
            raise Failure(f"SRV of testdb2: {srv}")

    def the_port_is_substituted_and_kept_in_the_definition(self):
        app = self.marathon.app("/testdb")
        env = dict(pair.split("=", 1) for pair in self.container("/testdb")["Config"]["Env"])
        if app["env"]["DBPORT"] != "@PORT" or env["DBPORT"] != str(self.places["/testdb"][1]):
            raise Failure(f"stored {app['env']['DBPORT']!r}, given to the container {env['DBPORT']!r}")
        mapping = self.marathon.app("/testdb2")["container"]["portMappings"][0]
        if mapping["hostPort"] != self.places["/testdb2"][1]:
            raise Failure(f"hostPort reads {mapping['hostPort']}")

    def bricks_are_seen(self):
        bricks = {brick["app"]: brick for brick in self.marathon.ask("GET", "/v2/bricks")["bricks"]}
        for app in self.places:
            if bricks[app]["size"] != BRICK_MIB:
                raise Failure(f"the brick of {app}: {bricks[app]}")
            name = bricks[app]["name"]
            if self.marathon.ask("GET", f"/v2/bricks/{name}")["name"] != name:
                raise Failure(f"/v2/bricks/{name} shows another")
        mount = next(line.split() for line in open("/proc/mounts") if self.world.work_dir in line and " ext4 " in line)
        if not {"nosuid", "nodev"} <= set(mount[3].split(",")):
            raise Failure(f"mounted with {mount[3]}")

    def ports_are_seen(self):
        ports = {entry["port"]: entry["app"] for entry in self.marathon.ask("GET", "/v2/ports")["ports"]}
        wanted = {port: app for app, (_, port) in self.places.items()}
        if ports != wanted:
            raise Failure(f"/v2/ports shows {ports}, wanted {wanted}")

    def container_killed(self, app, how):
        old = self.container(app)
        if how == "docker":
            self.world.docker("POST", f"/containers/{old['Id']}/kill?signal=KILL")
        else:
            os.kill(old["State"]["Pid"], 9)
        self.replaced(app, old)
        self.same_place_same_rows(app)

    def docker_killed(self):
        self.world.dockerd.kill()
        self.world.start_docker()
        for app in self.places:
            self.replaced_or_kept(app)
            self.same_place_same_rows(app)

    def replaced_or_kept(self, app):
        """Whether Docker ended what ran or not: a task runs, and its container does."""
        def one():
            now = self.marathon.container(self.marathon.running(app, seconds=60)[0]["id"])
            if not now["State"]["Running"]:
                raise Failure(f"the task runs, its container does not: {now['State']}")
            return True
        until(f"{app} to run after Docker's restart", one, 90)

    def server_killed(self):
        old = {app: (self.container(app), self.marathon.tasks(app)[0]["id"]) for app in self.places}
        self.world.server.kill()
        for app in self.places:
            # Nobody resolves names now; who is connected, or knows the address, goes on.
            self.psql_by_address(app)
        self.world.start_server()
        for app in self.places:
            task = self.marathon.running(app)[0]["id"]
            now = self.container(app)
            was, was_task = old[app]
            if task != was_task or now["Id"] != was["Id"] or now["State"]["StartedAt"] != was["State"]["StartedAt"]:
                raise Failure(f"{app}: task {was_task} in {was['Id'][:12]} became {task} in {now['Id'][:12]}")
            self.same_place_same_rows(app)

    def psql_by_address(self, app):
        place, self.places[app] = self.places[app], (NODE_ADDRESS, self.places[app][1])
        try:
            self.write_row(app)
        finally:
            self.places[app] = place

    def both_killed(self):
        self.world.server.kill()
        self.world.dockerd.kill()
        self.world.start_docker()
        self.world.start_server()
        for app in self.places:
            self.marathon.running(app, seconds=90)
            self.same_place_same_rows(app)

    def docker_killed_with_live_restore(self):
        """Docker told to leave containers alone when it goes and comes: the very same ones must be there afterwards."""
        self.world.dockerd.kill()
        self.world.start_docker("--live-restore")
        for app in self.places:
            self.replaced_or_kept(app)
        old = {app: self.container(app) for app in self.places}
        self.world.dockerd.kill()
        for app in self.places:
            self.write_row(app)
        self.world.start_docker()
        for app in self.places:
            self.replaced_or_kept(app)
            now = self.container(app)
            if (now["Id"], now["State"]["StartedAt"]) != (old[app]["Id"], old[app]["State"]["StartedAt"]):
                raise Failure(f"{app}: container {old[app]['Id'][:12]} became {now['Id'][:12]}")
            self.same_place_same_rows(app)

    def memory_updated(self, app):
        old = self.container(app)
        self.marathon.change("PUT", f"/v2/apps{app}", {"mem": 640})
        now = self.replaced(app, old)
        if now["HostConfig"]["Memory"] != 640 * 1024 * 1024:
            raise Failure(f"the container's memory limit is {now['HostConfig']['Memory']}")
        self.same_place_same_rows(app)

    def restarted(self, app):
        old = self.container(app)
        self.marathon.change("POST", f"/v2/apps{app}/restart")
        self.replaced(app, old)
        self.same_place_same_rows(app)

    def destroyed_and_created_again(self, app, definition):
        self.marathon.destroy(app)
        self.brick_is_free(app)
        place = self.posted(definition)
        if place != self.places[app]:
            raise Failure(f"{app} was at {self.places[app]} and is at {place}")
        self.marathon.running(app, seconds=120)
        self.same_place_same_rows(app)

    def brick_is_free(self, app):
        """No holder in the API, no mount, and the loop device released."""
        def free():
            brick = next(brick for brick in self.marathon.ask("GET", "/v2/bricks")["bricks"] if brick["app"] == app)
            if brick.get("holder"):
                raise Failure(f"holder {brick['holder']}")
            left = [device for device in loop_devices() if brick["name"] in device["file"]]
            if left:
                raise Failure(f"loop device {left}")
            return brick
        return until(f"the brick of {app} to be free", free, 30)

    def xtao(self, *arguments):
        return run(binary(), *arguments, seconds=120, env=dict(os.environ, XTAO_WORK_DIR=self.world.work_dir))

    def backed_up_while_it_runs(self):
        file = os.path.join(self.world.dir, "running.brick")
        self.xtao("brick", "backup", "--freeze", brick_of(self, "/testdb"), file)
        self.xtao("brick", "verify", file)
        self.same_place_same_rows("/testdb")

    def backed_up_and_restored(self):
        """What was written after the backup is gone after the restore, and nothing else is."""
        brick, file = brick_of(self, "/testdb"), os.path.join(self.world.dir, "stopped.brick")
        self.suspended("/testdb")
        self.xtao("brick", "backup", brick, file)
        self.marathon.change("PUT", "/v2/apps/testdb", {"instances": 1})
        self.same_place_same_rows("/testdb")
        self.rows["/testdb"].pop()
        self.suspended("/testdb")
        self.xtao("brick", "restore", "--yes", brick, file)
        self.marathon.change("PUT", "/v2/apps/testdb", {"instances": 1})
        self.same_place_same_rows("/testdb")

    def suspended(self, app):
        self.marathon.change("PUT", f"/v2/apps{app}", {"instances": 0})
        self.brick_is_free(app)

    def names_go_with_the_task(self):
        self.marathon.destroy("/testdb2")
        until("testdb2's name to be gone", lambda: self.dig(self.places["/testdb2"][0]) == [], 10)
        self.marathon.create(database("testdb2", bridge=True), seconds=120)
        self.same_place_same_rows("/testdb2")

    def a_larger_brick_grows(self):
        def size():
            out = self.world.inside(self.container("/testdb2")["Id"], "df", "-m", "--output=size", DATA)
            return int(out.split()[-1])
        before = size()
        definition = database("testdb2", bridge=True, brick=BRICK_MIB + 2048)
        self.marathon.change("PUT", "/v2/apps/testdb2", {"container": definition["container"]})
        self.same_place_same_rows("/testdb2")
        after = size()
        if not before + 1500 < after:
            raise Failure(f"the file system had {before} MiB and has {after}")

    # === services without storage ===

    def web_scaled_to_three(self):
        self.marathon.create({
            "id": "/web", "cpus": 0.1, "mem": 32, "instances": 1, "networks": [{"mode": "container/bridge"}],
            "container": {"type": "DOCKER", "docker": {"image": "xtao/web"}, "portMappings": [{"containerPort": 80, "hostPort": 0}]},
        })
        first = self.marathon.tasks("/web")[0]["id"]
        self.marathon.change("PUT", "/v2/apps/web", {"instances": 3})
        tasks = self.marathon.running("/web", 3)
        if first not in [task["id"] for task in tasks]:
            raise Failure("scaling up replaced the task that was there")
        ports = {task["ports"][0] for task in tasks}
        if len(ports) != 3:
            raise Failure(f"three tasks on ports {ports}")
        for task in tasks:
            url = f"http://web.marathon.slave.mesos:{task['ports'][0]}/cgi-bin/whoami"
            answer = until(f"{task['id']} to answer", lambda: self.world.from_client("curl", "-sS", "--max-time", "5", url), 20)
            if answer.strip() != task["id"]:
                raise Failure(f"at {task['ports'][0]} answers {answer.strip()!r}, not {task['id']}")
        srv = {int(line.split()[2]) for line in self.dig("_web._tcp.marathon.slave.mesos", "SRV")}
        if srv != ports:
            raise Failure(f"SRV names ports {srv}, the tasks have {ports}")

    def web_on_the_nodes_network(self):
        self.marathon.create({
            "id": "/plain", "cpus": 0.1, "mem": 32, "instances": 2, "cmd": "LISTEN=$PORT0 exec /serve",
            "container": {"type": "DOCKER", "docker": {"image": "xtao/web"}}, "portDefinitions": [{"port": 0, "name": "http"}],
        })
        for task in self.marathon.tasks("/plain"):
            url = f"http://plain.marathon.mesos:{task['ports'][0]}/cgi-bin/whoami"
            answer = until(f"{task['id']} to answer", lambda: self.world.from_client("curl", "-sS", "--max-time", "5", url), 20)
            if answer.strip() != task["id"]:
                raise Failure(f"at {task['ports'][0]} answers {answer.strip()!r}, not {task['id']}")
        self.marathon.destroy("/plain")

    def too_much_memory_waits_with_the_reason(self):
        self.marathon.ask("POST", "/v2/apps", {"id": "/greedy", "cmd": "sleep 1000", "cpus": 0.1, "mem": 10_000_000,
                                               "container": {"type": "DOCKER", "docker": {"image": "xtao/web"}}}, expect=(201,))
        def reason():
            entry = self.marathon.queue("/greedy")
            if not entry:
                return None
            summary = entry["processedOffersSummary"]["rejectSummaryLastOffers"]
            return [one["reason"] for one in summary if one["declined"] > 0]
        reasons = until("the queue to say why /greedy waits", reason, 20)
        if reasons != ["InsufficientMemory"]:
            raise Failure(f"the queue says {reasons}")
        if self.marathon.app("/greedy")["tasksRunning"] != 0:
            raise Failure("it runs")
        self.marathon.destroy("/greedy")

    def refused(self, method, path, body, status, *words):
        """An error with this status whose text has these words, in one line a person can read."""
        seen, headers, answer = self.world.api(method, path, body)
        text = str(answer)
        if seen != status or not isinstance(answer, dict) or not answer.get("message"):
            raise Failure(f"wanted {status} with a message, got {seen} {text}")
        missing = [word for word in words if word not in text]
        if missing:
            raise Failure(f"the message does not speak of {missing}: {text}")

    def a_link_to_etc_never_starts(self):
        link = os.path.join(self.world.dir, "link")
        os.symlink("/etc", link)
        status, _, answer = self.world.api("POST", "/v2/apps", volume("/sly", link))
        if status == 422:
            if "volumes(0)" not in str(answer):
                raise Failure(f"422, but not about the volume: {answer}")
            return
        if status != 201:
            raise Failure(f"{status} {answer}")
        # What a path leads to is known for certain only when the container starts.
        def reason():
            failure = self.marathon.app("/sly").get("lastTaskFailure") or {}
            return failure.get("message")
        message = until("the task to fail with a reason", reason, 20)
        running = [one for one in self.world.containers(everything=False) if "/sly" in str(one["Labels"])]
        self.marathon.destroy("/sly")
        if running:
            raise Failure(f"a container runs: {running}")
        if "/etc" not in message and "link" not in message:
            raise Failure(f"the reason does not name the path: {message!r}")

    def end_with_nothing_left(self):
        for app in self.marathon.ask("GET", "/v2/apps")["apps"]:
            self.marathon.destroy(app["id"])
        until("all containers to be gone", lambda: not self.world.containers(everything=False), 30)
        until("all loop devices to be free", lambda: not [one for one in loop_devices() if one["file"].startswith(self.world.dir)], 30)
        for brick in self.marathon.ask("GET", "/v2/bricks")["bricks"]:
            self.marathon.ask("DELETE", f"/v2/bricks/{brick['name']}")
        for port in self.marathon.ask("GET", "/v2/ports")["ports"]:
            self.marathon.ask("DELETE", f"/v2/ports/{port['port']}")
        left = lambda: [*self.marathon.ask("GET", "/v2/bricks")["bricks"], *self.marathon.ask("GET", "/v2/ports")["ports"]]
        # A brick is listed until its node has confirmed that the data is gone.
        until("all bricks and ports to be gone", lambda: not left(), 15)


def volume(app, path):
    return {"id": app, "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "container": {
        "type": "DOCKER", "docker": {"image": "xtao/web"}, "volumes": [{"containerPath": "/mnt", "hostPath": path, "mode": "RO"}]}}


def main():
    report = Report()
    began = time.monotonic()
    made = not os.path.exists("/var/crash")
    os.makedirs("/var/crash", exist_ok=True)
    try:
        with World("manual") as world:
            report.need("Docker and the images are there", lambda: (world.start_docker(), world.make_images()))
            report.need("our server starts", world.start_server, *SERVER_OPTIONS)
            walk(world, report)
    finally:
        if made:
            os.rmdir("/var/crash")
    print(f"walked in {time.monotonic() - began:.0f} s")
    sys.exit(report.close())


def walk(world, report):
    observer = Observer(os.path.join(world.dir, "docker"), DATA)
    observer.start()
    user = Walk(world)
    step = report.step
    one, two = database("testdb", bridge=False), database("testdb2", bridge=True)
    report.need("testdb (host network) is created and takes rows", user.create, "/testdb", one, "testdb.marathon.mesos")
    report.need("testdb2 (bridge network) is created and takes rows", user.create, "/testdb2", two, "testdb2.marathon.slave.mesos")
    step("the names lead to the node", user.names_lead_to_the_node)
    step("@PORT is kept in the definition and substituted in the container", user.the_port_is_substituted_and_kept_in_the_definition)
    step("the claimed ports are shown", user.ports_are_seen)
    step("the bricks are shown and mounted nosuid,nodev", user.bricks_are_seen)
    step("testdb's container is killed", user.container_killed, "/testdb", "docker")
    step("testdb2's process is killed -9", user.container_killed, "/testdb2", "process")
    step("Docker is killed -9 and started again", user.docker_killed)
    step("our server is killed -9 and started again: no task is touched", user.server_killed)
    step("both are killed -9 and started again", user.both_killed)
    step("Docker with live-restore is killed -9 and started again: no container is touched", user.docker_killed_with_live_restore)
    for app, definition in (("/testdb", one), ("/testdb2", two)):
        step(f"{app}: memory updated", user.memory_updated, app)
        step(f"{app}: restarted", user.restarted, app)
        step(f"{app}: destroyed and created again", user.destroyed_and_created_again, app, definition)
    step("a name goes when its service goes", user.names_go_with_the_task)
    step("a larger brick grows, file system included", user.a_larger_brick_grows)
    step("a brick is backed up while its service runs", user.backed_up_while_it_runs)
    step("a brick is backed up and restored", user.backed_up_and_restored)
    step("a stateless service is scaled to 3, all reached", user.web_scaled_to_three)
    step("a service on the node's network gets ports of its own", user.web_on_the_nodes_network)
    step("too much memory: waits, and the queue says why", user.too_much_memory_waits_with_the_reason)
    refusals(user, step)
    step("everything is destroyed and released; nothing stays", user.end_with_nothing_left)
    observer.stop()
    step(f"one holder for each brick at every moment ({observer.samples} samples, longest gap {observer.longest_gap:.2f} s)", judged, observer)


def refusals(user, step):
    web = {"id": "/no", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "container": {"type": "DOCKER", "docker": {"image": "xtao/web"}}}
    smaller = database("testdb", bridge=False, brick=1024)
    several = dict(database("several", bridge=False), instances=2)
    cases = (
        ("malformed JSON", "POST", "/v2/apps", '{"id": "/no", ', 400, ("Invalid JSON",)),
        ("a bad id", "POST", "/v2/apps", dict(web, id="/No_Good!"), 422, ("/id",)),
        ("an id that exists", "POST", "/v2/apps", database("testdb", bridge=False), 409, ("/testdb",)),
        ("an app that does not exist", "GET", "/v2/apps/nothing", None, 404, ("App '/nothing' does not exist",)),
        ("/etc as a volume", "POST", "/v2/apps", volume("/no", "/etc"), 422, ("/container/volumes(0)", "/etc")),
        ("/var/../etc/ as a volume", "POST", "/v2/apps", volume("/no", "/var/../etc/"), 422, ("/container/volumes(0)",)),
        ("Docker's socket as a volume", "POST", "/v2/apps", volume("/no", "/var/run/docker.sock"), 422, ("/container/volumes(0)",)),
        ("a smaller brick", "PUT", "/v2/apps/testdb", {"container": smaller["container"]}, 422, ("brick", "131072")),
        ("two instances with a brick", "POST", "/v2/apps", several, 422, ("/instances",)),
        ("scaling a service with a brick", "PUT", "/v2/apps/testdb", {"instances": 2}, 422, ("/instances",)),
        ("releasing a brick in use", "DELETE", "/v2/bricks/" + brick_of(user, "/testdb"), None, 409, ("testdb",)),
    )
    for title, method, path, body, status, words in cases:
        step(f"refused: {title}", user.refused, method, path, body, status, *words)
    step("refused or never started: a symbolic link to /etc", user.a_link_to_etc_never_starts)
    step("refused: no number left in the range", used_up, user)


def brick_of(user, app):
    try:
        return next(brick["name"] for brick in user.marathon.ask("GET", "/v2/bricks")["bricks"] if brick["app"] == app)
    except (Failure, OSError, StopIteration, KeyError, http.client.HTTPException):
        return "unknown"


def used_up(user):
    """Takes what is left of the host range, then asks for one more."""
    first, last = (int(number) for number in HOST_PORTS.split("-"))
    left = last - first + 1 - sum(first <= port["port"] <= last for port in user.marathon.ask("GET", "/v2/ports")["ports"])
    taker = {"id": "/taker", "cmd": "sleep 1000", "cpus": 0.01, "mem": 16, "instances": 0,
             "container": {"type": "DOCKER", "docker": {"image": "xtao/web"}}}
    names = ["A"] + [f"A{index}" for index in range(1, left)]
    env = {name: "@PORT" if name == "A" else f"@PORT{name[1:]}" for name in names}
    user.marathon.ask("POST", "/v2/apps", dict(taker, env=env), expect=(201,))
    user.refused("POST", "/v2/apps", dict(taker, id="/late", env={"A": "@PORT"}), 422, str(first), str(last))
    user.marathon.destroy("/taker")


def judged(observer):
    if observer.violations:
        raise Failure("; ".join(observer.violations[:5]))
    few = {file: count for file, count in observer.seen.items() if count < 20}
    if len(observer.seen) < 2 or few:
        raise Failure(f"the observer did not see the two bricks held often enough: {observer.seen}")


if __name__ == "__main__":
    main()
