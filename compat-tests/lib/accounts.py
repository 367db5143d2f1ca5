"""Accounts of the operating system for a walk-through; those that were made are removed at the end."""

import pwd

from world import run


class Accounts:
    def __init__(self, *names):
        self.names, self.made = names, []

    def __enter__(self):
        for name in self.names:
            try:
                pwd.getpwnam(name)
            except KeyError:
                run("useradd", "--create-home", "--shell", "/bin/bash", name)
                self.made.append(name)
        return self

    def __exit__(self, *_):
        for name in self.made:
            run("userdel", "--remove", name, check=False)
