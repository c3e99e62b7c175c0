"""Which chart shows which metrics."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from purejaxppo.report.runs import Run, config_value

_MOST_OTHERS = 300  # a table with more columns is not one of training
_BLOCK = re.compile(r"eval/block(\d+)_(.+)", re.DOTALL)


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      label: its name in the legend.
      metric: the metric of its values.
      low: the metric of the lower end of its band, if that is another one.
      high: the metric of the upper end of its band, if that is another one.
      style: "main", "second" (dashed) or "thin".
    """

    label: str
    metric: str
    low: str = ""
    high: str = ""
    style: str = "main"


class Rule(NamedTuple):
    """A horizontal line: `factor` times a value of the configuration, plus `offset`."""

    value: str
    factor: float
    offset: float
    label: str


class Chart(NamedTuple):
    """What a chart shows.

    Attributes:
      title: its heading.
      note: a sentence on how to read it.
      table: "updates" or "evals".
      lines: the most important first; those whose metric is missing are left out.
      rules: those whose value is not recorded are left out.
    """

    title: str
    note: str
    table: str
    lines: Sequence[Line]
    rules: Sequence[Rule] = ()


_OPTIMISATION = (
    Chart(
        "Policy loss",
        "The clipped objective, negated. It shows failures, not progress.",
        "updates",
        [Line("policy loss", "loss/policy")],
    ),
    Chart(
        "Value loss",
        "The critic's error. It should fall, or stay level while returns rise.",
        "updates",
        [Line("value loss", "loss/value")],
    ),
    Chart(
        "KL divergence",
        "Between the policies of rollout and update. Above 1.5 × target_kl, dashed if "
        "it is set, the rest of the update is skipped.",
        "updates",
        [
            Line("mean", "approx_kl/mean"),
            Line("largest minibatch", "approx_kl/max", style="second"),
            Line("last minibatch", "approx_kl/last", style="thin"),
        ],
        [Rule("target_kl", 1.5, 0.0, "1.5 × target_kl")],
    ),
    Chart(
        "Ratio",
        "New to old probability of the sampled actions: mean, and smallest to largest. "
        "The dashed lines are the clip range.",
        "updates",
        [Line("mean", "ratio/mean", low="ratio/min", high="ratio/max")],
        [Rule("clip_eps", -1.0, 1.0, ""), Rule("clip_eps", 1.0, 1.0, "")],
    ),
    Chart(
        "Explained variance",
        "Of the returns, by the critic: 1 is perfect, 0 is no better than their mean.",
        "updates",
        [Line("explained variance", "value/explained_variance")],
    ),
    Chart(
        "Return in training",
        "Of sampled actions, in episodes that ended in the update: a check, not a "
        "result.",
        "updates",
        [Line("episode return", "train/episode_return")],
    ),
    Chart(
        "Clipped share",
        "The share of samples whose ratio is outside the clip range.",
        "updates",
        [Line("clip fraction", "clip_frac")],
    ),
    Chart(
        "Gradient norm",
        "Before clipping; the dashed line is the norm that it is clipped to.",
        "updates",
        [Line("gradient norm", "grad_norm")],
        [Rule("max_grad_norm", 1.0, 0.0, "max_grad_norm")],
    ),
    Chart(
        "Throughput",
        "Environment steps of all seeds per second, without compiling.",
        "updates",
        [Line("steps per second", "steps_per_second")],
    ),
    Chart(
        "Learning rate",
        "Of the optimiser, after its schedule.",
        "updates",
        [Line("learning rate", "update/learning_rate")],
    ),
)


def success_name(run: Run) -> str:
    """Return the metric that says whether an episode succeeded, "" if there is none.

    A run records its name; in older runs and those of others it is "success".
    """
    recorded = config_value(run, "success")
    name = recorded if isinstance(recorded, str) else "success"
    return name if f"eval/episode_{name}" in run.evals.metrics else ""


def main_charts(runs: Sequence[Run]) -> list[Chart]:
    """Return the charts that are always in sight."""
    successes = dict.fromkeys(filter(None, map(success_name, runs)))
    evaluations = [_evaluation(name, runs) for name in [*successes, "return"]]
    heads = [
        *_heads(
            "Entropy", "Of the policy; near 0 it explores no more.", "entropy", runs
        ),
        *_heads("Action std", "Of continuous heads, within [-1, 1].", "std", runs),
    ]
    optimisation = [*_OPTIMISATION[:5], *heads, *_OPTIMISATION[5:]]
    return [chart for chart in [*evaluations, *optimisation] if _has_data(chart, runs)]


