from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from support.weight_files import dag_tensors, vggface_tensors

from fercache.config import load_config
from fercache.errors import ConfigError, DataError, FercacheError
from fercache.pipeline.reproduce import reproduce, table_rows

TINY = {
    "synth": {"train": 2, "validation": 2, "test": 0, "seconds": 1, "fps": 5, "image_size": 48},
    "finetune": {"image_size": 48, "epochs": 1, "batch_size": 8, "lr": 1e-4, "milestones": []},
    "train_temporal": {"epochs": 1, "batch_size": 16, "milestones": []},
    "ensemble": {"folds": 2, "step": 0.1},
}


def config(tmp_path, **reproduce_section):
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({**TINY, "reproduce": {"data": "synth", **reproduce_section}}))
    return file


# Table 1 and Table 2 of the paper: F1, accuracy, E.
TABLES = {
    "expr": {
        "vggface": "0.3000 0.5000 0.3600",
        "resnet50": "0.3763 0.5713 0.4402",
        "vggface2": "0.4124 0.6216 0.4815",
        "vggface2+gru": "0.4126 0.6220 0.4817",
        "vggface2+transformer": "0.4127 0.6221 0.4818",
        "vggface2+gru+transformer": "0.4133 0.6216 0.4821",
    },
    "au": {"vggface": "0.4000 0.2200 0.3100", "vggface2": "0.4701 0.8768 0.6734"},
}


def test_the_shipped_configs_name_the_papers_rows():
    for task, rows in TABLES.items():
        assert [(row.task, row.name) for row in table_rows(load_config(f"abaw2021_{task}"))] == [
            (task, name) for name in rows
        ]
    demo = {(row.task, row.name) for row in table_rows(load_config("demo"))}
    assert demo >= {(task, name) for task, rows in TABLES.items() for name in rows}
    assert {("expr", "resnet50+gru+transformer"), ("au", "resnet50")} <= demo


def test_what_is_no_row_is_told_at_once(tmp_path):
    wrong = config(tmp_path, expr=["vggface", "vggface3", "resnet50+lstm"], au=["gru", "resnet50+gru+gru"])
    with pytest.raises(FercacheError) as caught:
        table_rows(load_config(str(wrong)))
    assert [re.search("found '(.*?)'", line)[1] for line in str(caught.value).splitlines()] == [
        *("vggface3", "resnet50+lstm", "gru", "resnet50+gru+gru")
    ]
    with pytest.raises(ConfigError, match="task: found None, expected expr or au"):
        table_rows(load_config(str(config(tmp_path))))


def test_nothing_at_hand_is_told_with_what_to_get(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        reproduce(tmp_path / "out", load_config("abaw2021_expr"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and all("the data are not at affwild2: Aff-Wild2" in line for line in lines)
    assert "vgg_face_dag.pth" in lines[0] and "resnet50_ft_dag.pth" in lines[2]
    assert lines[2].startswith("Not run: vggface2, vggface2+gru, vggface2+transformer, vggface2+gru+transformer: ")
    assert not (tmp_path / "out").exists()


def test_words_for_weights_are_of_one_row_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = config(tmp_path, expr=["vggface", "vggface2"], vggface="none", vggface2="imagenet")
    with pytest.raises(
        DataError, match=r"(?s)none does not exist: vgg_face_dag.*imagenet does not exist: resnet50_ft_dag"
    ):
        reproduce(tmp_path / "out", load_config(str(file)))


def run(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "fercache", "reproduce", *arguments], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_papers_rows_run_from_files_in_the_real_formats(tmp_path):
    weights = {name: str(tmp_path / name) for name in ("vggface2", "vggface")}
    file = config(tmp_path, expr=list(TABLES["expr"]), au=list(TABLES["au"]), **weights)
    torch.save(dag_tensors(), weights["vggface2"])
    (tmp_path / "vggface").write_text("not yet")
    first = run("-c", str(file), "--out", "out", folder=tmp_path)
    assert first.returncode == 1, first.stderr
    assert "Error: expr/vggface: fercache finetune: ended with exit status 1" in first.stderr
    table = (tmp_path / "out" / "tables.txt").read_text()
    assert table.count("Not run: vggface: failed") == 2 and table.count("Not run") == 2

    torch.save(vggface_tensors(), weights["vggface"])
    second = run("-c", str(file), "--out", "out", folder=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "Not run" not in second.stdout
    lines = [line for line in second.stdout.splitlines() if re.search(r"[01]\.\d{4} to [01]\.\d{4}", line)]
    assert [" ".join(line.split()[-3:]) for line in lines] == [n for rows in TABLES.values() for n in rows.values()]
    # What came out for the ResNet50 did not change when the VGG-Face came to it.
    assert set(lines) >= {line for line in table.splitlines() if re.search(r"[01]\.\d{4} to [01]\.\d{4}", line)}

    # What is done needs no weights any more; other settings are refused, and harm nothing.
    for path in weights.values():
        Path(path).unlink()
    done = run("-c", str(file), "--out", "out", folder=tmp_path)
    assert done.returncode == 0 and second.stdout.endswith(done.stdout), done.stderr
    before = (tmp_path / "out" / "tables.txt").read_text()
    other = run("-c", str(file), "--out", "out", "--set", "resnet50=imagenet", folder=tmp_path)
    assert other.returncode == 1 and "finetune.weights: found 'none', expected 'imagenet'" in other.stderr
    assert (tmp_path / "out" / "tables.txt").read_text() == before


@pytest.mark.slow
def test_interrupted_at_any_point_it_ends_with_the_same_table(tmp_path):
    file = config(tmp_path, expr=["resnet50", "resnet50+gru", "vggface2"], au=["resnet50"])
    undisturbed = run("-c", str(file), "--out", "undisturbed", folder=tmp_path)
    assert undisturbed.returncode == 0, undisturbed.stderr
    moments = random.Random(0)
    for kind in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "-m", "fercache", "reproduce", "-c", str(file), "--out", "disturbed"],
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moments.uniform(5, 30))
        os.killpg(process.pid, kind)
        assert process.wait() in (75, -kind)
    again = run("-c", str(file), "--out", "disturbed", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    ended, expected = ((tmp_path / name / "tables.txt").read_text() for name in ("disturbed", "undisturbed"))
    assert ended == expected and again.stdout.endswith(ended)
    assert "Not run: vggface2: weights/resnet50_ft_dag.pth does not exist" in again.stdout
