"""Every row of the paper's two tables (Mao, Fan, Peng 2021): what is missing is run, and printed beside the paper's.

A row is written as a frame network and the heads that it is fused with, as in vggface2+gru+transformer.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from fercache import runtime
from fercache.config import Config, FinetuneConfig, ReproduceConfig
from fercache.errors import ConfigError, DataError, FercacheError, RunError, raise_problems
from fercache.files import write_text
from fercache.pipeline import project
from fercache.pipeline.graph import Step, run_steps
from fercache.results.ensemble_file import read_ensemble
from fercache.results.wording import as_table, digits, span
from fercache.scoring.search import Weighting
from fercache.stages.evaluate import evaluate
from fercache.tasks import TASKS

log = logging.getLogger(__name__)

SYNTHETIC = "synth"
"""As `reproduce.data`: faces that are drawn, as the section `synth` says."""


@dataclass(frozen=True)
class Network:
    """A frame network of the tables; its weights stand in the config's `reproduce` under its name."""

    title: str
    arch: str
    source: str
    """Where its weights are to be had."""


ALBANIE = "from Samuel Albanie's PyTorch models (robots.ox.ac.uk/~albanie/pytorch-models.html)"
NETWORKS = {
    "vggface": Network("VGG-Face (baseline)", "vggface", f"vgg_face_dag.pth, {ALBANIE}"),
    "resnet50": Network("ResNet50", "resnet50", "none for random numbers, or imagenet"),
    "vggface2": Network("ResNet50 (VGGFace2)", "resnet50", f"resnet50_ft_dag.pth, {ALBANIE} or github.com/ox-vgg"),
}
HEADS = {"gru": "GRU", "transformer": "Transformer"}
PAPER = {
    "expr": {
        "vggface": (0.30, 0.50, 0.36),
        "resnet50": (0.3763, 0.5713, 0.4402),
        "vggface2": (0.4124, 0.6216, 0.4815),
        "vggface2+gru": (0.4126, 0.6220, 0.4817),
        "vggface2+transformer": (0.4127, 0.6221, 0.4818),
        "vggface2+gru+transformer": (0.4133, 0.6216, 0.4821),
    },
    "au": {"vggface": (0.40, 0.22, 0.31), "vggface2": (0.4701, 0.8768, 0.6734)},
}
"""F1, accuracy and E of the paper's Table 1 and Table 2, by task and row."""
AFFWILD2 = "Aff-Wild2 (cropped_aligned and annotations), from its authors (ibug.doc.ic.ac.uk/resources/aff-wild2)"


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    task: str
    name: str

    @property
    def network(self) -> str:
        """The frame network it stands on."""
        return self.name.split("+")[0]

    @property
    def system(self) -> project.System:
        """The heads that are fused with the frame network."""
        return tuple(project.Head(name) for name in self.name.split("+")[1:])

    @property
    def title(self) -> str:
        """In words."""
        return " + ".join([NETWORKS[self.network].title, *(HEADS[head.name] for head in self.system)])

    def folder(self, out: Path) -> Path:
        """The project folder of its frame network, shared by the rows that stand on it."""
        return out / self.task / self.network

    def done(self, out: Path) -> bool:
        """Whether all that its numbers are read from is there."""
        needed = [project.predictions(self.system)]
        needed += [project.ensemble(self.system)] if self.system else []
        return all((self.folder(out) / name).exists() for name in needed)


def reproduce(out: Path, config: Config) -> str:
    """Run in `out` what the rows of `config` lack, and return the tables, which `out`/tables.txt holds too.

    A row whose weights are not there is listed with what to get. Where a command fails the other rows are run, and
    RunError tells at the end; DataError where no row is done or can be run. What was stopped goes on.
    """
    rows = wanted(config)
    todo = [row for row in rows if not row.done(out)]
    lacking = {row: reason for row in todo if (reason := _lacks(row, config))}
    if len(lacking) == len(rows):
        raise_problems(_not_run(rows, lacking), DataError)
    _check_settings(out, rows, config)
    possible = [row for row in todo if row not in lacking]
    problems = _run(out, possible, config) if possible else {}
    failed = {row: "failed" for row in possible if row.folder(out) in problems and not row.done(out)}
    text = "\n\n".join(
        _table(out, task, [row for row in rows if row.task == task], {**lacking, **failed}, config)
        for task in dict.fromkeys(row.task for row in rows)
    )
    write_text(out / "tables.txt", text + "\n")
    raise_problems([*problems.values(), *([f"{out / 'tables.txt'}: has the other rows"] if problems else [])], RunError)
    return text


