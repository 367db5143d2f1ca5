"""marathon-python (`marathon` 0.13.0): its models, every method of its client, its events, and its errors.

It was written for Marathon 1.5, and takes no field that it does not know. Four things of Marathon 1.11's are unknown to it: that it stumbles over exactly these
is a step of its own; then they are kept from it, and everything else must fit.
"""

import logging
import queue
import threading

from marathon import MarathonApp, MarathonClient, MarathonHttpError
from marathon.exceptions import ConflictError, MarathonError, NoResponseError, NotFoundError
from marathon.models import MarathonConstraint, MarathonGroup, MarathonHealthCheck, MarathonQueueItem
from marathon.models.app import PortDefinition
from marathon.models.container import MarathonContainer, MarathonContainerPortMapping, MarathonContainerVolume, MarathonDockerContainer
from marathon.models.deployment import MarathonDeploymentPlan
from marathon.models.events import (
    MarathonAppTerminatedEvent,
    MarathonDeploymentInfo,
    MarathonDeploymentSuccess,
    MarathonEventStreamAttached,
    MarathonStatusUpdateEvent,
)

from common import ADDRESS, LOCKED, NEVER, NOBODY, Failure, Marathon, equal, match, raises, until

# What Marathon 1.11 gives and a model does not take. The fourth is that an event's plan is without the trees before and after it.
LATER = [(MarathonGroup, "enforce_role"), (MarathonQueueItem, "role"), (MarathonApp, "tasks_stats")]


class Events(threading.Thread):
    """Reads events until it has been told to stop listening, which it does at the next one."""

    def __init__(self, client, **how):
        super().__init__(daemon=True)
        self.client, self.how = client, how
        self.seen, self.error = queue.Queue(), None
        self.start()

    def run(self):
        try:
            for event in self.client.event_stream(**self.how):
                self.seen.put(event)
        except Exception as error:  # noqa: BLE001  told by `next`
            self.error = error

    def next(self, wanted=lambda event: True, seconds=20):
        """The next event that is wanted."""
        def look():
            try:
                event = self.seen.get(timeout=0.2)
            except queue.Empty:
                if self.error:
                    raise Failure(f"the stream has ended: {self.error!r}") from None
                return None
            return event if wanted(event) else None
        return until("an event", look, seconds, pause=0)


def small(**more):
    return MarathonApp(**{"cmd": "exec sleep 1000", "cpus": 0.01, "mem": 16, "backoff_seconds": 1, "task_kill_grace_period_seconds": 2, **more})


