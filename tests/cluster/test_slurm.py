"""The graph of jobs on a real SLURM."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.lab import PATH, cluster, missing
from support.slurm_project import CONFIG, SlurmProject

from fercache.cache.predictions import read_predictions
from fercache.cache.reader import Cache
from fercache.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slurm

FUSED = "ensemble-cnn+gru+transformer"
GRAPH = [
    *("finetune", "extract", "train-temporal-gru", "train-temporal-transformer"),
    *("predict-cnn", "predict-gru", "predict-transformer"),
    *(FUSED, "apply-cnn+gru+transformer", "report"),
]


@pytest.fixture(scope="session")
def environment():
    """What commands need to reach a cluster: the one that SLURM_CONF names, else one of our own."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{PATH}"}
    for name in list(environment):
        if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF":
            del environment[name]
    if "SLURM_CONF" in environment:
        yield environment
        return
    if lacking := missing():
        pytest.skip(f"SLURM is not there: {', '.join(lacking)} (Debian: slurmctld slurmd slurm-client munge)")
    # Sockets need a short path.
    folder = Path(tempfile.mkdtemp(prefix="fercache-slurm-", dir="/tmp"))
    folder.rmdir()
    with cluster(folder) as conf:
        yield {**environment, "SLURM_CONF": str(conf)}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder with drawn faces, their manifest and a config."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "fercache.yaml").write_text(CONFIG)
    for command in (("synth", "data"), ("manifest", "affwild2", "data", "--lengths", "data/lengths.csv")):
        subprocess.run([sys.executable, "-m", "fercache", *command], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def new_project(drawn, environment, tmp_path):
    """Makes projects on the cluster, of which nothing is done; afterwards none of their jobs is left."""
    made = []

    def make(name: str = "project") -> SlurmProject:
        shutil.copytree(drawn, tmp_path / name)
        made.append(SlurmProject(tmp_path / name, environment))
        return made[-1]

    yield make
    for one in made:
        one.cancel()
        one.drain()


@pytest.fixture
def project(new_project):
    return new_project()


SECONDS: dict[str, float] = {}
"""That a command took by hand."""


def results(folder) -> dict[str, object]:
    """All that a project's files hold, without times and places."""
    found: dict[str, object] = {}
    for run in sorted(path.parent for path in folder.glob("*/best.pt")):
        content = load_checkpoint(run / "best.pt")
        found |= {f"{run.name}/{name}": tensor for name, tensor in content["model"].items()}
        lines = (run / "metrics.jsonl").read_text().splitlines()
        found[f"{run.name}/metrics"] = [{**json.loads(line), "seconds": 0} for line in lines]
    if (folder / "cache" / "provenance.json").exists():
        cache = Cache(folder / "cache")
        for video_id in cache.video_ids():
            video = cache.read(video_id)
            found |= {f"{video_id}/{name}": value for name, value in vars(video).items()}
    for path in folder.glob("*-validation.h5"):
        for video_id, video in read_predictions(path).videos.items():
            found |= {f"{path.name}/{video_id}/{name}": value for name, value in vars(video).items()}
    for path in folder.glob("ensemble-*/ensemble.json"):
        content = json.loads(path.read_text())
        models = [{**model, "predictions": Path(model["predictions"]).name} for model in content["models"]]
        found[path.parent.name] = {**content, "models": models, "sha256": None}  # the digest is of the paths, too
    return found


def assert_same(found, expected) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, (np.ndarray, torch.Tensor)):
            np.testing.assert_array_equal(np.asarray(found[key]), np.asarray(value), err_msg=key)
        else:
            assert found[key] == value, key


def parts(found: dict[str, object], *beginnings: str) -> dict[str, object]:
    """Those results whose names begin so."""
    return {key: value for key, value in found.items() if key.startswith(beginnings)}


