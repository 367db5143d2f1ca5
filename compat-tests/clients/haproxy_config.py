"""A configuration of haproxy from Marathon's apps, as marathon-lb makes it: a listener on the loopback for each service port of the apps of a group, with
a server for each task that may have traffic; and one that chooses the app by the name in the request (label HAPROXY_n_VHOST)."""

HEAD = """global
    maxconn 256
    stats socket {directory}/haproxy.sock mode 600 level admin expose-fd listeners
defaults
    timeout connect 2s
    timeout client 20s
    timeout server 20s
    retries 10
    option redispatch 1
    balance roundrobin
"""


def service_ports(app):
    """The ports under which an app is to be reached, in the order of its tasks' ports."""
    container = app.get("container") or {}
    if "portMappings" in container:
        return [mapping["servicePort"] for mapping in container["portMappings"]]
    return [definition["port"] for definition in app.get("portDefinitions", [])]


def may_have_traffic(app, task):
    if task["state"] != "TASK_RUNNING":
        return False
    results = task.get("healthCheckResults", [])
    return not app.get("healthChecks") or len(results) >= 1 and all(result["alive"] for result in results)


def servers(app, index, resolve):
    """Names and addresses of an app's servers behind its service port number `index`."""
    tasks = sorted((task for task in app["tasks"] if may_have_traffic(app, task)), key=lambda task: task["id"])
    return [(task["id"], f"{resolve(task['host'])}:{task['ports'][index]}") for task in tasks]


def configuration(apps, group, directory, vhost_port, resolve):
    """The whole text. `directory`: for haproxy's socket; `resolve`: from a node's name to its address."""
    parts, front, vhosts = [HEAD.format(directory=directory)], [], []
    for app in sorted(apps, key=lambda app: app["id"]):
        labels = app.get("labels", {})
        if labels.get("HAPROXY_GROUP") != group:
            continue
        for index, port in enumerate(service_ports(app)):
            name = f"{app['id'].strip('/').replace('/', '_')}_{port}"
            mode = labels.get(f"HAPROXY_{index}_MODE", "tcp")
            lines = [f"backend {name}", f"    mode {mode}"]
            if mode == "http":
                # A task that has just ended is no reason to fail.
                lines += ["    retry-on all-retryable-errors", "    option httpchk GET /"]
            lines += [f"    server {task} {address} check inter 500ms" for task, address in servers(app, index, resolve)]
            parts.append("\n".join(lines) + "\n")
            parts.append(f"frontend {name}_in\n    mode {mode}\n    bind 127.0.0.1:{port}\n    default_backend {name}\n")
            vhost = labels.get(f"HAPROXY_{index}_VHOST")
            if vhost:
                vhosts.append(f"    use_backend {name} if {{ hdr(host) -i {vhost} }}\n")
    if vhosts:
        front = [f"frontend by_name\n    mode http\n    bind 127.0.0.1:{vhost_port}\n", *vhosts]
    return "".join(parts + front)
