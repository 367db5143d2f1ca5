"""`dcos marathon` (dcoscli 0.6.1): every command, what it prints and how it ends, also when it is refused."""

import http.server
import json
import os
import re
import threading

import old_python
from common import ADDRESS, ID, NEVER, NOBODY, Failure, Marathon, Said, equal, giant, match, pod, sleeper, until, web

CREATED = re.compile(r"Created deployment ([0-9a-f-]{36})\n")
BLOCKED = "Changes blocked: deployment already in progress for {}.\n"


def unprocessable(method_path, body):
    """What the CLI says of a 422: the whole answer."""
    return f'Error while fetching [http://{ADDRESS}/service/marathon{method_path}]: HTTP 422: "{json.dumps(body, separators=(",", ":"))}".\n'


class Dcos:
    """The command with a configuration of its own: `dcos_url` is what `dcos cluster setup` writes down."""

    def __init__(self, directory, **settings):
        cluster = os.path.join(directory, "clusters", "here")
        os.makedirs(cluster)
        for name, text in (("attached", ""), ("dcos.toml", settings.pop("toml", f'[core]\ndcos_url = "http://{ADDRESS}"\n'))):
            with open(os.path.join(cluster, name), "w") as file:
                os.chmod(file.name, 0o600)
                file.write(text)
        self.env = {name: value for name, value in os.environ.items() if name != "TERM"}
        self.env["DCOS_DIR"] = directory

    def __call__(self, *words, stdin=""):
        stdin = stdin if isinstance(stdin, str) else json.dumps(stdin)
        words = ("dcos", "marathon", *words)
        return Said(words, old_python.started("dcoscli.main", words, stdin, self.env))

    def refused(self, *words, says, stdin=""):
        self(*words, stdin=stdin).is_(1, "", says)


def table(said):
    """Lines of a printed table, as lists of words; a header first."""
    return [line.split() for line in said.out.splitlines()]


