"""System calls by name and number, and those that a program may make.

The tables of a machine have no call in common. A call in none of them, which includes all calls of future kernels,
fails with EPERM.
"""

import platform

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH of the seccomp filter


def _table(text: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (word.partition(":") for word in text.split())}


# Reading, writing, waiting, memory and threads, and the calls by path that Landlock governs in each of its versions.
# Not listed are sockets, other processes, mounts, keys, tracing, `truncate` by path (Landlock governs it from version 3
# on), `membarrier` (it interrupts all processors) and `mincore` (it tells what others read).
ALLOWED_CALLS = {
    "x86_64": _table("""
    access:21 alarm:37 brk:12 chdir:80 clock_getres:229 clock_gettime:228 clock_nanosleep:230 close:3 creat:85 dup:32
    dup2:33 dup3:292 epoll_create:213 epoll_create1:291 epoll_ctl:233 epoll_pwait:281 epoll_wait:232 eventfd2:290
    exit:60 exit_group:231 faccessat:269 faccessat2:439 fchdir:81 fstat:5 fstatfs:138 ftruncate:77 futex:202
 getcwd:79 getdents:78 getdents64:217 getegid:108 geteuid:107 getgid:104 getgroups:115
    getitimer:36 getpgid:121 getpgrp:111 getpid:39 getppid:110 getpriority:140 getrandom:318 getresgid:120
    getresuid:118 getrlimit:97 getrusage:98 getsid:124 gettid:186 gettimeofday:96 getuid:102 link:86 linkat:265
    lseek:8 lstat:6 mkdir:83 mkdirat:258 mprotect:10 mremap:25 munmap:11 nanosleep:35 newfstatat:262 pause:34 pipe:22
    pipe2:293 poll:7 ppoll:271 pread64:17 preadv:295 pselect6:270 pwrite64:18 pwritev:296 read:0 readlink:89
    readlinkat:267 readv:19 rename:82 renameat:264 restart_syscall:219 rmdir:84 rseq:334 rt_sigaction:13
    rt_sigpending:127 rt_sigprocmask:14 rt_sigreturn:15 rt_sigsuspend:130 rt_sigtimedwait:128 sched_getaffinity:204
    sched_yield:24 select:23 sendfile:40 set_robust_list:273 set_tid_address:218 setitimer:38 sigaltstack:131 stat:4
    statfs:137 statx:332 symlink:88 symlinkat:266 sysinfo:99 time:201 times:100 umask:95 uname:63 unlink:87
    unlinkat:263 write:1 writev:20
    """),
    "aarch64": _table("""
    brk:214 chdir:49 clock_getres:114 clock_gettime:113 clock_nanosleep:115 close:57 dup:23 dup3:24 epoll_create1:20
    epoll_ctl:21 epoll_pwait:22 eventfd2:19 exit:93 exit_group:94 faccessat:48 faccessat2:439 fchdir:50 fstat:80
    fstatfs:44 ftruncate:46 futex:98 getcwd:17 getdents64:61 getegid:177 geteuid:175 getgid:176
    getgroups:158 getitimer:102 getpgid:155 getpid:172 getppid:173 getpriority:141 getrandom:278 getresgid:150
    getresuid:148 getrlimit:163 getrusage:165 getsid:156 gettid:178 gettimeofday:169 getuid:174 linkat:37 lseek:62
    mkdirat:34 mprotect:226 mremap:216 munmap:215 nanosleep:101 newfstatat:79 pipe2:59 ppoll:73 pread64:67 preadv:69
    pselect6:72 pwrite64:68 pwritev:70 read:63 readlinkat:78 readv:65 renameat:38 restart_syscall:128
    rseq:293 rt_sigaction:134 rt_sigpending:136 rt_sigprocmask:135 rt_sigreturn:139 rt_sigsuspend:133
    rt_sigtimedwait:137 sched_getaffinity:123 sched_yield:124 sendfile:71 set_robust_list:99 set_tid_address:96
    setitimer:103 sigaltstack:132 statfs:43 statx:291 symlinkat:36 sysinfo:179 times:153 umask:166 uname:160
    unlinkat:35 write:64 writev:66
    """),
}
# Calls that seccomp.py allows with some arguments only, and calls that lock.py makes itself.
OTHERS = {
    "x86_64": _table("""
    clone:56 clone3:435 prctl:157 kill:62 tgkill:234 ioctl:16 prlimit64:302 fcntl:72 madvise:28 mmap:9
    close_range:436 open:2 openat:257 renameat2:316 seccomp:317 capset:126 landlock_create_ruleset:444
    landlock_add_rule:445 landlock_restrict_self:446
    """),
    "aarch64": _table("""
    clone:220 clone3:435 prctl:167 kill:129 tgkill:131 ioctl:29 prlimit64:261 fcntl:25 madvise:233 mmap:222
    close_range:436 openat:56 renameat2:276 seccomp:277 capset:91 landlock_create_ruleset:444 landlock_add_rule:445
    landlock_restrict_self:446
    """),
}
# Calls that are answered with 0 and not made. Landlock governs none of them, and they reach files of others: modes and
# times of any path, locks and advice on files that may only be read. `fsync` and its like only burden the disk.
PRETENDED = {
    "x86_64": _table("""
    chmod:90 fchmod:91 fchmodat:268 fchmodat2:452 utime:132 utimes:235 futimesat:261 utimensat:280 flock:73 fsync:74
    fdatasync:75 msync:26 fadvise64:221
    """),
    "aarch64": _table("""
    fchmod:52 fchmodat:53 fchmodat2:452 utimensat:88 flock:32 fsync:82 fdatasync:83 msync:227 fadvise64:223
    """),
}
# Calls that fail as on a file system without extended attributes, which `shutil.copy2` expects.
UNSUPPORTED = {
    "x86_64": _table("""
    setxattr:188 lsetxattr:189 fsetxattr:190 getxattr:191 lgetxattr:192 fgetxattr:193 listxattr:194 llistxattr:195
    flistxattr:196 removexattr:197 lremovexattr:198 fremovexattr:199
    """),
    "aarch64": _table("""
    setxattr:5 lsetxattr:6 fsetxattr:7 getxattr:8 lgetxattr:9 fgetxattr:10 listxattr:11 llistxattr:12 flistxattr:13
    removexattr:14 lremovexattr:15 fremovexattr:16
    """),
}


def machine() -> str:
    """The name of this machine's architecture. Raises OSError if it has no table here."""
    name = platform.machine()
    if name not in MACHINES:
        raise OSError(f"no table of system calls for {name}")
    return name
