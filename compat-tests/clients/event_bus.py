"""marathon-event-bus-client 0.1.7 (npm): its events, handlers and options, and how it lives through a restart of the server."""

import json
import os
import queue
import subprocess
import threading

from common import ADDRESS, HERE, NOBODY, Failure, Marathon, equal, giant, pod, sleeper, until, web

HOST, PORT = ADDRESS.split(":")
DEFAULT = ["deployment_info", "deployment_success", "deployment_failed"]


class Listener:
    """The client in a process of its own."""

    made = []

    def __init__(self, **options):
        options = {"marathonHost": HOST, "marathonPort": PORT, **options}
        self.popen = subprocess.Popen(["node", os.path.join(HERE, "listen.js"), json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines, self.told = queue.Queue(), []
        threading.Thread(target=self.read, daemon=True).start()
        Listener.made.append(self)

    def read(self):
        for line in self.popen.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def next(self, kind, name=None, wanted=lambda data: True, seconds=20):
        """The data of the next that is wanted; what comes before is remembered only."""
        def look():
            try:
                told = self.lines.get(timeout=0.2)
            except queue.Empty:
                return None
            if told is None:
                raise Failure("the client has ended")
            self.told.append(told)
            fits = told["kind"] == kind and name in (None, told.get("name")) and wanted(told.get("data"))
            return [told.get("data")] if fits else None
        try:
            return until(f"{kind} {name or ''}", look, seconds, pause=0)[0]
        except Failure as failure:
            raise Failure(f"{failure}; told were {[(told['kind'], told.get('name')) for told in self.told]}") from None

    def names(self, kind="event"):
        return [told["name"] for told in self.told if told["kind"] == kind]

    def unsubscribe(self):
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        self.next("unsubscribed")
        equal(self.popen.wait(20), 0)

    @classmethod
    def end_all(cls):
        for listener in cls.made:
            listener.popen.kill()
            listener.popen.wait()


class Section:
    def __init__(self, world):
        self.world, self.api = world, Marathon(world)

    def life(self, app, definition=None):
        """An app comes and goes; the ids of the two deployments."""
        made = self.api.create({**sleeper(app), **(definition or {})})
        gone = self.api.ask("DELETE", f"/v2/apps{app}")
        until(f"{app} to be gone", lambda: self.api.ask("GET", "/v2/deployments") == [])
        return made["deployments"][0]["id"], gone["deploymentId"]

    def by_default(self):
        listener = Listener()
        listener.next("subscribed")
        came, went = self.life("/bus/a")
        info = listener.next("event", "deployment_info")
        equal((info["eventType"], info["plan"]["id"], [step["actions"][0]["action"] for step in info["plan"]["steps"]]),
              ("deployment_info", came, ["StartApplication", "ScaleApplication"]))
        equal(info["currentStep"]["actions"], [{"action": "StartApplication", "app": "/bus/a"}])
        equal(listener.next("event", "deployment_success")["id"], came)
        equal(listener.next("event", "deployment_success")["id"], went)
        equal(set(listener.names()), {"deployment_info", "deployment_success"})
        listener.unsubscribe()

    def handlers(self):
        listener = Listener(eventTypes=["deployment_success", "no_such_event"], handled=["deployment_success", "deployment_info"])
        listener.next("subscribed")
        came, _ = self.life("/bus/a")
        equal(listener.next("handled", "deployment_success")["id"], came)
        equal((set(listener.names("handled")), set(listener.names())), ({"deployment_success"}, {"deployment_success"}))
        listener.unsubscribe()

    def every_type(self):
        types = ["api_post_event"] + [
            "event_stream_attached", "group_change_success", "deployment_info", "deployment_step_success", "deployment_success", "status_update_event",
            "instance_changed_event", "instance_health_changed_event", "health_status_changed_event", "add_health_check_event",
            "remove_health_check_event", "app_terminated_event", "failed_health_check_event"]
        listener = Listener(eventTypes=types)
        equal(listener.next("event", "event_stream_attached")["remoteAddress"], HOST)
        check = {"protocol": "HTTP", "path": "/", "intervalSeconds": 1, "gracePeriodSeconds": 30}
        _, went = self.life("/bus/web", web("/bus/web", healthChecks=[check], cmd=None))
        listener.next("event", "deployment_success", lambda data: data["id"] == went)
        listener.unsubscribe()
        told = {}
        for one in listener.told:
            if one["kind"] == "event":
                told.setdefault(one["name"], one["data"])
                equal((one["data"]["eventType"], len(one["data"]["timestamp"])), (one["name"], 24))
        seen = ["event_stream_attached", "group_change_success", "deployment_info", "deployment_step_success", "deployment_success",
                "status_update_event", "instance_changed_event", "instance_health_changed_event", "app_terminated_event"]
        equal([name for name in seen if name not in told], [])
        for name, fields in (("status_update_event", {"appId": "/bus/web", "host": "node1"}), ("group_change_success", {"groupId": "/bus"}),
                             ("instance_changed_event", {"runSpecId": "/bus/web"}), ("app_terminated_event", {"appId": "/bus/web"}),
                             ("instance_health_changed_event", {"runSpecId": "/bus/web", "healthy": True})):
            equal({field: told[name].get(field) for field in fields}, fields, name)
        order = listener.names()
        equal(sorted(("deployment_info", "deployment_success"), key=order.index), ["deployment_info", "deployment_success"])
        statuses = [one["data"]["taskStatus"] for one in listener.told if one.get("name") == "status_update_event"]
        equal((statuses[-1], "TASK_RUNNING" in statuses), ("TASK_KILLED", True))

    def filtered(self):
        """The filter of the server: the client would take everything."""
        types = ["event_stream_attached", *DEFAULT, "status_update_event", "instance_changed_event", "group_change_success"]
        listener = Listener(eventTypes=types, marathonUri="/v2/events?event_type=deployment_success&event_type=group_change_success")
        listener.next("subscribed")
        _, went = self.life("/bus/a")
        listener.next("event", "deployment_success", lambda data: data["id"] == went)
        equal(set(listener.names()), {"deployment_success", "group_change_success"})
        listener.unsubscribe()

    def failed(self):
        listener = Listener()
        listener.next("subscribed")
        made = self.api.ask("POST", "/v2/apps", giant("/bus/giant"), expect=(201,))["deployments"][0]["id"]
        back = self.api.ask("DELETE", f"/v2/deployments/{made}")["deploymentId"]
        equal(listener.next("event", "deployment_failed")["id"], made)
        equal(listener.next("event", "deployment_success")["id"], back)
        listener.unsubscribe()

    def others(self):
        """Unlike with Marathon, nobody is told who else comes and goes."""
        watcher = Listener(eventTypes=["event_stream_attached", "event_stream_detached", "deployment_success"])
        watcher.next("event", "event_stream_attached")
        listener = Listener(eventTypes=["event_stream_attached"])
        listener.next("event", "event_stream_attached")
        listener.unsubscribe()
        self.life("/bus/a")
        watcher.next("event", "deployment_success")
        equal(watcher.names(), ["event_stream_attached", "deployment_success"])
        watcher.unsubscribe()

    def pods(self):
        listener = Listener(eventTypes=["pod_created_event", "pod_updated_event", "pod_deleted_event", "deployment_success"])
        listener.next("subscribed")
        self.api.ask("POST", "/v2/pods", pod("/bus/pod"), expect=(201,))
        equal(listener.next("event", "pod_created_event")["uri"], "/v2/pods")
        for method, body, name in (("PUT", pod("/bus/pod", 2), "pod_updated_event"), ("DELETE", None, "pod_deleted_event")):
            listener.next("event", "deployment_success", seconds=60)
            self.api.ask(method, "/v2/pods/bus/pod", body)
            told = listener.next("event", name)
            equal((told["uri"], told["clientIp"]), ("/v2/pods/bus/pod", HOST), name)
        listener.next("event", "deployment_success", seconds=60)
        listener.unsubscribe()

    def errors(self):
        nobody = Listener(marathonPort=NOBODY.split(":")[1])
        nobody.next("error")
        nowhere = Listener(marathonUri="/v2/nowhere")
        equal(nowhere.next("error").get("status"), 404)
        equal((nobody.names(), nowhere.names()), ([], []))

    def restarted(self):
        """The server is killed and comes back: the client does so too, by itself."""
        listener = Listener(marathonUri="/service/marathon/v2/events")
        listener.next("subscribed")
        self.world.server.kill()
        listener.next("error")
        self.world.start_server()
        listener.next("subscribed")
        came, _ = self.life("/bus/a")
        listener.next("event", "deployment_success", lambda data: data["id"] == came)
        listener.unsubscribe()

    def over(self):
        Listener.end_all()
        self.api.change("DELETE", "/v2/groups/bus")

    STEPS = [
        ("the events that it asks for by default", by_default),
        ("handlers; types that are none", handlers),
        ("every type of event in the life of a healthy app", every_type),
        ("event_type filters", filtered),
        ("a deployment that fails, and its rollback", failed),
        ("who else listens is not told", others),
        ("a pod comes, changes and goes", pods),
        ("no server, no such path", errors),
        ("it outlives the server, through /service/marathon", restarted),
        ("nothing of it is left", over),
    ]
