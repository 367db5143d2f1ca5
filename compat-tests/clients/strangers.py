"""The same clients when the server asks who they are, and when its leader is told to go."""

import os
from base64 import b64encode

from marathon import MarathonClient, MarathonHttpError

import marathon_deploy_tool
import prometheus
from common import ADDRESS, Marathon, equal, raises, sleeper
from dcos_marathon import Dcos
from event_bus import Listener

USER, PASSWORD = "tester", "correct-horse"
BASIC = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class Section:
    def __init__(self, world):
        self.world, self.api = world, Marathon(world)
        self.token = None

    def dcos_as(self, name, toml):
        return Dcos(os.path.join(self.world.dir, f"dcos-{name}"), toml=toml)

    def restarted(self, *options):
        self.world.server.stop()
        self.world.server_options = list(options)
        self.world.start_server()

    def begun(self):
        self.api.create(sleeper("/strangers/a"))
        self.restarted("--http_credentials", f"{USER}:{PASSWORD}")
        status, _, answer = self.world.api("POST", "/v2/auth/token", headers={"Authorization": BASIC})
        equal(status, 200, answer)
        self.token = answer["token"]

    def dcos(self):
        self.dcos_as("stranger", f'[core]\ndcos_url = "http://{ADDRESS}"\n').refused(
            "app", "list", says="Error: credentials are required: a user and a password, or a token\n")
        by_token = self.dcos_as("token", f'[core]\ndcos_url = "http://{ADDRESS}"\ndcos_acs_token = "{self.token}"\n')
        by_token("app", "list", "--quiet").is_(0, "/strangers/a\n")
        wrong = self.dcos_as("wrong", f'[core]\ndcos_url = "http://{ADDRESS}"\ndcos_acs_token = "wrong"\n')
        wrong.refused("app", "list", says="Error: the token is not valid (any more)\n")
        by_url = self.dcos_as("password", f'[marathon]\nurl = "http://{USER}:{PASSWORD}@{ADDRESS}"\n')
        by_url("app", "list", "--quiet").is_(0, "/strangers/a\n")

    def python(self):
        url = f"http://{ADDRESS}"
        for client in (MarathonClient(url, username=USER, password=PASSWORD), MarathonClient(url, auth_token=self.token)):
            equal([app.id for app in client.list_apps()], ["/strangers/a"])
        stream = MarathonClient(url, username=USER, password=PASSWORD).event_stream()
        equal(next(stream).event_type, "event_stream_attached")
        for client in (MarathonClient(url), MarathonClient(url, username=USER, password="wrong"), MarathonClient(url, auth_token="wrong")):
            equal(raises(MarathonHttpError, client.list_apps).status_code, 401)

    def deploy(self):
        app = ("--appid", "/strangers/a", "--instances")
        marathon_deploy_tool.deploy("--user", USER, "--password", PASSWORD, *app).is_(0, '"pong"\n1\n')
        # It takes every error for an app that is not there.
        marathon_deploy_tool.deploy(*app).is_(0, '"pong"\n-1\n', None)

    def events(self):
        for header in (BASIC, f"token={self.token}"):
            listener = Listener(eventTypes=["event_stream_attached"], marathonHeaders={"Authorization": header})
            listener.next("event", "event_stream_attached")
            listener.unsubscribe()
        equal(Listener().next("error").get("status"), 401)
        Listener.end_all()

    def promtool(self):
        section = prometheus.Section(self.world)
        servers = {"servers": [f"http://{ADDRESS}"]}
        section.discover(
            known={"marathon_sd_configs": [{**servers, "basic_auth": {"username": USER, "password": PASSWORD}}]},
            token={"marathon_sd_configs": [{**servers, "auth_token": self.token}]},
            stranger={"marathon_sd_configs": [servers]},
        )
        for job in ("known", "token"):
            equal([labels["__meta_marathon_app"] for labels in section.targets("/strangers/a", job)], ["/strangers/a"], job)
        equal((section.found["stranger"], "non 2xx status '401'" in section.err["stranger"]), ([], True))

    def leader(self):
        """`leader delete` ends the process with the code that its supervisor starts it again for; what it knew is there again."""
        self.restarted()
        dcos = Dcos(os.path.join(self.world.dir, "dcos-leader"))
        task = self.api.running("/strangers/a")[0]["id"]
        dcos("leader", "delete").is_(0, "Leadership abdicated\n")
        equal(self.world.server.popen.wait(30), 105)
        self.world.start_server()
        equal(self.api.running("/strangers/a")[0]["id"], task)
        python = MarathonClient(f"http://{ADDRESS}")
        equal(python.delete_leader(), {"message": "Leadership abdicated"})
        equal(self.world.server.popen.wait(30), 105)
        self.world.start_server()
        dcos("app", "remove", "/strangers/a").is_(0, "")

    STEPS = [
        ("the server asks for a password", begun),
        ("dcos marathon: token, password, neither", dcos),
        ("marathon-python: token, password, neither; events", python),
        ("marathon-deploy: password, none", deploy),
        ("marathon-event-bus-client: password, token, neither", events),
        ("promtool: password, token, neither", promtool),
        ("leader delete by two clients: the server ends, and knows everything when it is back", leader),
    ]
