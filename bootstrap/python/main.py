"""Entry of an instance: announces itself on descriptor 3, then gets ready for its specialisation.

Only modules that are built into the interpreter are imported before READY; the rest is imported while nothing is asked of us yet.
"""

import posix
import sys

CHANNEL = 3
PACKAGE = "koine_bootstrap"


def main():
    posix.set_inheritable(CHANNEL, False)
    announce()
    open_package(__file__.rpartition("/")[0])
    from koine_bootstrap.instance import Instance

    adapters, sys.argv[1:] = sys.argv[1:], []
    Instance(CHANNEL).live(adapters)


def announce():
    version = "%d.%d.%d" % sys.version_info[:3]
    payload = b'{"protocol":1,"language":"python","version":"%s","invokesEarly":true}' % version.encode()
    posix.write(CHANNEL, len(payload).to_bytes(4, "little") + b"\0\0\0\0\x10\0\0\0" + payload)


def open_package(folder):
    """Makes our modules importable under one name of their own, so that a user's `frames.py` or `load.py` stays the user's."""
    package = type(sys)(PACKAGE)
    package.__path__ = [folder]
    sys.modules[PACKAGE] = package


if __name__ == "__main__":
    main()