def run_by_hand(folder, *command):
    """A command as on one processor of a node."""
    environment = {**os.environ, "SLURM_CPUS_PER_TASK": "1"}
    whole = [sys.executable, "-m", "fercache", *command]
    subprocess.run(whole, cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture(scope="module")
def by_hand(drawn, tmp_path_factory):
    """The same commands, one after the other, without SLURM."""
    folder = tmp_path_factory.mktemp("by hand") / "project"
    shutil.copytree(drawn, folder)
    runs = ("cnn", "gru", "transformer")
    files = [f"{run}-validation.h5" for run in runs]
    commands = [
        ["finetune"],
        ["extract", "--set", "bad_frames=skip"],
        *(["train-temporal", "--head", head] for head in runs[1:]),
        *(["predict", "--model", run] for run in runs),
        ["ensemble", "--search", *files, "-o", FUSED],
        ["ensemble", "--apply", f"{FUSED}/ensemble.json", *files, "-o", "cnn+gru+transformer-validation.h5"],
    ]
    for command in commands:
        began = time.monotonic()
        run_by_hand(folder, *command)
        SECONDS.setdefault(command[0], time.monotonic() - began)
    return folder


def test_the_whole_graph_gives_the_bits_of_the_same_commands_run_by_hand(project, by_hand):
    """In a folder, with names and settings, that a shell would make something else of."""
    folder = project.folder.with_name('it\'s $HOME "and" 50 %j `touch x` für ü')
    project.folder.rename(folder)
    project.folder = folder
    name = "a cache; touch y 'q' ö"
    manifest = "the manifest $(touch z).csv"
    (folder / "m.csv").rename(folder / manifest)
    shutil.move(folder / "data", folder / "data set")
    text = (folder / manifest).read_text().replace("# root: data", "# root: data set")
    (folder / manifest).write_text(text)
    (folder / "lines.sh").write_text("#SBATCH --comment=mine\nexport A_LINE='of mine'\necho \"$A_LINE\"\n")
    sets = [f"cache={name}", f"manifest={manifest}", "out=out here & there"]
    options = [word for text in sets for word in ("--set", text)]
    printed = project.fercache("slurm", "submit", *options, "--template", "lines.sh", "--", "--comment=theirs").stdout
    assert [line.split()[0] for line in printed.splitlines()] == GRAPH
    comments = project.run("squeue", "--noheader", "--format=%k %Z").stdout.splitlines()
    comments = [line.split()[0] for line in comments if line.endswith(str(folder))]
    assert comments == ["theirs"] * len(GRAPH)  # the command line wins over a script's own lines
    project.drain()
    status = json.loads(project.fercache("slurm", "status", *options, "--json").stdout)
    assert {job["name"]: job["state"] for job in status["jobs"]} == dict.fromkeys(GRAPH, "done"), project.logs()
    assert status["go_on"] is None
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["fercache.yaml", manifest, "data set", "lines.sh", name, "out here & there"]
    )
    out = folder / "out here & there"
    (folder / name).rename(out / "cache")
    assert (out / "report.html").exists()
    logs = sorted(str(path.relative_to(out / "logs")) for path in out.glob("logs/e*/*"))
    assert [re.sub(r"[0-9]+(?=[._])", "N", path, count=1) for path in logs if path.startswith("extract")] == [
        "extract/N_1.slurm.log",
        "extract/N_1.start0.log",
        "extract/N_2.slurm.log",
        "extract/N_2.start0.log",
    ]
    assert "of mine" in next(out.glob("logs/finetune/*.slurm.log")).read_text()
    expected = results(by_hand)
    assert len(expected) > 400
    assert_same(results(out), expected)


def usr1(project, job):
    """As SLURM does before a job's time is up."""
    project.run("scancel", "--batch", "--signal=USR1", job)


def cancel(project, job):
    """TERM, by which the user ends it."""
    project.run("scancel", job)


def requeue(project, job):
    """TERM, by which SLURM ends it to run it again."""
    project.run("scontrol", "requeue", job)


def kill(project, job):
    job_id = re.search(r"JobId=([0-9]+)", project.run("scontrol", "show", "job", job).stdout)[1]
    os.kill(project.processes(int(job_id))[0], signal.SIGKILL)


