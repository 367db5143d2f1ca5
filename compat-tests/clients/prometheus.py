"""Prometheus' discovery of Marathon's tasks, as `promtool check service-discovery` of Debian's prometheus shows it."""

import json
import os
import subprocess

from common import ADDRESS, NOBODY, Failure, Marathon, equal, giant, sleeper, web

# It waits for so long, whatever it has found.
SECONDS = 2
META = "__meta_marathon_"


class Section:
    def __init__(self, world):
        self.world, self.api = world, Marathon(world)
        self.found, self.err = {}, {}

    def discover(self, **jobs):
        """Asks for all jobs at once: `found` and `err` of each."""
        path = os.path.join(self.world.dir, "prometheus.yml")
        with open(path, "w") as file:
            # JSON is YAML.
            json.dump({"scrape_configs": [{"job_name": name, **job} for name, job in jobs.items()]}, file)
        command = lambda job: ["promtool", "check", "service-discovery", f"--timeout={SECONDS}s", path, job]
        running = {job: subprocess.Popen(command(job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for job in jobs}
        for job, popen in running.items():
            out, self.err[job] = popen.communicate(timeout=300)
            equal(popen.returncode, 0, job)
            self.found[job] = json.loads(out) or []

    def targets(self, app, job="all"):
        """The labels of an app's targets, by task and port index."""
        mine = [one["discoveredLabels"] for one in self.found[job] if one["discoveredLabels"].get(META + "app") == app]
        return sorted(mine, key=lambda labels: (labels[META + "task"], labels[META + "port_index"]))

    def check(self, app, *expected):
        """Exactly these targets, each with the address and what else the app says, beside the task and the index of the port."""
        tasks = sorted(self.api.tasks(app), key=lambda task: task["id"])
        wanted, ports = [], len(expected)
        for task in tasks:
            for index in range(ports):
                address, more = expected[index](task)
                labels = {"__address__": address, META + "app": app, META + "task": task["id"], META + "port_index": str(index)}
                wanted.append({**labels, **{META + name: value for name, value in more.items()}})
        own = lambda labels: {name: value for name, value in labels.items() if name.startswith(META) or name == "__address__"}
        equal([own(labels) for labels in self.targets(app)], wanted)

    def begun(self):
        self.world.docker("POST", "/networks/create", {"Name": "prometheus"})
        two = [{"port": 0, "name": "metrics", "labels": {"scrape": "yes"}}, {"port": 0, "name": "other"}]
        self.api.create(sleeper("/prom/host", portDefinitions=two, labels={"team": "a-b"}))
        self.api.create(sleeper("/prom/required", portDefinitions=[{"port": 31777}], requirePorts=True))
        self.api.create(sleeper("/prom/portless", portDefinitions=[]))
        self.api.create(sleeper("/prom/suspended", 0))
        bridged = web("/prom/bridge", 2, labels={"scrape": "yes"})
        bridged["container"]["portMappings"] = [{"containerPort": 80, "hostPort": 0, "labels": {"path": "/"}}, {"containerPort": 81, "hostPort": 0}]
        self.api.create(bridged)
        inside = web("/prom/container", networks=[{"mode": "container", "name": "prometheus"}])
        inside["container"]["portMappings"] = [{"containerPort": 80}]
        self.api.create(inside)
        self.api.ask("POST", "/v2/apps", giant("/prom/giant"), expect=(201,))
        servers = [{"servers": [f"http://{ADDRESS}"]}]
        keep = {"source_labels": [META + "app_label_scrape"], "regex": "yes", "action": "keep"}
        app = {"source_labels": [META + "app"], "regex": "/(.*)", "target_label": "app"}
        self.discover(
            all={"marathon_sd_configs": servers},
            alias={"marathon_sd_configs": [{"servers": [f"http://{ADDRESS}/service/marathon"]}]},
            kept={"marathon_sd_configs": servers, "relabel_configs": [keep, app]},
            nobody={"marathon_sd_configs": [{"servers": [f"http://{NOBODY}"]}]},
            nowhere={"marathon_sd_configs": [{"servers": [f"http://{ADDRESS}/nowhere"]}]},
        )

    def host(self):
        self.check("/prom/host",
                   lambda task: (f"node1:{task['ports'][0]}", {"app_label_team": "a-b", "port_definition_label_scrape": "yes"}),
                   lambda task: (f"node1:{task['ports'][1]}", {"app_label_team": "a-b"}))

    def bridge(self):
        more = {"image": "xtao/web", "app_label_scrape": "yes"}
        self.check("/prom/bridge",
                   lambda task: (f"node1:{task['ports'][0]}", {**more, "port_mapping_label_path": "/"}),
                   lambda task: (f"node1:{task['ports'][1]}", more))
        equal(len(self.targets("/prom/bridge")), 4)

    def container(self):
        self.check("/prom/container", lambda task: (f"{task['ipAddresses'][0]['ipAddress']}:80", {"image": "xtao/web"}))

    def required(self):
        self.check("/prom/required", lambda task: ("node1:31777", {}))

    def none(self):
        for app in ("/prom/portless", "/prom/suspended", "/prom/giant"):
            equal(self.targets(app), [])
        apps = {one["discoveredLabels"][META + "app"] for one in self.found["all"]}
        equal(apps, {"/prom/host", "/prom/required", "/prom/bridge", "/prom/container"})

    def alias(self):
        without_job = lambda found: sorted(({**one["discoveredLabels"], "job": ""} for one in found), key=str)
        equal(without_job(self.found["alias"]), without_job(self.found["all"]))

    def kept(self):
        kept = [one["labels"] for one in self.found["kept"] if one["labels"]]
        equal((len(kept), {labels["app"] for labels in kept}), (4, {"prom/bridge"}))
        equal({labels["instance"] for labels in kept}, {labels["__address__"] for labels in kept})

    def failures(self):
        equal((self.found["nobody"], self.found["nowhere"]), ([], []))
        for job, words in (("nobody", "connection refused"), ("nowhere", "non 2xx status '404' response during marathon service discovery")):
            if words not in self.err[job]:
                raise Failure(f"{job}: {self.err[job]}")

    def follows(self):
        self.api.change("PUT", "/v2/apps/prom/bridge", {"instances": 1})
        self.api.running("/prom/bridge", 1)
        self.api.change("PUT", "/v2/apps/prom/suspended", {"instances": 2})
        self.api.running("/prom/suspended", 2)
        self.discover(all={"marathon_sd_configs": [{"servers": [f"http://{ADDRESS}"]}]})
        more = {"image": "xtao/web", "app_label_scrape": "yes"}
        self.check("/prom/bridge", lambda task: (f"node1:{task['ports'][0]}", {**more, "port_mapping_label_path": "/"}),
                   lambda task: (f"node1:{task['ports'][1]}", more))
        self.check("/prom/suspended", lambda task: (f"node1:{task['ports'][0]}", {}))
        equal((len(self.targets("/prom/bridge")), len(self.targets("/prom/suspended"))), (2, 2))
        self.api.ask("DELETE", "/v2/groups/prom?force=true")

    STEPS = [
        ("apps in every kind of network are there, and promtool has asked for them", begun),
        ("host network: a target for each port, with its labels", host),
        ("bridge: the node's ports", bridge),
        ("a network of Docker's: the container's address and port", container),
        ("requirePorts: the port that was asked for", required),
        ("no targets without ports, instances, or room", none),
        ("the same through /service/marathon", alias),
        ("relabelling keeps an app by its label", kept),
        ("no server, no such path", failures),
        ("targets come and go with tasks", follows),
    ]
