"""Installs the requirements of a package: `build.py REQUIREMENTS TARGET`. Runs in a build sandbox, never beside user code."""

import compileall
import os
import subprocess
import sys


def main(requirements, target):
    try:
        import pip  # noqa: F401
    except ImportError:
        version = "%d.%d" % sys.version_info[:2]
        print("pip is missing for Python %s; install it, as with: apt-get install python3-pip" % version, file=sys.stderr)
        return 1
    command = [sys.executable, "-m", "pip", "install", "--target", target, "-r", requirements]
    command += ["--no-compile", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--upgrade"]
    # pip would compare with packages of the machine, which functions never see.
    command.append("--no-warn-conflicts")
    if os.geteuid() == 0:
        command.append("--root-user-action=ignore")
    status = subprocess.call(command)
    if status != 0:
        return status
    os.makedirs(target, exist_ok=True)
    # Bytecode that counts whatever the files' times are: they change when the result is kept and mounted.
    compileall.compile_dir(target, quiet=2, invalidation_mode=_unchecked())
    return 0


def _unchecked():
    from py_compile import PycInvalidationMode

    return PycInvalidationMode.UNCHECKED_HASH


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
