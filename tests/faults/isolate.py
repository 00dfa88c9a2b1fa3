"""Runs a program in namespaces of its own (network, processes, mounts): whatever it starts ends with it, whatever it
mounts is gone with it, and it may have as many network interfaces as it likes."""
import os
import subprocess
import sys

UNSHARE = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def possible():
    """None, or why it is not."""
    done = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    if done.returncode != 0:
        return (done.stderr.strip() or "unshare failed").splitlines()[-1]
    return None if os.path.exists("/dev/net/tun") else "there is no /dev/net/tun"


def run(command):
    """The exit code of a command in namespaces of its own; it dies with this process."""
    child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *UNSHARE, *map(str, command)])
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # it had the signal too, and ends in order


def become_init():
    """To be called by the first process of a process namespace: goes on in a child, and reaps what nobody else does."""
    child = os.fork()
    if child == 0:
        return
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except KeyboardInterrupt:
            continue
        if pid == child:
            sys.stdout.flush()
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
