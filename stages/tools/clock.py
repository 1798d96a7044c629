"""Runs inside the sandbox: the clock and the random numbers of the system, as deterministic tools have them.

The clock starts at the same time in each call and goes on by a millisecond a reading, so that loops which wait for a
time end. What a Python program reads by the standard library is covered; files of the system are not.
"""

import ctypes
import datetime
import gc
import os
import random
import time
import uuid
from typing import Any

START_NS = 1_767_225_600 * 10**9  # 2026-01-01 00:00 UTC
STEP_NS = 10**6
PID = 2
CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
FORMATS = ("gmtime", "localtime", "ctime")  # of the present time where no other is stated


class Clock:
    """The time, which goes on with each reading."""

    def __init__(self) -> None:
        self._now_ns = START_NS

    def ns(self, *_: Any) -> int:
        self._now_ns += STEP_NS
        return self._now_ns

    def seconds(self, *_: Any) -> float:
        return self.ns() / 10**9

    def skip(self, seconds: float) -> None:
        self._now_ns += int(seconds * 10**9)


def fix() -> dict[str, Any]:
    """Replace the clock and the random numbers of the system in this process. Returns builtins for the tool's code."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    _fix_time(Clock())
    _fix_numbers(random.Random(0))
    modules: Any = os
    modules.getpid = modules.getppid = lambda: PID
    for name in ("stat", "lstat", "fstat"):
        real = getattr(os, name)
        setattr(modules, name, _timeless(real))
        for functions in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):
            if real in functions:
                functions.add(getattr(os, name))
    return {"id": Ids().number}


def _timeless(stat: Any) -> Any:
    """A function of files whose files all have the time at which the clock starts."""
    seconds = START_NS // 10**9
    times: dict[str, float] = {f"st_{kind}time": float(seconds) for kind in "amc"}
    times |= {f"st_{kind}time_ns": START_NS for kind in "amc"}

    def timeless(*arguments: Any, **options: Any) -> os.stat_result:
        info = stat(*arguments, **options)
        others = {name: getattr(info, name) for name in ("st_blksize", "st_blocks", "st_rdev")}
        return os.stat_result((*info[:7], seconds, seconds, seconds), {**others, **times})

    return timeless


class Ids:
    """Numbers objects in the order in which they are asked for, in place of their addresses."""

    def __init__(self) -> None:
        self._objects: dict[int, tuple[int, Any]] = {}  # kept, or a new object could have the address of an old one

    def number(self, value: Any) -> int:
        return self._objects.setdefault(id(value), (len(self._objects) + 1, value))[0]


def _fix_time(clock: Clock) -> None:
    functions: Any = time
    for name in CLOCKS:
        setattr(functions, name, clock.seconds)
        setattr(functions, f"{name}_ns", clock.ns)
    functions.clock_gettime, functions.clock_gettime_ns = clock.seconds, clock.ns
    modules: Any = os
    modules.times = lambda: os.times_result((0.0, 0.0, 0.0, 0.0, clock.seconds()))
    sleep, strftime, asctime = time.sleep, time.strftime, time.asctime

    def present(function: Any) -> Any:
        return lambda seconds=None: function(clock.seconds() if seconds is None else seconds)

    def sleeping(seconds: float) -> None:
        sleep(seconds)
        clock.skip(seconds)

    for name in FORMATS:
        setattr(functions, name, present(getattr(time, name)))
    functions.sleep = sleeping
    functions.strftime = lambda form, *parts: strftime(form, *(parts or (time.localtime(),)))
    functions.asctime = lambda *parts: asctime(*(parts or (time.localtime(),)))
    _replace(
        datetime.datetime,
        now=lambda cls, tz=None: cls.fromtimestamp(clock.seconds(), tz),
        utcnow=lambda cls: cls.fromtimestamp(clock.seconds()),
        today=lambda cls: cls.fromtimestamp(clock.seconds()),
    )
    _replace(datetime.date, today=lambda cls: cls.fromtimestamp(clock.seconds()))


def _replace(kind: type, **functions: Any) -> None:
    """Replace class methods of a type in C. A subclass would not be the type of the dates that it makes."""
    (methods,) = (each for each in gc.get_referents(kind.__dict__) if isinstance(each, dict))
    for name, function in functions.items():
        methods[name] = classmethod(function)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))


def _fix_numbers(numbers: random.Random) -> None:
    modules: Any = os
    draw, seed = numbers.randbytes, random.Random.seed
    modules.urandom = modules.getrandom = lambda size, *_: draw(size)
    modules = random
    modules._urandom = os.urandom

    def seeded(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed(self, int.from_bytes(draw(16), "little") if a is None else a, version)

    modules.Random.seed = seeded
    modules.seed = modules._inst.seed
    modules = uuid
    modules._generate_time_safe = modules._UuidCreate = None
    modules._node = 0
