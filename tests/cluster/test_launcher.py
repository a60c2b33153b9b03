"""A launcher from outside the package: one class and one registry entry run the graph somewhere else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fercache.cli import main
from fercache.cluster import launchers
from fercache.cluster.launcher import JobState, Launcher, QueuedJob
from fercache.cluster.launchers import LAUNCHERS
from fercache.errors import FercacheError

CONFIG = """
manifest: m.csv
cache: cache
out: .
finetune: {{weights: none, epochs: 2}}
slurm: {{launcher: local, shards: 2, heads: [gru], python: ['{python}', echo.py]}}
"""
MANIFEST = """# fercache-manifest 1
# task: expr
# root: nowhere
video_id,split,frames_dir,labels_path,num_frames,group
a,train,frames/a,,10,a
b,validation,frames/b,,10,b
"""
ECHO = "import sys; print(*sys.argv[1:])"


def test_only_slurms_launcher_knows_its_commands():
    folder = Path(launchers.__file__).parent
    files = {
        path.name
        for path in folder.glob("*.py")
        if re.search("sbatch|squeue|scancel|scontrol|srun|sacct", path.read_text())
    }
    assert files == {"slurm.py"}


class LocalLauncher(Launcher):
    """Runs each task as a process of this machine; a job keeps its place in the queue until it is cancelled."""

    log_prefixes = ("local: ",)
    requests = {}  # noqa: RUF012 - the queue of this machine
    refused = ""

    def submit(self, job):
        """Run the tasks, each with a log of its own."""
        if self.refused and job.name.startswith(self.refused):
            raise FercacheError(f"local: {job.name}: refused")
        assert set(job.after) <= {str(number) for number in self.requests}
        number = 7 + len(self.requests)
        self.requests[number] = job
        for task in job.tasks:
            shard = ("--shard", f"{task}/{job.shards}") if job.shards else ()
            answer = subprocess.run([*job.command, *shard], capture_output=True, text=True)
            name = f"{number}_{task}" if job.shards else number
            (job.logs / f"{name}.out.log").write_text(f"local: begun\nError: {answer.stdout}")
        return number

    def states(self):
        """Every task that was not cancelled."""
        return [
            QueuedJob(number, job.name, task, JobState.RUNNING, "here")
            for number, job in self.requests.items()
            for task in job.tasks
        ]

    def cancel(self, numbers):
        """Forget jobs."""
        for number in numbers:
            del self.requests[number]


@pytest.fixture
def local(tmp_path, monkeypatch):
    (tmp_path / "fercache.yaml").write_text(CONFIG.format(python=sys.executable))
    (tmp_path / "m.csv").write_text(MANIFEST)
    (tmp_path / "echo.py").write_text(ECHO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LAUNCHERS, "local", LocalLauncher)
    monkeypatch.setattr(LocalLauncher, "requests", {})
    return LocalLauncher


def call(*words, status=0):
    answer = CliRunner().invoke(main, ["slurm", *words])
    assert answer.exit_code == status, answer.output
    return answer.stdout if status == 0 else answer.output


def jobs():
    return {job["name"]: job for job in json.loads(call("status", "--json"))["jobs"]}


def test_the_graph_runs_on_it(local, tmp_path):
    plan = json.loads(call("plan", "--json"))
    assert plan["jobs"][0]["command"].endswith("echo.py -m fercache finetune -c slurm/1/config.yaml")
    assert not local.requests
    call("submit", "--", "any word")
    names = [job.name.partition(".")[0] for job in local.requests.values()]
    assert names[:3] == ["finetune", "extract", "train-temporal-gru"] and len(names) == 8
    extract = local.requests[8]
    assert (extract.after, extract.tasks, extract.shards, extract.flags) == (("7",), (1, 2), 2, ("any word",))
    assert (
        (tmp_path / "logs" / "extract" / "8_2.out.log")
        .read_text()
        .endswith("-m fercache extract -c slurm/1/config.yaml --shard 2/2\n")
    )
    assert not list((tmp_path / "slurm" / "1").glob("*.sh"))  # this launcher needs no scripts
    assert {job["state"] for job in jobs().values()} == {"running"}
    assert "already in the queue" in call("submit").splitlines()[0]


def test_what_ended_without_its_output_has_failed_with_the_cause_from_its_log(local):
    call("submit", "--stages", "finetune")
    local.requests.clear()
    (failure,) = jobs()["finetune"]["failures"]
    assert failure["cause"].startswith("Error: -m fercache finetune")
    assert failure["log"] == "logs/finetune/7.out.log"


def test_where_it_refuses_a_job_those_before_it_are_cancelled(local, monkeypatch):
    monkeypatch.setattr(local, "refused", "predict-cnn")
    assert "(7, 8, 9) are cancelled" in call("submit", status=1)
    assert not local.requests


def test_an_unknown_launcher_is_refused_with_those_there_are(local):
    output = call("submit", "--set", "launcher=pbs", status=1)
    assert "slurm.launcher: found 'pbs', expected one of slurm, local" in output