class Section:
    def __init__(self, world):
        self.world, self.api = world, Marathon(world)
        self.client = MarathonClient(f"http://{ADDRESS}")
        # It tells of every refusal there too.
        logging.getLogger("marathon").setLevel(logging.CRITICAL)
        self.version = None

    def done(self, answer):
        """Waits for the deployment of an answer."""
        equal(sorted(answer), ["deploymentId", "version"])
        self.api.deployed(answer["deploymentId"])

    def ids(self, app):
        wanted = self.client.get_app(app).instances
        settled = self.api.running(app, wanted)
        return sorted(task["id"] for task in settled) if wanted else []

    def refused(self, error, status, message, call, *arguments, details=None, **words):
        raised = raises(error, call, *arguments, **words)
        equal((raised.status_code, raised.error_message), (status, message))
        if details:
            equal(raised.error_details, details)

    # === the server ===

    def server(self):
        equal(self.client.ping(), b'"pong"')
        equal(self.client.get_leader(), {"leader": "node1:8080"})
        info = self.client.get_info()
        equal((info.name, info.elected, info.leader, info.version.split(".")[:2]), ("marathon", True, "node1:8080", ["1", "11"]))
        equal((info.marathon_config.local_port_min, info.marathon_config.local_port_max, info.http_config.http_port), (10000, 20000, 8080))
        equal(info.marathon_config.hostname, "node1")
        metrics = self.client.get_metrics()
        equal(metrics["version"], "4.0.0")
        if "marathon.apps.active.gauge" not in metrics["gauges"]:
            raise Failure(sorted(metrics["gauges"]))

    # === apps ===

    def create(self):
        app = small(instances=2, labels={"team": "a"}, env={"A": "b"}, constraints=[MarathonConstraint("hostname", "LIKE", "node.*")],
                    port_definitions=[PortDefinition(port=0, name="web", protocol="tcp", labels={"VIP": "/a"})], require_ports=False)
        made = self.client.create_app("/py/a", app)
        equal(type(made), MarathonApp)
        equal((made.id, made.instances, len(made.deployments), made.tasks_running), ("/py/a", 2, 1, 0))
        self.api.deployed(made.deployments[0].id)
        self.version = made.version

    def model(self):
        app = self.client.get_app("/py/a")
        equal((app.cmd, app.cpus, app.mem, app.labels, app.env), ("exec sleep 1000", 0.01, 16, {"team": "a"}, {"A": "b"}))
        equal([str(constraint) for constraint in app.constraints], [str(MarathonConstraint("hostname", "LIKE", "node.*"))])
        equal((app.tasks_running, app.tasks_staged, app.deployments), (2, 0, []))
        port = app.port_definitions[0]
        equal((port.name, port.protocol, port.labels, 10000 <= port.port <= 20000), ("web", "tcp", {"VIP": "/a"}, True))
        equal((app.upgrade_strategy.minimum_health_capacity, app.kill_selection, app.version), (1, "YOUNGEST_FIRST", self.version))
        task = app.tasks[0]
        equal((task.app_id, task.state, task.host, len(task.ports), task.ip_addresses[0].protocol), ("/py/a", "TASK_RUNNING", "node1", 1, "IPv4"))
        if not task.staged_at <= task.started_at:
            raise Failure(f"staged at {task.staged_at}, started at {task.started_at}")

    def container(self):
        docker = MarathonDockerContainer(image="xtao/web")
        mapping = MarathonContainerPortMapping(container_port=80, host_port=0, protocol="tcp", name="http", labels={"a": "b"})
        volume = MarathonContainerVolume(container_path="/here", host_path="/usr/share/doc", mode="RO")
        container = MarathonContainer(docker=docker, port_mappings=[mapping], volumes=[volume])
        check = MarathonHealthCheck(path="/", protocol="HTTP", port_index=0, interval_seconds=1, timeout_seconds=5, grace_period_seconds=30)
        app = small(cmd=None, container=container, networks=[{"mode": "container/bridge"}], health_checks=[check])
        made = self.client.create_app("/py/web", app)
        self.api.deployed(made.deployments[0].id)
        app = self.client.get_app("/py/web")
        equal((app.tasks_healthy, app.tasks_unhealthy), (1, 0))
        health = app.tasks[0].health_check_results[0]
        equal((health.alive, health.consecutive_failures, health.task_id or health.instance_id), (True, 0, app.tasks[0].id.partition("._app")[0]))
        equal((app.container.docker.image, app.container.type), ("xtao/web", "DOCKER"))
        equal((app.container.volumes[0].container_path, app.container.volumes[0].mode), ("/here", "RO"))
        mapped = app.container.port_mappings[0]
        equal((mapped.container_port, mapped.host_port, mapped.protocol, mapped.name, mapped.labels), (80, 0, "tcp", "http", {"a": "b"}))
        equal((app.health_checks[0].path, app.health_checks[0].protocol, app.health_checks[0].interval_seconds), ("/", "HTTP", 1))

    def command_check(self):
        check = MarathonHealthCheck(command='test "$NAME" = value', protocol="COMMAND", interval_seconds=1, grace_period_seconds=30, delay_seconds=0)
        made = self.client.create_app("/py/checked", small(env={"NAME": "value"}, health_checks=[check]))
        self.api.deployed(made.deployments[0].id)
        app = self.client.get_app("/py/checked")
        equal((app.tasks_healthy, app.health_checks[0].command, app.tasks[0].health_check_results[0].alive), (1, {"value": check.command["value"]}, True))
        self.done(self.client.delete_app("/py/checked"))

    def list_apps(self):
        names = lambda **filters: sorted(app.id for app in self.client.list_apps(**filters))
        check = lambda filters, expected: equal(names(**filters), expected, filters)
        check({}, ["/py/a", "/py/web"])
        check({"cmd": "sleep"}, ["/py/a"])
        check({"app_id": "py/w"}, ["/py/web"])
        check({"app_id": "none"}, [])
        for label in ("team", "team==a", "team in (a, b)", "team!=b,team"):
            check({"label": label}, ["/py/a"])
        for label in ("team!=a", "team notin (a, b)", "other"):
            check({"label": label}, [])
        check({"instances": 2}, ["/py/a"])
        check({"cmd": "sleep", "label": "team==b"}, [])

    def embeds(self):
        plain = {app.id: app for app in self.client.list_apps()}["/py/a"]
        equal((plain.tasks, plain.tasks_running), ([], 2))
        every = {name: True for name in ("embed_tasks", "embed_counts", "embed_deployments", "embed_readiness", "embed_last_task_failure", "embed_failures")}
        for app in ({app.id: app for app in self.client.list_apps(**every)}["/py/a"], self.client.get_app("/py/a", **every)):
            equal((len(app.tasks), app.tasks_running, app.deployments, app.readiness_check_results, app.last_task_failure), (2, 2, [], [], None))

    def create_refused(self):
        refused, create = self.refused, self.client.create_app
        refused(ConflictError, 409, "An app with id [/py/a] already exists.", create, "/py/a", small())
        error = "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."
        details = [{"path": "/", "errors": [error]}]
        refused(MarathonHttpError, 422, "Object is not valid", create, "/py/bad", MarathonApp(cpus=1), details=details)
        details = [{"path": "/mem", "errors": ["error.expected.jsnumber"]}]
        refused(MarathonHttpError, 422, "Invalid JSON", create, "/py/bad", small(mem="much"), details=details)
        raises(ValueError, create, "/py/Bad", small())

    def update(self):
        self.done(self.client.update_app("/py/a", MarathonApp(labels={"team": "b"}, cpus=0.02)))
        app = self.client.get_app("/py/a")
        equal((app.labels, app.cpus, app.instances, app.env), ({"team": "b"}, 0.02, 2, {"A": "b"}))

    def update_with_what_was_read(self):
        before = self.ids("/py/a")
        self.done(self.client.update_app("/py/a", self.client.get_app("/py/a")))
        self.done(self.client.update_app("/py/web", self.client.get_app("/py/web")))
        equal(self.ids("/py/a"), before, "tasks")

    def versions(self):
        versions = self.client.list_versions("/py/a")
        equal((versions[0], versions[-1]), (self.client.get_app("/py/a").version, self.version))
        old = self.client.get_version("/py/a", self.version)
        equal((old.id, old.cpus, old.labels, old.version), ("/py/a", 0.01, {"team": "a"}, self.version))
        missing = f"App '/py/a' does not exist in version {NEVER}"
        self.refused(NotFoundError, 404, missing, self.client.get_version, "/py/a", NEVER)

    def rollback(self):
        self.done(self.client.rollback_app("/py/a", self.version))
        app = self.client.get_app("/py/a")
        equal((app.cpus, app.labels), (0.01, {"team": "a"}))
        self.refused(NotFoundError, 404, "App '/py/a' does not exist", self.client.rollback_app, "/py/a", NEVER)

    def scale(self):
        for words, expected in (({"instances": 3}, 3), ({"delta": -2}, 1), ({"delta": -5}, None), ({"instances": 0}, 0), ({"delta": 2}, 2)):
            if expected is None:
                # It asks for a negative number, whatever its manual says.
                details = [{"path": "/instances", "errors": ["error.min"]}]
                self.refused(MarathonHttpError, 422, "Invalid JSON", self.client.scale_app, "/py/a", details=details, **words)
                continue
            self.done(self.client.scale_app("/py/a", **words))
            equal(len(self.ids("/py/a")), expected, words)

    def update_many(self):
        changes = [MarathonApp(id="/py/a", instances=1), small(id="/py/b", instances=2)]
        self.done(self.client.update_apps(changes))
        equal((len(self.ids("/py/a")), len(self.ids("/py/b"))), (1, 2))

    def restart(self):
        before = self.ids("/py/b")
        self.done(self.client.restart_app("/py/b"))
        equal(set(before) & set(self.ids("/py/b")), set())

    # === tasks ===

    def tasks(self):
        tasks = self.client.list_tasks()
        equal(sorted({task.app_id for task in tasks}), ["/py/a", "/py/b", "/py/web"])
        equal(sorted(task.id for task in self.client.list_tasks("/py/b")), self.ids("/py/b"))
        equal(sorted(task.id for task in self.client.list_tasks(app_id="/py/b", host="elsewhere")), [])
        ports = {task.id: task.ports for task in tasks}
        points = self.client.list_endpoints()
        equal(sorted((point.task_id, point.task_port) for point in points), sorted((task, port) for task in ports for port in ports[task]))
        service = {app.id: app for app in self.client.list_apps()}["/py/web"].container.port_mappings[0].service_port
        equal([(point.host, point.service_port) for point in points if point.app_id == "/py/web"], [("node1", service)])

    def kill_task(self):
        before = self.ids("/py/b")
        equal(self.client.kill_task("/py/b", before[0]).id, before[0])
        until("another task", lambda: before[0] not in self.ids("/py/b"))
        self.done(self.client.kill_task("/py/b", before[1], scale=True))
        equal(len(self.ids("/py/b")), 1)
        self.refused(NotFoundError, 404, "Task 'none' does not exist", self.client.kill_task, "/py/b", "none")

    def kill_tasks(self):
        before = self.ids("/py/b")
        equal(self.client.kill_tasks("/py/b", host="elsewhere"), [])
        equal([task.id for task in self.client.kill_tasks("/py/b", host="node1")], before)
        until("another task", lambda: self.ids("/py/b") != before)
        before = self.ids("/py/b")
        equal([task.id for task in self.client.kill_tasks("/py/b", wipe=True)], before)
        until("another task", lambda: self.ids("/py/b") != before)
        self.done(self.client.kill_tasks("/py/b", scale=True))
        equal((self.client.get_app("/py/b").instances, self.ids("/py/b")), (0, []))

    def kill_given(self):
        self.done(self.client.scale_app("/py/b", 2))
        before = self.ids("/py/b")
        equal(self.client.kill_given_tasks(before), True)
        until("other tasks", lambda: not set(before) & set(self.ids("/py/b")))
        equal(self.client.kill_given_tasks(self.ids("/py/b")[:1], scale=True, force=True), True)
        until("it to be smaller", lambda: len(self.ids("/py/b")) == 1)
        text = "Invalid task id 'none'. ['none' is not a task id]"
        self.refused(MarathonHttpError, 400, text, self.client.kill_given_tasks, ["none"])

    # === deployments and the queue ===

    def deployments(self):
        made = self.client.create_app("/py/giant", small(cpus=1000))
        deployment, = self.client.list_deployments()
        equal((deployment.id, deployment.affected_apps, deployment.current_step, deployment.total_steps), (made.deployments[0].id, ["/py/giant"], 2, 2))
        equal([[(action.action, action.app) for action in step.actions] for step in deployment.steps],
              [[("StartApplication", "/py/giant")], [("ScaleApplication", "/py/giant")]])
        equal([action.action for action in deployment.current_actions], ["ScaleApplication"])
        equal([one.id for one in self.client.get_app("/py/giant").deployments], [deployment.id])

    def queue(self):
        declined = lambda: (self.api.queue("/py/giant") or {}).get("processedOffersSummary", {}).get("unusedOffersCount")
        until("an offer to be declined", declined)
        item, = self.client.list_queue()
        equal((item.app.id, item.count, item.delay.overdue, item.last_unused_offers), ("/py/giant", 1, True, None))
        item, = self.client.list_queue(embed_last_unused_offers=True)
        equal([offer["reason"] for offer in item.last_unused_offers], [["InsufficientCpus"]])
        equal(item.processed_offers_summary["unusedOffersCount"], 1)
        equal(self.client.reset_delay("/py/giant"), None)
        self.refused(NotFoundError, 404, "Application /py/a not found in tasks queue.", self.client.reset_delay, "/py/a")

    def conflict(self):
        client = self.client
        for call, arguments in ((client.update_app, ("/py/giant", MarathonApp(mem=32))), (client.scale_app, ("/py/giant", 2)),
                                (client.restart_app, ("/py/giant",)), (client.update_apps, ([MarathonApp(id="/py/giant", mem=32)],)),
                                (client.delete_group, ("/py",))):
            self.refused(ConflictError, 409, LOCKED, call, *arguments)

    def delete_deployment(self):
        made = self.client.update_app("/py/giant", MarathonApp(mem=32), force=True)
        back = self.client.delete_deployment(made["deploymentId"])
        equal(sorted(back), ["deploymentId", "version"])
        equal(self.client.get_app("/py/giant").mem, 16)
        equal(self.client.delete_deployment(back["deploymentId"], force=True), {})
        until("it to end", lambda: self.client.list_deployments() == [])
        self.done(self.client.delete_app("/py/giant", force=True))
        self.refused(NotFoundError, 404, "DeploymentPlan none does not exist", self.client.delete_deployment, "none")

    # === groups ===

    def groups(self):
        group = MarathonGroup(id="/pygroup", apps=[small(id="/pygroup/a")], groups=[MarathonGroup(id="/pygroup/part", apps=[small(id="/pygroup/part/b")])])
        self.done(self.client.create_group(group))
        self.refused(ConflictError, 409, "Group /pygroup is already created. Use PUT to change this group.", self.client.create_group, group)
        equal(sorted(group.id for group in self.client.list_groups()), ["/py", "/pygroup"])
        equal([group.id for group in self.client.list_groups(id="/pygroup")], ["/pygroup"])
        read = self.client.get_group("/pygroup")
        equal(([app.id for app in read.apps], [part.id for part in read.groups]), (["/pygroup/a"], ["/pygroup/part"]))
        self.version = read.version

    def change_group(self):
        self.done(self.client.scale_group("/pygroup", 2))
        equal((len(self.ids("/pygroup/a")), len(self.ids("/pygroup/part/b"))), (2, 2))
        self.done(self.client.update_group("/pygroup", MarathonGroup(apps=[small(id="/pygroup/c")])))
        equal([app.id for app in self.client.get_group("/pygroup").apps], ["/pygroup/c"])

    def rollback_group(self):
        """It asks for a path that Marathon has not: there the version is part of the group's id, and no valid one."""
        pattern = r"must fully match regular expression .*"
        raised = raises(MarathonHttpError, self.client.rollback_group, "/pygroup", self.version)
        equal((raised.status_code, raised.error_message), (422, "Object is not valid"))
        match(raised.error_details[0]["errors"][0], pattern)

    def delete_group(self):
        self.done(self.client.delete_group("/pygroup"))
        self.done(self.client.delete_group("/py", force=True))
        equal((self.client.list_groups(), self.client.list_apps()), ([], []))

    # === errors ===

    def unknown(self):
        app, group, client = "App '/py/none' does not exist", "Group '/py/none' does not exist", self.client
        for text, call in ((app, client.get_app), (app, client.delete_app), (app, client.restart_app), (app, client.kill_tasks), (app, client.list_tasks),
                           (app, client.list_versions), (group, client.get_group), (group, client.delete_group)):
            self.refused(NotFoundError, 404, text, call, "/py/none")
        equal(client.scale_app("/py/none", 1), None)
        # Callbacks were dropped by Marathon 1.4.
        self.refused(NotFoundError, 404, "URI not found", client.list_event_subscriptions)
        for call in (client.create_event_subscription, client.delete_event_subscription):
            self.refused(NotFoundError, 404, "URI not found", call, f"http://{NOBODY}/")

    def no_server(self):
        nobody = MarathonClient(f"http://{NOBODY}")
        equal(str(raises(NoResponseError, nobody.ping)), "No remaining Marathon servers to try")
        # The second of two answers, in spite of its slash.
        equal(MarathonClient([f"http://{NOBODY}", f"http://{ADDRESS}/"]).ping(), b'"pong"')

    # === events ===

    def events(self):
        types = [MarathonEventStreamAttached, "status_update_event", MarathonDeploymentSuccess, MarathonAppTerminatedEvent]
        events = Events(self.client, event_types=types)
        equal((type(events.next()), events.error), (MarathonEventStreamAttached, None))
        made = self.client.create_app("/pyevents", small())
        event = events.next()
        equal((type(event), event.app_id, event.host, event.version), (MarathonStatusUpdateEvent, "/pyevents", "node1", made.version))
        running = event if event.task_status == "TASK_RUNNING" else events.next(lambda event: event.task_status == "TASK_RUNNING")
        equal((running.task_id, running.ports), (self.ids("/pyevents")[0], self.client.get_app("/pyevents").tasks[0].ports))
        equal(events.next(lambda event: isinstance(event, MarathonDeploymentSuccess)).id, made.deployments[0].id)
        gone = self.client.delete_app("/pyevents")
        # Only what was asked for has come: everything else would be of another class.
        seen = []
        events.next(lambda event: seen.append(type(event)) or isinstance(event, MarathonDeploymentSuccess) and event.id == gone["deploymentId"])
        equal(set(seen), {MarathonStatusUpdateEvent, MarathonAppTerminatedEvent, MarathonDeploymentSuccess})

    def every_event(self):
        raw = Events(self.client, raw=True)
        raw.next(lambda text: "event_stream_attached" in text)
        typed = Events(self.client)
        typed.next(lambda event: isinstance(event, MarathonEventStreamAttached))
        made = self.client.create_app("/pyevents", small())
        info = typed.next(lambda event: isinstance(event, MarathonDeploymentInfo))
        equal((info.plan.id, [step.actions[0].action for step in info.plan.steps]), (made.deployments[0].id, ["StartApplication", "ScaleApplication"]))
        typed.next(lambda event: isinstance(event, MarathonDeploymentSuccess) and event.id == made.deployments[0].id)
        raw.next(lambda text: "deployment_success" in text)
        self.done(self.client.delete_app("/pyevents"))

    def no_events(self):
        stream = MarathonClient(f"http://{ADDRESS}/nowhere").event_stream()
        equal(str(raises(MarathonError, next, stream)), "No remaining Marathon servers to try")

    # === what this client cannot know ===

    def stumbles(self):
        """Over what Marathon 1.11 sends, and 1.5 did not: as with the original."""
        self.client.create_app("/pyold/giant", small(cpus=1000))
        unknown = "MarathonGroup.__init__() got an unexpected keyword argument 'enforce_role'"
        equal(str(raises(TypeError, self.client.list_groups)), unknown)
        unknown = "MarathonQueueItem.__init__() got an unexpected keyword argument 'role'"
        equal(str(raises(TypeError, self.client.list_queue)), unknown)
        unknown = "MarathonApp.__init__() got an unexpected keyword argument 'tasks_stats'"
        equal(str(raises(TypeError, self.client.get_app, "/pyold/giant", embed_task_stats=True)), unknown)
        # The plan of an event was the whole tree before and after; it has been the steps alone since 1.7.
        info = Events(self.client, event_types=["event_stream_attached", "deployment_info"])
        info.next()
        self.client.delete_app("/pyold/giant", force=True)
        until("the stream to fail", lambda: info.error)
        equal(str(info.error), "'NoneType' object has no attribute 'items'")
        until("the deployment to end", lambda: self.api.ask("GET", "/v2/deployments") == [])
        self.api.change("DELETE", "/v2/groups/pyold")

    def learns(self):
        """From here on the four are kept from it."""
        for model, name in LATER:
            made = model.__init__

            def init(self, *arguments, made=made, name=name, **words):
                words.pop(name, None)
                made(self, *arguments, **words)
            model.__init__ = init
        made_plan = MarathonDeploymentPlan.__init__

        def init_plan(self, original=None, target=None, **words):
            made_plan(self, original or {}, target or {}, **words)
        MarathonDeploymentPlan.__init__ = init_plan

    def task_stats(self):
        with_stats = self.api.ask("GET", "/v2/apps/py/a?embed=app.taskStats")["app"]["tasksStats"]
        equal(with_stats["totalSummary"]["stats"]["counts"], {"staged": 0, "running": 1, "healthy": 0, "unhealthy": 0})
        equal(self.client.get_app("/py/a", embed_task_stats=True).tasks_running, 1)

    STEPS = [
        ("ping, info, leader, metrics", server),
        ("it stumbles over four fields that are later than itself, and no other", stumbles),
        ("(these are kept from it from here on)", learns),
        ("create_app", create),
        ("the model of an app and its tasks", model),
        ("the models of a container, a port mapping, a volume and a health check", container),
        ("a COMMAND health check of a command without an image", command_check),
        ("list_apps with each filter", list_apps),
        ("list_apps and get_app with each embed", embeds),
        ("create_app refused: 409, two 422, its own check of ids", create_refused),
        ("update_app", update),
        ("update_app with what get_app gave changes nothing", update_with_what_was_read),
        ("list_versions, get_version", versions),
        ("rollback_app", rollback),
        ("scale_app by number and by difference", scale),
        ("update_apps", update_many),
        ("get_app with task statistics", task_stats),
        ("restart_app", restart),
        ("list_tasks, list_endpoints", tasks),
        ("kill_task, with scale", kill_task),
        ("kill_tasks with host, wipe, scale", kill_tasks),
        ("kill_given_tasks", kill_given),
        ("list_deployments", deployments),
        ("list_queue, reset_delay", queue),
        ("a deployment is in the way of each change: 409", conflict),
        ("delete_deployment, with force", delete_deployment),
        ("create_group, list_groups, get_group", groups),
        ("scale_group, update_group", change_group),
        ("rollback_group is no route of Marathon's", rollback_group),
        ("delete_group", delete_group),
        ("every call for what is not there", unknown),
        ("no server; one of two servers", no_server),
        ("event_stream of some types", events),
        ("event_stream of all types, raw and as models", every_event),
        ("event_stream where there is none", no_events),
    ]
