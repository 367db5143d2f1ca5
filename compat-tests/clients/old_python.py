"""Clients that were written for an older Python: gives `collections` its abstract classes back, and starts a client's main function.

    old_python.py MODULE NAME [ARGUMENT...]      as if NAME had been called; MODULE has a function main
"""

import collections
import collections.abc
import importlib
import sys

for name in collections.abc.__all__:
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))

if __name__ == "__main__":
    module = sys.argv.pop(1)
    del sys.argv[0]
    sys.exit(importlib.import_module(module).main())
