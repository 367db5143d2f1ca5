"""A world of its own for one test run: two hosts as network namespaces, a Docker daemon, our server, and the certainty that nothing stays.

* The *node* namespace holds a containerd, a dockerd and the server; this process and its threads move into it, so that loopback and the
  ports are the node's. The *client* namespace is another host: its resolv.conf names our server, and nothing else reaches the node.
* Everything lies below one directory and in two namespaces with this process's number in their names: `World.close` finds by these what
  is left (processes, mounts, loop devices), also after a failure, and touches nothing else.
* Needs root. Times are in seconds.
"""

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TOP = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
NODE_ADDRESS = "10.231.7.1"
CLIENT_ADDRESS = "10.231.7.2"
PREFIX = "xtao-test-"
CLONE_NEWNET = 0x40000000


class Failure(Exception):
    """What was expected did not happen; the text says what was seen instead."""


class Ended(Exception):
    """A program that should run has ended: there is nothing to wait for."""


def until(what, probe, seconds=30.0, pause=0.05):
    """Asks `probe` until it gives something true, and returns that. `probe` may raise Failure or OSError to say 'not yet, because'."""
    deadline = time.monotonic() + seconds
    last = None
    while True:
        try:
            value = probe()
            if value:
                return value
            last = value
        except (Failure, OSError, http.client.HTTPException) as error:
            last = error
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds:g} s; last seen: {str(last)[:600]}")
        time.sleep(pause)


def binary():
    """The program under test."""
    return os.environ.get("XTAO_BINARY", os.path.join(TOP, "target", "debug", "xtao"))


def run(*command, check=True, seconds=60, stdin=None, env=None):
    """A command to its end; its output as text. Failure when it does not exit with 0 (unless told not to check)."""
    done = subprocess.run(command, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=seconds, text=True, errors="replace", env=env)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(command)}: exit {done.returncode}: {done.stdout.strip()[-800:]}")
    return done.stdout


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout=60):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(connection, method, path, body=None, headers=None):
    """One exchange: (status, headers, parsed body or text). `body`: text as it is, anything else as JSON."""
    headers = dict(headers or {})
    if body is not None:
        if not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    try:
        parsed = json.loads(text) if text else None
    except ValueError:
        parsed = text
    return answer.status, dict(answer.getheaders()), parsed


class Process:
    """A long-lived program of this world, with a log file of its own."""

    def __init__(self, name, command, log, env=None):
        self.name, self.command, self.log, self.env = name, command, log, env
        self.popen = None

    def start(self):
        with open(self.log, "ab") as log:
            # A session of its own: a Ctrl-C at the terminal is ours to handle, not theirs.
            self.popen = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True)

    @property
    def pid(self):
        return self.popen.pid

    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def signal(self, number):
        if self.running():
            self.popen.send_signal(number)

    def kill(self):
        """kill -9, and gone when this returns."""
        self.signal(signal.SIGKILL)
        if self.popen:
            self.popen.wait()

    def stop(self, seconds=20):
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            if self.popen:
                self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, lines=15):
        try:
            with open(self.log, errors="replace") as log:
                return "".join(log.readlines()[-lines:])
        except OSError:
            return ""


