"""The settings in sight: every key has a meaning, help and options are made of it, `config` shows and explains it."""

from __future__ import annotations

import shlex

import pytest
import yaml
from click.testing import CliRunner

from fercache.cli import main
from fercache.cli.command import ConfigCommand, SettingOption
from fercache.config import Config, as_plain, load_config
from fercache.config.coerce import without_none
from fercache.config.settings import SECTIONS, all_settings, settings_of
from fercache.tools.names import names_of

COMMON = {"epochs", "lr", "batch_size", "image_size", "seed", "threads", "precision"}


def config_commands(command=main, words=()):
    """Every command that reads the config, by its words."""
    if isinstance(command, ConfigCommand):
        yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from config_commands(inner, (*words, name))


COMMANDS = dict(config_commands())
OPTIONS = [
    pytest.param(words, command, option, id=" ".join([*words, option.opts[0]]))
    for words, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, SettingOption)
]


def takes_anything(setting) -> bool:
    return setting.is_flag or (setting.takes_text and not setting.choices)


def answer(*words, status=0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def received(monkeypatch):
    """What each command's callback gets, instead of running."""
    calls = {}
    for words, command in COMMANDS.items():
        monkeypatch.setattr(command, "callback", lambda words=words, **parameters: calls.update({words: parameters}))
    return calls


@pytest.mark.parametrize("setting", list(all_settings()), ids=lambda setting: setting.name)
def test_every_setting_has_a_meaning_and_says_what_no_value_means(setting):
    assert setting.meaning.strip() and setting.meaning.endswith(".")
    assert setting.unset or setting.default is not None
    assert setting.unset is None or setting.default in (None, ())


@pytest.mark.parametrize("setting", list(all_settings()), ids=lambda setting: setting.name)
def test_every_setting_is_explained(setting):
    text = answer("config", "explain", setting.name)
    assert setting.meaning in text and f"default: {setting.default_words}" in text
    assert f"expected: {'one of ' if names_of(setting) else setting.expected}" in text and "read by: fercache " in text


def test_what_explain_prints():
    assert answer("config", "explain", "finetune.lr") == (
        "finetune.lr\n"
        "  Initial learning rate, after the warm-up.\n"
        "  default: 0.0005\n"
        "  expected: a number above 0 and at most 1e+30\n"
        "  read by: fercache finetune (--lr), fercache demo, fercache reproduce, fercache slurm plan, "
        "fercache slurm submit, fercache slurm status\n"
    )
    assert "expected: one of sgd, adamw\n" in answer("config", "explain", "finetune.optimizer")
    assert "default: that of the weights\n  expected: a whole number from 48 to 1024, or null" in answer(
        "config", "explain", "finetune.image_size"
    )


def test_a_key_of_several_sections_is_explained_in_each():
    heads = [line for line in answer("config", "explain", "lr").splitlines() if line and not line.startswith(" ")]
    assert heads == ["finetune.lr", "train_temporal.lr"]
    (head,) = [line for line in answer("config", "explain", "gpus").splitlines() if not line.startswith(" ")]
    assert head.startswith("slurm.finetune.gpus (also in slurm.extract, ")


def test_a_section_is_explained_by_all_its_keys():
    for name in ("train_temporal", "train-temporal"):
        text = answer("config", "explain", name)
        assert all(f"train_temporal.{key}\n" in text for key in settings_of("train_temporal"))
    overview = answer("config", "explain")
    assert all(section in overview for section in SECTIONS) and "top level: task, seed" in overview


def test_an_unknown_key_lists_similar_ones():
    assert "finetune.epochs, train_temporal.epochs" in answer("config", "explain", "epcohs", status=1)
    assert "finetune.momentum" in answer("config", "explain", "finetune.momentun", status=1)
    assert "the sections are synth, finetune" in answer("config", "explain", "xyzzy", status=1)
    assert "expected one of synth, finetune" in answer("config", "show", "xyzzy", status=1)


def test_show_names_the_source_of_each_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text("seed: 1\nthreads: 2\nfinetune: {epochs: 4, lr: 5e-3, milestones: [1, 3]}\n")
    words = ["-c", "x.yaml", "--set", "lr=0.1", "--set", "seed=5", "--seed", "6"]
    lines = dict(line.split("  # ") for line in answer("config", "show", "finetune", *words).splitlines()[1:])
    shown = {text.strip(): source for text, source in lines.items()}
    assert shown["lr: 0.1"] == "--set lr=0.1"
    assert shown["epochs: 4"] == shown["milestones: [1, 3]"] == "x.yaml"
    assert shown["momentum: 0.9"] == "default"
    assert shown["image_size: null"] == "default: that of the weights"
    top = answer("config", "show", *words[:2], *words[4:])
    assert "seed: 6  " in top and "# --seed 6\n" in top and "threads: 2 " in top and "finetune:\n  epochs: 4" in top


def test_what_show_prints_reads_back_as_the_same(tmp_path):
    words = ["--set", "finetune.weights='a b: #c'", "--set", "slurm.extract.time='1:00:00'", "--set", "seed=3"]
    text = answer("config", "show", "-c", "abaw2021_expr", *words)
    config = load_config("abaw2021_expr", None, words[1::2])
    assert yaml.safe_load(text) == as_plain(config)
    (tmp_path / "x.yaml").write_text(text)
    assert load_config(str(tmp_path / "x.yaml")) == config
    section = yaml.safe_load(answer("config", "show", "slurm.extract", "-c", "demo"))
    assert section == {"slurm": {"extract": as_plain(load_config("demo").slurm.extract)}}


def test_the_page_has_a_row_for_every_setting():
    page = answer("config", "explain", "--markdown")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    distinct = {(SECTIONS.get(setting.section, Config), setting.key) for setting in all_settings()}
    assert len(rows) == len(distinct)
    assert (
        "| `lr` | `0.0005` | a number above 0 and at most 1e+30 | Initial learning rate, after the warm-up. |" in rows
    )
    assert "| `image_size` | that of the weights | a whole number from 48 to 1024, or null |" in page
    assert page.startswith("# Settings\n") and all(f"`{section}`" in page for section in SECTIONS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_the_settings_of_the_commands_section(words):
    command = COMMANDS[words]
    text = " ".join(answer(*words, "--help").split())
    for setting in settings_of(command.section).values() if command.section else ():
        note = f"default: {setting.default_words}]"
        if names_of(setting):
            note = f"[{'|'.join(names_of(setting))}; {note}"
        assert f"{setting.key} {' '.join(setting.meaning.split())}" in text and note in text, setting.name
    for option in command.params:
        if isinstance(option, SettingOption):
            assert f"{option.opts[0]}, {option.setting.key} {option.setting.meaning}" in text


def test_long_sections_are_shown_in_groups():
    for words in ("finetune", "train-temporal"):
        lines = [line.strip() for line in answer(words, "--help").splitlines()]
        assert {"Training:", "Optimiser and schedule:", "Loss:"} <= set(lines)
        assert lines.index("Training:") < lines.index("Optimiser and schedule:") < lines.index("Loss:")


def test_common_settings_are_options_of_every_command_whose_section_has_them():
    for words, command in COMMANDS.items():
        options = {option.setting.key for option in command.params if isinstance(option, SettingOption)}
        if command.section and command.section != "slurm":
            assert COMMON & set(settings_of(command.section)) <= options, words
            assert COMMON & command.reads <= options, words
    options = {option.setting.name for _, _, option in (param.values for param in OPTIONS)}
    assert {"finetune.epochs", "finetune.lr", "finetune.precision", "finetune.image_size", "seed"} <= options


def required_arguments(command) -> list[str]:
    return ["x" for p in command.params if p.param_type_name == "argument" and p.required]


@pytest.mark.parametrize(("words", "command", "option"), OPTIONS)
def test_an_option_is_read_as_set_reads_its_key(words, command, option, received):
    setting, arguments = option.setting, required_arguments(command)
    value = {int: "64", float: "0.5", str: "x", bool: "true"}.get(without_none(setting.kind))
    value = setting.choices[-1] if setting.choices else "expr" if setting.key == "task" else value
    answer(*words, *arguments, option.opts[0], *([] if setting.is_flag else [value]))
    by_option = received.pop(words)["config"]
    answer(*words, *arguments, "--set", f"{setting.key}={value}")
    by_set = received.pop(words)["config"]
    if words == ("config", "show"):
        by_option, by_set = by_option[0], by_set[0]
    assert by_option == by_set != load_config(command.default_config, command.section)


@pytest.mark.parametrize(
    ("words", "command", "option"), [param for param in OPTIONS if not takes_anything(param.values[2].setting)]
)
def test_a_bad_option_is_refused_with_the_message_of_set(words, command, option):
    setting, arguments = option.setting, required_arguments(command)
    for value in ["x"] if setting.choices else ["x", "-1", "[1]"]:
        flag = f"--{setting.key.replace('_', '-')}"
        by_option = answer(*words, *arguments, flag, value, status=1)
        by_set = answer(*words, *arguments, "--set", f"{setting.key}={value}", status=1)
        message = by_set.removeprefix(f"Error: --set {setting.key}={value}: ")
        assert message.startswith(f"{setting.name}: found ") and ", expected " in message
        assert by_option == f"Error: {flag} {value}: {message}"


def test_a_bad_option_says_what_was_expected():
    words = ["finetune", "--epochs", "0", "--lr", "fast", "--precision", "fp8", "--image-size", "4"]
    assert answer(*words, status=1).splitlines() == [
        "Error: --lr fast: finetune.lr: found 'fast', expected a number above 0 and at most 1e+30",
        "--precision fp8: finetune.precision: found 'fp8', expected one of auto, fp32, bf16, fp16",
        "--epochs 0: finetune.epochs: found 0, expected from 1 to 100000",
        "--image-size 4: finetune.image_size: found 4, expected from 48 to 1024, or null",
    ]


def test_options_beat_set_and_set_beats_the_file(tmp_path, monkeypatch, received):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fercache.yaml").write_text("seed: 1\nfinetune: {epochs: 2, lr: 0.2, batch_size: 2}\n")
    answer("finetune", "--set", "epochs=3", "--set", "lr=0.3", "--lr", "4e-1")
    config = received["finetune",]["config"]
    assert config == load_config(None, None, ["finetune={epochs: 3, lr: 0.4, batch_size: 2}"])
    assert (config.seed, config.finetune.lr) == (1, 0.4)


def test_a_flag_can_be_turned_off_again(received):
    for words, expected in (([], True), (["--no-allow-missing"], False)):
        answer("predict", "--set", "allow_missing=true", *words)
        assert received["predict",]["config"].predict.allow_missing is expected


def test_the_format_of_a_weights_file_has_two_names(received):
    for name in ("--format", "--weights-format"):
        answer("extract", name, "dag")
        assert received["extract",]["config"].extract.weights_format == "dag"


@pytest.mark.parametrize(
    "example", [example for command in COMMANDS.values() for example in command.examples], ids=lambda text: text
)
def test_every_example_parses(example, received):
    words = [word for word in shlex.split(example) if word not in ("--gpus", "all")]
    answer(*words[words.index("fercache") + 1 :])
    assert len(received) == 1
