"""Marathon's API as a client sees it, and waiting for what it promises. Failures say what was there instead."""

import json

from world import Failure, until


class Marathon:
    def __init__(self, world):
        self.world = world

    def ask(self, method, path, body=None, expect=(200, 201, 202, 204)):
        """The body of an answer with one of the expected statuses."""
        status, _, answer = self.world.api(method, path, body)
        if status not in expect:
            raise Failure(f"{method} {path}: {status} {json.dumps(answer)}")
        return answer

    def app(self, app):
        return self.ask("GET", f"/v2/apps{app}")["app"]

    def tasks(self, app):
        return self.ask("GET", f"/v2/apps{app}/tasks")["tasks"]

    def running(self, app, count=1, seconds=90):
        """Waits until exactly `count` tasks run, none is on its way, and no deployment is under way; gives the tasks."""
        def settled():
            seen = self.app(app)
            tasks = self.tasks(app)
            states = [task["state"] for task in tasks]
            if states == ["TASK_RUNNING"] * count and not seen["deployments"]:
                return tasks if count else True
            failure = seen.get("lastTaskFailure", {})
            raise Failure(f"tasks {states}, deployments {seen['deployments']}, last failure {failure.get('message')!r}, {self.why(app)}")
        return until(f"{app} to have {count} running", settled, seconds)

    def create(self, definition, count=None, seconds=90):
        """Posts an app and waits for it; gives the answer to the post."""
        answer = self.ask("POST", "/v2/apps", definition, expect=(201,))
        self.running(definition["id"], definition.get("instances", 1) if count is None else count, seconds)
        return answer

    def change(self, method, path, body=None, seconds=90):
        """A request that begins a deployment; waits until that is done."""
        answer = self.ask(method, path, body)
        self.deployed(answer["deploymentId"], seconds)
        return answer

    def deployed(self, deployment, seconds=90):
        def done():
            left = self.ask("GET", "/v2/deployments")
            if any(plan["id"] == deployment for plan in left):
                raise Failure(f"deployments under way: {json.dumps(left)[:500]}")
            return True
        until(f"deployment {deployment} to end", done, seconds)

    def destroy(self, app, seconds=90):
        """Deletes an app and waits until its deployment is done and none of its tasks is left."""
        self.change("DELETE", f"/v2/apps{app}", seconds=seconds)
        until(f"{app} to be gone", lambda: self.world.api("GET", f"/v2/apps{app}")[0] == 404, seconds)

    def queue(self, app):
        """The queue's entry for an app; None when it waits for nothing."""
        for entry in self.ask("GET", "/v2/queue")["queue"]:
            if entry["app"]["id"] == app:
                return entry
        return None

    def why(self, app):
        """The reasons for which offers were declined, for messages."""
        entry = self.queue(app)
        if not entry:
            return "nothing in the queue"
        summary = entry["processedOffersSummary"]["rejectSummaryLastOffers"]
        return f"queue: {[(reason['reason'], reason['declined']) for reason in summary if reason['declined']]}, delay {entry['delay']}"

    def endpoint(self, app):
        """(host, port) of the first endpoint: what a user is told."""
        endpoints = self.app(app)["endpoints"]
        if not endpoints:
            raise Failure(f"{app} has no endpoints")
        return endpoints[0]["host"], endpoints[0]["port"]

    def container(self, task_id):
        """Docker's description of the container of a task; found by Marathon's own label."""
        for container in self.world.containers():
            if container["Labels"].get("MESOS_TASK_ID") == task_id:
                return self.world.docker("GET", f"/containers/{container['Id']}/json")
        raise Failure(f"no container carries the label MESOS_TASK_ID={task_id}")