class Section:
    def __init__(self, world):
        self.world, self.api = world, Marathon(world)
        self.dcos = Dcos(os.path.join(world.dir, "dcos"))
        self.version = None

    def file(self, name, definition):
        path = os.path.join(self.world.dir, name)
        with open(path, "w") as file:
            json.dump(definition, file)
        return path

    def begins(self, *words, stdin=""):
        """A command that begins a deployment; waits until that is done."""
        said = self.dcos(*words, stdin=stdin).is_(0, CREATED)
        self.api.deployed(CREATED.fullmatch(said.out).group(1))

    def tasks(self, app):
        wanted = self.api.app(app)["instances"]
        settled = self.api.running(app, wanted)
        return [task["id"] for task in settled] if wanted else []

    def waits(self, app):
        """An app whose deployment waits until it is forced away."""
        said = self.dcos("app", "add", stdin=giant(app)).is_(0, CREATED)
        until("an offer to be declined", lambda: (self.api.queue(app) or {}).get("processedOffersSummary", {}).get("unusedOffersCount"))
        return CREATED.fullmatch(said.out).group(1)

    # === the cluster ===

    def about(self):
        said = self.dcos("about").is_(0)
        equal(said.json, self.api.ask("GET", "/v2/info"))
        equal((said.json["name"], said.json["elected"], said.json["version"].split(".")[:2]), ("marathon", True, ["1", "11"]))

    def ping(self):
        for words in (("ping", "--once"), ("ping",)):
            self.dcos(*words).is_(0, 'Marathon ping response[1x]: "pong"\n')

    def leader(self):
        leader = self.dcos("leader", "show", "--json").is_(0).json
        equal(sorted(leader), ["host", "ip"])
        equal(table(self.dcos("leader", "show").is_(0)), [["HOST", "IP"], [leader["host"], leader["ip"]]])

    def plugins(self):
        equal(self.dcos("plugin", "list", "--json").is_(0).json, {"plugins": []})
        self.dcos("plugin", "list").is_(0, "")

    def nothing_yet(self):
        self.dcos("app", "list").is_(0, "")
        equal(self.dcos("app", "list", "--json").is_(0).json, [])
        for words in (("task", "list"), ("task", "list", "--quiet"), ("group", "list"), ("debug", "list")):
            self.dcos(*words).is_(0, "")
        self.dcos.refused("deployment", "list", says="There are no deployments\n")
        self.dcos.refused("deployment", "list", "/dcos/web", says="There are no deployments for '/dcos/web'\n")
        equal(self.dcos("deployment", "list", "--json").is_(0).json, [])

    # === apps ===

    def app_add_file(self):
        self.begins("app", "add", self.file("web.json", web("/dcos/web", 2)))
        self.version = self.api.app("/dcos/web")["version"]

    def app_add_stdin(self):
        self.begins("app", "add", stdin=sleeper("dcos/sleeper", constraints=[["hostname", "LIKE", "node.*"]]))
        self.dcos("app", "remove", "dcos/sleeper").is_(0, "")
        until("it to be gone", lambda: self.world.api("GET", "/v2/apps/dcos/sleeper")[0] == 404)

    def app_add_url(self):
        body = json.dumps(sleeper("/dcos/fetched")).encode()

        class Once(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Once) as server:
            threading.Thread(target=server.handle_request, daemon=True).start()
            self.begins("app", "add", f"http://127.0.0.1:{server.server_address[1]}/app.json")
        self.dcos("app", "remove", "--force", "/dcos/fetched").is_(0, "")

    def app_add_refused(self):
        refused = self.dcos.refused
        refused("app", "add", stdin=web("dcos/web"), says="Application '/dcos/web' already exists\n")
        refused("app", "add", "/no/such/file", says="Can't read from resource: /no/such/file.\nPlease check that it exists.\n")
        refused("app", "add", stdin="nothing", says="Error loading JSON: Expecting value: line 1 column 1 (char 0)\n")
        body = {"message": "Invalid JSON", "details": [{"path": "/cpus", "errors": ["error.expected.jsnumber"]}]}
        refused("app", "add", stdin={**sleeper("/dcos/bad"), "cpus": "many"}, says=unprocessable("/v2/apps", body))
        error = "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."
        body = {"message": "Object is not valid", "details": [{"path": "/", "errors": [error]}]}
        refused("app", "add", stdin={"id": "/dcos/bad"}, says=unprocessable("/v2/apps", body))

    def app_list(self):
        header, row = table(self.dcos("app", "list").is_(0))
        equal(header, ["ID", "MEM", "CPUS", "TASKS", "HEALTH", "DEPLOYMENT", "WAITING", "CONTAINER", "CMD"])
        equal(row, ["/dcos/web", "16", "0.01", "2/2", "N/A", "---", "False", "DOCKER", "N/A"])
        equal(self.dcos("app", "list", "--json").is_(0).json, self.api.ask("GET", "/v2/apps")["apps"])
        self.dcos("app", "list", "--quiet").is_(0, "/dcos/web\n")

    def app_show(self):
        for name in ("/dcos/web", "dcos/web", "dcos/web/"):
            shown = self.dcos("app", "show", name).is_(0).json
            equal(shown, self.api.app("/dcos/web"))
        equal([task["state"] for task in shown["tasks"]], ["TASK_RUNNING"] * 2)

    def app_update(self):
        self.begins("app", "update", "/dcos/web", "instances=1", "cpus=0.02", "labels=null")
        self.begins("app", "update", "dcos/web", stdin={"labels": {"team": "a"}, "env": {"A": "b"}})
        app = self.api.app("/dcos/web")
        equal((app["instances"], app["cpus"], app["labels"], app["env"]), (1, 0.02, {"team": "a"}, {"A": "b"}))

    def app_update_refused(self):
        path = "/v2/apps/dcos/web"
        body = {"message": "Invalid JSON", "details": [{"path": "/cpus", "errors": ["error.expected.jsnumber"]}]}
        self.dcos.refused("app", "update", "/dcos/web", "cpus=many", says=unprocessable(path, body))
        self.dcos.refused("app", "update", "/dcos/web", "cpus=1", "cpus=2", says="Key 'cpus' was specified more than once\n")
        equal(self.api.app("/dcos/web")["cpus"], 0.02)

    def app_versions(self):
        versions = self.dcos("app", "version", "list", "/dcos/web").is_(0).json
        equal(versions, self.api.ask("GET", f"/v2/apps/dcos/web/versions")["versions"])
        equal((len(versions), versions[-1]), (3, self.version))
        equal(self.dcos("app", "version", "list", "--max-count=2", "dcos/web").is_(0).json, versions[:2])
        self.dcos.refused("app", "version", "list", "--max-count=0", "dcos/web", says="Maximum count must be a positive number: 0\n")

    def app_show_version(self):
        first = self.dcos("app", "show", f"--app-version={self.version}", "/dcos/web").is_(0).json
        equal((first["version"], first["cpus"], first["instances"]), (self.version, 0.01, 2))
        equal(self.dcos("app", "show", "--app-version=-2", "/dcos/web").is_(0).json, first)
        self.dcos.refused("app", "show", "--app-version=-9", "/dcos/web", says="Application '/dcos/web' only has 3 version(s).\n")
        missing = f"Error: App '/dcos/web' does not exist in version {NEVER}\n"
        self.dcos.refused("app", "show", f"--app-version={NEVER}", "/dcos/web", says=missing)

    def app_back(self):
        """As the CLI's manual has it: show an older version, and update with that."""
        self.begins("app", "update", "/dcos/web", stdin={"version": self.version})
        app = self.api.app("/dcos/web")
        equal((app["instances"], app["cpus"], app["labels"]), (2, 0.01, {}))

    def app_restart(self):
        before = self.tasks("/dcos/web")
        self.begins("app", "restart", "/dcos/web")
        if set(before) & set(self.tasks("/dcos/web")):
            raise Failure(f"not all of {before} were replaced")

    def app_stop(self):
        self.begins("app", "stop", "/dcos/web")
        equal(self.tasks("/dcos/web"), [])
        self.dcos("app", "stop", "/dcos/web").is_(1, "Application '/dcos/web' already stopped: 0 instances.\n")
        text = "Unable to perform rolling restart of application '/dcos/web' because it has no running tasks\n"
        self.dcos("app", "restart", "dcos/web").is_(1, text)

    def app_start(self):
        self.dcos("app", "start", "/dcos/web", "0").is_(1, "The number of instances must be positive: 0.\n")
        self.begins("app", "start", "/dcos/web", "3")
        equal(len(self.tasks("/dcos/web")), 3)
        self.dcos("app", "start", "/dcos/web").is_(1, "Application '/dcos/web' already started: 3 instances.\n")

    def app_kill(self):
        self.dcos("app", "kill", "/dcos/web", "--host=elsewhere").is_(1, "Killed tasks: []\n")
        before = self.tasks("/dcos/web")
        said = self.dcos("app", "kill", "/dcos/web", "--host=node1").is_(0)
        for task in before:
            if task not in said.out:
                raise Failure(f"{task} is not in {said}")
        until("other tasks", lambda: not set(before) & set(self.tasks("/dcos/web")))

    def app_kill_scale(self):
        said = self.dcos("app", "kill", "--scale", "/dcos/web").is_(0)
        version, deployment = match(said.out, r"Started deployment: \{'version': '([^']*)', 'deploymentId': '([^']*)'\}\n")
        self.api.deployed(deployment)
        app = self.api.app("/dcos/web")
        equal((app["instances"], app["tasks"], app["version"]), (0, [], version))
        self.begins("app", "start", "/dcos/web", "3")

    def app_unknown(self):
        for words in (("show",), ("remove",), ("remove", "--force"), ("restart",), ("start",), ("stop",), ("kill",), ("version", "list")):
            self.dcos.refused("app", *words, "/dcos/none", says="Error: App '/dcos/none' does not exist\n")
        self.dcos.refused("app", "update", "/dcos/none", "cpus=1", says="Error: App '/dcos/none' does not exist\n")

    # === tasks ===

    def task_list(self):
        tasks = self.api.ask("GET", "/v2/tasks", None)["tasks"]
        header, *rows = table(self.dcos("task", "list").is_(0))
        equal(header, ["APP", "HEALTHY", "STARTED", "HOST", "ID"])
        expected = sorted([task["appId"], "True", task["startedAt"], task["host"], task["id"]] for task in tasks)
        equal((sorted(rows), len(rows)), (expected, 3))
        for words in ((), ("dcos/web",), ("/dcos/web",)):
            listed = self.dcos("task", "list", "--json", *words).is_(0).json
            equal(sorted(listed, key=lambda task: task["id"]), sorted(tasks, key=lambda task: task["id"]))
            equal(sorted(self.dcos("task", "list", "--quiet", *words).out.split()), sorted(task["id"] for task in tasks))
        equal(self.dcos("task", "list", "--json", "/dcos/none").is_(0).json, [])

    def task_show(self):
        task = self.api.ask("GET", "/v2/tasks")["tasks"][0]
        equal(self.dcos("task", "show", task["id"]).is_(0).json, task)
        self.dcos.refused("task", "show", "none", says="Task 'none' does not exist\n")

    def task_stop(self):
        before = self.tasks("/dcos/web")
        equal(self.dcos("task", "stop", before[0]).is_(0).json["id"], before[0])
        until("another task", lambda: before[0] not in self.tasks("/dcos/web"))
        self.dcos.refused("task", "stop", before[0], says=f"Task '{before[0]}' does not exist\n")

    def task_kill(self):
        before = self.tasks("/dcos/web")
        said = self.dcos("task", "kill", *before[:2]).is_(0)
        equal(sorted(re.findall(r"'([^']*)'", said.out)), sorted(before[:2]))
        until("others", lambda: not set(before[:2]) & set(self.tasks("/dcos/web")))
        said = self.dcos("task", "kill", "--json", before[2]).is_(0)
        equal([task["id"] for task in said.json["tasks"]], [before[2]])
        until("another task", lambda: before[2] not in self.tasks("/dcos/web"))

    def task_kill_scale(self):
        tasks = self.tasks("/dcos/web")
        said = self.dcos("task", "kill", "--scale", tasks[0]).is_(0)
        self.api.deployed(match(said.out, r"Created deployment: (\S*)\n")[0])
        equal(sorted(self.tasks("/dcos/web")), sorted(tasks[1:]))
        said = self.dcos("task", "kill", "--scale", "--json", tasks[1]).is_(0)
        self.api.deployed(said.json["deploymentId"])
        equal(self.tasks("/dcos/web"), tasks[2:])

    def task_kill_refused(self):
        nothing = "Failed to kill tasks. task-ids seems to be unknown\n"
        self.dcos("task", "kill").is_(1, "Killed tasks: []\n", nothing)
        gone = re.sub("instance-[0-9a-f-]*", "instance-00000000-0000-11f1-8000-000000000000", self.tasks("/dcos/web")[0])
        self.dcos("task", "kill", gone).is_(1, "Killed tasks: []\n", nothing)
        url = f"http://{ADDRESS}/service/marathon/v2/tasks/delete"
        text = 'Error on request [POST {}]: HTTP 400: Bad Request:\n{{\n  "message": "{}"\n}}\n'
        self.dcos.refused("task", "kill", "none", says=text.format(url, "Invalid task id 'none'. ['none' is not a task id]"))
        url += "?scale=True&wipe=True"
        self.dcos.refused("task", "kill", "--scale", "--wipe", gone, says=text.format(url, "You cannot use scale and wipe at the same time."))

    def task_wipe(self):
        before = self.tasks("/dcos/web")
        equal(self.dcos("task", "stop", "--wipe", before[0]).is_(0).json["id"], before[0])
        until("another task", lambda: before[0] not in self.tasks("/dcos/web"))

    # === deployments and the queue ===

    def deployment_list(self):
        deployment = self.waits("/dcos/giant")
        header, row = table(self.dcos("deployment", "list").is_(0))
        equal(header, ["APP", "POD", "ACTION", "PROGRESS", "ID"])
        equal(row, ["/dcos/giant", "-", "scale", "1/2", deployment])
        for words in ((), ("dcos/giant",)):
            self.dcos("deployment", "list", "--quiet", *words).is_(0, f"{deployment}\n")
            equal(self.dcos("deployment", "list", "--json", *words).is_(0).json, self.api.ask("GET", "/v2/deployments"))
        self.dcos.refused("deployment", "list", "/dcos/web", says="There are no deployments for '/dcos/web'\n")
        rows = {row[0]: row for row in table(self.dcos("app", "list").is_(0))}
        equal(rows["/dcos/giant"], ["/dcos/giant", "16", "1000", "0/1", "N/A", "scale", "True", "N/A", "exec", "sleep", "1000"])

    def deployment_watch(self):
        deployment = self.api.ask("GET", "/v2/deployments")[0]
        said = self.dcos("deployment", "watch", "--max-count=1", "--interval=1", deployment["id"]).is_(0)
        when, shown = match(said.out, r"Deployment update time: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \n\n(.*)")
        equal(json.loads(shown), deployment)
        # One that is over, or never was, is not waited for.
        self.dcos("deployment", "watch", "none").is_(0, "")

    def debug(self):
        entry = self.api.queue("/dcos/giant")
        header, row = table(self.dcos("debug", "list").is_(0))
        equal(" ".join(header), "ID SINCE INSTANCES TO LAUNCH WAITING PROCESSED OFFERS UNUSED OFFERS LAST UNUSED OFFER LAST USED OFFER")
        summary = entry["processedOffersSummary"]
        counts = [str(summary["processedOffersCount"]), str(summary["unusedOffersCount"])]
        equal(row, ["/dcos/giant", entry["since"], "1", "True", *counts, summary["lastUnusedOfferAt"], "---"])
        equal([item["app"]["id"] for item in self.dcos("debug", "list", "--json").is_(0).json], ["/dcos/giant"])

    def debug_summary(self):
        rows = table(self.dcos("debug", "summary", "/dcos/giant").is_(0))
        equal(rows, [["RESOURCE", "REQUESTED", "MATCHED", "PERCENTAGE"], ["ROLE", "[*]", "1", "/", "1", "100.00%"],
                     ["CONSTRAINTS", "---", "1", "/", "1", "100.00%"], ["CPUS", "1000", "0", "/", "1", "0.00%"],
                     ["MEM", "16", "0", "/", "0", "---"], ["DISK", "0", "0", "/", "0", "---"], ["PORTS", "---", "0", "/", "0", "---"]])
        equal(self.dcos("debug", "summary", "--json", "/dcos/giant").is_(0).json["count"], 1)

    def debug_details(self):
        header, row = table(self.dcos("debug", "details", "/dcos/giant").is_(0))
        equal(header, ["HOSTNAME", "ROLE", "CONSTRAINTS", "CPUS", "MEM", "DISK", "PORTS", "RECEIVED"])
        equal(row[:-1], ["node1", "ok", "ok", "-", "ok", "ok", "ok"])
        offers = self.dcos("debug", "details", "--json", "/dcos/giant").is_(0).json["lastUnusedOffers"]
        equal([(offer["offer"]["hostname"], offer["reason"]) for offer in offers], [("node1", ["InsufficientCpus"])])

    def debug_unknown(self):
        for what in ("summary", "details"):
            self.dcos.refused("debug", what, "/dcos/web", says="No apps found in Marathon queue\n")

    def conflict(self):
        blocked = BLOCKED.format("app")
        self.dcos.refused("app", "update", "/dcos/giant", "mem=32", says=blocked)
        self.dcos.refused("app", "stop", "/dcos/giant", says=blocked)
        self.dcos.refused("app", "restart", "/dcos/giant", says=blocked)
        self.dcos.refused("group", "remove", "/dcos", says=BLOCKED.format("group"))

    def deployment_stop(self):
        said = self.dcos("app", "update", "--force", "/dcos/giant", "mem=32").is_(0, CREATED)
        self.dcos("deployment", "stop", CREATED.fullmatch(said.out).group(1)).is_(0, "")
        until("it to end", lambda: self.api.ask("GET", "/v2/deployments") == [])
        equal(self.api.app("/dcos/giant")["mem"], 32)

    def deployment_rollback(self):
        said = self.dcos("app", "update", "/dcos/giant", "mem=64").is_(0, CREATED)
        back = self.dcos("deployment", "rollback", CREATED.fullmatch(said.out).group(1)).is_(0).json
        equal(sorted(back), ["deploymentId", "version"])
        match(back["deploymentId"], ID.pattern)
        equal(self.api.app("/dcos/giant")["mem"], 32)
        # Under way or not: Marathon's default for DELETE of an app is to force.
        self.dcos("app", "remove", "/dcos/giant").is_(0, "")
        until("it to end", lambda: self.api.ask("GET", "/v2/deployments") == [])

    def deployment_unknown(self):
        for what in ("stop", "rollback"):
            self.dcos.refused("deployment", what, "none", says="Error: DeploymentPlan none does not exist\n")

    # === groups ===

    def group_add(self):
        part = {"id": "part", "apps": [sleeper("b")], "dependencies": ["/dcosgroup/a"]}
        group = {"id": "/dcosgroup", "apps": [sleeper("a")], "groups": [part]}
        self.begins("group", "add", self.file("group.json", group))
        equal((len(self.tasks("/dcosgroup/a")), len(self.tasks("/dcosgroup/part/b"))), (1, 1))
        self.dcos.refused("group", "add", stdin=group, says="Group '/dcosgroup' already exists\n")

    def group_add_refused(self):
        error = "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."
        body = {"message": "Object is not valid", "details": [{"path": "/apps(0)", "errors": [error]}]}
        said = self.dcos("group", "add", stdin={"id": "/dcosbad", "apps": [{"id": "a"}]}).is_(1, "", None)
        equal(said.err, unprocessable("/v2/groups", body))

    def group_list(self):
        rows = table(self.dcos("group", "list").is_(0))
        equal(rows, [["ID", "APPS"], ["/dcos", "1"], ["/dcosgroup", "2"], ["/dcosgroup/part", "1"]])
        equal(self.dcos("group", "list", "--json").is_(0).json, self.api.ask("GET", "/v2/groups")["groups"])

    def group_show(self):
        shown = self.dcos("group", "show", "dcosgroup").is_(0).json
        equal(shown, self.api.ask("GET", "/v2/groups/dcosgroup"))
        equal((shown["groups"][0]["dependencies"], [app["id"] for app in shown["apps"]]), (["/dcosgroup/a"], ["/dcosgroup/a"]))
        version = shown["version"]
        equal(self.dcos("group", "show", f"--group-version={version}", "/dcosgroup").is_(0).json["apps"][0]["id"], "/dcosgroup/a")

    def group_scale(self):
        self.begins("group", "scale", "/dcosgroup", "2")
        equal((len(self.tasks("/dcosgroup/a")), len(self.tasks("/dcosgroup/part/b"))), (2, 2))
        self.begins("group", "scale", "--force", "/dcosgroup", "0.5")
        equal((len(self.tasks("/dcosgroup/a")), len(self.tasks("/dcosgroup/part/b"))), (1, 1))
        self.dcos.refused("group", "scale", "/dcosgroup", "much", says="Error parsing string as float\n")

    def group_update(self):
        self.begins("group", "update", "/dcosgroup/part", stdin={"apps": [sleeper("/dcosgroup/part/c", 2)]})
        equal(len(self.tasks("/dcosgroup/part/c")), 2)
        equal(self.world.api("GET", "/v2/apps/dcosgroup/part/b")[0], 404)
        self.begins("group", "update", "--force", "/dcosgroup/part", "dependencies=[]")
        equal(self.api.ask("GET", "/v2/groups/dcosgroup/part")["dependencies"], [])

    def group_remove(self):
        self.dcos("group", "remove", "/dcosgroup/part").is_(0, "")
        self.dcos("group", "remove", "--force", "dcosgroup").is_(0, "")
        until("it to be gone", lambda: self.world.api("GET", "/v2/groups/dcosgroup")[0] == 404)
        until("its deployments to end", lambda: self.api.ask("GET", "/v2/deployments") == [])

    def group_unknown(self):
        missing = "Error: Group '/dcosnone' does not exist\n"
        for words in (("show", "/dcosnone"), ("remove", "/dcosnone"), ("update", "/dcosnone", "dependencies=[]")):
            self.dcos.refused("group", *words, says=missing)

    # === pods ===

    def stable(self, pod_id, instances):
        """Waits until a pod is as it should be; its instances' ids."""
        def look():
            status = self.api.ask("GET", f"/v2/pods{pod_id}::status")
            ids = sorted(instance["id"] for instance in status["instances"])
            deployments = self.api.ask("GET", "/v2/deployments")
            if (status["status"], len(ids), deployments) != ("STABLE", instances, []):
                raise Failure(f"{status['status']}, {ids}, {deployments}")
            return ids
        return until(f"{pod_id} to be stable", look, 90)

    def pod_add(self):
        self.dcos("pod", "list").is_(0, "")
        equal(self.dcos("pod", "list", "--json").is_(0).json, [])
        self.begins("pod", "add", self.file("pod.json", pod("/dcospod/a", 2)))
        self.stable("/dcospod/a", 2)
        # What the CLI makes of every 409.
        self.dcos.refused("pod", "add", stdin=pod("/dcospod/a"), says=BLOCKED.format("pod"))

    def pod_list(self):
        status = self.api.ask("GET", "/v2/pods/dcospod/a::status")
        header, row, *containers = table(self.dcos("pod", "list").is_(0))
        equal(" ".join(header), "ID+TASKS INSTANCES VERSION STATUS STATUS SINCE WAITING")
        equal(row, ["/dcospod/a", "2", status["spec"]["version"], "STABLE", status["statusSince"], "False"])
        equal(containers, [["|-side"], ["|-web"]])
        self.dcos("pod", "list", "--quiet").is_(0, "/dcospod/a\n")
        equal([one["id"] for one in self.dcos("pod", "list", "--json").is_(0).json], ["/dcospod/a"])

    def pod_show(self):
        # When it was asked is told, too.
        timeless = lambda status: {key: value for key, value in status.items() if key != "lastUpdated"}
        for name in ("/dcospod/a", "dcospod/a"):
            shown = self.dcos("pod", "show", name).is_(0).json
            equal(timeless(shown), timeless(self.api.ask("GET", "/v2/pods/dcospod/a::status")))
        equal([[container["name"] for container in instance["containers"]] for instance in shown["instances"]], [["web", "side"]] * 2)

    def pod_update(self):
        self.begins("pod", "update", "/dcospod/a", stdin=pod("/dcospod/a", 1))
        self.stable("/dcospod/a", 1)
        self.begins("pod", "update", "--force", "dcospod/a", stdin=pod("/dcospod/a", 1, cpus=0.02))
        self.stable("/dcospod/a", 1)
        equal(self.api.ask("GET", "/v2/pods/dcospod/a")["containers"][0]["resources"]["cpus"], 0.02)

    def pod_kill(self):
        instance, = self.stable("/dcospod/a", 1)
        tasks = lambda: {container["containerId"] for one in self.api.ask("GET", "/v2/pods/dcospod/a::status")["instances"] for container in one["containers"]}
        before = tasks()
        self.dcos("pod", "kill", "/dcospod/a", instance).is_(0, "")
        until("other containers", lambda: self.stable("/dcospod/a", 1) and not before & tasks())
        self.dcos.refused("pod", "kill", "/dcospod/a", says="Please provide at least one pod instance ID\n")
        self.dcos.refused("pod", "kill", "/dcospod/none", instance, says="Error: Path '/dcospod/none' does not exist\n")

    def pod_refused(self):
        bad = {"id": "/dcospod/a", "containers": []}
        body = {"message": "Invalid JSON", "details": [{"path": "/containers", "errors": ["error.minLength"]}]}
        self.dcos.refused("pod", "add", stdin={**bad, "id": "/dcospod/bad"}, says=unprocessable("/v2/pods", body))
        self.dcos.refused("pod", "update", "/dcospod/a", stdin=bad, says=unprocessable("/v2/pods/dcospod/a", body))
        missing = "Error: Pod '/dcospod/none' does not exist\n"
        for words in (("show",), ("remove",), ("remove", "--force"), ("update",)):
            self.dcos.refused("pod", *words, "/dcospod/none", stdin=pod("/dcospod/none"), says=missing)

    def pod_waits(self):
        said = self.dcos("pod", "add", stdin=pod("/dcospod/giant", cpus=1000)).is_(0, CREATED)
        deployment = CREATED.fullmatch(said.out).group(1)
        declined = lambda: [entry["processedOffersSummary"]["unusedOffersCount"] for entry in self.api.ask("GET", "/v2/queue")["queue"] if "pod" in entry]
        until("an offer to be declined", lambda: declined() not in ([], [0]))
        header, row = table(self.dcos("deployment", "list").is_(0))
        equal((header, row), (["APP", "POD", "ACTION", "PROGRESS", "ID"], ["-", "/dcospod/giant", "scale", "1/2", deployment]))
        equal(table(self.dcos("debug", "list").is_(0))[1][0], "/dcospod/giant")
        rows = {row[0]: row for row in table(self.dcos("debug", "summary", "/dcospod/giant").is_(0))}
        equal(rows["CPUS"][2:], ["0", "/", "1", "0.00%"])
        _, row = table(self.dcos("debug", "details", "/dcospod/giant").is_(0))
        equal(row[:-1], ["node1", "ok", "ok", "-", "ok", "ok", "ok"])
        self.dcos.refused("pod", "update", "/dcospod/giant", stdin=pod("/dcospod/giant", cpus=999), says=BLOCKED.format("pod"))
        self.dcos.refused("pod", "remove", "/dcospod/giant", says=BLOCKED.format("pod"))
        self.dcos("pod", "remove", "--force", "/dcospod/giant").is_(0, "")

    def pod_remove(self):
        self.dcos("pod", "remove", "dcospod/a").is_(0, "")
        until("it to be gone", lambda: self.world.api("GET", "/v2/pods/dcospod/a")[0] == 404)
        until("its deployment to end", lambda: self.api.ask("GET", "/v2/deployments") == [])
        self.dcos("group", "remove", "/dcospod").is_(0, "")

    # === other ways to the server ===

    def usage(self):
        self.dcos("--version").is_(0, "dcos-marathon version 0.6.1\n")
        self.dcos("--info").is_(0, "Deploy and manage applications to DC/OS\n")
        said = self.dcos("app", "nonsense").is_(1, None, None)
        if "dcos marathon app add" not in said.out + said.err:
            raise Failure(f"{said}: not the usage")

    def by_marathon_url(self):
        other = Dcos(os.path.join(self.world.dir, "dcos-url"), toml=f'[marathon]\nurl = "http://{ADDRESS}"\n')
        other("app", "list", "--quiet").is_(0, "/dcos/web\n")
        other("app", "show", "/dcos/none").is_(1, "", "Error: App '/dcos/none' does not exist\n")

    def no_server(self):
        nobody = Dcos(os.path.join(self.world.dir, "dcos-nobody"), toml=f'[marathon]\nurl = "http://{NOBODY}"\n')
        nobody("app", "list").is_(1, "", f"URL [http://{NOBODY}/v2/apps] is unreachable.\n")
        nobody("group", "show", "/dcos").is_(1, "", f"URL [http://{NOBODY}/v2/groups/dcos] is unreachable.\n")

    def app_remove(self):
        self.dcos("app", "remove", "/dcos/web").is_(0, "")
        until("it to be gone", lambda: self.world.api("GET", "/v2/apps/dcos/web")[0] == 404)
        until("its containers to be gone", lambda: not self.world.containers(everything=False))
        # The group stays, as in Marathon.
        self.dcos("group", "remove", "/dcos").is_(0, "")

    STEPS = [
        ("about, as /v2/info", about),
        ("ping, once and for each master", ping),
        ("leader show, through the names' HTTP API", leader),
        ("plugin list", plugins),
        ("lists of nothing", nothing_yet),
        ("app add of a file", app_add_file),
        ("app add of the standard input, app remove", app_add_stdin),
        ("app add of a URL, app remove --force", app_add_url),
        ("app add refused: there already, no file, no JSON, two 422", app_add_refused),
        ("app list: table, --json, --quiet", app_list),
        ("app show", app_show),
        ("app update by properties and by the standard input", app_update),
        ("app update refused: 422, a key twice", app_update_refused),
        ("app version list, --max-count", app_versions),
        ("app show --app-version: absolute, relative, none such", app_show_version),
        ("app update to an older version", app_back),
        ("app restart replaces every task", app_restart),
        ("app stop; a stopped one is neither stopped nor restarted", app_stop),
        ("app start; a started one is not started", app_start),
        ("app kill, --host", app_kill),
        ("app kill --scale", app_kill_scale),
        ("every app command of an app that is not there", app_unknown),
        ("task list: table, --json, --quiet, of an app", task_list),
        ("task show", task_show),
        ("task stop", task_stop),
        ("task kill, --json", task_kill),
        ("task kill --scale", task_kill_scale),
        ("task kill refused: none, gone, no id, scale and wipe", task_kill_refused),
        ("task stop --wipe", task_wipe),
        ("deployment list: table, --json, --quiet, of an app", deployment_list),
        ("deployment watch", deployment_watch),
        ("debug list", debug),
        ("debug summary", debug_summary),
        ("debug details", debug_details),
        ("debug of what does not wait", debug_unknown),
        ("a deployment blocks update, stop and restart of its app, and the removal of its group", conflict),
        ("app update --force, deployment stop", deployment_stop),
        ("deployment rollback", deployment_rollback),
        ("deployment stop and rollback of none", deployment_unknown),
        ("group add with a dependency", group_add),
        ("group add refused: 422", group_add_refused),
        ("group list: table, --json", group_list),
        ("group show, --group-version", group_show),
        ("group scale, --force", group_scale),
        ("group update", group_update),
        ("group remove, --force", group_remove),
        ("group commands of a group that is not there", group_unknown),
        ("pod add; one that is there already", pod_add),
        ("pod list: table, --json, --quiet", pod_list),
        ("pod show", pod_show),
        ("pod update, --force", pod_update),
        ("pod kill", pod_kill),
        ("pod commands refused: 422, none such", pod_refused),
        ("a pod that waits: deployment list, debug, 409, remove --force", pod_waits),
        ("pod remove", pod_remove),
        ("--version, --info, usage", usage),
        ("by marathon.url instead of dcos_url", by_marathon_url),
        ("no server", no_server),
        ("app remove: nothing is left", app_remove),
    ]
