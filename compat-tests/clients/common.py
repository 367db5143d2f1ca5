"""What the sections share: the helpers of all walks, definitions of apps, programs that are run to their end, and comparing."""

import importlib.util
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
LIB = os.path.join(HERE, "..", "lib")
# At the end: the client's package `marathon` is called like a helper of ours.
sys.path.append(LIB)
from world import Failure, until  # noqa: E402, F401  for the sections

_spec = importlib.util.spec_from_file_location("our_marathon", os.path.join(LIB, "marathon.py"))
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
Marathon = _module.Marathon

ADDRESS = "127.0.0.1:8080"
# Nothing listens there.
NOBODY = "127.0.0.1:9"
ID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
NEVER = "2020-01-01T00:00:00.000Z"
LOCKED = "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."
SMALL = {"cpus": 0.01, "mem": 16, "taskKillGracePeriodSeconds": 2, "backoffSeconds": 1}


def web(app, instances=1, **more):
    """A web server in a container behind a port of the node's."""
    container = {"type": "DOCKER", "docker": {"image": "xtao/web"}, "portMappings": [{"containerPort": 80, "hostPort": 0}]}
    return {**SMALL, "id": app, "instances": instances, "networks": [{"mode": "container/bridge"}], "container": container, **more}


def sleeper(app, instances=1, **more):
    """A command without an image, on the node's network."""
    return {**SMALL, "id": app, "cmd": "exec sleep 1000", "instances": instances, **more}


def pod(pod_id, instances=1, cpus=0.01):
    """Two containers that share a network: a web server behind a port of the node's, and one beside it."""
    resources = {"cpus": cpus, "mem": 16}
    image = {"kind": "DOCKER", "id": "xtao/web"}
    endpoint = {"name": "http", "containerPort": 80, "hostPort": 0, "protocol": ["tcp"]}
    front = {"name": "web", "image": image, "resources": resources, "endpoints": [endpoint]}
    beside = {"name": "side", "image": image, "resources": resources, "exec": {"command": {"shell": "exec sleep 1000"}}}
    return {"id": pod_id, "scaling": {"kind": "fixed", "instances": instances}, "containers": [front, beside], "networks": [{"mode": "container/bridge"}]}


def giant(app):
    """What no node has room for: its deployment waits."""
    return {**SMALL, "id": app, "cmd": "exec sleep 1000", "cpus": 1000}


def equal(found, expected, what=""):
    if found != expected:
        raise Failure(f"{what}{': ' if what else ''}{str(found)[:900]!s}\n       expected {str(expected)[:900]!s}")


def match(found, pattern, what=""):
    """The pattern's groups, when it fits all of a text."""
    fits = re.fullmatch(pattern, found, re.DOTALL)
    if not fits:
        raise Failure(f"{what}{': ' if what else ''}{found[:900]!r} is not as {pattern!r}")
    return fits.groups()


class Said:
    """What a program has said, and its exit code."""

    def __init__(self, command, done):
        self.command, self.code, self.out, self.err = command, done.returncode, done.stdout, done.stderr

    def is_(self, code, out=None, err=""):
        """Exactly this code, output and complaint; patterns are compiled ones, None is anything."""
        for found, expected, what in ((self.out, out, "output"), (self.err, err, "complaint")):
            if isinstance(expected, re.Pattern) and not expected.fullmatch(found) or isinstance(expected, str) and found != expected:
                raise Failure(f"{self}: its {what} is not {expected!r}")
        if self.code != code:
            raise Failure(f"{self}: not {code}")
        return self

    @property
    def json(self):
        try:
            return json.loads(self.out)
        except ValueError:
            raise Failure(f"{self}: no JSON") from None

    def __str__(self):
        return f"{' '.join(self.command)}: exit {self.code}\n       output {self.out[-700:]!r}\n       complaint {self.err[-700:]!r}"


def program(*command, stdin="", seconds=300, env=None, shown=None):
    """Runs a program to its end."""
    env = dict(os.environ if env is None else env)
    # Who would clear the screen for a terminal does not.
    env.pop("TERM", None)
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False, env=env)
    return Said(shown or command, done)


def raises(error, call, *arguments, **words):
    """The error that a call must end with."""
    try:
        value = call(*arguments, **words)
    except error as raised:
        return raised
    raise Failure(f"{call.__name__}{arguments}: {value!r} instead of {error.__name__}")
