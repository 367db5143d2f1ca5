"""Clients that were written for an older Python: gives `collections` its abstract classes back, and starts a client's main function.

    old_python.py MODULE NAME [ARGUMENT...]      as if NAME had been called; MODULE has a function main
"""

import collections
import collections.abc
import importlib
import os
import subprocess
import sys
import tempfile
import traceback
import warnings

for name in collections.abc.__all__:
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))


def main_of(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module).main


def started(module, words, stdin, env):
    """As `subprocess.run`, but in a copy of this process, which has the module already: most of a short command's time is Python's own beginning."""
    main = main_of(module)
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        given.write(stdin)
        given.seek(0)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            become(main, words, (given, out, err), env)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(words, status, *texts)


def become(main, words, files, env):
    """Never returns."""
    code = 70
    try:
        for number, file in enumerate(files):
            os.dup2(file.fileno(), number)
        sys.stdin = open(0)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = list(words)
        code = main() or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        if code and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  a copy must not go on as the original
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    module = sys.argv.pop(1)
    del sys.argv[0]
    sys.exit(main_of(module)())
