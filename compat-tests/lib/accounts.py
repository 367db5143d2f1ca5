"""Accounts of the operating system for a walk-through; those that were made are removed at the end."""

import os
import pwd
import shutil

from world import run


def home(world, name):
    """The account's home directory for this walk alone: what an earlier walk or a person left in the real one is in nobody's way."""
    account = pwd.getpwnam(name)
    if account.pw_uid == 0:
        return account.pw_dir
    path = os.path.join(world.dir, "home", name)
    if not os.path.isdir(path):
        os.chmod(world.dir, 0o711)
        os.makedirs(path)
        shutil.chown(path, account.pw_uid, account.pw_gid)
    return path


class Accounts:
    def __init__(self, *names):
        self.names, self.made = names, []

    def __enter__(self):
        for name in self.names:
            try:
                pwd.getpwnam(name)
            except KeyError:
                run("useradd", "--no-create-home", "--shell", "/bin/bash", name)
                self.made.append(name)
        return self

    def __exit__(self, *_):
        for name in self.made:
            run("userdel", name, check=False)