def _check_settings(out: Path, rows: list[Row], config: Config) -> None:
    """Raise RunError where the folder, or that of a row, was begun with different settings, for all of them at once."""
    problems = []
    for folder, own in [(out, _shared_config(config)), *_projects(out, rows, config).items()]:
        try:
            project.check_project(folder, own)
        except RunError as error:
            problems.append(str(error))
    raise_problems(problems, RunError)


def _projects(out: Path, rows: list[Row], config: Config) -> dict[Path, Config]:
    """The project folders of rows, with their configs."""
    return {row.folder(out): _project_config(row, config) for row in rows}


def _run(out: Path, rows: list[Row], config: Config) -> dict[Path, str]:
    """Run what rows lack; project folder -> what failed in it, while the others went on."""
    project.write_project(out, _shared_config(config))
    run_steps(_data_steps(config, {row.task for row in rows}), out)
    problems = {}
    with runtime.stop_signals() as stop:
        for folder, own_config in _projects(out, rows, config).items():
            stop.check()
            own = [row for row in rows if row.folder(out) == folder]
            try:
                project.write_project(folder, own_config)
                run_steps(project.steps(own_config, [row.system for row in own]), folder)
            except FercacheError as error:
                log.error("%s", error)
                problems[folder] = f"{own[0].task}/{own[0].network}: {error}"
    return problems


def wanted(config: Config) -> list[Row]:
    """The rows of the config; where it names none, the paper's of its task. ConfigError for names that are no row."""
    asked = {"expr": config.reproduce.expr, "au": config.reproduce.au}
    if not any(asked.values()):
        if config.task not in PAPER:
            raise ConfigError(f"task: found {config.task!r}, expected expr or au, or rows under reproduce.expr and .au")
        asked = {config.task: tuple(PAPER[config.task])}
    wrong = [
        f"reproduce.{task}: found {name!r}, expected one of {', '.join(NETWORKS)}, and +{', +'.join(HEADS)} behind it"
        for task, names in asked.items()
        for name in names
        if not _is_row(name)
    ]
    raise_problems(wrong, ConfigError)
    return [Row(task, name) for task, names in asked.items() for name in names]


def _is_row(name: str) -> bool:
    network, *heads = name.split("+")
    return network in NETWORKS and set(heads) <= set(HEADS) and len(set(heads)) == len(heads)


def _weights(row: Row, config: Config) -> str:
    """What training starts from: a word, or a file's absolute path, since commands run in other folders."""
    weights = getattr(config.reproduce, row.network)
    return weights if _is_word(row, weights) else str(Path(weights).resolve())


def _is_word(row: Row, weights: str) -> bool:
    """Whether weights are no file; the rows of face networks need theirs."""
    return row.network == "resnet50" and weights in project.GENERATED


def _lacks(row: Row, config: Config) -> str | None:
    """What is to be got before the row can be run."""
    data, weights = config.reproduce.data, _weights(row, config)
    needs = []
    if data != SYNTHETIC and not Path(data).is_dir():
        needs.append(f"the data are not at {data}: {AFFWILD2}")
    if not _is_word(row, weights) and not Path(weights).exists():
        needs.append(f"{getattr(config.reproduce, row.network)} is not there: {NETWORKS[row.network].source}")
    return "; ".join(needs) or None


def _data_steps(config: Config, tasks: set[str]) -> list[Step]:
    """The commands that draw faces, where they are to be drawn, and list them in a manifest for each task."""
    where = _shared_config(config).reproduce
    drawn, data, lengths = [], where.data, where.lengths
    if data == SYNTHETIC:
        drawn, data, lengths = [Step(("synth", "data"), output="data/synth.json")], "data", "data/lengths.csv"
    known = ("--lengths", lengths) if lengths else ()
    listed = [
        Step(("manifest", "affwild2", data, "--task", task, "-o", f"{task}.csv", *known), (data,), f"{task}.csv")
        for task in sorted(tasks)
    ]
    return [*drawn, *listed]


