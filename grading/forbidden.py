"""What a student's kernel may not ask of Linux: a filter for system calls, made by libseccomp.

`Filter.load` binds the process that calls it and all that come from it, for good. What is refused
would reach out of the sandbox, over to the next exercise, or past the limits on memory:

- namespaces and mounts of one's own, with file systems that have no limit;
- memory and messages that no process holds: System V, POSIX queues, keyrings, files without a name;
- file locks, leases and notices, by which two sandboxes that see the same files can talk;
- signals, limits and traces for the processes that started it, and for process groups;
- sockets that are not of this sandbox: to the host of a virtual machine, for example.

Source: https://github.com/seccomp/libseccomp
"""

import ctypes
import errno

ALLOW, FAIL = 0x7FFF0000, 0x00050000  # libseccomp's actions; the second with a number of errno
GREATER, MASKED_EQUAL = 6, 7  # libseccomp's comparisons
OLDEST = (1, 2)  # the sandbox's first process, and the forker
INT = 0xFFFFFFFF
NEW_NAMESPACE = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
SET_LOCK = (6, 7, 37, 38)  # F_SETLK, F_SETLKW, and those of open files
LEASE_AND_NOTICE = (1024, 1026)
OWNER_AND_SIGNAL = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: who gets a signal from a file
OWNER_BY_IOCTL = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
LAST_FAMILY = 16  # of sockets: after netlink come packets, crypto, virtual machines

NEVER = """
unshare setns mount umount2 pivot_root chroot
open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
shmget shmat shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink
add_key request_key keyctl
memfd_create memfd_secret io_uring_setup io_uring_enter io_uring_register
inotify_init inotify_init1 fanotify_init
ptrace process_vm_readv process_vm_writev pidfd_send_signal pidfd_getfd
userfaultfd perf_event_open bpf
""".split()
TO_A_PROCESS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "prlimit64")


class Comparison(ctypes.Structure):
    """One argument of a system call, compared (libseccomp's `scmp_arg_cmp`)."""

    _fields_ = [
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


class Filter:
    """The filter, made but not yet in force. Raises OSError if there is no libseccomp."""

    def __init__(self) -> None:
        self.seccomp = ctypes.CDLL("libseccomp.so.2")
        self.seccomp.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.seccomp.seccomp_init(ctypes.c_uint32(ALLOW)))
        for name in NEVER:
            self._refuse(name)
        self._refuse("clone3", number=errno.ENOSYS)  # glibc then uses clone, whose flags are seen
        for flag in NEW_NAMESPACE:
            self._refuse("clone", (0, flag, flag))
        for name in TO_A_PROCESS:
            self._refuse(name, (0, 0x80000000, 0x80000000))  # below zero: groups
            for process in OLDEST:
                self._refuse(name, (0, INT, process))
        # A lock is said to be there, and is not: programs that use one for themselves go on.
        self._refuse("flock", number=0)
        for command in SET_LOCK:
            self._refuse("fcntl", (1, INT, command), number=0)
        for command in (*LEASE_AND_NOTICE, *OWNER_AND_SIGNAL):
            self._refuse("fcntl", (1, INT, command))
        for command in OWNER_BY_IOCTL:
            self._refuse("ioctl", (1, INT, command))
        self._add("socket", errno.EPERM, Comparison(0, GREATER, LAST_FAMILY, 0))

    def _refuse(
        self, name: str, bits: tuple[int, int, int] | None = None, number: int = errno.EPERM
    ) -> None:
        """Let a call fail: always, or where these bits of an argument (number, mask, value) are."""
        compared = [Comparison(bits[0], MASKED_EQUAL, *bits[1:])] if bits else []
        self._add(name, number, *compared)

    def _add(self, name: str, number: int, *compared: Comparison) -> None:
        call = self.seccomp.seccomp_syscall_resolve_name(name.encode())
        if call == -1:  # newer than this libseccomp
            return
        conditions = (Comparison * len(compared))(*compared)
        add = self.seccomp.seccomp_rule_add_array
        failed = add(self.context, ctypes.c_uint32(FAIL | number), call, len(compared), conditions)
        if failed:
            raise OSError(-failed, f"libseccomp refuses the rule for {name}")

    def load(self) -> None:
        """Put it in force for this process. Raises OSError."""
        failed = self.seccomp.seccomp_load(self.context)
        if failed:
            raise OSError(-failed, "Linux refuses the filter for system calls")