def other_charts(runs: Sequence[Run]) -> dict[str, list[Chart]]:
    """Return the charts of all other metrics by group, the first word of their name."""
    shown = {line.metric for chart in main_charts(runs) for line in chart.lines}
    shown |= {x for c in main_charts(runs) for n in c.lines for x in (n.low, n.high)}
    groups: dict[str, list[Chart]] = {}
    for chart in _evaluations_of_other_metrics(runs, shown):
        groups.setdefault("evaluation", []).append(chart)
        shown |= {line.metric for line in chart.lines}
    left = [
        (name, table)
        for table in ("evals", "updates")
        for name in _names(runs, table)
        if name not in shown
    ]
    for name, table in left[:_MOST_OTHERS]:
        chart = Chart(name, "", table, [Line(name, name)])
        groups.setdefault(_group(name, table), []).append(chart)
    return _merge_single(groups)


def _group(name: str, table: str) -> str:
    if table == "evals":
        return "evaluation"
    parts = name.split("/")
    return "/".join(parts[:2]) if parts[0] == "head" and len(parts) > 2 else parts[0]


def _merge_single(groups: Mapping[str, list[Chart]]) -> dict[str, list[Chart]]:
    """Put the charts of groups of one into a group of their own."""
    single = [
        chart for charts in groups.values() for chart in charts if len(charts) == 1
    ]
    merged = {
        name: charts for name, charts in sorted(groups.items()) if len(charts) > 1
    }
    return merged | ({"others": single} if single else {})


def _names(runs: Sequence[Run], table: str) -> Iterable[str]:
    """Return the names of the metrics that any run has, in order."""
    return dict.fromkeys(n for run in runs for n in getattr(run, table).metrics)


def _has_data(chart: Chart, runs: Sequence[Run]) -> bool:
    names = set(_names(runs, chart.table))
    return any(line.metric in names for line in chart.lines)


def _evaluation(name: str, runs: Sequence[Run]) -> Chart:
    """Return the chart of a metric of evaluations: mean, worst block, each block."""
    mean = "eval/mean_return" if name == "return" else f"eval/episode_{name}"
    blocks = [
        Line("each block", match[0], style="thin")
        for match in map(_BLOCK.fullmatch, _names(runs, "evals"))
        if match and match[2] == name
    ]
    return Chart(
        f"Evaluation: {name}",
        "The mode of the policy, on fixed blocks of seeds.",
        "evals",
        [
            Line("mean", mean),
            Line("worst block", f"eval/min_block_{name}", style="second"),
            # Blocks of several runs would hide each other.
            *(blocks if len(runs) == 1 else ()),
        ],
    )


def _evaluations_of_other_metrics(runs: Sequence[Run], shown: set[str]) -> list[Chart]:
    matches = map(_BLOCK.fullmatch, _names(runs, "evals"))
    names = dict.fromkeys(m[2] for m in matches if m and m[0] not in shown)
    if len(runs) > 1:  # whose blocks are not drawn
        names = [n for n in names if f"eval/min_block_{n}" not in shown]
    return [_evaluation(name, runs) for name in names][:_MOST_OTHERS]


def _heads(title: str, note: str, metric: str, runs: Sequence[Run]) -> list[Chart]:
    """Return the chart of a metric that each head has.

    Several runs have a chart for each head, because their colours tell runs apart.

    Args:
      title: of the chart.
      note: how to read it.
      metric: the last part of the metric's name.
      runs: all runs of the page.
    """
    pattern = re.compile(rf"head/(.+)/{metric}", re.DOTALL)
    matches = [m for m in map(pattern.fullmatch, _names(runs, "updates")) if m]
    lines = [Line(m[1], m[0]) for m in matches]
    # The joint entropy of one head is that of the head.
    joint = (
        [Line("all heads", metric)] if metric == "entropy" and len(lines) != 1 else []
    )
    if len(runs) == 1:
        return [Chart(title, note, "updates", [*joint, *lines])]
    return [
        Chart(f"{title}: {line.label}", note, "updates", [line])
        for line in [*joint, *lines]
    ]
