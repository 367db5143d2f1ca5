#!/usr/bin/env python3
"""Existing clients of Marathon, each in everything that it can do, against a real server with real Docker. They are used as they are published.

    scripts/with-clients compat-tests/clients/walk.py [SECTION...]        as root; logs in target/test-logs/clients
"""

import sys
import time

import old_python  # noqa: F401  before any client is imported
import common  # noqa: F401  it finds the helpers of all walks
from report import walk

import balancer
import dcos_marathon
import event_bus
import marathon_deploy_tool
import marathon_python
import prometheus
import strangers

SECTIONS = [
    ("dcos", "dcos marathon 0.6.1", dcos_marathon.Section),
    ("python", "marathon-python 0.13.0", marathon_python.Section),
    ("deploy", "marathon-deploy 3.0.2", marathon_deploy_tool.Section),
    ("events", "marathon-event-bus-client 0.1.7", event_bus.Section),
    ("promtool", "promtool of Debian's prometheus", prometheus.Section),
    ("haproxy", "Debian's haproxy", balancer.Section),
    ("strangers", "all of them with a password", strangers.Section),
]


def steps(world, report):
    def begun():
        world.start_docker()
        world.make_images("xtao/web")
        world.start_server()

    wanted = sys.argv[1:]
    report.need("Docker, the image and the server are there", begun)
    for name, title, section in SECTIONS:
        if wanted and name not in wanted:
            continue
        began, before, failed = time.monotonic(), report.passed, len(report.failed)
        print(f"-- {title}", flush=True)
        made = section(world)
        for text, step in section.STEPS:
            report.step(text, step, made)
        print(f"= {title}: {report.passed - before} checks, {len(report.failed) - failed} failed, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    walk("clients", steps)
