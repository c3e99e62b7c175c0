"""Signs in the policy: entropy, saturation, dead units."""

import numpy as np

from purejaxppo.doctor.curve import curve, has_learned
from purejaxppo.doctor.evidence import (
    Evidence,
    Limits,
    everywhere,
    grade,
    heads,
    late,
    median,
    setting,
)
from purejaxppo.doctor.log import Log, column, finite


def _start_and_end(values: np.ndarray) -> tuple[float, float]:
    """Return the medians of the first twentieth and of the last fifth."""
    values = finite(values)
    if not values.size:
        return float("nan"), float("nan")
    first = values[: max(values.size // 20, 1)]
    return float(np.median(first)), float(
        np.median(values[-max(values.size // 5, 1) :])
    )


def entropy_dominates(log: Log, limits: Limits) -> Evidence | None:
    """The entropy bonus holds the policy at random."""
    start, end = _start_and_end(column(log.updates, "entropy"))
    coefs = [median(x) for x in heads(log, "entropy_coef").values()]
    coef = max([*coefs, setting(log, "entropy_coef", 0.0)])
    found = curve(log)
    is_random = end >= start - limits["fall"] * abs(start)
    if not is_random or not coef >= limits["coef"] or found is None:
        return None
    rises = end > start + limits["fall"] * abs(start)
    if found.has_learned and not rises and coef < limits["if_learned"]:
        return None
    return Evidence(
        0.7 + 0.2 * grade(coef, limits["coef"], limits["worst"]),
        "entropy",
        everywhere(log),
        f"the entropy is {end:.2f} at the end and was {start:.2f} at the start, with a "
        f"coefficient of {coef:g}",
    )


def premature_determinism(log: Log, limits: Limits) -> Evidence | None:
    """The policy is deterministic before it is good."""
    start, end = _start_and_end(column(log.updates, "entropy"))
    found = curve(log)
    if found is None or not np.isfinite(end):
        return None
    collapsed = 0 < start and end < limits["share"] * start
    stds = {n: _start_and_end(x) for n, x in heads(log, "std").items()}
    narrow = [n for n, (a, b) in stds.items() if b < limits["share"] * a]
    if not (collapsed or narrow) or (found.has_learned and not found.has_collapsed):
        return None
    noop = median(late(column(log.updates, "train/noop_frac")))
    idle = (
        f", and {noop:.0%} of the actions are no-ops" if noop > limits["noop"] else ""
    )
    return Evidence(
        0.62,
        "entropy" if collapsed else f"head/{narrow[0]}/std",
        everywhere(log),
        f"the entropy fell from {start:.2f} to {end:.3f} while the return stayed at "
        f"{found.last:.3g}{idle}",
    )


def saturated_actions(log: Log, limits: Limits) -> Evidence | None:
    """Most continuous actions lie at a bound, and the policy does not improve."""
    shares = {n: median(late(x)) for n, x in heads(log, "saturated").items()}
    bad = {n: x for n, x in shares.items() if x > limits["share"]}
    found = curve(log)
    if not bad or found is None or found.has_learned:
        return None
    name = max(bad, key=lambda n: bad[n])
    return Evidence(
        0.5,
        f"head/{name}/saturated",
        everywhere(log),
        f"{bad[name]:.0%} of the actions of the head {name} are at a bound",
    )


def dead_units(log: Log, limits: Limits) -> Evidence | None:
    """Hidden units of the policy give the same output for all observations."""
    dead = median(late(column(log.updates, "policy/dead_units")))
    if not dead > limits["share"]:
        return None
    learned = has_learned(log)
    if learned and dead < limits["if_learned"]:
        return None
    return Evidence(
        0.35 + 0.3 * (not learned) + 0.1 * dead,
        "policy/dead_units",
        everywhere(log),
        f"{dead:.0%} of the hidden units of the policy hardly vary",
    )