@pytest.mark.parametrize(("hit", "comes_back"), [(usr1, True), (cancel, False), (requeue, True), (kill, False)])
def test_a_job_that_is_hit_goes_on_to_the_same_bits(new_project, by_hand, hit, comes_back):
    """The finetune job and a shard of an extraction, each at a random moment of its work."""
    first, second = new_project("first"), new_project("second")
    shutil.copytree(by_hand / "cnn", second.folder / "cnn")
    jobs = {
        first: str(first.submit("--stages", "finetune")["finetune"]),
        second: f"{second.submit('--stages', 'extract')['extract']}_1",
    }
    # By hand the shards came one after the other; here they have to be done with Python's start, at least.
    moments = {
        first: random.uniform(0.35, 0.7) * SECONDS["finetune"],
        second: random.uniform(0.35, 0.5) * SECONDS["extract"],
    }
    print(f"{hit.__name__} after {list(moments.values())} s, of {SECONDS}")
    first.wait("jobs to run", lambda: all(project.queue().get(job) == "RUNNING" for project, job in jobs.items()))
    began = time.monotonic()
    for project, job in sorted(jobs.items(), key=lambda item: moments[item[0]]):
        time.sleep(max(0.0, began + moments[project] - time.monotonic()))
        assert project.queue().get(job) == "RUNNING", f"{job} ended before it was hit\n{project.logs()}"
        hit(project, job)
    first.drain()
    second.drain()
    for project, name in ((first, "finetune"), (second, "extract")):
        status = project.status()[name]
        assert status["state"] == ("done" if comes_back else "failed"), project.logs()
        starts = {path.name.partition(".")[2] for path in project.folder.glob(f"logs/{name}/{jobs[project]}.start*")}
        assert starts == ({"start0.log", "start1.log"} if comes_back else {"start0.log"})
        if hit is not kill:
            log = (project.folder / "logs" / name / f"{jobs[project]}.start0.log").read_text()
            assert f"Stopped by {'SIGUSR1' if hit is usr1 else 'SIGTERM'}: finished work is saved" in log
        if not comes_back:
            assert status["failed"] == 1 and project.submit("--stages", name)
    first.drain()
    second.drain()
    assert_same(parts(results(first.folder), "cnn/"), parts(results(by_hand), "cnn/"))
    cached = [path.stem for path in (by_hand / "cache").glob("*.h5")]
    names = [f"{video}/" for video in cached]
    assert_same(parts(results(second.folder), *names), parts(results(by_hand), *names))


def with_results(project, by_hand, *names):
    """Put what others have computed into a project."""
    for name in names:
        shutil.copytree(by_hand / name, project.folder / name)


@pytest.fixture(scope="module")
def longer(drawn, by_hand, tmp_path_factory):
    """Options by which fine-tuning takes over a minute here, and the results of it without SLURM.

    Its controller looks only every 30 s whose time is up, and on which nodes room has to be made.
    """
    lines = (by_hand / "cnn" / "metrics.jsonl").read_text().splitlines()
    epoch = min(json.loads(line)["seconds"] for line in lines)
    epochs = math.ceil(90 / epoch)
    options = ("--set", f"finetune.epochs={epochs}")
    folder = tmp_path_factory.mktemp("longer") / "project"
    shutil.copytree(drawn, folder)
    run_by_hand(folder, "finetune", *options)
    expected = results(folder)
    assert len(expected["cnn/metrics"]) == epochs
    return options, expected


