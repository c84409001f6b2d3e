"""A real Slurm cluster of four virtual nodes on this machine, with what tests ask of it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NODES, GPUS, CPUS = 4, 4, 16
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare", "setpriv")
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")

# Paths with %n are one for each node; TmpFS is where PMIx of each node keeps its sockets. Open MPI names the memory
# that ranks share after node and job, so clusters that run side by side here must not number their jobs alike.
SLURM_CONF = """\
ClusterName=ddhpc
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
FirstJobId={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire={expire}
CredType=cred/munge
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
TmpFS={directory}/tmp-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
JobRequeue=1
KillWait=10
MpiDefault=none
GresTypes=gpu
NodeName=n[0-{last}] NodeHostname=n[0-{last}] NodeAddr=127.0.0.1 Port=[{ports}] CPUs={cpus} Gres=gpu:{gpus}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=test Nodes=n[0-{last}] Default=YES PriorityTier=1 GraceTime=20 State=UP
PartitionName=urgent Nodes=n[0-{last}] PriorityTier=2 State=UP
"""
# Slurm holds a requeued job back for as long as the credential of its first start is valid.
CREDENTIAL_SECONDS = 10

# bash is the first process of a process namespace: it adopts what jobs leave behind, and all ends with it, when
# the tests end in whatever way.
DAEMONS = """
munged --foreground --force --socket="$1/munge.socket" --key-file="$1/munge.key" --pid-file="$1/munge.pid" \
  --log-file="$1/munged.log" --seed-file="$1/munge.seed" &
until [ -e "$1/munge.socket" ]; do sleep 0.1; done
slurmctld -D -f "$1/slurm.conf" &
for node in $2; do
  unshare --uts sh -c 'hostname "$2"; exec slurmd -D -f "$1/slurm.conf" -N "$2"' sh "$1" "$node" &
done
wait
"""


def missing() -> str:
    """Why no cluster can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "a Slurm cluster of virtual nodes needs root"
    absent = [program for program in PROGRAMS if not shutil.which(program, path=SYSTEM_PATH)]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurmctld slurmd slurm-client munge"
    allowed = subprocess.run(["unshare", "--uts", "--pid", "--fork", "--mount-proc", "true"], capture_output=True)
    return "" if allowed.returncode == 0 else "unshare may not make namespaces here"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster."""

    directory: Path
    environment: dict[str, str]
    """Of the login shell: what sbatch and scontrol run in, and jobs inherit."""

    def run(self, *command: object, cwd: Path | None = None) -> str:
        """Standard output of a command of the login shell that succeeds."""
        completed = subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert completed.returncode == 0, f"{command}: {completed.stdout}{completed.stderr}"
        return completed.stdout

    def submit(self, *arguments: object, cwd: Path) -> int:
        """`sbatch ARGUMENTS` in a directory; the job's number."""
        return int(self.run("sbatch", "--parsable", *arguments, cwd=cwd))

    def records(self, job: int | str) -> list[dict[str, str]]:
        """What Slurm knows of a job, or of each task of an array."""
        found = self.run("scontrol", "show", "job", "-o", job)
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in found.splitlines()]

    def show(self, job: int | str) -> dict[str, str]:
        """What Slurm knows of a job."""
        (record,) = self.records(job)
        return record

    def seconds(self, job: int) -> int:
        """How long a job has run since its last start."""
        hours, minutes, seconds = map(int, self.show(job)["RunTime"].split(":"))
        return (hours * 60 + minutes) * 60 + seconds

    def wait_for(self, job: int | str, seconds: float = 180) -> dict[str, str]:
        """Wait until a job has ended."""
        self.until(lambda: self.show(job)["JobState"] in ENDED, f"end of job {job}", seconds, job)
        return self.show(job)

    def until(
        self, condition: Callable[[], object], what: str, seconds: float = 120, job: int | str | None = None
    ) -> None:
        """Wait for a condition, no longer than the job runs that is to bring it.

        Where it does not come, the message has what Slurm shows and what the job wrote.
        """
        end = time.monotonic() + seconds
        while not condition():
            records = self.records(job) if job else []
            ended = [record for record in records if record["JobState"] in ENDED]
            if (ended and not condition()) or time.monotonic() > end:
                why = "its job ended before" if ended else f"not within {seconds} s"
                shown = [self.run("squeue"), self.run("sinfo"), *map(told, ended or records)]
                raise AssertionError("\n".join([f"{what}: {why}", *shown]))
            time.sleep(0.2)

    def tasks(self, job: int) -> dict[int, dict[str, str]]:
        """Environments of the running tasks of a job by process number, without the batch shell and its children."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            environment = dict(variable.split("=", 1) for variable in variables if "=" in variable)
            ours = environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]
            python = b"python" in command.split(b"\0")[0] and b"ddhpc" in command
            if ours and python and environment.get("SLURM_JOB_ID") == str(job):
                found[int(process.name)] = environment
        return found


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster, and end all of it."""
    directory = Path(tempfile.mkdtemp(prefix="ddhpc-slurm-", dir="/tmp"))
    directory.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    names = [f"n{node}" for node in range(NODES)]
    for part in ("state", *(f"{kind}-{name}" for kind in ("spool", "tmp") for name in names)):
        (directory / part).mkdir()
    key = directory / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    for gpu in range(GPUS):
        os.mknod(directory / f"nvidia{gpu}", 0o666 | 0o020000, os.makedev(1, 3))
    (directory / "gres.conf").write_text(
        f"AutoDetect=off\nNodeName=n[0-{NODES - 1}] Name=gpu File={directory}/nvidia[0-{GPUS - 1}]\n"
    )
    (directory / "slurm.conf").write_text(
        SLURM_CONF.format(
            host=host,
            directory=directory,
            expire=CREDENTIAL_SECONDS,
            controller_port=free_ports(1)[0],
            ports=",".join(map(str, free_ports(NODES))),
            last=NODES - 1,
            cpus=CPUS,
            gpus=GPUS,
        )
    )
    namespace = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (directory / "daemons.log").open("w") as log:
        daemons = subprocess.Popen(
            [*namespace, "bash", "-c", DAEMONS, "bash", str(directory), " ".join(names)],
            env={**os.environ, "PATH": SYSTEM_PATH},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_CONF": str(directory / "slurm.conf"),
        "OMPI_MCA_btl_tcp_if_include": "lo",
        "OMPI_MCA_oob_tcp_if_include": "lo",
        "PYTHONFAULTHANDLER": "1",
    }
    running = Cluster(directory=directory, environment=environment)
    try:
        running.until(lambda: idle_nodes(running) == NODES, "four idle nodes", seconds=60)
        yield running
    finally:
        daemons.kill()
        daemons.wait()
        shutil.rmtree(directory, ignore_errors=True)


def told(record: dict[str, str]) -> str:
    """State and log of a job."""
    log = Path(record["StdOut"])
    state = f"job {record['JobId']} {record['JobState']} {record['ExitCode']}, {log}"
    return f"{state}:\n{log.read_text()}" if log.exists() else state


def idle_nodes(running: Cluster) -> int:
    """Nodes that wait for jobs; 0 as long as the controller does not answer."""
    found = subprocess.run(
        ["sinfo", "-h", "-N", "-p", "test", "-o", "%t"],
        env=running.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return found.stdout.split().count("idle")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
