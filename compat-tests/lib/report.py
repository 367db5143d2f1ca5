"""Runs the steps of a walk-through in order, prints each with its time, and a closing line that tells how many passed."""

import contextlib
import sys
import time
import traceback

from world import Ended, Failure, World


def walk(name, steps, around=contextlib.nullcontext()):
    """A whole walk-through: `steps(world, report)` in a world of its own, within the context `around`. Does not return."""
    report = Report()
    with around, World(name) as world:
        steps(world, report)
    sys.exit(report.close())


class Report:
    def __init__(self):
        self.passed, self.failed = 0, []

    def step(self, title, action, *arguments):
        """One step; a failed one is told at once and the rest goes on. Gives what the action gave, None when it failed."""
        began = time.monotonic()
        try:
            value = action(*arguments)
        except Exception as error:
            self.failed.append(title)
            print(f"FAIL {time.monotonic() - began:6.1f} s  {title}\n       {type(error).__name__}: {error}", flush=True)
            if not isinstance(error, (Failure, Ended)):
                traceback.print_exc(limit=-3, file=sys.stdout)
            return None
        self.passed += 1
        print(f"ok   {time.monotonic() - began:6.1f} s  {title}", flush=True)
        return value

    def need(self, title, action, *arguments):
        """A step without which the rest makes no sense: when it fails, the run ends here (and what it made is still removed)."""
        failed = len(self.failed)
        value = self.step(title, action, *arguments)
        if len(self.failed) > failed:
            sys.exit(self.close())
        return value

    def close(self):
        """The closing line; the exit code."""
        for title in self.failed:
            print(f"failed: {title}")
        print(f"{self.passed} passed, {len(self.failed)} failed", flush=True)
        return 1 if self.failed or not self.passed else 0