def test_a_job_that_gives_way_is_queued_again_by_slurm(project, longer):
    """TERM at preemption: the job saves and does not ask for anything; a more urgent one runs meanwhile.

    Some clusters send the job's own signal instead, as if its time were up: it asks to be queued again, too.
    """
    if "urgent" not in project.run("sinfo", "--noheader", "--format=%R").stdout.split():
        pytest.skip("this cluster has no partition `urgent` whose jobs preempt others")
    options, expected = longer
    job = str(project.submit("--stages", "finetune", *options)["finetune"])
    project.wait("the run to begin", (project.folder / "cnn" / "config.yaml").exists)
    project.run("sbatch", "-p", "urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    project.drain()
    log = (project.folder / "logs" / "finetune" / f"{job}.start0.log").read_text()
    own_signal = "preempt_send_user_signal" in configured(project, "SlurmctldParameters")
    assert f"Stopped by {'SIGUSR1' if own_signal else 'SIGTERM'}" in log, project.logs()
    assert ("queued again" in log) == own_signal
    assert project.status(*options)["finetune"]["state"] == "done", project.logs()
    assert_same(results(project.folder), expected)


def test_a_job_at_its_time_limit_goes_on_after_it(project, longer):
    """A real limit, of two minutes: USR1 comes 60 to 90 s before it, which is before the work is done."""
    options, expected = longer
    numbers = project.submit("--stages", "finetune", *options, "--", "--time=2", "--signal=B:USR1@60")
    project.drain()
    logs = sorted(project.folder.glob(f"logs/finetune/{numbers['finetune']}.start*.log"))
    texts = [path.read_text() for path in logs]
    assert len(texts) >= 2 and "Stopped by SIGUSR1" in texts[0] and "resuming after epoch" in texts[1], project.logs()
    assert_same(results(project.folder), expected)


def test_two_nodes_train_one_network(new_project):
    """As torchrun does on one machine, to the bit, though stopped by USR1 and by the death of a rank."""
    project, alone = new_project(), new_project("torchrun")
    (project.folder / "lines.sh").write_text("export MASTER_ADDR=127.0.0.1\n")
    # It is saved after each step, to be hit early twice.
    settings = ("finetune.lr=0.001", "finetune.batch_size=32", "finetune.save_minutes=0.001")
    recipe = tuple(word for setting in settings for word in ("--set", setting))
    sets = ("--set", "slurm.finetune={nodes: 2, cpus: 1}", "--template", "lines.sh", "--stages", "finetune", *recipe)
    job = str(project.submit(*sets)["finetune"])
    project.wait("a first save", (project.folder / "cnn" / "last.pt").exists)
    usr1(project, job)
    project.wait("the next start", (project.folder / "logs" / "finetune" / f"{job}.start1.log").exists)
    log = (project.folder / "logs" / "finetune" / f"{job}.start0.log").read_text()
    assert log.count("Stopped by SIGUSR1") == 2 and f"job {job}: is queued again" in log
    saved = (project.folder / "cnn" / "last.pt").stat().st_mtime_ns
    project.wait("a save", lambda: (project.folder / "cnn" / "last.pt").stat().st_mtime_ns > saved)
    ranks = [pid for pid in project.processes(int(job)) if b"SLURM_PROCID=1\0" in environment_of(pid)]
    os.kill(ranks[0], signal.SIGKILL)  # the ones behind it decode frames
    killed = time.monotonic()
    project.drain()
    assert time.monotonic() - killed < 60
    assert project.status(*recipe)["finetune"]["state"] == "failed"
    project.submit(*sets)
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    alone.environment = {**alone.environment, "SLURM_CPUS_PER_TASK": "2"}  # one for each rank
    alone.run(*launch, "-m", "fercache", "finetune", *recipe)
    project.drain()
    assert_same(results(project.folder), results(alone.folder))
    one = new_project("one process")
    run_by_hand(one.folder, "finetune", *recipe)
    lines = [results(each.folder)["cnn/metrics"] for each in (one, project)]
    print(lines)
    for single, double in zip(*lines, strict=True):
        assert double["loss"] == pytest.approx(single["loss"], rel=0.2)
        assert double["score"] == pytest.approx(single["score"], abs=0.1)


def environment_of(pid) -> bytes:
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()


def test_a_stage_that_fails_says_why_and_only_what_is_missing_is_done_again(project, by_hand):
    with_results(project, by_hand, "cnn", "cache")
    gone = next((project.folder / "data" / "annotations" / "EXPR_Set" / "Train_Set").iterdir())
    away = gone.rename(project.folder / gone.name)
    first = project.submit("--set", "heads=[gru]")
    assert list(first) == [
        *("train-temporal-gru", "predict-cnn", "predict-gru"),
        *("ensemble-cnn+gru", "apply-cnn+gru", "report"),
    ]
    project.drain()
    options = ("--set", "heads=[gru]")
    status = json.loads(project.fercache("slurm", "status", *options, "--json").stdout)
    jobs = {job["name"]: job for job in status["jobs"]}
    states = dict.fromkeys(("finetune", "extract"), "done") | dict.fromkeys(
        ("train-temporal-gru", "predict-cnn"), "failed"
    )
    assert {name: job["state"] for name, job in jobs.items()} == dict.fromkeys(jobs, "blocked") | states
    (failure,) = jobs["train-temporal-gru"]["failures"]
    assert "Error: m.csv: line" in failure["cause"] and f"the label file data/{away.name}" not in failure["cause"]
    assert f"{gone.name} does not exist" in failure["cause"]
    assert failure["log"] == f"logs/train-temporal-gru/{first['train-temporal-gru']}.start0.log"
    assert jobs["predict-gru"]["reason"] == "train-temporal-gru is not done"
    assert status["go_on"] == "fercache slurm submit --set 'heads=[gru]'"
    away.rename(gone)
    again = project.fercache("slurm", "submit", *options).stdout
    assert re.search(r"^finetune +done$", again, flags=re.MULTILINE)
    # What is in the queue is not submitted again.
    twice = project.fercache("slurm", "submit", *options).stdout
    assert len(re.findall(r"already in the queue", twice)) == 6
    project.drain()
    text = project.fercache("slurm", "status", *options).stdout
    assert [line.split()[1] for line in text.splitlines()] == ["done"] * 8, text
    assert_same(parts(results(project.folder), "gru/"), parts(results(by_hand), "gru/"))


def test_a_dependency_that_is_forgotten_lets_no_stage_compute_on_what_is_missing(project):
    numbers = project.submit()
    project.cancel()
    project.drain()
    for name, lacking in (("extract", ["cnn"]), ("train-temporal-gru", ["cache"]), ("predict-gru", ["cache", "gru"])):
        script = f"slurm/1/{name}.sh"
        array = ("--array=1",) if name == "extract" else ()
        wait = f"--dependency=afterok:{unknown(project, numbers['finetune'])}"
        answer = project.run("sbatch", "--parsable", wait, *array, "--output=/dev/null", script)
        project.drain()
        (said,) = project.folder.glob(f"logs/{name}/{answer.stdout.strip()}*.start0.log")
        error = said.read_text().partition("Error: ")[2].splitlines()
        assert [line.partition(":")[0] for line in error] == lacking, said.read_text()
    assert {path.name for path in project.folder.iterdir()} == {"data", "m.csv", "fercache.yaml", "slurm", "logs"}


def unknown(project, job: int) -> int:
    """A job's number once the controller has forgotten it; where that takes it long, one that it has not given yet."""
    if int(configured(project, "MinJobAge").split()[0]) > 60:
        return job + 100_000
    shown = ("scontrol", "show", "job", str(job))
    project.wait("the controller to forget", lambda: project.run(*shown, check=False).returncode != 0)
    return job


def configured(project, name: str) -> str:
    """A setting of the cluster."""
    return re.search(rf"^{name}\s*=\s*(.*)$", project.run("scontrol", "show", "config").stdout, flags=re.MULTILINE)[1]


def test_what_is_refused_leaves_nothing_in_the_queue(project):
    answer = project.fercache("slurm", "submit", "--flags", "predict=--bogus", check=False)
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert re.search(
        r"Error: sbatch: .*bogus.*; the 4 jobs submitted before it \(\d+, .*\) are cancelled", answer.stderr
    )
    project.drain()
    assert json.loads((project.folder / "slurm" / "jobs.json").read_text())["jobs"] == []
    limit = configured(project, "MaxArraySize")
    answer = project.fercache("slurm", "submit", "--set", f"shards={limit}", check=False)
    assert answer.returncode == 1 and f"MaxArraySize of this cluster is {limit}" in answer.stderr
    assert not project.queue()
