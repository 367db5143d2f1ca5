#!/usr/bin/env python3
"""Whatever the description of the API allows, and much that it does not, asked of a real server: schemathesis makes the requests from
/v2/openapi.json. There must be no answer of 5xx (two aside, see UNAVAILABLE), none with another status, media type or body than described, and
the server must go on.

    scripts/with-python compat-tests/surface/walk.py [--seconds N] [--seed N]      as root

Without --seconds it is a slice: the examples, and some made up for each operation. With it everything that schemathesis knows, for so long.

The node has no room for any task, so that nothing of what is made up is ever run.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
import world

USER = "tester:correct-horse"

# Not made up at random: the first ends the server, the second answers without end.
LEFT_OUT = ["deleteLeader", "getEvents"]

# Where a server like this one answers 5xx for good reason: its registry does not run, and Mesos-DNS itself has not made this route.
UNAVAILABLE = {"^/v2/images": "503", "^/mesos_dns/v1/.*/ports$": "501"}

# What is held against the description. That input which does not fit is refused, and that all other is taken, no description can say of Marathon's rules; nor
# that other methods are 405: where ids have any depth, "versions" and the like are ids to them, as in Marathon.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"


def run(place, seconds, seed):
    # No Docker: nothing is to run.
    place.start_server("--http_credentials", USER, "--agent_resources", "cpus:0.0001;mem:1")
    base = "http://127.0.0.1:8080"
    seed_something(place)
    config = os.path.join(place.dir, "schemathesis.toml")
    with open(config, "w") as file:
        file.write(configuration())
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run", f"{base}/v2/openapi.json", "--auth", USER, "--checks", CHECKS,
               "--workers", "1", "--request-timeout", "100", "--max-failures", "20", "--no-color", "--warnings", "off", "--suppress-health-check", "all"]
    command += ["--max-time", str(seconds)] if seconds else ["--phases", "examples,fuzzing", "--max-examples", "8"]
    for operation in LEFT_OUT:
        command += ["--exclude-operation-id", operation]
    if seed is not None:
        command += ["--seed", str(seed)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=(seconds or 300) * 3 + 120, cwd=place.dir)
    print(done.stdout, flush=True)
    if not place.server.running():
        raise world.Failure(f"the server has ended; its log ends with\n{place.server.tail()}")
    answers = classes(base)
    print("answers:", ", ".join(f"{count:.0f} of {kind}" for kind, count in sorted(answers.items())), flush=True)
    if answers["2xx"] < 50 or answers["4xx"] < 50:
        raise world.Failure("hardly anything was asked, or all of it in vain")
    if done.returncode != 0:
        raise world.Failure(f"schemathesis has found something (exit {done.returncode}); see above")


def configuration():
    """schemathesis' own, as TOML."""
    lines = ["[checks.not_a_server_error]", 'expected-statuses = ["2xx", "3xx", "4xx"]']
    for path, status in UNAVAILABLE.items():
        lines += ["[[operations]]", f"include-path-regex = '{path}'", f'checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "{status}"]']
    return "\n".join(lines) + "\n"


def seed_something(place):
    """What the examples name, so that not everything is asked of nothing."""
    headers = {"Authorization": "Basic " + base64.b64encode(USER.encode()).decode()}
    volume = {"containerPath": "/data", "mode": "RW", "brick": {"size": 64}}
    app = {"id": "/shop/web", "cmd": "sleep 1000", "env": {"WEBPORT": "@PORT"}, "container": {"type": "MESOS", "volumes": [volume]}}
    for method, path, body in (("POST", "/v2/apps", app), ("PUT", "/v2/apps/shop/db", {"cmd": "sleep 1000", "healthChecks": [{}]}),
                               ("PUT", "/v2/auth/users/anna", {"password": "correct horse battery staple"})):
        status, _, answer = place.api(method, path, body, headers)
        if status not in (200, 201):
            raise world.Failure(f"{method} {path}: {status} {answer}")


def classes(base):
    """How many answers there were of each class, by the server's own count."""
    request = urllib.request.Request(f"{base}/metrics")
    request.add_header("Authorization", "Basic " + base64.b64encode(USER.encode()).decode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        meters = json.load(answer)["meters"]
    name = "marathon.http.responses.{}.rate.meter"
    return {kind: meters[name.format(kind)]["count"] for kind in ("1xx", "2xx", "3xx", "4xx", "5xx")}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    with world.World("surface") as place:
        run(place, options.seconds, options.seed)
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
