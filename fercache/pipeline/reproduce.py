"""The paper's tables: what is missing of their rows is run, and the scores are printed beside the paper's."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fercache import runtime
from fercache.config import Config, FinetuneConfig, ReproduceConfig
from fercache.errors import ConfigError, DataError, FercacheError, RunError, collect_errors, raise_problems
from fercache.files import write_text
from fercache.pipeline.graph import Step, run_steps
from fercache.pipeline.paper import PAPER_CNNS, PAPER_SCORES, TableRow
from fercache.pipeline.project import check_project, write_project
from fercache.pipeline.steps import NO_FILE, pipeline_steps
from fercache.results.ensemble_file import read_ensemble
from fercache.results.wording import as_table, digits, span
from fercache.scoring.search import Weighting
from fercache.stages.evaluate import evaluate
from fercache.tasks import TASKS

log = logging.getLogger(__name__)

SYNTHETIC = "synth"
"""As `reproduce.data`: drawn faces, by the section `synth`."""
AFFWILD2 = "Aff-Wild2 (cropped_aligned and annotations), from its authors (ibug.doc.ic.ac.uk/resources/aff-wild2)"
TABLE_COLUMNS = (
    *("row", "F1", "accuracy", "E", "E, 95 % over recordings", "E across folds", "95 %"),
    *("paper: F1", "accuracy", "E"),
)


def reproduce(out: Path, config: Config) -> str:
    """Run in `out` what the rows of `config` lack, and return the tables, which `out`/tables.txt contains too.

    A row whose data or weights are missing is listed with what to get. Where a command fails the other rows still run,
    and RunError follows at the end; DataError where no row is done or can be run. An interrupted call resumes.
    """
    rows = table_rows(config)
    todo = [row for row in rows if not _done(row, out)]
    not_run = {row: reason for row in todo if (reason := _missing_inputs(row, config))}
    if len(not_run) == len(rows):
        raise_problems(_not_run_lines(not_run), DataError)
    _check_settings(out, rows, config)
    problems = _run([row for row in todo if row not in not_run], out, config)
    not_run |= {row: "failed" for row in todo if row not in not_run and not _done(row, out)}
    tables = out / "tables.txt"
    text = "\n\n".join(
        _table([row for row in rows if row.task == task], not_run, out, config)
        for task in dict.fromkeys(row.task for row in rows)
    )
    write_text(tables, text + "\n")
    raise_problems([*problems, *([f"{tables}: has the other rows"] if problems else [])], RunError)
    return text


def table_rows(config: Config) -> list[TableRow]:
    """The rows that the config names, else the paper's of its task. FercacheError for all names that are no row."""
    names = {"expr": config.reproduce.expr, "au": config.reproduce.au}
    rows = collect_errors(*(partial(TableRow.parse, task, name) for task in names for name in names[task]))
    rows = rows or [row for row in PAPER_SCORES if row.task == config.task]
    if not rows:
        raise ConfigError(f"task: found {config.task!r}, expected expr or au, or rows under reproduce.expr and .au")
    return rows


def _folder(row: TableRow, out: Path) -> Path:
    """The project folder of a row's CNN, which all rows of that CNN and task share."""
    return out / row.task / row.cnn


def _done(row: TableRow, out: Path) -> bool:
    """Whether all files that its scores are read from exist."""
    needed = [row.system.predictions, *([row.system.ensemble] if row.heads else [])]
    return all((_folder(row, out) / name).exists() for name in needed)


def _missing_inputs(row: TableRow, config: Config) -> str | None:
    """What to get before the row can be run."""
    data, weights = config.reproduce.data, getattr(config.reproduce, row.cnn)
    missing = []
    if data != SYNTHETIC and not Path(data).is_dir():
        missing.append(f"the data are not at {data}: {AFFWILD2}")
    if not _generated(row, weights) and not Path(weights).exists():
        missing.append(f"{weights} does not exist: {PAPER_CNNS[row.cnn].source}")
    return "; ".join(missing) or None


def _generated(row: TableRow, weights: str) -> bool:
    """Whether weights are no file; the face networks need theirs."""
    return row.cnn == "resnet50" and weights in NO_FILE


def _check_settings(out: Path, rows: Sequence[TableRow], config: Config) -> None:
    """Raise FercacheError with all settings that `out`, or a project in it, was begun with and that differ now."""
    projects = {out: _data_config(config)} | {_folder(row, out): _project_config(row, config) for row in rows}
    collect_errors(*(partial(check_project, *project) for project in projects.items()))


def _run(rows: Sequence[TableRow], out: Path, config: Config) -> list[str]:
    """Run rows, project by project; what failed in a project, while the others went on."""
    if not rows:
        return []
    write_project(out, _data_config(config))
    run_steps(_data_steps(config, sorted({row.task for row in rows})), out)
    problems = []
    with runtime.stop_signals() as stop:
        for folder in dict.fromkeys(_folder(row, out) for row in rows):
            stop.check()
            same_project = [row for row in rows if _folder(row, out) == folder]
            first = same_project[0]
            project_config = _project_config(first, config)
            try:
                write_project(folder, project_config)
                run_steps(pipeline_steps(project_config, [row.system for row in same_project]), folder)
            except FercacheError as error:
                log.error("%s", error)
                problems.append(f"{first.task}/{first.cnn}: {error}")
    return problems


