"""The graph of jobs on a real SLURM."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

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
        found[path.parent.name] = path.read_text()
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
        environment = {**os.environ, "SLURM_CPUS_PER_TASK": "1"}
        subprocess.run(
            [sys.executable, "-m", "fercache", *command], cwd=folder, env=environment, check=True, capture_output=True
        )
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
    told = project.fercache("slurm", "submit", *options, "--template", "lines.sh", "--", "--comment=theirs").stdout
    assert [line.split()[0] for line in told.splitlines()] == GRAPH
    comments = project.run("squeue", "--noheader", "--format=%k").stdout.split()
    assert set(comments) == {"theirs"}  # the command line wins over a script's own lines
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
    found = results(out)
    found[FUSED] = found[FUSED].replace("out here & there/", "")  # where the predictions lay
    assert_same(found, expected)


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
    own = re.search(r"JobId=([0-9]+)", project.run("scontrol", "show", "job", job).stdout)[1]
    os.kill(project.processes(int(own))[0], signal.SIGKILL)


@pytest.mark.parametrize(("hit", "comes_back"), [(usr1, True), (cancel, False), (requeue, True), (kill, False)])
def test_a_job_that_is_hit_goes_on_to_the_same_bits(new_project, by_hand, hit, comes_back):
    """The finetune job and a shard of an extraction, each at a random moment of its work."""
    first, second = new_project("first"), new_project("second")
    shutil.copytree(by_hand / "cnn", second.folder / "cnn")
    jobs = {
        first: str(first.submit("--stages", "finetune")["finetune"]),
        second: f"{second.submit('--stages', 'extract')['extract']}_1",
    }
    moments = {first: random.uniform(9, 24), second: random.uniform(9, 15)}
    print(f"{hit.__name__} after {list(moments.values())} s")
    first.wait("jobs to run", lambda: list(map(first.queue().get, jobs.values())) == ["RUNNING"] * 2)
    began = time.monotonic()
    for project, job in jobs.items():
        time.sleep(max(0.0, began + moments[project] - time.monotonic()))
        assert first.queue().get(job) == "RUNNING", f"{job} ended before it was hit\n{project.logs()}"
        hit(project, job)
    first.drain()
    for project, name in ((first, "finetune"), (second, "extract")):
        status = project.status()[name]
        assert status["state"] == ("done" if comes_back else "failed"), project.logs()
        starts = {path.name.partition(".")[2] for path in project.folder.glob(f"logs/{name}/{jobs[project]}.start*")}
        assert starts == ({"start0.log", "start1.log"} if comes_back else {"start0.log"})
        if hit is not kill:
            said = (project.folder / "logs" / name / f"{jobs[project]}.start0.log").read_text()
            assert f"Stopped by {'SIGUSR1' if hit is usr1 else 'SIGTERM'}: what was finished is saved" in said
        if not comes_back:
            assert status["failed"] == 1 and project.submit("--stages", name)
    first.drain()
    assert_same(parts(results(first.folder), "cnn/"), parts(results(by_hand), "cnn/"))
    cached = [path.stem for path in (by_hand / "cache").glob("*.h5")]
    names = [f"{video}/" for video in cached]
    assert_same(parts(results(second.folder), *names), parts(results(by_hand), *names))
