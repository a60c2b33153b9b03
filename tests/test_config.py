from __future__ import annotations

import dataclasses
import typing

import pytest

from fercache.config import (
    Config,
    EnsembleConfig,
    FinetuneConfig,
    TrainTemporalConfig,
    as_plain,
    load_config,
    shipped_configs,
)
from fercache.errors import ConfigError


def write(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_defaults_are_the_papers():
    config = Config()
    assert (config.finetune.lr, config.finetune.epochs, config.finetune.milestones) == (5e-4, 10, (2, 4, 8))
    assert (config.train_temporal.window, config.train_temporal.stride, config.train_temporal.lr) == (9, 4, 1e-3)


def test_precedence_default_yaml_set_option(tmp_path):
    path = write(tmp_path, "seed: 1\nmanifest: y.csv\nfinetune: {epochs: 2, lr: 5e-3, milestones: [1]}\n")
    config = load_config(path, "finetune", ["epochs=3", "seed=4"], {"manifest": "o.csv", "weights": None})
    assert config.finetune == FinetuneConfig(epochs=3, lr=5e-3, milestones=(1,))
    assert (config.seed, config.manifest) == (4, "o.csv")


def test_set_means_the_commands_section_then_the_top_level_then_a_named_section():
    config = load_config(None, "train_temporal", ["batch_size=7", "threads=2", "finetune.batch_size=5"])
    assert (config.train_temporal.batch_size, config.finetune.batch_size, config.threads) == (7, 5, 2)


def test_the_file_in_the_current_folder_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config().seed == 0
    (tmp_path / "fercache.yaml").write_text("seed: 9\n")
    assert load_config().seed == 9


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_shipped_configs_are_valid_and_found_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(name).task is not None


def test_the_papers_config_states_the_defaults():
    config = load_config("abaw2021_expr")
    assert config.train_temporal == TrainTemporalConfig()
    assert config.finetune == FinetuneConfig(weights="weights/resnet50_ft_dag.pth", image_size=224)


def test_what_as_plain_gives_reads_back_as_the_same(tmp_path):
    import yaml

    config = load_config(None, "finetune", ["crop_scale=[0.5, 1]", "epochs=3"])
    assert load_config(write(tmp_path, yaml.safe_dump(as_plain(config)))) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", ["unknown key 'epoch'", "task, seed, threads"]),
        ("finetune: {epoch: 3}", ["unknown key 'finetune.epoch'", "epochs, batch_size"]),
        ("finetune: {epochs: many}", ["finetune.epochs", "'many'", "a whole number"]),
        ("finetune: {epochs: true}", ["finetune.epochs", "True", "a whole number"]),
        ("finetune: {epochs: 0}", ["finetune.epochs", "found 0", "from 1 to 100000"]),
        ("finetune: {lr: fast}", ["finetune.lr", "'fast'", "a number"]),
        ("finetune: {lr: .nan}", ["finetune.lr", "nan", "a number"]),
        ("finetune: {milestones: 2}", ["finetune.milestones", "a list of whole numbers"]),
        ("finetune: {milestones: [4, 2]}", ["finetune.milestones", "ascending"]),
        ("finetune: {crop_scale: [0.2]}", ["finetune.crop_scale", "a list of 2 numbers"]),
        ("finetune: {precision: fp8}", ["finetune.precision", "auto, fp32, bf16"]),
        ("finetune: 3", ["finetune", "found 3", "keys with values"]),
        ("train_temporal: {window: 8}", ["train_temporal.window", "odd"]),
        ("train_temporal: {stride: 10}", ["train_temporal.stride", "skipped"]),
        ("ensemble: {step: 0.3}", ["ensemble.step", "one over a whole number"]),
        ("task: smile", ["task", "'smile'", "expr8"]),
        ("seed: -1", ["seed", "from 0 to"]),
        ("seed: 1\nseed: 2", ["duplicate key seed"]),
        ("[1, 2]", ["found list", "keys with values"]),
        ("a: [", ["not valid YAML"]),
        ("'': {seed: 1}", ["unknown key ''"]),
        (".seed: 1", ["unknown key '.seed'"]),
        ("seed: 2020-13-45", ["seed", "found '2020-13-45'", "a whole number"]),
        ("x: !!python/object/apply:os.system [echo]", ["line 1", "has the tag"]),
    ],
)
def test_bad_yaml_is_named(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert all(word in str(caught.value) for word in [*words, path]), str(caught.value)


def test_all_problems_come_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "finetune: {epochs: x, lrr: 1}\ntasks: 3\n"), "finetune", ["lr=x"])
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs", "expected KEY=VALUE"),
        ("epcohs=3", "unknown key 'epcohs'; the keys are epochs, batch_size"),
        ("epochs=x", "epochs: found 'x', expected a whole number"),
        ("seed=[1]", "seed: found [1], expected a whole number"),
    ],
)
def test_bad_set_is_named(text, words):
    with pytest.raises(ConfigError, match=r"--set") as caught:
        load_config(None, "finetune", [text])
    assert words in str(caught.value)


def test_a_value_out_of_range_names_where_it_came_from(tmp_path):
    path = write(tmp_path, "finetune: {lr: -1, epochs: 0}\nseed: -3\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, "finetune", ["epochs=-2"], {"threads": 0})
    lines = str(caught.value).splitlines()
    assert [line.split(" found")[0] for line in lines] == [
        "--set epochs=-2: finetune.epochs:",
        f"{path}: finetune.lr:",
        f"{path}: seed:",
        "--threads 0: threads:",
    ]


def numeric_fields(kind, prefix=""):
    """Every key that takes numbers, with the type of one of them."""
    for field in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind)[field.name]
        if dataclasses.is_dataclass(hint):
            yield from numeric_fields(hint, f"{prefix}{field.name}.")
        types = [part for part in (hint, *typing.get_args(hint)) if part in (int, float)]
        if types:
            yield f"{prefix}{field.name}", types[0], typing.get_origin(hint) is tuple


@pytest.mark.parametrize(("key", "kind", "several"), list(numeric_fields(Config)))
def test_every_number_has_limits(key, kind, several):
    for number in (
        "1" + "0" * 18,
        "-1" + "0" * 18,
        "9" * 400,
        *((".inf", "-.inf", ".nan", "1e40") if kind is float else ()),
    ):
        # A seed may be any number of 63 bits; a learning rate that is far too high ends in a sentence of its own.
        if number == "1" + "0" * 18 and (key in ("seed", "slurm.seeds") or key.endswith("lr")):
            continue
        for text in [f"[{number}]", f"[0.5, {number}]", f"[{number}, {number}]"] if several else [number]:
            with pytest.raises(ConfigError, match=key):
                load_config(None, None, [f"{key}={text}"])


def test_an_unknown_config_lists_the_shipped_ones():
    with pytest.raises(ConfigError, match="abaw2021_expr"):
        load_config("abaw2099")


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 100, 1000])
def test_steps_of_the_search_are_fractions_of_one(steps):
    assert round(1 / EnsembleConfig(step=1 / steps).step) == steps
