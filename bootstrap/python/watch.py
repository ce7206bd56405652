"""Keeps an instance answering while its handlers keep every thread busy.

Sleeps unless something runs. Then it looks every few milliseconds whether the channel has been left unread, and reads it itself:
PING is answered, CANCEL is noted, new work is handed on. It also writes output that was held back to be joined.
"""

import threading
from select import POLLIN, poll
from time import sleep

TICK_S = 0.01
# Ticks without anything running after which the watch sleeps.
TICKS_IDLE_MAX = 100


class Watch:
    def __init__(self, instance):
        self._instance = instance
        self._awake = threading.Event()
        self._input = poll()
        self._input.register(instance.channel.descriptor, POLLIN)
        threading.Thread(target=self._run, name="koine-watch", daemon=True).start()

    def wake(self):
        """To be called once there is something to watch. Cheap when awake, which it is while invocations follow each other."""
        if not self._awake.is_set():
            self._awake.set()

    def _run(self):
        while True:
            self._awake.wait()
            self._look()

    def _look(self):
        instance = self._instance
        idle = 0
        reads = -1
        while True:
            sleep(TICK_S)
            if instance.channel.waiting:
                instance.channel.flush()
            if reads == instance.reads and not instance.lost:
                if self._input.poll(0) and instance.begin_reading():
                    try:
                        instance.pump()
                    finally:
                        instance.end_reading()
                if instance.runner is not None:
                    instance.runner.relieve()
            reads = instance.reads
            idle = 0 if instance.loading or instance.invocations else idle + 1
            if idle > TICKS_IDLE_MAX:
                self._awake.clear()
                if not instance.invocations:
                    return
                self._awake.set()