def _shared_config(config: Config) -> Config:
    """What the manifests are made with: rows and weights may come later, data may not change."""
    where = config.reproduce
    data = SYNTHETIC if where.data == SYNTHETIC else str(Path(where.data).resolve())
    shared = ReproduceConfig(data=data, lengths=where.lengths and str(Path(where.lengths).resolve()))
    return dataclasses.replace(config, task=None, manifest=None, cache=None, out=None, reproduce=shared)


def _project_config(row: Row, config: Config) -> Config:
    """The recipe, with the row's frame network."""
    return dataclasses.replace(
        config,
        task=row.task,
        manifest=f"../../{row.task}.csv",
        cache="cache",
        out=".",
        finetune=_finetune(row, config),
        reproduce=ReproduceConfig(),
    )


def _finetune(row: Row, config: Config) -> FinetuneConfig:
    """The recipe for a row, without what its network or its task's loss does not have."""
    weights, arch = _weights(row, config), NETWORKS[row.network].arch
    balancing = TASKS[row.task].loss_settings
    return dataclasses.replace(
        config.finetune,
        weights=weights,
        weights_format=None,
        arch=arch,
        # VGG-Face is of 224 px alone.
        image_size=None if arch == "vggface" else config.finetune.image_size,
        zero_init_residual=config.finetune.zero_init_residual and weights == "none",
        class_balance=config.finetune.class_balance if "class_balance" in balancing else 0.0,
        positive_weights=config.finetune.positive_weights and "positive_weights" in balancing,
    )


COLUMNS = (
    *("row", "F1", "accuracy", "E", "E, 95 % over recordings", "E across folds", "95 %"),
    *("paper: F1", "accuracy", "E"),
)


def _table(out: Path, task: str, rows: list[Row], lacking: dict[Row, str], config: Config) -> str:
    """The table of a task, and what is to be known of it."""
    cells = [[row.title, *_numbers(out, row, row in lacking), *_of_paper(row)] for row in rows]
    where = "synthetic faces" if config.reproduce.data == SYNTHETIC else config.reproduce.data
    lines = [f"{TASKS[task].track}: validation split of {where}", "", *as_table(COLUMNS, cells), ""]
    if where == "synthetic faces":
        lines.append("These faces are drawn: nothing here compares with the paper's numbers, which are of Aff-Wild2.")
    if TASKS[task].scored_unit == "elements":
        lines.append(
            "Accuracy is by element; the paper's of the baseline looks like that of frames with all units right."
        )
    if any(row.system and row not in lacking for row in rows):
        lines.append(
            "Weights of models are chosen on these frames, as the paper's are; 'across folds' on others than those"
            " that are scored."
        )
    if config.finetune.select == "best":
        lines.append("Epochs are chosen on these frames, too (select: best).")
    return "\n".join([*lines, *_not_run(rows, lacking)])


def _not_run(rows: list[Row], lacking: dict[Row, str]) -> list[str]:
    """Why, a line for each frame network."""
    of_network: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row in lacking:
            of_network.setdefault((row.network, lacking[row]), []).append(row.name)
    return [f"Not run: {', '.join(dict.fromkeys(names))}: {reason}" for (_, reason), names in of_network.items()]


def _numbers(out: Path, row: Row, absent: bool) -> list[str]:
    """F1, accuracy and E with its interval, and for several models E across folds."""
    if absent:
        return ["-"] * 6
    folder = row.folder(out)
    if not row.system:
        (found,) = evaluate(out / f"{row.task}.csv", [folder / project.predictions(row.system)])
        s = found.scores
        return [*digits(s.f1, s.accuracy, s.score), span(*found.interval), "", ""]
    ensemble = read_ensemble(folder / project.ensemble(row.system))
    own, across = ensemble.in_sample[Weighting.SEARCHED], ensemble.across_folds.get(Weighting.SEARCHED)
    others = [*digits(across.score.value), span(across.score.low, across.score.high)] if across else ["-", "-"]
    return [*digits(own.f1, own.accuracy, own.score.value), span(own.score.low, own.score.high), *others]


def _of_paper(row: Row) -> list[str]:
    return digits(*PAPER[row.task][row.name]) if row.name in PAPER[row.task] else ["-"] * 3
