"""Attacks in Python: what is about memory and about sockets of Unix. Each answers {"took"} or {"refused"}."""

import array
import os
import re
import socket

SEARCHED_BYTES_MAX = 512 * 1024 * 1024


def handler(event, context):
    try:
        return {"took": str(ATTACKS[event["attack"]](*event["args"]))[:4000]}
    except OSError as error:
        return {"refused": f"{event['attack']}: {os.strerror(error.errno or 0)} ({error.errno})"}
    except Nothing as error:
        return {"refused": str(error)}


class Nothing(Exception):
    """Nothing was found."""


def memory(pids, pattern):
    """Every match in the memory of these processes, or of all that can be seen where none are named."""
    found = set()
    refused = "there is no such process"
    for pid in pids or [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]:
        try:
            found |= matches(pid, re.compile(pattern.encode()))
        except OSError as error:
            refused = os.strerror(error.errno)
    if not found:
        raise Nothing(f"memory: {refused}")
    return " ".join(sorted(found))


def matches(pid, pattern):
    found = set()
    left = SEARCHED_BYTES_MAX
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb", 0) as content:
        for line in maps:
            begin, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
            if line.split(" ")[1][:2] != "rw" or end - begin > left:
                continue
            left -= end - begin
            try:
                content.seek(begin)
                found |= {match.decode("latin-1") for match in pattern.findall(content.read(end - begin))}
            except (OSError, ValueError):
                continue
    return found


def connect(name, is_abstract):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + name if is_abstract else name)
    return "connected"


def own_memory(pattern):
    """Every match in what is left of others in this very process."""
    found = matches("self", re.compile(pattern.encode()))
    if not found:
        raise Nothing("memory: nothing was found")
    return " ".join(sorted(found))


def descriptors(count):
    """So many open files go to the engine, with a byte that begins a frame like any other."""
    channel = socket.socket(fileno=os.dup(3))
    files = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(count)])
    # LOG outside any invocation: one of its 9 bytes of head would be enough to be refused, so it is whole.
    frame = (9).to_bytes(4, "little") + bytes(4) + bytes([22, 0, 0, 0]) + bytes(8) + b"\1"
    channel.setblocking(True)
    sent = channel.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    for file in files:
        os.close(file)
    return sent


ATTACKS = {"memory": memory, "own memory": own_memory, "connect": connect, "descriptors": descriptors}
