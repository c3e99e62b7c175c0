"""Reports in a real browser: everything is drawn, and nothing of a run is executed.

Left out where there is no Chromium; see conftest.py.
"""

import browser
import numpy as np
import pytest
from report_runs import update, write_run, write_table
from test_report import EVIL, _finding, _render

from purejaxppo.config import Config, Resolved
from purejaxppo.env import Discrete, EnvSpec
from purejaxppo.run.options import Options
from purejaxppo.sweep import page, space
from purejaxppo.sweep.outcome import Outcome, Trial
from purejaxppo.sweep.plan import Plan

WIDTHS = {"desktop": 1200, "phone": 390}
# Charts whose drawing has a line, an area or a dot in it.
DRAWN = """[...document.querySelectorAll('figure')].filter(figure =>
    figure.querySelector('.plot svg :is(.mark-line, .mark-area, .mark-symbol) path[d]')
).length"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def _open(tab, folder, content, fragment="#all", **view):
    path = folder / "report.html"
    path.write_bytes(content)
    tab.errors.clear()
    tab.requests.clear()
    tab.open(path.as_uri() + fragment, **view)


def _check_everything_is_drawn(tab):
    figures = tab.run("document.querySelectorAll('figure').length")
    assert figures > 10
    assert tab.run(DRAWN) == figures
    assert tab.errors == []
    assert {url.split(":")[0] for url in tab.requests} <= {"file", "about"}


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_every_chart_is_drawn_without_a_scroll_to_the_side(tab, tmp_path, names, width):
    paths = [write_run(tmp_path / name, seeds=(0, 1, 2)) for name in names]
    findings = [[_finding()], *[[] for _ in range(3 * len(names) - 1)]]
    content = _render(*paths, findings=findings)
    _open(tab, tmp_path, content, width=width)
    _check_everything_is_drawn(tab)
    assert tab.run("document.documentElement.scrollWidth") <= width
    spans = "document.querySelectorAll('.mark-rect path').length"
    assert tab.run(spans) == 3  # both evaluations, and the KL divergence


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("speed", [False, True], ids=["score", "speed"])
def test_every_chart_of_a_sweep_is_drawn(tab, tmp_path, speed, width):
    _open(tab, tmp_path, _sweep(speed), width=width)
    assert tab.run("document.querySelectorAll('figure').length") == 4 + speed
    assert tab.run(DRAWN) == 4 + speed
    assert tab.errors == []
    assert tab.run("document.documentElement.scrollWidth") <= width
    x, y = tab.run(
        "(() => { const box = [...document.querySelectorAll('.plot svg')].at(-1)"
        ".getBoundingClientRect(); return [box.right - 60, box.top + 40] })()"
    )
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    note = "[...document.querySelectorAll('h3 small')].at(-1).textContent"
    if y < 900:  # the pointer is in the window
        tab.wait(f"{note}.includes(' at num_steps ')")
    assert tab.errors == []


def _sweep(speed: bool) -> bytes:
    """The page of a study of 48 trials, one of which says something evil."""
    words = [
        "learning_rate=log:1e-4,1e-1",
        "num_steps=16,128",
        f"activation=tanh|{EVIL}",
    ]
    config = Config(env=EVIL, num_envs=16)
    options = Options(seed=3, num_seeds=3)
    spec = EnvSpec("probe", {"move": Discrete(2)}, None, "success")
    resolved = Resolved(config, {"num_envs": "flag"})
    plan = Plan(space.parse(words), resolved, options, speed, "hyperband", spec, ())
    rng, trials = np.random.default_rng(0), []
    for number in range(48):
        rate = 10 ** rng.uniform(-4, -1)
        drawn = {"learning_rate": rate, "num_steps": int(rng.integers(16, 128))}
        drawn |= {"activation": "tanh" if number % 3 else EVIL}
        height = np.exp(-((np.log10(rate) + 2.5) ** 2))
        rows = [
            tuple(height * (1 - 0.6**k) + rng.normal(0, 0.02, 3)) for k in range(1, 9)
        ]
        state, num = [("complete", 8), ("pruned", 3), ("diverged", 2)][number % 5 % 3]
        steps = tuple(10_000 * k for k in range(1, num + 1))
        reason = "" if state == "complete" else EVIL
        speeds = rng.uniform(2e4, 9e4)
        found = Outcome(steps, tuple(rows[:num]), speeds, 2.0, 0.5, state, reason)
        trials.append(Trial(number, state, drawn, found))
    trials.append(Trial(48, "running", drawn, None))
    shares = {"learning_rate": 0.8, "num_steps": 0.2}
    return page.render(plan, trials, shares, {"command": EVIL})


def test_folded_charts_are_drawn_when_they_are_unfolded(tab, tmp_path):
    _open(tab, tmp_path, _render(write_run(tmp_path / "run")), "", width=1200)
    folded = "document.querySelectorAll('details figure[data-drawn]').length"
    assert tab.run(folded) == 0
    tab.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
    tab.wait("document.querySelectorAll('figure:not([data-drawn=yes])').length === 0")
    _check_everything_is_drawn(tab)


def test_colours_follow_the_user(tab, tmp_path):
    content = _render(write_run(tmp_path / "run"))
    colours = []
    for dark in (False, True):
        _open(tab, tmp_path, content, "", width=1200, dark=dark)
        back = "getComputedStyle(document.body).backgroundColor"
        colours.append(tab.run(back))
    assert colours == ["rgb(255, 255, 255)", "rgb(15, 18, 22)"]


def test_the_legend_shows_the_values_under_the_pointer(tab, tmp_path):
    _open(tab, tmp_path, _render(write_run(tmp_path / "run")), "", width=1200)
    x, y = tab.run(
        "(() => { const r = document.querySelector('.plot svg');"
        "const box = r.getBoundingClientRect();"
        "return [box.right - 8, box.top + 40] })()"
    )
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tab.wait("document.querySelector('.legend output').textContent !== ''")
    assert tab.run("document.querySelector('.legend output').textContent") == "0.95"
    assert "50,000 steps" in tab.run("document.querySelector('figure h3').textContent")


def test_nothing_of_a_hostile_run_is_executed(tab, tmp_path):
    evil = EVIL.replace("alert(1)", "document.title=1")
    changes = {"config": {"env": evil, evil: evil}, "command": [evil]}
    run = write_run(tmp_path / evil.replace("/", "_"), **changes)
    rows = [update(i, 0) | {evil: 1.0, f"head/{evil}/std": 0.1} for i in (1, 2)]
    write_table(run / "metrics.csv", rows)
    other = write_run(tmp_path / "other")
    for paths in ((run,), (run, other)):
        findings = [[_finding(seen=evil, metric=evil)], *[[]] * (len(paths) - 1)]
        _open(tab, tmp_path, _render(*paths, findings=findings), width=1200)
        _check_everything_is_drawn(tab)
        assert tab.run("document.title") != "1"
        assert tab.run("document.images.length") == 0
        assert evil in tab.run("document.body.textContent")
