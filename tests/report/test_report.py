"""The page: its contents, from small numbers; and in a real browser, that all of it is visible."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from markupsafe import Markup, escape
from support.frames import write_video

from fercache.cache.predictions import Predictions, VideoPredictions, read_predictions, write_predictions
from fercache.config import EnsembleConfig
from fercache.data.affwild2 import build_manifest
from fercache.data.manifest import read_manifest, write_manifest
from fercache.errors import CacheError, DataError
from fercache.report import report
from fercache.report.charts import nice_ticks
from fercache.report.colours import ABSENT, DASHES, SERIES, UNKNOWN, shade
from fercache.report.findings import collect_findings
from fercache.report.page import SECTIONS, page
from fercache.report.time_lines import ROW_PX, Columns
from fercache.results.ensemble_file import read_ensemble
from fercache.stages.ensemble import apply_ensemble, search_ensemble
from fercache.stages.evaluate import describe_evaluations, evaluate
from fercache.tasks import TASKS

ODD = "v & <b>ü\"'"
"""A name that a browser would read as HTML if it were not escaped."""
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "http-equiv", "class", "style", "title", "src", "alt", "scope", "tabindex"),
    *("viewbox", "role", "aria-label", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "d", "points", "transform"),
    *("width", "height", "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "text-anchor"),
}
"""All that the page uses."""


def make_project(folder, task="expr", models=("cnn", "gru", "transformer")):
    """Three videos with gaps, and predictions of models that know the labels more or less."""
    record, rng, videos = TASKS[task], np.random.default_rng(0), {}
    for name, length in ((ODD, 40), ("w_left", 30), ("x", 25)):
        labels = rng.integers(-1, 7 if task == "expr" else 2, length if task == "expr" else (length, 12))
        frame = np.setdiff1d(np.arange(1, length + 1), range(11, 19))
        write_video(folder / "set", name, frame, labels, "Validation_Set", task)
        videos[name] = (frame, labels[frame - 1])
    manifest, _ = build_manifest(folder / "set", record)
    write_manifest(folder / "faces.csv", manifest)
    for skill, model in enumerate(models, 1):
        predicted = {}
        for name, (frame, labels) in videos.items():
            logits = rng.normal(size=(len(frame), len(record.classes))).astype(np.float32)
            true = labels[:, None] == np.arange(7) if task == "expr" else labels == 1
            predicted[name] = VideoPredictions(frame.astype(np.int32), logits + skill * 0.5 * true)
        prior = np.full(len(record.classes), 1 / 7)
        predictions = Predictions(record, "validation", f"model {model}", "cache", "best", prior, predicted)
        write_predictions(folder / f"{model}-validation.h5", predictions)
        (folder / model).mkdir()
        lines = [json.dumps({"epoch": e, "loss": 2 / e, "score": 0.1 * e}) for e in (1, 2, 3)]
        (folder / model / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if len(models) > 1:
        files = [folder / f"{model}-validation.h5" for model in models]
        search_ensemble(folder / "faces.csv", files, folder / "ensemble", EnsembleConfig(folds=3, step=0.1))
    return folder / "faces.csv"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    return folder


def test_columns_hold_means_of_present_frames_and_shares_of_labels():
    columns = Columns(1200, np.array([1, 2, 3, 1199]))  # two frames a column
    values = np.array([[0.2], [0.4], [0.6], [0.8]])
    mean = columns.mean(values)
    assert columns.count == 600
    assert mean[:2, 0].tolist() == [pytest.approx(0.3), 0.6] and mean[-1, 0] == 0.8
    assert np.flatnonzero(~columns.absent).tolist() == [0, 1, 599]
    labels = np.full(1200, -1)
    labels[:4] = [0, 4, 4, -1]
    shares = columns.label_shares(TASKS["expr"], labels)
    assert shares[0, [0, 4]].tolist() == [0.5, 0.5] and shares[1, 4] == 1 and np.isnan(shares[2:]).all()
    right = columns.right(TASKS["expr"], labels, np.array([0, 0, 4, 1]))
    assert right[:2].tolist() == [0.5, 1] and np.isnan(right[2:]).all()


def test_a_short_video_has_a_column_a_frame_and_its_gaps_are_seen():
    columns = Columns(3, np.array([1, 3]))
    pixels = columns.pixels(np.array([[1.0], [0.0], [np.nan]]), absent=True)
    assert pixels.shape == (ROW_PX, 3, 3)
    assert {tuple(pixel) for pixel in pixels[:, 1]} <= set(ABSENT)
    assert (pixels[:, 0] == shade(np.array(1.0))).all() and (pixels[:, 2] == UNKNOWN).all()


@pytest.mark.parametrize(("low", "high"), [(0.412, 0.448), (0, 1), (-3, 250), (0.5, 0.5), (1, 2)])
def test_ticks_are_few_and_cover_the_range(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_shades_darken():
    lightness = shade(np.linspace(0, 1, 50)).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) < 0).all()


def test_each_series_has_a_colour_and_dashes_of_its_own():
    """Some of the colours are equally light, so that in grey the dashes tell them apart."""
    assert len(set(SERIES)) == len(set(DASHES)) == len(SERIES) == len(DASHES)


def test_the_page_has_the_numbers_of_evaluate_and_of_the_ensemble(project):
    text = report(project / "faces.csv", project).read_text(encoding="utf-8")
    content = json.loads((project / "ensemble" / "ensemble.json").read_text())
    for one in evaluate(project / "faces.csv", sorted(project.glob("*.h5"))):
        numbers = [f"<td>{value:.4f}</td>" for value in (one.scores.f1, one.scores.accuracy, one.scores.score)]
        assert "".join(numbers) in text
        assert "<td>{:.4f} to {:.4f}</td>".format(*one.interval) in text
        assert f"ECE {one.calibration.ece:.4f}" in text
        for row in one.scores.confusion:
            cells = r"</td>".join(rf"<td [^>]*>{count}" for count in row)
            assert re.search(cells, text)
    for note in content["notes"]:
        assert str(escape(note)) in text
    assert f"{content['across_folds']['searched']['score']:.4f}" in text
    # Three videos, each with labels, three models and the ensemble, eight parts with or without a face.
    assert text.count('class="video"') == 3
    assert text.count('alt="Probabilities of ensemble') == 3 and text.count('alt="Probabilities of gru') == 3
    assert text.count('alt="frame ') + text.count('class="nobody"') == 3 * 8 and 'class="nobody"' in text
    assert "best of 3 videos" in text and "worst of 3 videos" in text


def test_the_page_refers_to_nothing_and_escapes_names(project):
    text = report(project / "faces.csv", project).read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', text)
    assert sources and all(re.match("data:image/(png|jpeg);base64,", source) for source in sources)
    assert "href" not in text and "url(" not in text and "@import" not in text
    assert "<b>" not in text and "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert str(escape(ODD)) in text
    for tag in ("svg", "img"):
        tags = re.findall(f"<{tag} [^>]*>", text)
        assert tags and all(re.search('(?:alt|aria-label)="[^"]{5,}"', one) for one in tags)


def test_names_of_classes_and_models_are_escaped(project):
    findings = collect_findings(project, read_manifest(project / "faces.csv"), "validation", [])
    task = replace(findings.task, classes=(ODD, *findings.task.classes[1:]))
    evaluations = [replace(evaluation, name=ODD) for evaluation in findings.evaluations]
    ensembles = [replace(ensemble, models=(ODD, *ensemble.models[1:])) for ensemble in findings.ensembles]
    surface = replace(findings.surface, ensemble=ensembles[0])
    changes = {"task": task, "evaluations": evaluations, "ensembles": ensembles, "surface": surface}
    text = page(replace(findings, **changes, runs={ODD: findings.runs["cnn"]}))
    assert "<b>" not in text and text.count(str(escape(ODD))) > 50
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: names.extend(name for name, _ in attributes)
    names: list[str] = []
    parser.feed(text)
    assert set(names) <= ATTRIBUTES, "a quote in a name has ended an attribute"


def test_a_section_is_a_function_in_a_list(project, monkeypatch):
    monkeypatch.setitem(SECTIONS, "Confidence", lambda findings: Markup("<p>{} files</p>").format(len(findings.runs)))
    monkeypatch.setitem(SECTIONS, "Nothing", lambda findings: None)
    text = report(project / "faces.csv", project).read_text(encoding="utf-8")
    assert re.search(r"<h2>Confidence</h2>\s*<p>3 files</p>", text) and "Nothing" not in text


def test_help_loads_neither_torch_nor_jinja2():
    code = "import sys; sys.argv[1:] = ['report', '--help']; import atexit; from fercache.cli import main;" + (
        "atexit.register(lambda: print(sorted({'torch', 'jinja2', 'numpy'} & set(sys.modules)))); main()"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--video" in output and output.splitlines()[-1] == "[]"


def test_videos_may_be_chosen(project, tmp_path):
    text = report(project / "faces.csv", project, tmp_path / "one.html", videos=["x"]).read_text(encoding="utf-8")
    assert text.count('class="video"') == 1 and "x: asked for" in text
    with pytest.raises(DataError, match="--video: y: not among those with predictions"):
        report(project / "faces.csv", project, videos=["y"])


def test_action_units_and_a_single_model(tmp_path):
    manifest = make_project(tmp_path, "au", ("cnn",))
    text = report(manifest, tmp_path).read_text(encoding="utf-8")
    assert "AU26" in text and "Weights" not in text and text.count('alt="Probabilities of cnn') == 3


def test_three_models_of_action_units_have_their_weights_drawn(tmp_path):
    text = report(make_project(tmp_path, "au"), tmp_path).read_text(encoding="utf-8")
    assert text.count("<polygon") == 351 + 1  # the points of the simplex at 1/25, and its outline


def test_without_frames_only_the_thumbnails_are_missing(tmp_path):
    manifest = make_project(tmp_path, models=("cnn",))
    shutil.rmtree(tmp_path / "set" / "cropped_aligned")
    text = report(manifest, tmp_path).read_text(encoding="utf-8")
    assert 'alt="frame ' not in text and text.count('class="video"') == 3


def test_a_folder_that_is_no_project_is_an_error(tmp_path):
    manifest = make_project(tmp_path, models=("cnn",))
    with pytest.raises(DataError, match="found no predictions of split test"):
        report(manifest, tmp_path, split="test")
    (tmp_path / "broken.h5").write_bytes(b"no")
    with pytest.raises(CacheError, match=r"broken\.h5: cannot be read: is damaged or no HDF5 file"):
        report(manifest, tmp_path)
    (tmp_path / "broken.h5").unlink()
    (tmp_path / "cnn" / "metrics.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"metrics\.jsonl: cannot be read"):
        report(manifest, tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_video_without_a_face_has_a_time_line(tmp_path):
    manifest = make_project(tmp_path)
    for path in tmp_path.glob("*.h5"):
        predictions = read_predictions(path)
        empty = VideoPredictions(np.empty(0, np.int32), np.empty((0, 7), np.float32))
        path.unlink()
        write_predictions(path, replace(predictions, videos={**predictions.videos, "x": empty}))
    text = report(manifest, tmp_path, videos=["x"]).read_text(encoding="utf-8")
    assert "25 frames, 25 of them without a face" in text and "nan" not in text


@pytest.mark.parametrize(("few", "words"), [(1, ["best of 1"]), (2, ["best of 2", "worst of 2"])])
def test_of_few_videos_the_best_is_called_so(tmp_path, few, words):
    manifest = make_project(tmp_path, models=("cnn",))
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[: 5 + few]))
    predictions = read_predictions(tmp_path / "cnn-validation.h5")
    (tmp_path / "cnn-validation.h5").unlink()
    kept = dict(list(predictions.videos.items())[:few])
    write_predictions(tmp_path / "cnn-validation.h5", replace(predictions, videos=kept))
    text = report(manifest, tmp_path).read_text(encoding="utf-8")
    assert re.findall(r"(\w+ of \d) videos by", text) == words


def test_an_ensemble_scored_on_the_labels_it_was_chosen_on_has_a_caution(tmp_path):
    manifest = make_project(tmp_path)
    files = [tmp_path / f"{model}-validation.h5" for model in ("cnn", "gru", "transformer")]
    apply_ensemble(tmp_path / "ensemble" / "ensemble.json", files, tmp_path / "all-validation.h5")
    words = "the ensemble was chosen on these labels; what it is worth is its score across folds"
    assert f"all: {words}." in report(manifest, tmp_path).read_text(encoding="utf-8")
    text = describe_evaluations(evaluate(manifest, [files[0], tmp_path / "all-validation.h5"]))
    assert f"all-validation: {words}" in text
    assert "cnn-validation: the epoch was chosen on these labels (select: best)" in text


def test_files_of_one_name_stay_apart(tmp_path):
    manifest = make_project(tmp_path, models=("cnn", "gru"))
    shutil.copy(tmp_path / "gru-validation.h5", tmp_path / "cnn.h5")
    text = report(manifest, tmp_path).read_text(encoding="utf-8")
    assert all(f'<th scope="row">{name}</th>' in text for name in ("cnn", "cnn-validation", "gru-validation"))


@pytest.mark.parametrize("line", ["5", '{"epoch": 1, "loss": null}', '{"epoch": 1, "score": "high"}'])
def test_a_bad_measurement_is_reported_with_its_line(tmp_path, line):
    manifest = make_project(tmp_path, models=("cnn",))
    with (tmp_path / "cnn" / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 4: expected an object with numbers as loss, score"):
        report(manifest, tmp_path)


@pytest.mark.parametrize(
    "change", [{"task": []}, {"in_sample": 5}, {"settings": {}}, {"across_folds": []}, {"notes": [3]}, {"folds": None}]
)
def test_an_edited_ensemble_file_is_an_error(project, tmp_path, change):
    content = json.loads((project / "ensemble" / "ensemble.json").read_text())
    path = tmp_path / "ensemble.json"
    path.write_text(json.dumps(content))
    read_ensemble(path)
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(DataError, match=r"ensemble\.json: is damaged"):
        read_ensemble(path)


HARNESS = """<!doctype html><iframe id="page" src="report.html" style="width: {width}px; height: 900px"></iframe>
<pre id="measured"></pre><script>
document.getElementById("page").onload = event => {{
  const inside = event.target.contentDocument, view = event.target.contentWindow;
  const images = [...inside.images], drawings = [...inside.querySelectorAll("svg")];
  const sizes = [...inside.querySelectorAll("body *")].map(e => parseFloat(view.getComputedStyle(e).fontSize));
  const texts = drawings.flatMap(d => [...d.querySelectorAll("text")].map(t => {{
    const word = t.getBoundingClientRect(), all = d.getBoundingClientRect();
    return word.left >= all.left - 1 && word.right <= all.right + 1;
  }}));
  document.getElementById("measured").textContent = JSON.stringify({{
    width: inside.scrollingElement.scrollWidth, client: inside.scrollingElement.clientWidth,
    images: images.length, decoded: images.filter(i => i.naturalWidth > 0).length,
    drawings: drawings.length, seen: drawings.filter(d => d.getBoundingClientRect().height > 50).length,
    smallest: Math.min(...sizes), inside: texts.every(Boolean),
    headings: Math.max(...[...inside.querySelectorAll("caption")].map(c => c.getBoundingClientRect().right)),
    asked: view.performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:")),
  }});
}};
</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [340, 1200])
@pytest.mark.parametrize(
    "models",
    [
        ("cnn", "gru", "transformer"),
        ("resnet50_vggface2_112", "gru_768_bidirectional_15", "transformer_standardised_15"),
    ],
    ids=["short", "long"],
)
def test_a_browser_shows_all_of_it_on_any_screen(tmp_path, width, models):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no chromium here")
    page = report(make_project(tmp_path, models=models), tmp_path).read_text(encoding="utf-8")
    (tmp_path / "harness.html").write_text(HARNESS.format(width=width))
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom")
    command = [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path}/harness.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    measured = json.loads(html.unescape(re.search(r'<pre id="measured">(.*?)</pre>', shown, re.DOTALL)[1]))
    assert measured["width"] <= measured["client"], "the page is wider than the screen"
    assert measured["headings"] <= measured["client"], "a table's heading is wider than the screen"
    assert measured["images"] == measured["decoded"] == page.count("<img ")
    assert measured["drawings"] == measured["seen"] == page.count("<svg ")
    assert measured["smallest"] >= 10 and measured["inside"] and measured["asked"] == []
