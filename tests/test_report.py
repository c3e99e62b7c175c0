"""Reports: the numbers that they draw, what they say, and what they refuse to run."""

import html.parser
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import vl_convert
from helpers import run_command
from report_runs import BATCH, ROWS, evaluation, update, write_run, write_table

from purejaxppo import train
from purejaxppo.doctor.finding import Finding
from purejaxppo.doctor.readers import read
from purejaxppo.errors import EXIT_OK, EXIT_STORAGE, EXIT_USAGE
from purejaxppo.report import page, sections, vega
from purejaxppo.report.runs import reduce
from purejaxppo.run.report import write_run as write_run_report

STEPS = np.arange(1.0, 1001.0)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


class _Elements(html.parser.HTMLParser):
    """What a browser sees: elements, and the content of each script."""

    def __init__(self, content: bytes):
        super().__init__()
        self.tags, self.scripts, self.is_script = [], [], False
        self.feed(content.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.is_script = tag == "script"
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.is_script = False

    def handle_data(self, data):
        if self.is_script:
            self.scripts[-1] += data


def _render(*paths: Path, findings=None) -> bytes:
    logs = [log for path in paths for log in read(path)]
    return page.render(logs, findings or [[] for _ in logs])


def _data(content: bytes) -> dict:
    return json.loads(_Elements(content).scripts[0])


def _finding(**changes) -> Finding:
    values = {
        "fault": "overshoot",
        "severity": 0.5,
        "fatal": False,
        "metric": "approx_kl/max",
        "steps": (18 * BATCH, 22 * BATCH),
        "seen": "a KL of 0.52",
        "meaning": "the policy moved too far",
        "suspect": "the learning rate",
        "knobs": ("learning_rate: lower",),
    }
    return Finding(**(values | changes))


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run")


# --- numbers --------------------------------------------------------------------------


def test_a_spike_of_one_update_survives_the_reduction():
    values = np.where(STEPS == 500, 7.0, 1.0)
    curves = reduce([{"steps": STEPS, "x": values}], 100)
    assert curves.steps.size == 100
    assert curves.steps[-1] == 1000
    point = np.searchsorted(curves.steps, 500)
    assert curves.metrics["x"].high.max() == curves.metrics["x"].high[point] == 7.0
    assert curves.metrics["x"].y[point] == pytest.approx(1.6)  # the mean of ten rows
    assert curves.metrics["x"].low.min() == 1.0


def test_few_rows_stay_as_they_are():
    curves = reduce([{"steps": STEPS[:3], "x": np.array([1.0, np.nan, 3.0])}], 100)
    np.testing.assert_array_equal(curves.metrics["x"].y, [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(curves.metrics["x"].low, [1.0, np.nan, 3.0])


def test_seeds_become_a_median_and_a_band():
    tables = [{"steps": STEPS[:2], "x": np.full(2, x)} for x in (1.0, 2.0, 9.0)]
    curve = reduce(tables, 100).metrics["x"]
    assert (curve.low[0], curve.y[0], curve.high[0]) == (1.0, 2.0, 9.0)


def test_seeds_of_different_lengths_share_their_steps():
    tables = [{"steps": STEPS[:3], "x": np.ones(3)}, {"steps": STEPS[:1], "x": [5.0]}]
    tables[1]["x"] = np.array([5.0])
    curve = reduce(tables, 100).metrics["x"]
    np.testing.assert_array_equal(curve.y, [3.0, 1.0, 1.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_metric_without_a_number_has_no_curve(value):
    assert reduce([{"steps": STEPS, "x": np.full(1000, value)}], 9).metrics == {}
    assert reduce([{}], 9).metrics == {}


def test_best_evaluation_is_not_the_one_before_training(run):
    (log,) = read(run)
    log.evals["eval/min_block_success"][0] = 5.0
    names = ("eval/min_block_success", "eval/episode_success")
    assert sections.best_evaluation(log, *names) == (50 * BATCH, pytest.approx(0.9))


# --- what the page says ---------------------------------------------------------------


def test_every_chart_of_the_table_is_there(run):
    content = _render(run)
    titles = [chart["title"] for chart in _data(content)["charts"]]
    wanted = "Evaluation: success,Evaluation: return,Policy loss,Value loss"
    wanted += ",KL divergence,Ratio,Explained variance,Entropy,Action std,Throughput"
    assert set(f"{wanted},Learning rate,status".split(",")) <= set(titles)
    assert len(titles) == len(set(titles)) == content.count(b"<figure")


def test_the_stop_threshold_is_one_and_a_half_target_kl(run):
    charts = {chart["title"]: chart for chart in _data(_render(run))["charts"]}
    assert [rule["y"] for rule in charts["KL divergence"]["rules"]] == [0.03]
    assert [rule["y"] for rule in charts["Ratio"]["rules"]] == [0.8, 1.2]


def test_a_band_reaches_from_the_smallest_to_the_largest_ratio(run):
    data = _data(_render(run))
    (chart,) = [c for c in data["charts"] if c["title"] == "Ratio"]
    (line,) = chart["lines"]
    low, y, high = (data["series"][line[key]] for key in ("low", "y", "high"))
    assert (low[0], y[0], high[0]) == (0.5, 1, 1.6)


def test_headline_and_tables(tmp_path):
    text = _render(write_run(tmp_path / "run", seeds=(3, 4, 5))).decode()
    for words in (
        *("reach", "3 seeds: 3 to 5", ">finished<", "50,000", "of 50,000"),
        *("Best worst block, success", "0.900", "The doctor found nothing wrong."),
        *("python -m purejaxppo.train --env reach", "0.10.2", "abc"),
    ):
        assert words in text, words
    changed = re.findall(r'<tr class="changed"><th>(\w+)', text)
    assert changed == ["env", "gamma"]
    assert "4 values are the defaults" in text


def test_findings_are_said_and_marked(tmp_path):
    run = write_run(tmp_path / "run", seeds=(0, 1))
    fatal = _finding(fault="dead critic", fatal=True, metric="", severity=0.1)
    findings = [[_finding()], [_finding(severity=0.9, seen="a KL of 0.99"), fatal]]
    content = _render(run, findings=findings)
    text = content.decode()
    badges = re.findall(r'badge">(\d)</span>([\w ]+) <', text)
    assert badges == [("1", "dead critic"), ("2", "overshoot")]
    assert "a KL of 0.99 (approx_kl/max, 18,000 to 22,000 steps)" in text
    assert "seeds 0, 1, worst in 1" in text
    assert "learning_rate: lower" in text
    charts = {chart["title"]: chart for chart in _data(content)["charts"]}
    spans = charts["KL divergence"]["spans"]
    assert [span["label"] for span in spans] == ["2", ""]
    assert (spans[0]["first"], spans[0]["last"]) == (18_000, 22_000)
    assert len(charts["Evaluation: success"]["spans"]) == 3
    assert charts["Value loss"]["spans"] == []


def test_several_runs_have_a_colour_each(tmp_path):
    paths = [write_run(tmp_path / name, seeds=(0, 1)) for name in ("one", "two")]
    data = _data(_render(*paths))
    for chart in data["charts"]:
        colours = {(line["run"], line["colour"]) for line in chart["lines"]}
        assert len(colours) == 2
        assert {run for run, _ in colours} == {"one", "two"}


def test_a_value_that_differs_between_runs_is_marked(tmp_path):
    other = {"hypers": {"target_kl": 0.02, "clip_eps": 0.1, "gamma": 0.9}}
    paths = [write_run(tmp_path / "one"), write_run(tmp_path / "two", **other)]
    text = _render(*paths).decode()
    assert re.search(r'class="changed"><th>clip_eps.*?0\.2.*?0\.1</code>', text)


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    paths = [write_run(tmp_path / name / "run") for name in ("a", "b")]
    lines = _data(_render(*paths))["charts"][0]["lines"]
    assert {line["run"] for line in lines} == {"a/run", "b/run"}


def test_a_killed_run_and_a_bare_table(tmp_path):
    killed = write_run(tmp_path / "run", finished=False)
    metrics = killed / "metrics.csv"
    metrics.write_bytes(metrics.read_bytes()[:-30])
    assert "not finished: still training, or stopped" in _render(killed).decode()
    (killed / "config.json").unlink()
    (killed / "evals.csv").unlink()
    for path in (killed, metrics):
        text = _render(path).decode()
        assert "Value loss" in text
        assert "Evaluation" not in text
        assert "not recorded" in text


def test_a_table_of_stable_baselines3(tmp_path):
    path = tmp_path / "progress.csv"
    names = "time/total_timesteps,train/value_loss,train/std,eval/mean_reward"
    path.write_text(f"{names}\n100,1.0,0.5,2\n200,0.5,0.4,3\n")
    charts = {chart["title"]: chart for chart in _data(_render(path))["charts"]}
    assert {"Value loss", "Action std"} <= set(charts)


def test_a_still_is_shown_if_it_is_a_small_png_of_the_run(run, tmp_path):
    still = run / page.STILL
    still.write_bytes(PNG)
    assert b"data:image/png;base64,iVBOR" in _render(run)
    for content in (b"<svg onload=x>", PNG + bytes(2_000_000)):
        still.write_bytes(content)
        assert page.read_still(still) == b""
    still.unlink()
    (tmp_path / "elsewhere.png").write_bytes(PNG)
    still.symlink_to(tmp_path / "elsewhere.png")
    assert page.read_still(still) == b""


# --- hostile runs ---------------------------------------------------------------------

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&$title${x}"


def test_no_text_of_a_run_becomes_an_element(tmp_path):
    evil = EVIL.replace("/", "_")  # a name of a file
    changes = {
        "config": {"env": EVIL, EVIL: EVIL, "nested": {EVIL: [EVIL]}},
        "sources": {"env": EVIL, EVIL: "flag"},
        "environment": {"success": EVIL},
        "command": [EVIL],
        "versions": {EVIL: EVIL},
        "machine": {"system": EVIL},
        "revision": EVIL,
    }
    run = write_run(tmp_path / evil, **changes)
    write_table(
        run / "metrics.csv", [update(1, 0) | {EVIL: 1.0, f"head/{EVIL}/std": 1}]
    )
    write_table(run / "evals.csv", [evaluation(1, 0) | {f"eval/block0_{EVIL}": 1.0}])
    strings = dict.fromkeys(("fault", "seen", "meaning", "suspect", "source"), EVIL)
    finding = _finding(**strings, knobs=(EVIL,), metric=EVIL)
    content = _render(run, findings=[[finding]])
    elements = _Elements(content)
    plain = _Elements(_render(write_run(tmp_path / "plain")))
    assert len(elements.scripts) == len(plain.scripts) == 3
    assert elements.scripts[1:] == plain.scripts[1:]
    allowed = {tag for tag, _ in plain.tags} | {"ol", "li", "span"}
    assert {tag for tag, _ in elements.tags} <= allowed
    names = {name for _, attributes in elements.tags for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    assert "<" not in elements.scripts[0]
    assert content.count(b"alert(1)") > 20  # it is shown, as text


def test_a_browser_may_run_our_two_scripts_alone(run):
    elements = _Elements(_render(run))
    (policy,) = [a["content"] for t, a in elements.tags if "http-equiv" in a]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    (scripts,) = re.findall("script-src ([^;]+);", policy)
    wanted = {f"'sha256-{page._digest(code)}'" for code in elements.scripts[1:]}
    assert set(scripts.split()) == wanted


@pytest.mark.parametrize(
    "changes",
    [
        {"config": [], "hypers": 3, "sources": 4, "versions": None, "machine": "x"},
        {"config": {"env": {"a": 1}, "total_timesteps": "many"}, "command": {}},
        {
            "hypers": {"target_kl": "nan", "clip_eps": 10**400},
            "environment": {"success": 7},
        },
        {"hypers": {"target_kl": True}, "config": {"total_timesteps": 1e999}},
    ],
)
def test_a_record_of_the_wrong_types_costs_what_it_says(tmp_path, changes):
    assert b"Value loss" in _render(write_run(tmp_path / "run", **changes))


# --- the command ----------------------------------------------------------------------


def test_the_command_writes_into_the_run(run, capsys):
    assert run_command("purejaxppo.report", str(run)) == EXIT_OK
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").stat().st_size < 3_000_000
    assert not (run / "report.tmp").exists()


def test_several_runs_are_written_to_the_output(tmp_path, monkeypatch):
    paths = [str(write_run(tmp_path / name)) for name in ("one", "two")]
    monkeypatch.chdir(tmp_path)
    assert run_command("purejaxppo.report", *paths) == EXIT_OK
    assert (tmp_path / "report.html").exists()
    assert run_command("purejaxppo.report", *paths, "--output", "x.html") == EXIT_OK
    assert (tmp_path / "x.html").exists()


def test_bad_input_is_one_sentence(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    linked = write_run(tmp_path / "linked")
    (linked / "more").symlink_to("/etc")
    for path, sentence in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "empty", "holds no figures of a run"),
        (linked, "a run with no symbolic link"),
    ):
        assert run_command("purejaxppo.report", str(path)) == EXIT_USAGE
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    output = ["--output", str(tmp_path / "no" / "x.html")]
    assert run_command("purejaxppo.report", str(run), *output) == EXIT_STORAGE
    assert "cannot be written" in capsys.readouterr().err


def test_the_specification_is_one_that_vega_lite_compiles():
    spec = vega.specification(ROWS * BATCH)
    names = {layer["data"].get("name") for layer in spec["layer"]} - {None}
    assert names == set(spec["datasets"])
    assert vl_convert.vegalite_to_vega(spec)["marks"]


# --- the end of a run -----------------------------------------------------------------


def test_a_run_writes_its_report_at_its_end(killed):
    (killed / "report.html").unlink(missing_ok=True)
    command = ["--resume", str(killed), "--report", "--trust-env"]
    assert train.main(command) == EXIT_OK
    text = (killed / "report.html").read_text()
    assert ">finished<" in text
    assert "Evaluation: return" in text


@pytest.mark.parametrize("program", ["/no/such/program", "/bin/false"])
def test_a_report_that_cannot_be_written_costs_one_line(
    run, program, monkeypatch, tmp_path
):
    lines = []
    monkeypatch.setattr(sys, "executable", program)
    write_run_report(run, lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("warning: no report.html (")


def test_a_report_of_nothing_costs_one_line(tmp_path):
    lines = []
    write_run_report(tmp_path / "none", lines.append)
    assert len(lines) == 1
    assert "does not exist" in lines[0]
