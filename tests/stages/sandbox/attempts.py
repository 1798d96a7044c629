"""Programs that try to reach what is not theirs, by calls that Landlock governs in none or only some of its versions.

Names in braces are filled in by test_attempts.py: `victim` (a file that may not be read), `folder` (its folder),
`library` (a file that may be read), `helper` (the process id of another process). `call` makes a system call by its
number on x86_64 and raises OSError; `refused` checks that it fails with EPERM.
"""

PRELUDE = """
import ctypes, errno, fcntl, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    answer = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
def refused(number, *arguments):
    try:
        call(number, *arguments)
    except OSError as error:
        assert error.errno == errno.EPERM, error
    else:
        raise SystemExit("it was made")
victim, folder, library, helper = {victim!r}, {folder!r}, {library!r}, {helper}
path = os.fsencode(victim)
"""
READ = "end = os.open(library, os.O_RDONLY); "
PIPE = "r, w = os.pipe(); "

# Each ends with the verdict named, and changes nothing outside.
ATTEMPTS = {
    # Modes, owners and times, which no version of Landlock governs.
    "chmod of a file": ("os.chmod(victim, 0o777)", "error"),
    "chmod of a folder": ("os.chmod(folder, 0o777)", "error"),
    "chmod of a library": ("os.chmod(library, 0o777)", "error"),
    "chmod through a link": ("os.symlink(victim, 'a'); os.chmod('a', 0o777)", "error"),
    "chmod from another folder": ("os.chdir(folder); os.chmod(os.path.basename(victim), 0o777)", "error"),
    "chmod by a folder's descriptor": (
        "os.chmod(os.path.relpath(victim), 0o777, dir_fd=os.open('.', os.O_RDONLY))", "passed",
    ),
    "chmod of an open library": (READ + "os.fchmod(end, 0o777)", "passed"),
    "chmod of an open library by os.chmod": (READ + "os.chmod(end, 0o777)", "passed"),
    "chmod by a path in /proc": (READ + "call(90, f'/proc/self/fd/{end}'.encode(), 0o777)", "passed"),
    "chmod of the null device": ("os.fchmod(os.open('/dev/null', os.O_RDWR), 0o600)", "passed"),
    "chmod, raw": ("call(90, path, 0o777)", "passed"),
    "fchmodat, raw": ("call(268, -100, path, 0o777)", "passed"),
    "fchmodat2, raw": ("call(452, -100, path, 0o777, 0)", "passed"),
    "fchmodat2 of a descriptor": (READ + "call(452, end, b'', 0o777, 0x1000)", "passed"),
    "chmod, other numbering": ("refused(0x40000000 + 90, path, 0o777)", "passed"),
    "chown of a file": ("os.chown(victim, 1, 1)", "error"),
    "chown of a link": ("os.symlink(victim, 'a'); os.lchown('a', 1, 1)", "error"),
    "chown of an open library": (READ + "os.fchown(end, 1, 1)", "error"),
    "fchownat, raw": ("refused(260, -100, path, 1, 1, 0)", "passed"),
    "utime of a file": ("os.utime(victim, (1, 1))", "error"),
    "utime of a file, now": ("os.utime(victim)", "error"),
    "utime through a link": ("os.symlink(victim, 'a'); os.utime('a', (1, 1))", "error"),
    "utime of an open library": (READ + "os.utime(end, (1, 1))", "passed"),
    "utime, raw": ("call(132, path, struct.pack('qq', 1, 1))", "passed"),
    "utimes, raw": ("call(235, path, struct.pack('qqqq', 1, 0, 1, 0))", "passed"),
    "futimesat, raw": ("call(261, -100, path, struct.pack('qqqq', 1, 0, 1, 0))", "passed"),
    "utimensat, raw": ("call(280, -100, path, struct.pack('qqqq', 1, 0, 1, 0), 0)", "passed"),
    "touch of a file": ("from pathlib import Path; Path(victim).touch()", "error"),
    "an attribute": ("os.setxattr(victim, 'user.a', b'1')", "error"),
    "an attribute of an open library": (READ + "os.setxattr(end, 'user.a', b'1')", "error"),
    "attributes of a file": ("os.listxattr(victim)", "error"),
    "a flag of an open library": (READ + "fcntl.ioctl(end, 0x40086602, struct.pack('q', 0x10))", "error"),
    # Truncating, which Landlock governs from version 3 on.
    "truncate of a file": ("os.truncate(victim, 0)", "error"),
    "truncate of a library": ("os.truncate(library, 0)", "error"),
    "truncate, raw": ("refused(76, path, 0)", "passed"),
    "truncate of an open library": (READ + "os.ftruncate(end, 0)", "error"),
    "opening to truncate": ("os.open(victim, os.O_WRONLY | os.O_TRUNC)", "error"),
    "opening to read and truncate": ("os.open(victim, os.O_RDONLY | os.O_TRUNC)", "error"),
    "opening a library to read and truncate": ("os.open(library, os.O_RDONLY | os.O_TRUNC)", "error"),
    "the same by open, raw": ("refused(2, os.fsencode(library), 0o1000, 0)", "passed"),
    "opening with no access to truncate": ("os.open(victim, 3 | os.O_TRUNC)", "error"),
    "opening a library with no access to truncate": ("os.open(library, 3 | os.O_TRUNC)", "error"),
    "opening with no access": ("os.open(victim, 3)", "error"),
    "the same by creat": ("call(85, path, 0o600)", "error"),
    "the same by openat2": ("refused(437, -100, path, struct.pack('QQQ', 0o1000, 0, 0), 24)", "passed"),
    "allocating": (READ + "os.posix_fallocate(end, 0, 100000)", "error"),
    "writing to a mapped library": (READ + "import mmap; mmap.mmap(end, 4096, prot=3)[0] = 1", "error"),
    "copying over a file": (READ + "refused(326, end, 0, end, 0, 10, 0)", "passed"),
    # Descriptors and names of what is outside.
    "a descriptor without access": ("os.open(victim, os.O_PATH)", "error"),
    "a descriptor of a folder without access": ("os.fchdir(os.open(folder, os.O_PATH))", "error"),
    "a handle": ("refused(303, -100, path, b'0' * 200, b'0' * 8, 0)", "passed"),
    "opening by handle": ("refused(304, -100, b'0' * 200, 0)", "passed"),
    "a hard link to an open library": (
        READ + "os.link(f'/proc/self/fd/{end}', 'a', follow_symlinks=True); open('a', 'w')", "error",
    ),
    "a hard link to a descriptor": (READ + "call(265, end, b'', -100, b'a', 0x1000); open('a', 'w')", "error"),
    "a hard link outside": ("open('a', 'w'); os.link('a', folder + '/a')", "error"),
    "moving a file in": ("os.rename(victim, 'a')", "error"),
    "moving a file out": ("open('a', 'w'); os.rename('a', folder + '/a')", "error"),
    "replacing a file": ("open('a', 'w'); os.replace('a', victim)", "error"),
    "exchanging files": ("open('a', 'w'); call(316, -100, b'a', -100, path, 2)", "error"),
    "a whiteout": ("open('a', 'w'); call(316, -100, b'a', -100, b'b', 4)", "error"),
    "a folder outside": ("os.mkdir(folder + '/a')", "error"),
    "a link outside": ("os.symlink('a', folder + '/a')", "error"),
    "a pipe outside": ("os.mkfifo(folder + '/a')", "error"),
    "a pipe with a name": ("os.mkfifo('a')", "error"),
    "a device": ("os.mknod('a', 0o20666, os.makedev(1, 1))", "error"),
    "a nameless file outside": ("os.open(folder, os.O_TMPFILE | os.O_RDWR)", "error"),
    "removing a folder": ("os.rmdir(folder)", "error"),
    "removing its own folder": ("os.rmdir(os.getcwd())", "error"),
    "moving its own folder": ("os.rename(os.getcwd(), os.getcwd() + '1')", "error"),
    "another root": ("os.chroot('.')", "error"),
    "listing by a descriptor of the parent": ("os.listdir(os.open('..', os.O_RDONLY))", "error"),
    # Signals, which Landlock governs from version 6 on.
    "a signal by an owner": (
        PIPE + "fcntl.fcntl(r, 8, helper); fcntl.fcntl(r, 4, 0o20000); os.write(w, b'a')", "error",
    ),
    "an owner of another kind": (PIPE + "fcntl.fcntl(r, 15, struct.pack('ii', 1, helper))", "error"),
    "another signal by an owner": (PIPE + "fcntl.fcntl(r, 10, 9)", "error"),
    "an owner by ioctl": (PIPE + "fcntl.ioctl(r, 0x8901, struct.pack('i', helper))", "error"),
    "signals by ioctl": (PIPE + "fcntl.ioctl(r, 0x5452, struct.pack('i', 1))", "error"),
    "a signal by a watched folder": ("fcntl.fcntl(os.open('.', os.O_RDONLY), 1026, 2)", "error"),
    "kill": ("os.kill(helper, 9)", "error"),
    "kill of a group": ("os.kill(-helper, 9)", "error"),
    "tkill": ("refused(200, helper, 9)", "passed"),
    "tgkill": ("refused(234, helper, helper, 9)", "passed"),
    "a queued signal": ("refused(129, helper, 9, b'0' * 128)", "passed"),
    "a queued signal to a thread": ("refused(297, helper, helper, 9, b'0' * 128)", "passed"),
    "a signal by descriptor": ("os.pidfd_open(helper)", "error"),
    "a signal by descriptor, raw": ("refused(424, 0, 9, 0, 0)", "passed"),
    "a signal by a timer": ("refused(222, 0, struct.pack('qiiq', 0, 9, 4, helper), b'0' * 8)", "passed"),
    "a signal by a message queue": ("refused(240, b'/a', 0o102, 0o600, 0)", "passed"),
    "outliving its parent": ("refused(157, 1, 0, 0, 0, 0)", "passed"),
    "being traced": ("refused(157, 0x59616D61, -1, 0, 0, 0)", "passed"),
    "a dump of its memory": ("refused(157, 4, 1, 0, 0, 0)", "passed"),
    "a session of its own": ("os.setsid()", "error"),
    # Locks, caches and limits that others feel.
    "a lease of a library": (READ + "fcntl.fcntl(end, 1024, fcntl.F_RDLCK)", "error"),
    "a lock of a library": (READ + "fcntl.flock(end, 2); " + READ + "fcntl.flock(end, 2 | 4)", "passed"),
    "a read lock of a library": (
        READ + "fcntl.lockf(end, fcntl.LOCK_SH); fcntl.fcntl(end, 37, struct.pack('hhqqi', 0, 0, 0, 0, 0))", "passed",
    ),
    "a large pipe": (PIPE + "fcntl.fcntl(r, 1031, 1 << 20)", "error"),
    "what others read": (READ + "refused(27, 0, 4096, b'0' * 8)", "passed"),
    "moving a library out of memory": (
        READ + "import mmap; m = mmap.mmap(end, 0, prot=1); m.madvise(21)", "error",
    ),
    "huge pages": ("import mmap; mmap.mmap(-1, 1 << 21, flags=0x40022)", "error"),
    "interrupting all processors": ("refused(324, 1, 0, 0)", "passed"),
    "writing out all disks": ("refused(162)", "passed"),
    "limits of another": ("import resource as r; r.prlimit(helper, r.RLIMIT_NOFILE)", "error"),
    "new limits of another": ("import resource as r; r.prlimit(helper, r.RLIMIT_NOFILE, (9, 9))", "error"),
    "new limits, raw": ("refused(160, 0, struct.pack('qq', -1, -1))", "passed"),
    "priority of another": ("os.setpriority(os.PRIO_PROCESS, helper, 19)", "error"),
    "processors of another": ("os.sched_setaffinity(helper, [0])", "error"),
    "a real-time process": ("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "error"),
    "priority of its reads": ("refused(251, 1, 0, 0)", "passed"),
    # Threads that are processes in part, and other entrances of the kernel.
    "a thread with descriptors of its own": ("refused(56, 0x10b00, 0, 0, 0, 0)", "passed"),
    "a thread with a folder of its own": ("refused(56, 0x10d00, 0, 0, 0, 0)", "passed"),
    "a thread in a namespace": ("refused(56, 0x10020f00, 0, 0, 0, 0)", "passed"),
    "a child of its parent": ("refused(56, 0x8000 | 17, 0, 0, 0, 0)", "passed"),
    "vfork": ("refused(58)", "passed"),
    "descriptors of its own": ("refused(436, 1000, 1001, 2)", "passed"),
    "descriptors of its own by unshare": ("refused(272, 0x400)", "passed"),
    "the entrance of 32 bits": (
        "import mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(bytes.fromhex('b814000000cd80c3'));"
        " ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()", "crashed",
    ),
    "another personality": ("refused(135, 0x40000)", "passed"),
    "memory of another": ("refused(310, helper, b'0' * 16, 1, b'0' * 16, 1, 0)", "passed"),
    "memory of another, writing": ("refused(311, helper, b'0' * 16, 1, b'0' * 16, 1, 0)", "passed"),
    "advice on memory of another": ("refused(440, 0, 0, 0, 0, 0)", "passed"),
    "descriptors of another": ("refused(438, 0, 0, 0)", "passed"),
    "tracing": ("refused(101, 0x4206, helper, 0, 0)", "passed"),
    "faults of its own": ("refused(323, 1)", "passed"),
    "a file in memory": ("os.memfd_create('a')", "error"),
    "shared memory": ("refused(29, 0, 4096, 0o1600)", "passed"),
    "semaphores": ("refused(64, 0, 1, 0o1600)", "passed"),
    "messages": ("refused(68, 0, 0o1600)", "passed"),
    "shared memory by name": (
        "from multiprocessing.shared_memory import SharedMemory; SharedMemory('a', True, 4096)", "error",
    ),
    "watching files": ("refused(294, 0)", "passed"),
    "watching all files": ("refused(300, 0, 0)", "passed"),
    "counting events": ("refused(298, b'0' * 128, 0, -1, -1, 0)", "passed"),
    "a program in the kernel": ("refused(321, 0, b'0' * 128, 128)", "passed"),
    "a filter of its own": ("refused(317, 1, 0, 0)", "passed"),
    "pages in a pipe": (PIPE + "refused(278, w, b'0' * 16, 1, 0)", "passed"),
    "a pipe to a library": (PIPE + READ + "refused(275, r, 0, end, 0, 10, 0)", "passed"),
    "requests in a ring": ("refused(426, 0, 0, 0, 0, 0, 0)", "passed"),
    "requests in a queue": ("refused(206, 1, b'0' * 8)", "passed"),
}  # fmt: skip

# Programs that do nothing wrong, and pass although calls that they make are only pretended.
HONEST = {
    "an executable file": "import os; open('a', 'w'); os.chmod('a', 0o755)",
    "copies": (
        "import os, shutil; open('a', 'w').write('1'); os.mkdir('d'); shutil.copy('a', 'b'); shutil.copy2('a', 'c')\n"
        "shutil.copytree('d', 'e'); shutil.move('a', 'd/a'); assert sorted(os.listdir()) == ['b', 'c', 'd', 'e']"
    ),
    "copies of links": (
        "import os, shutil; os.symlink('x', 'a'); shutil.copy2('a', 'b', follow_symlinks=False)"
        "; assert os.readlink('b') == 'x'"
    ),
    "touch": "from pathlib import Path; Path('a').touch(); Path('a').touch(); assert Path('a').exists()",
    "touch without a file": (
        "from pathlib import Path\ntry: Path('d/a').touch()\nexcept FileNotFoundError: pass\nelse: raise SystemExit"
    ),
    "chmod without a file": (
        "import os\nfor change in (lambda: os.chmod('a', 0o600), lambda: os.utime('a', (1, 1))):\n"
        "    try: change()\n    except FileNotFoundError: pass\n    else: raise SystemExit"
    ),
    "archives": (
        "import io, os, tarfile, zipfile\nopen('a', 'w').write('1')\nos.mkdir('t'); os.mkdir('z')\n"
        "with tarfile.open('a.tar', 'w') as t: t.add('a')\n"
        "with tarfile.open('a.tar') as t: t.extractall('t')\n"
        "with zipfile.ZipFile('a.zip', 'w') as z: z.write('a')\n"
        "with zipfile.ZipFile('a.zip') as z: z.extractall('z')\n"
        "assert open('t/a').read() == open('z/a').read() == '1'"
    ),
    "temporary files": (
        "import tempfile\nwith tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile(dir=d) as a, "
        "tempfile.TemporaryFile() as b: a.write(b'1'); b.write(b'2'); a.flush()"
    ),
    "a lock": (
        "import fcntl\nwith open('a', 'w') as a:\n    fcntl.flock(a, fcntl.LOCK_EX); fcntl.lockf(a, fcntl.LOCK_EX)\n"
        "    fcntl.lockf(a, fcntl.LOCK_UN); fcntl.flock(a, fcntl.LOCK_UN)"
    ),
    "written to disk": "import os\nwith open('a', 'w') as a: a.write('1'); a.flush(); os.fsync(a.fileno())",
    "cut short": "a = open('a', 'w+'); a.write('123'); a.truncate(1); a.seek(0); assert a.read() == '1'",
    "mapped": (
        "import mmap; open('a', 'wb').write(b'1' * 100); a = open('a', 'r+b'); m = mmap.mmap(a.fileno(), 0)"
        "; m[0] = 50; m.flush(); m.close(); assert open('a').read()[:2] == '21'"
    ),
    "sparse": "a = open('a', 'wb'); a.truncate(1 << 22); a.close()",
    "the null device": "import os; open(os.devnull, 'w').write('1'); assert open(os.devnull).read() == ''",
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor as T\n"
        "with T(5) as t: assert sum(t.map(abs, range(99))) == 4851"
    ),
    "pipes": "import os; r, w = os.pipe(); os.set_blocking(w, False); os.write(w, b'1'); assert os.read(r, 1) == b'1'",
    "signals of its own": (
        "import os, signal; got = []; signal.signal(signal.SIGUSR1, lambda *a: got.append(1))\n"
        "os.kill(os.getpid(), signal.SIGUSR1); signal.raise_signal(signal.SIGUSR1); assert got == [1, 1]"
    ),
    "limits to read": "import resource as r; r.getrlimit(r.RLIMIT_AS); r.prlimit(0, r.RLIMIT_AS)",
    "within one folder": "import os; open('a', 'w'); os.rename('a', 'b'); os.link('b', 'c'); os.replace('b', 'd')",
    "a database": (
        "import sqlite3\nfor _ in range(2):\n    with sqlite3.connect('a.db') as c: "
        "c.execute('create table if not exists t (x)'); c.execute('insert into t values (1)')\n"
        "assert sqlite3.connect('a.db').execute('select count(*) from t').fetchone() == (2,)"
    ),
}
