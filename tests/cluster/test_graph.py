"""The graph of jobs without a cluster: what is asked for, planned, written, and refused."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fercache.cli import main
from fercache.cluster.jobs import checked_config, job_graph
from fercache.cluster.launcher import JobRequest
from fercache.cluster.record import JobRecord, SubmissionRecord
from fercache.cluster.slurm import SlurmLauncher, array_flag
from fercache.config import Config, JobConfig, SlurmConfig, load_config
from fercache.errors import ConfigError, RunError, Stopped
from fercache.runtime.group import first_host, ranks
from fercache.runtime.job import queue_again

CONFIG = Config(manifest="m.csv", cache="cache", out=".")


def made(tmp_path, lengths, splits=("train", "validation", "test")):
    """A manifest of videos without images, of these lengths, in a project folder."""
    rows = [f"v{i},{splits[i % len(splits)]},frames/v{i},,{length},v{i}" for i, length in enumerate(lengths)]
    lines = ["# fercache-manifest 1", "# task: expr", "# root: nowhere"]
    text = "\n".join([*lines, "video_id,split,frames_dir,labels_path,num_frames,group", *rows]) + "\n"
    (tmp_path / "m.csv").write_text(text)
    (tmp_path / "fercache.yaml").write_text("manifest: m.csv\ncache: cache\nout: .\nfinetune: {weights: none}\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    made(tmp_path, [100, 40, 60, 10, 30, 20])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words):
    return CliRunner().invoke(main, ["slurm", *words])


def test_every_job_is_behind_those_whose_output_it_needs():
    jobs = {job.name: job.after for job in job_graph(CONFIG, ())}
    assert jobs == {
        "finetune": (),
        "extract": ("finetune",),
        "train-temporal-gru": ("extract",),
        "train-temporal-transformer": ("extract",),
        "predict-cnn": ("extract", "finetune"),
        "predict-gru": ("extract", "train-temporal-gru"),
        "predict-transformer": ("extract", "train-temporal-transformer"),
        "ensemble-cnn+gru+transformer": ("predict-cnn", "predict-gru", "predict-transformer"),
        "apply-cnn+gru+transformer": (
            *("ensemble-cnn+gru+transformer", "predict-cnn", "predict-gru"),
            "predict-transformer",
        ),
        "report": ("predict-cnn", "apply-cnn+gru+transformer"),
    }
    assert list(jobs) == list(dict.fromkeys(jobs))


def test_seeds_train_each_head_again_and_fuse_those_of_one():
    jobs = job_graph(load_config(None, "slurm", ["manifest=m", "cache=c", "out=o", "seeds=[3, 4]", "heads=[gru]"]), ())
    names = [job.name for job in jobs]
    assert "train-temporal-gru-seed3" in names and "ensemble-cnn+gru-seed4" in names
    trained = next(job for job in jobs if job.name == "train-temporal-gru-seed4")
    assert trained.step.command == ("train-temporal", "--head", "gru", "--set", "seed=4", "-o", "o/gru-seed4")


def test_what_a_graph_cannot_do_is_refused_at_once():
    sets = ["train_temporal.end_to_end=true", "slurm.extract={ranks: 2}", "slurm.report={nodes: 2}"]
    with pytest.raises(ConfigError) as caught:
        checked_config(load_config(None, "slurm", sets))
    words = ("manifest: is not set", "cache:", "out:", "end_to_end", "slurm.extract: only", "slurm.report: only")
    assert all(word in str(caught.value) for word in words) and len(str(caught.value).splitlines()) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{extract: {cpus: 0}}", "slurm.extract.cpus: found 0, expected from 1 to"),
        ("{extract: {time: 12:00:00}}", "slurm.extract.time: found 43200, expected text, in quotes"),
        ("{extract: {time: soon}}", "slurm.extract.time: found 'soon', expected as in 90"),
        ("{extract: {memory: 3 GB}}", "slurm.extract.memory: found '3 GB', expected as in 32G"),
        ("{extract: {time: '4'}}", "slurm.extract.time: found '4', expected as in 90 (minutes)"),
        ("{extract: {time: '0:30'}}", "slurm.extract.time: found '0:30', expected as in 90 (minutes)"),
        ("{extract: {gpus: 1, ranks: 2}}", "slurm.extract.gpus: found 1, expected 0, or at least one per rank"),
        ("{extract: {gres: 1}}", "unknown key 'slurm.extract.gres'; the keys are nodes, ranks"),
        ("{extract: 3}", "slurm.extract: found 3, expected keys with values"),
        ("{shards: 0}", "slurm.shards: found 0"),
        ("{seeds: [1, 1]}", "slurm.seeds: found (1, 1), expected numbers from 0, each once"),
    ],
)
def test_bad_settings_are_named(tmp_path, text, words):
    (tmp_path / "x.yaml").write_text(f"slurm: {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(str(tmp_path / "x.yaml"))
    assert words in str(caught.value)


def test_settings_of_a_stage_may_come_from_the_command_line():
    config = load_config(
        None, "slurm", ["extract={cpus: 3}", "slurm.extract.gpus=1", "shards=4", "extract.batch_size=2"]
    )
    assert config.slurm == SlurmConfig(shards=4, extract=JobConfig(cpus=3, gpus=1))
    assert config.extract.batch_size == 2


@pytest.mark.parametrize(
    ("tasks", "at_once", "flag"),
    [((3,), None, "--array=3"), ((1, 2, 3, 5, 7, 8), 4, "--array=1-3,5,7-8%4"), (range(1, 9), None, "--array=1-8")],
)
def test_arrays_name_their_tasks_briefly(tasks, at_once, flag):
    assert array_flag(tuple(tasks), at_once) == flag


def request(job, *, python=("python",), logs="logs", header="", resources=None):
    """What a launcher is asked for."""
    return JobRequest(
        name=job.name,
        command=(*python, "-m", "fercache", *job.step.command),
        resources=resources or job.resources,
        script=Path("job.sh"),
        logs=Path(logs, job.name),
        tasks=job.tasks,
        shards=job.shards,
        header=header,
    )


def test_a_script_runs_its_words_as_they_are(tmp_path):
    """Through a real shell, with everything in names that it would make something else of."""
    name = 'it\'s "a" $HOME `touch x` $(touch y); touch z & é\n% \\'
    config = load_config(None, "slurm", ["manifest=m", "cache=c", f"out={json.dumps(name)}"])
    job = next(job for job in job_graph(config, ("-c", f"{name}/config.yaml")) if job.name == "extract")
    python = (sys.executable, str(tmp_path / "say.py"))
    script = SlurmLauncher().script(request(job, python=python, logs=tmp_path / "logs" / name, header="export A=1\n"))
    (tmp_path / "say.py").write_text("import json, sys; json.dump(sys.argv[1:], open('said', 'w'))")
    (tmp_path / "logs" / name / "extract").mkdir(parents=True)
    (tmp_path / "job.sh").write_text(script)
    environment = {**os.environ, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"}
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=environment, check=True)
    command = ["-m", "fercache", "extract", "-c", f"{name}/config.yaml", "--shard", "3/8"]
    assert json.loads((tmp_path / "said").read_text()) == command
    assert {path.name for path in tmp_path.iterdir()} == {"say.py", "job.sh", "said", "logs"}
    assert [path.name for path in (tmp_path / "logs" / name / "extract").iterdir()] == ["7_3.start2.log"]


def test_a_template_comes_first_in_the_script():
    lines = "#!/usr/bin/env zsh\n#SBATCH --comment=x\nmodule load cuda"
    job = job_graph(CONFIG, ())[0]
    assert SlurmLauncher().script(request(job, header=lines)).splitlines() == [
        *lines.splitlines(),
        'exec >> logs/finetune/"$SLURM_JOB_ID".start"${SLURM_RESTART_COUNT:-0}".log 2>&1',
        "exec python -m fercache finetune",
    ]


def test_several_ranks_are_started_by_srun():
    several = JobConfig(nodes=2, ranks=4, cpus=8)
    script = SlurmLauncher().script(request(job_graph(CONFIG, ())[0], resources=several))
    assert script.splitlines()[-1] == (
        'exec srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"}'
        " python -m fercache finetune"
    )


def test_the_plan_says_what_it_takes(folder):
    sets = ["--set", "shards=2", "--set", "extract={frames_per_s: 10, time: '90', flags: [--qos=a]}"]
    plan = json.loads(call("plan", *sets, "--flags", "extract=--qos=b", "--json", "--", "--account=me").output)
    assert (plan["videos"], plan["frames"]) == (6, 260)
    assert [(part["videos"], part["frames"]) for part in plan["parts"]] == [(2, 130), (4, 130)]
    jobs = {job["name"]: job for job in plan["jobs"]}
    assert jobs["extract"]["hours"] == pytest.approx(13 / 3600) and jobs["finetune"]["hours"] is None
    assert (jobs["extract"]["tasks"], jobs["extract"]["to_submit"]) == (2, 2)
    words = shlex.split(jobs["extract"]["command"])
    assert words[:4] == ["sbatch", "--parsable", "--dependency=afterok:<finetune>", "--array=1-2"]
    for flag in ("--requeue", "--open-mode=append", "--signal=B:USR1@120", "--kill-on-invalid-dep=yes", "--time=90"):
        assert flag in words
    assert words[-4:] == ["--qos=a", "--account=me", "--qos=b", "slurm/1/extract.sh"]
    assert "exec python -m fercache extract -c slurm/1/config.yaml" in jobs["extract"]["script"]
    cache = plan["disks"][0]
    assert cache["bytes_needed"] == (2048 * 2 + 4 * 7 + 4) * (260 + 100 + 60) + 6000 * 6
    text = call("plan", *sets).output
    assert "hours of finetune, train_temporal: not known" in text and "shard 2: 4 videos, 130 frames" in text
    assert sorted(path.name for path in folder.iterdir()) == ["fercache.yaml", "m.csv"]


@pytest.mark.parametrize("seeds", ["[]", "[0]"])
def test_a_head_in_which_nothing_is_trained_is_planned_as_one_look_at_the_validation(folder, seeds):
    sets = ("heads=[mean]", f"seeds={seeds}", "train_temporal={frames_per_s: 10}")
    plan = json.loads(call("plan", *(word for text in sets for word in ("--set", text)), "--json").output)
    (hours,) = [job["hours"] for job in plan["jobs"] if job["name"].startswith("train-temporal")]
    assert hours == pytest.approx((40 + 30) / 3 / 10 / 3600)


def test_the_plan_measures_a_few_batches(small_root, tmp_path, monkeypatch):
    """Of each stage, on the frames themselves, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["manifest", "affwild2", str(small_root), "--task", "expr", "-o", "m.csv"]).output
    recipe = "finetune: {weights: none, image_size: 48, batch_size: 4}\ntrain_temporal: {batch_size: 8}\n"
    (tmp_path / "fercache.yaml").write_text(f"manifest: m.csv\ncache: cache\nout: .\nthreads: 1\n{recipe}")
    before = sorted(path.name for path in tmp_path.iterdir())
    plan = json.loads(call("plan", "--probe", "--json", "--set", "slurm.finetune={ranks: 2}").stdout)
    assert plan["rates"].keys() == {"finetune", "extract", "train_temporal"} and min(plan["rates"].values()) > 0
    assert not plan["warnings"] or "scontrol" in plan["warnings"][0]
    hours = {job["name"]: job["hours"] for job in plan["jobs"]}
    frames = 10 * (20 + 11 / 3)  # of training, and of validation at a third of the time
    assert hours["finetune"] == pytest.approx(frames / plan["rates"]["finetune"] / 3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_plan_leaves_out_what_is_done(folder):
    (folder / "cache").mkdir()
    for name in ("v0", "v1"):
        (folder / "cache" / f"{name}.h5").touch()
    (folder / "cnn").mkdir()
    (folder / "cnn" / "metrics.jsonl").write_text("{}\n" * 10)
    plan = json.loads(call("plan", "--set", "shards=6", "--json").output)
    jobs = {job["name"]: job for job in plan["jobs"]}
    assert (jobs["extract"]["to_submit"], jobs["extract"]["state"]) == (4, "2 of 6 videos")
    assert (jobs["finetune"]["to_submit"], jobs["finetune"]["command"]) == (0, "")
    assert plan["disks"][0]["bytes_needed"] == (2048 * 2 + 4 * 7 + 4) * (60 + 10 + 30 + 20) * 2 + 6000 * 4
    assert sum(part["videos_done"] for part in plan["parts"]) == 2


def test_what_is_missing_is_told_before_anything_is_queued(folder):
    (folder / "fercache.yaml").write_text("manifest: m.csv\ncache: cache\nout: .\nfinetune: {weights: w.pth}\n")
    answer = call("plan")
    assert answer.exit_code == 1 and "finetune: needs w.pth, which does not exist" in answer.output
    answer = call("plan", "--stages", "predict,report")
    for words in ("predict-cnn: needs extract, which is not done", "predict-gru: needs train-temporal-gru"):
        assert words in answer.output
    answer = call("plan", "--stages", "smile")
    assert "--stages: found 'smile', expected some of ensemble, extract" in answer.output
    answer = call("plan", "--flags", "gres=1", "--template", "none.sh")
    assert "--flags: found 'gres=1', expected STAGE=FLAG" in answer.output
    assert (
        "none.sh: the template cannot be read"
        in call("plan", "--set", "finetune.weights=none", "--template", "none.sh").output
    )


def test_another_recipe_than_that_of_what_is_done_is_refused(folder):
    (folder / "cnn").mkdir()
    (folder / "cnn" / "config.yaml").write_text("epochs: 10\nlr: 0.1\nprecision: bf16\nseed: 0\nworkers: 3\n")
    (folder / "cnn" / "best.pt").touch()
    (folder / "cnn" / "metrics.jsonl").write_text("{}\n" * 10)
    answer = call("plan")
    assert answer.exit_code == 1
    assert (
        "cnn: was made with different settings (lr: found 0.1, expected 0.0005); use those settings, or remove it"
        in answer.output
    )
    assert call("plan", "--set", "finetune.lr=0.1").exit_code == 0


def test_without_slurm_it_is_said(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    answer = call("submit")
    assert answer.exit_code == 1 and "cannot be run: No such file or directory; is this a machine of" in answer.output
    assert [path.name for path in (folder / "slurm").iterdir()] == [".lock"]


def test_a_broken_record_is_named(folder):
    (folder / "slurm").mkdir()
    (folder / "slurm" / "jobs.json").write_text("{}")
    with pytest.raises(RunError, match=r"slurm/jobs\.json: is no record of submitted jobs"):
        SubmissionRecord.read(folder)


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    (tmp_path / "slurm").mkdir()
    job = {"name": "extract", "number": 17, "tasks": [2, 3], "shards": 3, "after": ["16", "9_1"], "submission": 2}
    (tmp_path / "slurm" / "jobs.json").write_text(json.dumps({"command": "fercache slurm submit", "jobs": [job]}))
    record = SubmissionRecord.read(tmp_path)
    assert record.command == "fercache slurm submit" and record.next_folder() == tmp_path / "slurm" / "3"
    assert record.jobs == (JobRecord("extract", 17, (2, 3), 3, ("16", "9_1"), 2),)


def test_ranks_are_those_of_the_step(monkeypatch):
    for name in [
        name for name in os.environ if name.startswith(("SLURM_", "MASTER_")) or name in ("RANK", "WORLD_SIZE")
    ]:
        monkeypatch.delenv(name)
    # A batch script has these, and is alone.
    for name, value in (("SLURM_PROCID", "0"), ("SLURM_NTASKS", "6"), ("SLURM_JOB_ID", "20017")):
        monkeypatch.setenv(name, value)
    assert ranks().count == 1
    step = {"STEP_NUM_TASKS": "6", "PROCID": "5", "LOCALID": "1", "NODEID": "2", "STEP_TASKS_PER_NODE": "2(x3)"}
    for name, value in (step | {"STEP_NODELIST": "gpu[07-09]"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    here = ranks()
    assert (here.rank, here.count, here.local, here.on_this_machine) == (5, 6, 1, 2)
    assert here.meeting == "tcp://gpu07:10017"
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "99")
    assert ranks().meeting == "tcp://10.0.0.1:99"
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "many")
    with pytest.raises(ConfigError, match=r"SLURM_STEP_TASKS_PER_NODE: found 'many', expected numbers as in 4\(x2\),1"):
        ranks()
    monkeypatch.setenv("SLURM_LOCALID", "x")
    with pytest.raises(ConfigError, match="SLURM_LOCALID: found 'x', expected the numbers that srun sets"):
        ranks()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n[1-2]", "n1"),
        ("gpu[007,009-012],login", "gpu007"),
        ("a,b[1-2]", "a"),
        ("rack[2-3]n[10-12]-ib", "rack2n10-ib"),
    ],
)
def test_the_first_machine_of_a_list(nodes, first):
    assert first_host(nodes) == first


def test_a_job_is_queued_again_at_usr1_alone(monkeypatch, tmp_path):
    """With a scontrol that writes down what it is asked."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    tool = tmp_path / "scontrol"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    code = "from fercache.errors import Stopped\nfrom fercache.runtime import queue_again\nqueue_again(Stopped({!r}))"

    def stop(name, **job):
        environment = {**os.environ, **{f"SLURM_{key}": value for key, value in job.items()}}
        subprocess.run([sys.executable, "-c", code.format(name)], env=environment, check=True, capture_output=True)

    stop("SIGUSR1")  # in no job
    stop("SIGTERM", JOB_ID="4")
    stop("SIGUSR1", JOB_ID="5")
    stop("SIGUSR1", JOB_ID="7", ARRAY_JOB_ID="6", ARRAY_TASK_ID="3")
    assert (tmp_path / "asked").read_text() == "requeue 5\nrequeue 6_3\n"


def test_a_job_that_cannot_be_queued_again_says_so(monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("PATH", "/nowhere")
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        queue_again(Stopped("SIGUSR1"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "job 5: could not be queued again: scontrol: " in caplog.text
