"""What is submitted again, replaced, refused and told, as the jobs of earlier submissions go on."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner
from support.fake_slurm import FakeSlurm

from fercache.cache.provenance import CacheRecord, Provenance
from fercache.cli import main
from fercache.cluster.record import SubmissionRecord
from fercache.errors import RunError

RECIPE = """
manifest: m.csv
cache: cache
out: .
finetune: {weights: none, epochs: 2}
slurm: {shards: 3, heads: [gru]}
"""
HEADER = """# fercache-manifest 1
# task: expr
# root: nowhere
video_id,split,frames_dir,labels_path,num_frames,group
"""
AFTER_EXTRACT = [
    *("train-temporal-gru", "predict-cnn", "predict-gru"),
    *("ensemble-cnn+gru", "apply-cnn+gru", "report"),
]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    rows = [f"v{i},{'train' if i % 2 else 'validation'},frames/v{i},,10,v{i}\n" for i in range(3)]
    (folder / "m.csv").write_text(HEADER + "".join(rows))
    (folder / "fercache.yaml").write_text(RECIPE)
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(folder)
    fake = FakeSlurm(tmp_path / "bin")
    fake.install(monkeypatch)
    fake.project = folder
    return fake


def call(*words, status=0):
    answer = CliRunner().invoke(main, ["slurm", *words])
    assert answer.exit_code == status and not isinstance(answer.exception, Exception), answer.output
    return answer.output


def submit(*words) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in call("submit", *words).splitlines() if "cancelled" not in line)


def jobs() -> dict[str, dict]:
    return {job["name"]: job for job in json.loads(call("status", "--json"))["jobs"]}


def finish_finetune(slurm, epochs=2):
    (slurm.project / "cnn").mkdir(exist_ok=True)
    (slurm.project / "cnn" / "config.yaml").write_text("epochs: 2\n")
    (slurm.project / "cnn" / "metrics.jsonl").write_text("{}\n" * epochs)
    (slurm.project / "cnn" / "best.pt").write_text("x")


def finish_video(slurm, name):
    (slurm.project / "cache").mkdir(exist_ok=True)
    (slurm.project / "cache" / f"{name}.h5").touch()


def after_the_second_part_has_failed(slurm):
    """Three parts of one video each: the first runs, the second has failed, the third waits."""
    submit()
    finish_finetune(slurm)
    slurm.set("GONE", "finetune")
    slurm.set("RUNNING", "extract", 1)
    slurm.set("GONE", "extract", 2)


def test_a_failed_part_is_done_again_and_what_waits_for_it_is_replaced(slurm):
    after_the_second_part_has_failed(slurm)
    listed = jobs()
    assert (listed["extract"]["state"], listed["extract"]["running"], listed["extract"]["waiting"]) == ("failed", 1, 1)
    assert listed["extract"]["failures"][0]["task"] == 2
    steps = submit()
    number = [job for job in SubmissionRecord.read(slurm.project).jobs if job.name == "extract"][-1].number
    assert steps["finetune"] == "done" and steps["extract"] == f"job {number}, 1 tasks"
    assert steps["train-temporal-gru"] == f"job {number + 1}, after {number}, 102_1, 102_3"
    assert [name for queued, name in slurm.queue() if queued >= number] == ["extract", *AFTER_EXTRACT]
    assert {name for queued, name in slurm.queue() if queued < number} == {"extract"}


def test_a_graph_that_is_under_way_is_left_alone(slurm):
    """Also with parts of an array under a number of their own."""
    after_the_second_part_has_failed(slurm)
    submit()
    before = slurm.queue()
    assert {job["state"] for job in jobs().values()} == {"done", "running", "waiting"}
    steps = submit()
    assert all(text == "done" or text.startswith("already in the queue") for text in steps.values())
    assert "done" in steps.values()
    assert slurm.queue() == before
    assert json.loads(call("status", "--json"))["go_on"] is None


def test_jobs_that_can_never_begin_are_told_and_replaced(slurm):
    submit()
    slurm.set("GONE", "finetune")
    slurm.set("PENDING", "extract", reason="DependencyNeverSatisfied")
    listed = jobs()
    assert (listed["finetune"]["state"], listed["extract"]["state"]) == ("failed", "blocked")
    assert listed["extract"]["reason"] == "finetune is not done"
    first = max(number for number, _ in slurm.queue())
    submit()
    assert min(number for number, _ in slurm.queue()) > first
    slurm.set("PENDING", "finetune", reason="PartitionTimeLimit")
    assert "PartitionTimeLimit" in call("status").splitlines()[0]


def test_a_network_that_is_to_be_trained_again_has_all_that_stands_on_it_done_again(slurm):
    finish_finetune(slurm)
    for name in ("v0", "v1", "v2"):
        finish_video(slurm, name)
    (slurm.project / "gru").mkdir()
    (slurm.project / "gru" / "config.yaml").write_text("epochs: 10\n")
    (slurm.project / "gru" / "best.pt").write_text("x")
    (slurm.project / "gru" / "metrics.jsonl").write_text("{}\n" * 10)
    done = dict.fromkeys(("finetune", "extract", "train-temporal-gru"), "done")
    assert {name: job["state"] for name, job in jobs().items()} == dict.fromkeys(jobs(), "not submitted") | done
    (slurm.project / "cnn" / "metrics.jsonl").unlink()
    steps = submit()
    assert steps["extract"].endswith("3 tasks, after 101") and steps["train-temporal-gru"].startswith("job 103")


def test_what_was_made_otherwise_is_told_before_anything_is_queued(slurm):
    finish_finetune(slurm, epochs=1)
    (slurm.project / "cnn" / "config.yaml").write_text("epochs: 2\nlr: 0.1\nclip_norm: 1.0\n")
    (slurm.project / "cache").mkdir()
    fields = {"weights": "w", "classifier": None, "task": "expr", "architecture": "resnet50-vggface2"}
    fields |= {"preprocessing": {}, "precision": "fp32", "dtype": "float16", "schema": 2}
    record = CacheRecord(Provenance(**fields), {"backend": "eager", "weights_sha256": "0" * 64})
    (slurm.project / "cache" / "provenance.json").write_text(record.as_json())
    output = call("submit", "--set", "extract.dtype=float32", status=1)
    assert (
        "cnn: was made with different settings (lr: found 0.1, expected 0.0005; clip_norm: found 1.0, expected None)"
        in output
    )
    assert "cache: was made with different settings (dtype: found 'float16', expected 'float32'; network: " in output
    assert "network: found 'another one'" in output
    assert slurm.queue() == []
    assert jobs()["finetune"]["state"] == "outdated"


def test_settings_may_not_change_under_jobs_in_the_queue(slurm):
    submit()
    output = call("submit", "--set", "finetune.lr=0.5", status=1)
    assert "jobs with different settings are in the queue (finetune.lr: found 0.0005, expected 0.5)" in output
    output = call("submit", "--set", "shards=2", status=1)
    assert "slurm.shards: jobs that deal the videos into 3 shards are in the queue" in output
    assert "finetune" in submit("--set", "slurm.predict.cpus=3")


def test_another_task_than_the_manifests_is_refused(slurm):
    assert "is a manifest of task expr" in call("submit", "--set", "task=expr8", status=1)


def test_a_report_that_does_not_show_all_is_replaced(slurm):
    submit("--set", "heads=[]")
    steps = submit()
    assert steps["finetune"].startswith("already in the queue") and steps["report"].startswith("job ")
    assert len([name for _, name in slurm.queue() if name == "report"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lines.sh"], "found 'lines.sh', expected a flag of sbatch, with its value as in --partition=gpu"),
        (["--", "-p", "gpu"], "found 'gpu', expected a flag of sbatch"),
        (["--", "--dependency=afterok:5"], "found '--dependency=afterok:5', which the graph sets itself"),
        (["--", "--arr=1-2"], "found '--arr=1-2', which the graph sets itself"),
        (["--", "-d5"], "found '-d5', which the graph sets itself"),
        (["--flags", "finetune=--ntasks-per-node=4"], "found '--ntasks-per-node=4', which the graph sets itself"),
        (["--set", "flags=[--wrap=x]"], "slurm.flags: found '--wrap=x', which the graph sets itself"),
        (["--set", "extract.flags=[gpu]"], "slurm.extract.flags: found 'gpu', expected a flag of sbatch"),
        (["--set", "heads=[smile]"], "slurm.heads: found 'smile', expected some of gru, transformer"),
        (["--set", "finetune.arch=resnet18"], "finetune.arch: found 'resnet18', expected one of resnet50, vggface"),
        (["--set", "extract.weights=other"], "extract.weights: the graph extracts from the network"),
    ],
)
def test_what_would_make_another_graph_is_refused(slurm, words, said):
    assert said in call("submit", *words, status=1)
    assert slurm.queue() == []


def test_flags_that_are_the_users_go_through(slurm):
    for flag in ("--partition=gpu", "--account=a", "--nodelist=n1", "-pgpu", "--cpus-per-task=3", "--qos=x"):
        call("plan", "--", flag)


def test_where_a_job_is_refused_those_before_it_are_cancelled(slurm):
    output = call("submit", "--flags", "predict=--bogus", status=1)
    assert "unrecognized option '--bogus'; the 3 jobs submitted before it (101, 102, 103) are cancelled" in output
    assert slurm.queue() == [] and SubmissionRecord.read(slurm.project).jobs == ()


def test_submissions_keep_each_other_out(slurm):
    with SubmissionRecord.read(slurm.project).locked():
        command = [sys.executable, "-m", "fercache", "slurm", "submit"]
        answer = subprocess.run(command, cwd=slurm.project, capture_output=True, text=True)
    assert answer.returncode == 1 and "another submission is under way" in answer.stderr
    assert slurm.queue() == []
    with (
        SubmissionRecord.read(slurm.project).locked(),
        pytest.raises(RunError),
        SubmissionRecord.read(slurm.project).locked(),
    ):
        pass


def test_jobs_that_the_record_lacks_are_named(slurm):
    """As after a kill between sbatch and the record."""
    submit()
    (slurm.project / "slurm" / "jobs.json").unlink()
    assert "job 101: finetune of this project is in the queue but not in slurm/jobs.json" in call("submit", status=1)


def test_a_number_that_is_given_anew_to_another_job_is_not_taken_for_ours(slurm):
    submit()
    theirs = [job | {"name": "their work", "state": "RUNNING"} for job in slurm.jobs()]
    slurm.write(theirs)
    assert {job["state"] for job in jobs().values()} == {"failed", "blocked"}
    submit()
    assert [job["state"] for job in slurm.jobs() if job["name"] == "their work"] == ["RUNNING"] * len(theirs)


def test_the_way_to_go_on_is_the_command_as_it_was_given(slurm):
    (slurm.project / "my lines.sh").write_text("module load x\n")
    words = ("--template", "my lines.sh", "--set", "shards=2", "--flags", "extract=--qos=a", "--", "--account=me")
    call("submit", *words)
    slurm.set("GONE", "finetune")
    last = call("status", "--set", "shards=2").splitlines()[-1]
    assert last == f"To resume: {shlex.join(('fercache', 'slurm', 'submit', *words))}"


def test_the_cause_is_the_line_of_the_rank_that_failed_first(slurm):
    submit("--stages", "finetune")
    slurm.set("GONE", "finetune")
    logs = slurm.project / "logs" / "finetune"
    (logs / "101.slurm.log").write_text("slurmstepd-n1: error: *** JOB 101 ***\n")
    lines = ["12:00 epoch 1", "[rank 1] Error: w.pth: is damaged", "[rank 0] Error: another rank of the 2 has ended"]
    (logs / "101.start0.log").write_text("\n".join([*lines, "srun: error: n1: task 0: Exited with exit code 1"]))
    (failure,) = jobs()["finetune"]["failures"]
    assert failure["cause"] == "[rank 1] Error: w.pth: is damaged" and failure["log"] == "logs/finetune/101.start0.log"
    assert len(failure["lines"]) == 4