class World:
    def __init__(self, name, keep_logs=None):
        if os.geteuid() != 0:
            sys.exit("error: this test must run as root: it makes network namespaces, mounts and containers")
        # Told to end, a run still cleans up: `with` sees it as an exit.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
        self.name = name
        self.keep_logs = keep_logs or os.path.join(TOP, "target", "test-logs", name)
        sweep()
        self.dir = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=os.environ.get("XTAO_TEST_DIR", "/var/tmp"))
        self.node, self.client = f"xtn{os.getpid()}", f"xtc{os.getpid()}"
        self.socket = os.path.join(self.dir, "docker.sock")
        self.work_dir = os.path.join(self.dir, "work")
        self.processes = []
        self.containerd = self.dockerd = self.server = None
        self.docker_options, self.server_options = [], []
        try:
            self._make_hosts()
        except BaseException:
            self.close()
            raise

    # === the two hosts ===

    def _make_hosts(self):
        run("ip", "netns", "add", self.node)
        run("ip", "netns", "add", self.client)
        run("ip", "-n", self.node, "link", "add", "xt0", "type", "veth", "peer", "name", "xt1", "netns", self.client)
        for host, device, address in ((self.node, "xt0", NODE_ADDRESS), (self.client, "xt1", CLIENT_ADDRESS)):
            run("ip", "-n", host, "link", "set", "lo", "up")
            run("ip", "-n", host, "address", "add", f"{address}/24", "dev", device)
            run("ip", "-n", host, "link", "set", device, "up")
        os.makedirs(f"/etc/netns/{self.client}", exist_ok=True)
        with open(f"/etc/netns/{self.client}/resolv.conf", "w") as file:
            file.write(f"nameserver {NODE_ADDRESS}\noptions timeout:2 attempts:2\n")
        self.outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with open(f"/var/run/netns/{self.node}") as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def from_client(self, *command, **options):
        """A command on the other host."""
        return run("ip", "netns", "exec", self.client, *command, **options)

    # === Docker ===

    def start_docker(self, *options):
        """A containerd and a dockerd that nobody else uses. `options` are kept for later starts."""
        if options:
            self.docker_options = list(options)
        if self.containerd is None:
            config = os.path.join(self.dir, "containerd.toml")
            with open(config, "w") as file:
                file.write(f'version = 2\nroot = "{self.dir}/containerd"\nstate = "{self.dir}/containerd-run"\n'
                           f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.dir}/containerd.sock"\n')
            self.containerd = self._process("containerd", ["containerd", "--config", config])
        if not self.containerd.running():
            self.containerd.start()
            until("containerd's socket", lambda: os.path.exists(f"{self.dir}/containerd.sock"), 20)
        if self.dockerd is None:
            self.dockerd = self._process("dockerd", [])
        self.dockerd.command = ["dockerd", "--containerd", f"{self.dir}/containerd.sock", "--data-root", f"{self.dir}/docker", "--exec-root",
                                f"{self.dir}/docker-run", "--pidfile", f"{self.dir}/docker.pid", "--host", f"unix://{self.socket}",
                                *self.docker_options]
        if os.path.exists(f"{self.dir}/docker.pid"):
            os.unlink(f"{self.dir}/docker.pid")
        self.dockerd.start()
        self._until_up("Docker", self.dockerd, lambda: self.docker("GET", "/_ping"))

    def docker(self, method, path, body=None, timeout=60):
        """One call to Docker's API; Failure when it is refused."""
        connection = UnixConnection(self.socket, timeout)
        try:
            status, _, answer = ask(connection, method, path, body)
        finally:
            connection.close()
        if status >= 400:
            raise Failure(f"Docker: {method} {path}: {status} {answer}")
        return answer if answer is not None else status

    def containers(self, everything=True):
        return self.docker("GET", f"/containers/json?all={'true' if everything else 'false'}") or []

    def inside(self, container, *command):
        """The output of a command in a container."""
        return run("docker", "--host", f"unix://{self.socket}", "exec", container, *command)

    def make_images(self, *names):
        env = dict(os.environ, DOCKER_HOST=f"unix://{self.socket}")
        # The packages come from outside, where this namespace does not lead: that part runs in the machine's own.
        out = run("nsenter", f"--net=/proc/{os.getpid()}/fd/{self.outside}", os.path.join(TOP, "scripts", "make-images"), *names, seconds=1200, env=env)
        if out:
            print(out, end="", flush=True)

    # === our server ===

    def start_server(self, *options):
        """`options` replace those of earlier starts when there are any."""
        if options:
            self.server_options = list(options)
        if not os.access(binary(), os.X_OK):
            raise Failure(f"{binary()} is not there; build it with: cargo build")
        if self.server is None:
            env = {key: value for key, value in os.environ.items() if not key.startswith("MARATHON_")}
            self.server = self._process("server", [], env)
        self.server.command = [binary(), "serve", "--work_dir", self.work_dir, "--http_port", "8080", "--docker_host", f"unix://{self.socket}",
                               "--node_address", NODE_ADDRESS, "--hostname", "node1", "--dns_address", NODE_ADDRESS, "--dns_port", "53",
                               "--dns_http_port", "8123", *self.server_options]
        self.server.start()
        self._until_up("our server", self.server, lambda: self.api("GET", "/ping")[0] == 200)

    def api(self, method, path, body=None, headers=None, timeout=30):
        """One call to our API: (status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=timeout)
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    # === the end ===

    def _process(self, name, command, env=None):
        process = Process(name, command, os.path.join(self.dir, f"{name}.log"), env)
        self.processes.append(process)
        return process

    def _until_up(self, what, process, probe, seconds=60):
        def up():
            if not process.running():
                raise Ended(f"{what} ended at its start (exit {process.popen.returncode}); its log ends with\n{process.tail()}")
            return probe()
        until(f"{what} to answer", up, seconds)

    def close(self):
        """Ends and removes everything that this world made. Says what it could not."""
        if self.server:
            self.server.stop()
        if self.dockerd and self.dockerd.running():
            self.dockerd.signal(signal.SIGCONT)
            try:
                for container in self.containers():
                    self.docker("DELETE", f"/containers/{container['Id']}?force=true&v=true")
            except (Failure, OSError, http.client.HTTPException) as error:
                print(f"cleaning up: {error}", file=sys.stderr)
        for process in (self.dockerd, self.containerd):
            if process:
                process.stop()
        os.makedirs(self.keep_logs, exist_ok=True)
        for process in self.processes:
            if os.path.exists(process.log):
                shutil.copy(process.log, self.keep_logs)
        remove(self.dir, (self.node, self.client))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def sweep():
    """Removes the worlds of processes that were killed before they could do so."""
    base = os.environ.get("XTAO_TEST_DIR", "/var/tmp")
    for name in os.listdir(base):
        owner = name[len(PREFIX):].split("-")[0]
        if name.startswith(PREFIX) and owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            print(f"removing {base}/{name}, left by a run that was killed", flush=True)
            remove(f"{base}/{name}", (f"xtn{owner}", f"xtc{owner}"))


def remove(directory, namespaces):
    """Processes, mounts, loop devices and files below `directory`, and the namespaces."""
    for _ in range(100):
        pids = left_processes(directory)
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split()[4] for line in file]
    for mount in reversed(mounts):
        if mount.startswith(directory + "/"):
            run("umount", "--lazy", mount, check=False)
    for device in loop_devices():
        if device["file"].startswith(directory + "/"):
            run("losetup", "--detach", device["path"], check=False)
    for namespace in namespaces:
        if os.path.exists(f"/var/run/netns/{namespace}"):
            run("ip", "netns", "delete", namespace, check=False)
        shutil.rmtree(f"/etc/netns/{namespace}", ignore_errors=True)
    run("chattr", "-R", "-f", "-i", directory, check=False)
    run("rm", "-rf", "--one-file-system", directory, check=False, seconds=300)
    if os.path.exists(directory):
        print(f"cleaning up: {directory} could not be removed", file=sys.stderr)


def left_processes(directory):
    """Those whose command line, environment (a task's sandbox) or root file system lies below `directory`, this process and its parents excepted."""
    mine, pid = set(), os.getpid()
    while pid > 1:
        mine.add(pid)
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rsplit(")", 1)[1].split()[1])
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in mine:
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as command, open(f"/proc/{name}/environ", "rb") as environment:
                if directory.encode() + b"/" in command.read() + b"\0" + environment.read():
                    found.append(int(name))
                    continue
            with open(f"/proc/{name}/mountinfo") as file:
                if any(line.split()[4] == "/" and directory + "/" in line for line in file):
                    found.append(int(name))
        except OSError:
            continue
    return found


def loop_devices():
    """Every loop device in use: its path, number (major:minor) and the file behind it."""
    found = []
    for name in os.listdir("/sys/block"):
        if not name.startswith("loop"):
            continue
        try:
            with open(f"/sys/block/{name}/loop/backing_file") as file:
                backing = file.read().strip()
            with open(f"/sys/block/{name}/dev") as file:
                found.append({"path": f"/dev/{name}", "number": file.read().strip(), "file": backing})
        except OSError:
            continue
    return found
