"""A real Slurm on loopback: munged, slurmctld and a slurmd per node, in a folder of its own, as the user of the tests.

Debian: slurm-wlm and munge. Nodes are a name and a port each, on one machine.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.s3server import free_port

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
TIMEOUT_S = 60.0
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
"""


class SlurmCluster:
    """`env` is what Slurm's commands need to reach it."""

    def __init__(self, folder: Path, num_nodes: int) -> None:
        self.folder = folder  # short, since it holds a socket
        self.nodes = [f"n{number}" for number in range(1, num_nodes + 1)]
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.processes: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        """Return when all nodes are idle. Raises RuntimeError with the log of the controller."""
        host, user = socket.gethostname(), subprocess.check_output(["id", "-un"], text=True).strip()
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir()
        conf = CONF.format(host=host, user=user, folder=self.folder, port=free_port())
        for name in self.nodes:
            (self.folder / f"spool.{name}").mkdir()
            conf += (
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 RealMemory=4000\n"
            )
        conf += f"PartitionName=all Nodes={','.join(self.nodes)} Default=YES State=UP\n"
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "munge.key").touch(0o600)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        options = {
            "socket": "munge.sock",
            "key-file": "munge.key",
            "pid-file": "munged.pid",
            "seed-file": "munged.seed",
        }
        words = [f"--{name}={self.folder / file}" for name, file in {**options, "log-file": "munged.log"}.items()]
        self._run("munged", "munged", "--force", "--foreground", *words)
        while not (self.folder / "munge.sock").exists():
            time.sleep(0.05)
        self._run("slurmctld", "slurmctld", "-D", "-c")
        for name in self.nodes:
            self._run(name, "slurmd", "-D", "-N", name)
        end = time.monotonic() + TIMEOUT_S
        while self.states() != {"idle"}:
            if time.monotonic() > end:
                raise RuntimeError((self.folder / "slurmctld.log").read_text()[-2000:])
            time.sleep(0.2)

    def _run(self, name: str, command: str, *arguments: str) -> None:
        program = shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin")
        assert program
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                [program, *arguments], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def call(self, *words: str) -> str:
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def states(self) -> set[str]:
        return set(self.call("sinfo", "-h", "-N", "-o", "%t").split())

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says: JobState, ExitCode, Restarts, NodeList, ..."""
        words = self.call("scontrol", "-o", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def lose(self, node: str, job: str) -> None:
        """The node fails: its slurmd and all that the job runs there are killed."""
        self.processes[node].kill()
        marks = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_JOB_ID={job}".encode()}
        for process in Path("/proc").iterdir():
            try:
                is_of_node = process.name.isdigit() and marks <= set((process / "environ").read_bytes().split(b"\0"))
                if is_of_node:
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                continue

    def stop(self) -> None:
        """Cancel all jobs and end the daemons."""
        self.call("scancel", "--state=RUNNING", f"--user={os.environ.get('USER', 'root')}")
        end = time.monotonic() + TIMEOUT_S
        while self.call("squeue", "-h") and time.monotonic() < end:
            time.sleep(0.5)
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            process.wait(timeout=TIMEOUT_S)