def _data_config(config: Config) -> Config:
    """The config of `out` itself: rows and weights may be added later, data may not change."""
    data, lengths = config.reproduce.data, config.reproduce.lengths
    shared = ReproduceConfig(
        data=data if data == SYNTHETIC else str(Path(data).resolve()),
        lengths=lengths and str(Path(lengths).resolve()),
    )
    return dataclasses.replace(config, task=None, manifest=None, cache=None, out=None, reproduce=shared)


def _data_steps(config: Config, tasks: Sequence[str]) -> list[Step]:
    """The commands that draw faces, if they are to be drawn, and write a manifest for each task."""
    shared = _data_config(config).reproduce
    steps, data, lengths = [], shared.data, shared.lengths
    if data == SYNTHETIC:
        steps, data, lengths = [Step(("synth", "data"), output="data/synth.json")], "data", "data/lengths.csv"
    options = ("--lengths", lengths) if lengths else ()
    for task in tasks:
        command = ("manifest", "affwild2", data, "--task", task, "-o", f"{task}.csv", *options)
        steps.append(Step(command, (data,), f"{task}.csv"))
    return steps


def _project_config(row: TableRow, config: Config) -> Config:
    """The config of the project that a row is run in."""
    return dataclasses.replace(
        config,
        task=row.task,
        manifest=f"../../{row.task}.csv",
        cache="cache",
        out=".",
        finetune=_finetune_config(row, config),
        reproduce=ReproduceConfig(),
    )


def _finetune_config(row: TableRow, config: Config) -> FinetuneConfig:
    """The fine-tuning of a row, without what its CNN or its task's loss does not have."""
    weights, arch = getattr(config.reproduce, row.cnn), PAPER_CNNS[row.cnn].arch
    balancing = TASKS[row.task].loss_settings
    return dataclasses.replace(
        config.finetune,
        weights=weights if _generated(row, weights) else str(Path(weights).resolve()),  # commands run in other folders
        weights_format=None,
        arch=arch,
        image_size=None if arch == "vggface" else config.finetune.image_size,  # VGG-Face takes 224 px only
        zero_init_residual=config.finetune.zero_init_residual and weights == "none",
        class_balance=config.finetune.class_balance if "class_balance" in balancing else 0.0,
        positive_weights=config.finetune.positive_weights and "positive_weights" in balancing,
    )


def _table(rows: Sequence[TableRow], not_run: Mapping[TableRow, str], out: Path, config: Config) -> str:
    """The table of one task, with notes."""
    task, synthetic = TASKS[rows[0].task], config.reproduce.data == SYNTHETIC
    cells = [[row.title, *(["-"] * 6 if row in not_run else _scores(row, out)), *_paper_scores(row)] for row in rows]
    source = "synthetic faces" if synthetic else config.reproduce.data
    lines = [f"{task.track}: validation split of {source}", "", *as_table(TABLE_COLUMNS, cells), ""]
    if synthetic:
        lines.append("These faces are drawn: nothing here compares with the paper's numbers, which are of Aff-Wild2.")
    if task.scored_unit == "elements":
        lines.append("Accuracy is by element; the paper's baseline seems to count frames with all units right.")
    if any(row.heads and row not in not_run for row in rows):
        lines.append(
            "As in the paper, ensemble weights are chosen on the frames that they are scored on; 'across folds' scores"
            " them on other frames."
        )
    if config.finetune.select == "best":
        lines.append("Epochs are chosen on these frames, too (select: best).")
    return "\n".join([*lines, *_not_run_lines({row: not_run[row] for row in rows if row in not_run})])


def _scores(row: TableRow, out: Path) -> list[str]:
    """F1, accuracy and E with its interval, and for an ensemble E across folds with its interval."""
    folder = _folder(row, out)
    if not row.heads:
        (evaluation,) = evaluate(out / f"{row.task}.csv", [folder / row.system.predictions])
        s = evaluation.scores
        return [*digits(s.f1, s.accuracy, s.score), span(*evaluation.interval), "", ""]
    ensemble = read_ensemble(folder / row.system.ensemble)
    in_sample, across = ensemble.in_sample[Weighting.SEARCHED], ensemble.across_folds.get(Weighting.SEARCHED)
    return [
        *digits(in_sample.f1, in_sample.accuracy, in_sample.score.value),
        span(in_sample.score.low, in_sample.score.high),
        *([*digits(across.score.value), span(across.score.low, across.score.high)] if across else ["-", "-"]),
    ]


def _paper_scores(row: TableRow) -> list[str]:
    return digits(*PAPER_SCORES[row]) if row in PAPER_SCORES else ["-"] * 3


def _not_run_lines(not_run: Mapping[TableRow, str]) -> list[str]:
    """Why rows were not run, a line for each CNN."""
    names: dict[tuple[str, str], list[str]] = {}
    for row, reason in not_run.items():
        names.setdefault((row.cnn, reason), []).append(row.name)
    return [f"Not run: {', '.join(dict.fromkeys(rows))}: {reason}" for (_, reason), rows in names.items()]
