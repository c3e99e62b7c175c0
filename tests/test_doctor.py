"""The doctor: rules on figures made by hand, readers, and the command.

Real runs with planted faults are in faults/; a few of them run here.
"""

import csv
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY
from tensorboardX import SummaryWriter

from purejaxppo import train
from purejaxppo.doctor import __main__ as command
from purejaxppo.doctor.curve import curve
from purejaxppo.doctor.diagnosis import diagnose
from purejaxppo.doctor.finding import paragraph, sentence
from purejaxppo.doctor.log import Log
from purejaxppo.doctor.readers import UnreadableRun, read, read_csv
from purejaxppo.doctor.rules import RULES
from purejaxppo.errors import EXIT_OK, EXIT_STRICT

_NUM, _EVALS = 60, 10
_STEPS = 1000.0 * np.arange(1, _NUM + 1)
_RISE = np.linspace(0.0, 1.0, _EVALS)


def _log(updates=None, evals=None, config=None) -> Log:
    """A healthy run, with some of its figures replaced."""
    normal = {
        "update": np.arange(1, _NUM + 1),
        "approx_kl/last": 0.01,
        "approx_kl/mean": 0.005,
        "approx_kl/max": 0.012,
        "clip_frac": 0.1,
        "entropy": np.linspace(0.69, 0.3, _NUM),
        "head/action/entropy_coef": 0.01,
        "head/action/first_ratio_error": 1e-7,
        "ratio/first_minibatch_error": 1e-7,
        "ratio/last_epoch_std": 0.05,
        "surrogate/before": 0.0,
        "surrogate/after": 0.01,
        "policy/update_norm": 0.02,
        "policy/grad_norm": 0.2,
        "critic/update_norm": 0.03,
        "policy/dead_units": 0.0,
        "update/learning_rate": 3e-4,
        "update/minibatches": 32.0,
        "update/epochs": 4.0,
        "loss/value": np.linspace(1.0, 0.1, _NUM),
        "value/explained_variance": 0.8,
        "value/max_abs": 20.0,
        "advantages/used_std": 1.0,
        "rewards/mean": 1.0,
        "rewards/max_abs": 1.0,
        "consistency/rewards": 1e-6,
        "consistency/sign": 1.0,
        "consistency/advantages": 1.0,
        "consistency/bootstrap": 1.0,
        "obs/samples": _STEPS,
        "obs/std": 1.0,
        "obs/clipped": 0.0,
        "obs/still": 0.0,
        "obs/autocorrelation": 0.9,
        "obs/spikes": 0.0,
        "train/episode_return": np.linspace(20.0, 200.0, _NUM),
        "train/episode_length": np.linspace(20.0, 200.0, _NUM),
        "train/truncated": 1.0,
        "train/unstable": 0.0,
        "train/no_valid_action": 0.0,
    } | (updates or {})
    columns = {n: np.broadcast_to(x, (_NUM,)).astype(float) for n, x in normal.items()}
    values = 20.0 + 180.0 * _RISE
    seen = {
        "steps": 6000.0 * np.arange(_EVALS),
        "eval/mean_return": values,
        "eval/min_block_return": values - 5.0,
        "eval/block0_return": values - 5.0,
        "eval/block1_return": values + 5.0,
        "eval/start": np.full(_EVALS, 0.5),
    } | (evals or {})
    settings = {
        "total_timesteps": 60_000,
        "num_envs": 16,
        "num_steps": 64,
        "gamma": 0.99,
        "value_coef": 0.5,
        "normalize_observations": "running",
        "normalize_advantages": "batch",
        "normalize_rewards": False,
        "max_episode_steps": 500,
        "entropy_coef": 0.01,
    } | (config or {})
    return Log(Path("run"), 0, {"steps": _STEPS} | columns, seen, settings)


def _flat(level=20.0):
    """Evaluations of a policy that does not improve."""
    values = np.full(_EVALS, level)
    return {
        "eval/mean_return": values,
        "eval/min_block_return": values - 1.0,
        "eval/block0_return": values - 1.0,
        "eval/block1_return": values + 1.0,
    }


def _half(value, other):
    """`other` in the first half of the run, `value` in the second."""
    return np.where(np.arange(_NUM) < _NUM // 2, other, value)


# Fault -> figures that show it. Each is also a log that no OTHER rule may rank above.
_SIGNS = {
    "log_prob": _log(
        {"ratio/first_minibatch_error": 0.3, "head/action/first_ratio_error": 0.3}
    ),
    "learning_rate_zero": _log(
        {"update/learning_rate": 0.0, "ratio/last_epoch_std": 0.0}, _flat()
    ),
    "degenerate_ratio": _log({"ratio/last_epoch_std": 1e-7}, _flat()),
    "policy_loss_sign": _log({"surrogate/after": -0.01}, _flat()),
    "overshoot": _log({"approx_kl/mean": 0.2, "clip_frac": 0.7}, _flat()),
    "too_slow": _log({"approx_kl/mean": 1e-7, "policy/update_norm": 1e-5}, _flat()),
    "small_batch": _log(evals=_flat(), config={"num_envs": 1, "num_steps": 16}),
    "reward_sign": _log({"consistency/sign": -1.0, "consistency/rewards": 2.0}),
    "advantage_estimation": _log({"consistency/rewards": 0.4}),
    "advantages_changed": _log({"consistency/advantages": 0.02}),
    "no_reward": _log({"rewards/max_abs": 0.0, "rewards/mean": 0.0}, _flat()),
    "critic_diverges": _log(
        {
            "loss/value": np.geomspace(1.0, 1e4, _NUM),
            "value/explained_variance": -0.2,
        },
        _flat(),
    ),
    "truncation": _log({"consistency/bootstrap": 0.0}),
    "advantage_scale": _log({"advantages/used_std": 3000.0}, _flat()),
    "short_horizon": _log(evals=_flat(), config={"gamma": 0.0}),
    "critic_untrained": _log({"critic/update_norm": 0.0}, config={"value_coef": 0.0}),
    "critic_overshoot": _log(
        {"critic/update_norm": 3.0, "value/explained_variance": -5.0}, _flat()
    ),
    "value_bound": _log({"value/max_abs": 1e5}),
    "critic": _log({"value/explained_variance": -0.1}, _flat()),
    "entropy_bonus": _log(
        {"entropy": 0.69, "head/action/entropy_coef": 1.0},
        _flat(),
        {"entropy_coef": 1.0},
    ),
    "premature_determinism": _log(
        {"entropy": np.geomspace(0.69, 0.001, _NUM)}, _flat()
    ),
    "saturated_actions": _log({"head/action/saturated": 0.9}, _flat()),
    "dead_units": _log({"policy/dead_units": 0.95}, _flat()),
    "unusable_numbers": _log({"train/unstable": 3.0}),
    "invalid_actions": _log({"train/invalid_frac": 0.02}),
    "empty_mask": _log({"train/no_valid_action": 1.0}),
    "still_observations": _log({"obs/still": 1.0}, _flat()),
    "noisy_observations": _log({"obs/spikes": 0.02}, _flat()),
    "normaliser": _log({"obs/samples": 1000.0}),
    "evaluation_seeds": _log(evals={"eval/start": 0.5 + 0.1 * _RISE}),
    "opposite_rewards": _log(evals={"eval/mean_return": 200.0 - 180.0 * _RISE}),
    "worse_than_untrained": _log(
        {
            "train/episode_return": np.linspace(200.0, 20.0, _NUM),
            "rewards/mean": np.nan,
        },
        {"eval/mean_return": 200.0 - 180.0 * _RISE},
    ),
    "no_improvement": _log(
        {"train/episode_return": 20.0, "rewards/mean": np.nan}, _flat()
    ),
    "collapse": _log(
        evals={
            "eval/mean_return": np.r_[20.0 + 180.0 * _RISE[:6] / _RISE[5], [20.0] * 4]
        }
    ),
    "sawtooth": _log(evals={"eval/mean_return": np.array([20.0, 200.0] * 5)}),
    "brittle": _log(
        evals={
            "eval/min_block_return": np.r_[20.0 + 100 * _RISE[:5], 60 - 100 * _RISE[:5]]
        }
    ),
}


def test_a_healthy_run_is_healthy():
    assert diagnose(_log()) == []


def test_every_rule_is_tried():
    assert set(_SIGNS) == {rule.fault for rule in RULES}


@pytest.mark.parametrize("fault", _SIGNS)
def test_a_fault_is_named_first(fault):
    findings = diagnose(_SIGNS[fault])
    assert findings
    assert findings[0].fault == fault
    first, last = findings[0].steps
    assert 0 <= first <= last <= 60_000
    assert 0.0 < findings[0].severity <= 1.0


def test_advantages_without_differences_are_named():
    log = _log({"consistency/advantages": np.nan, "advantages/used_std": 0.0}, _flat())
    assert diagnose(log)[0].fault == "advantages_changed"
    assert diagnose(log)[0].metric == "advantages/used_std"


def test_a_pole_that_swings_back_at_many_steps_is_no_noise():
    """Measured on Brax's inverted pendulum, which a policy holds by small pushes."""
    assert diagnose(_log({"obs/spikes": 0.07})) == []


def test_a_policy_that_a_jump_made_deterministic_is_not_called_slow():
    """Measured on Stable-Baselines3 with a learning rate of 0.1."""
    kl = np.r_[60.0, np.zeros(_NUM - 1)]
    log = _log({"approx_kl/mean": kl, "approx_kl/max": kl, "clip_frac": 0.0}, _flat())
    named = [finding.fault for finding in diagnose(log)]
    assert named[0] == "overshoot"
    assert "too_slow" not in named


@pytest.mark.parametrize("fault", _SIGNS)
def test_a_finding_is_said_in_words_and_figures(fault):
    finding = next(f for f in diagnose(_SIGNS[fault]) if f.fault == fault)
    text = paragraph(finding)
    for part in (finding.seen, finding.meaning, finding.suspect, *finding.knobs):
        assert part in text
    assert "nan" not in text
    assert sentence(finding).startswith(f"{fault}: ")


def test_the_head_of_a_log_prob_is_named():
    log = _log({"ratio/first_minibatch_error": 0.3, "head/pick/first_ratio_error": 0.3})
    assert "in the head pick," in diagnose(log)[0].seen


def test_a_rate_that_decays_to_nothing_is_no_fault():
    decay = np.linspace(1.0, 0.0, _NUM)
    log = _log(
        {"update/learning_rate": 3e-4 * decay, "ratio/last_epoch_std": 0.05 * decay}
    )
    assert diagnose(log) == []


@pytest.mark.parametrize("fault", ["no_improvement", "critic", "premature_determinism"])
def test_what_is_learned_is_judged_in_the_second_half(fault):
    """At a third of the planned steps a policy need not have learned anything."""
    log = _SIGNS[fault]
    log = dataclasses.replace(log, config={**log.config, "total_timesteps": 180_000})
    assert diagnose(log) == []


def test_severity_grows_with_the_damage():
    def severity(**changes):
        return diagnose(_log(evals=_flat(), **changes))[0].severity

    gammas = [severity(config={"gamma": g}) for g in (0.9, 0.7, 0.45, 0.0)]
    kls = [severity(updates={"approx_kl/mean": x}) for x in (0.05, 0.2, 0.8)]
    slow = [severity(updates={"approx_kl/mean": x}) for x in (3e-5, 1e-6, 1e-8)]
    for series in (gammas, kls, slow):
        assert series == sorted(series)
        assert series[0] < series[-1]


def test_the_curve_tells_noise_from_learning():
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 10.0, (2, _EVALS))
    evals = {
        "eval/block0_return": 100.0 + noise[0],
        "eval/block1_return": 100.0 + noise[1],
        "eval/mean_return": 100.0 + noise.mean(axis=0),
    }
    found = curve(_log(evals=evals))
    assert found is not None
    assert not found.has_learned
    assert not found.has_collapsed
    assert not found.has_fallen


# --- readers -------------------------------------------------------------------------


def test_a_run_is_read_while_it_is_written(tiny_run, tmp_path):
    """Its last row may be cut short at any byte."""
    whole = (tiny_run / "metrics.csv").read_bytes()
    rows = whole.splitlines(keepends=True)
    for cut in range(len(b"".join(rows[:-1])) + 1, len(whole), 97):
        (tmp_path / "metrics.csv").write_bytes(whole[:cut])
        updates = read_csv(tmp_path / "metrics.csv")
        assert len(updates["update"]) in (len(rows) - 2, len(rows) - 1)
        assert updates["update"][0] == 1


def test_a_run_has_a_log_for_each_seed_and_its_configuration(tmp_path):
    run = tmp_path / "run"
    # Programs that a trial of test_sweep.py has too.
    flags = [*TINY, "--num-seeds", "2", "--seed", "5", "--run-dir", str(run)]
    assert train.main(flags) == EXIT_OK
    first, second = read(run)
    assert (first.seed, second.seed) == (5, 6)
    assert first.finished
    assert first.config["num_envs"] == 4
    assert first.config["gamma"] == 0.99
    assert first.updates["steps"].tolist() == [32.0 * i for i in range(1, 7)]
    assert first.evals["steps"].tolist() == [0.0, 96.0, 192.0]
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "6"]
    expected = [float(row["entropy"]) for row in rows]
    assert second.updates["entropy"].tolist() == expected


def test_a_table_alone_is_enough(tiny_run):
    (log,) = read(tiny_run / "metrics.csv")
    assert log.updates["steps"].size == 6
    assert not log.evals
    assert not log.config


def test_our_own_events_say_what_the_tables_say(tmp_path):
    run = tmp_path / "run"
    # All that `tiny_run` compiled already.
    flags = [flag for flag in TINY if flag != "--no-tensorboard"]
    assert train.main([*flags, "--run-dir", str(run)]) == EXIT_OK
    (of_tables,) = read(run)
    (events,) = [p for p in run.iterdir() if "tfevents" in p.name]
    (of_events,) = read(events)
    for name in ("entropy", "loss/value", "ratio/last_epoch_std"):
        np.testing.assert_allclose(of_events.updates[name], of_tables.updates[name])


def _sb3(path: Path, **figures) -> None:
    """Events as Stable-Baselines3 writes them."""
    with SummaryWriter(str(path)) as writer:
        for i in range(40):
            for name, values in figures.items():
                scalar = float(np.broadcast_to(values, 40)[i])
                writer.add_scalar(name.replace("__", "/"), scalar, 2048 * (i + 1))


_SB3_HEALTHY = {
    "rollout__ep_rew_mean": np.linspace(20.0, 480.0, 40),
    "rollout__ep_len_mean": np.linspace(20.0, 480.0, 40),
    "train__approx_kl": 0.008,
    "train__clip_fraction": 0.1,
    "train__entropy_loss": -np.linspace(0.69, 0.5, 40),
    "train__explained_variance": 0.7,
    "train__value_loss": 10.0,
    "train__policy_gradient_loss": -0.01,
    "train__learning_rate": 3e-4,
}


def test_a_run_of_stable_baselines3_is_read_and_judged(tmp_path):
    _sb3(tmp_path / "good", **_SB3_HEALTHY)
    (log,) = read(tmp_path / "good")
    assert log.source == "stable-baselines3"
    np.testing.assert_allclose(log.updates["entropy"][0], 0.69, rtol=1e-6)
    assert log.updates["steps"][0] == 2048
    assert diagnose(log) == []
    bad = {
        "rollout__ep_rew_mean": 9.4,
        "train__approx_kl": np.r_[[4.0] * 12, np.zeros(28)],
        "train__entropy_loss": -np.r_[[0.3] * 4, np.zeros(36)],
        "train__explained_variance": 0.0,
    }
    _sb3(tmp_path / "bad", **_SB3_HEALTHY | bad)
    (log,) = read(tmp_path / "bad")
    assert diagnose(log)[0].fault == "overshoot"


def test_the_table_of_stable_baselines3_holds_evaluations_too(tmp_path):
    """Its progress.csv, with rows of both, and empty fields."""
    path = tmp_path / "progress.csv"
    path.write_text(
        "time/total_timesteps,train/approx_kl,eval/mean_reward\n"
        "2048,0.01,\n4096,0.02,\n4096,,50.5\n6144,0.01,\n8192,,70.0\n"
    )
    (log,) = read(path)
    assert log.evals["steps"].tolist() == [4096.0, 8192.0]
    assert log.evals["eval/mean_return"].tolist() == [50.5, 70.0]
    assert "eval/mean_return" not in log.updates
    assert np.nanmax(log.updates["approx_kl/last"]) == 0.02


@pytest.mark.parametrize(
    "content", [None, b"", b"steps\n", b"\xff\xfe\x00", b"a,b\n1,2\n", b"{}"]
)
def test_what_is_no_run_is_refused_in_a_sentence(content, tmp_path, capsys):
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableRun, match="allowed is a run's folder"):
        read(path)
    assert command.main([str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_hostile_config_does_no_harm(tiny_run, tmp_path):
    (tmp_path / "metrics.csv").write_bytes((tiny_run / "metrics.csv").read_bytes())
    for content in (
        "[]",
        "{",
        '{"config": 3, "hypers": {"gamma": "x"}}',
        "[" * 100_000,
    ):
        (tmp_path / "config.json").write_text(content)
        (log,) = read(tmp_path)
        diagnose(log)


# --- the command ---------------------------------------------------------------------


def _write_run(path: Path, log: Log) -> None:
    path.mkdir()
    for name, columns in (("metrics.csv", log.updates), ("evals.csv", log.evals)):
        with (path / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    record = {"config": dict(log.config), "hypers": {}, "sources": {}}
    (path / "config.json").write_text(json.dumps(record))


def test_exit_codes_and_both_outputs(tmp_path, capsys):
    _write_run(tmp_path / "good", _log())
    _write_run(tmp_path / "bad", _SIGNS["policy_loss_sign"])
    assert command.main([str(tmp_path / "good")]) == 0
    assert "healthy" in capsys.readouterr().out
    both = [str(tmp_path / "good"), str(tmp_path / "bad")]
    assert command.main(both) == 1
    assert "FATAL policy_loss_sign" in capsys.readouterr().out
    assert command.main([*both, "--json"]) == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert good["findings"] == []
    assert bad["findings"][0]["fault"] == "policy_loss_sign"
    assert command.main([*both, str(tmp_path / "none")]) == 2


def test_the_command_starts_without_jax_and_answers_for_a_long_run(tmp_path):
    """2 s are allowed for a million steps; here only that JAX is not loaded."""
    log = _log()
    longer = {name: np.tile(x, 300) for name, x in log.updates.items()}
    longer["steps"] = np.arange(1.0, 18_001.0)
    _write_run(tmp_path / "run", dataclasses.replace(log, updates=longer))
    program = (
        "import sys; from purejaxppo.doctor.__main__ import main\n"
        f"code = main([{str(tmp_path / 'run')!r}])\n"
        "assert not {'jax', 'flax', 'mujoco'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert result.returncode in (0, 1), result.stderr
    print(f"{time.monotonic() - start:.2f} s for 18,000 updates")


# --- during training -------------------------------------

_BROKEN = (
    "--env probe_envs:make --num-envs 8 --num-steps 8 --num-minibatches 4 "
    "--num-epochs 2 --total-timesteps 640 --hidden-sizes 8 --critic-hidden-sizes 8 "
    "--num-evals 2 --eval-episodes 4 --no-tensorboard --chunk-updates 2 --reset fresh "
    "--learning-rate 0.01"
).split()


def _findings(run: Path) -> list[str]:
    return json.loads((run / "summary.json").read_text())["findings"]


@pytest.fixture
def shuffled(monkeypatch):
    """Advantages in another order than the other arrays of the batch."""
    from purejaxppo.ppo import batch, update

    def make_batch(task, *rest):
        made, state, metrics = batch.make_batch(task, *rest)
        return made.replace(advantages=made.advantages[:, ::-1]), state, metrics

    monkeypatch.setattr(update, "make_batch", make_batch)


@pytest.mark.usefixtures("shuffled")
def test_training_and_a_resume_say_a_finding_once(tmp_path, capsys):
    run = tmp_path / "run"
    assert train.main([*_BROKEN, "--run-dir", str(run)]) == EXIT_OK
    lines = capsys.readouterr().err.splitlines()
    said = [x for x in lines if x.startswith("FINDING seed 0: advantages_changed")]
    assert len(said) == 1
    assert "advantages_changed" in _findings(run)
    (run / "summary.json").unlink()
    assert train.main(["--resume", str(run), *_BROKEN[:2]]) == EXIT_OK
    assert "FINDING" not in capsys.readouterr().err
    assert "advantages_changed" in _findings(run)


@pytest.mark.usefixtures("shuffled")
def test_strict_stops_at_a_finding(tmp_path):
    strict = tmp_path / "strict"
    assert train.main([*_BROKEN, "--strict", "--run-dir", str(strict)]) == EXIT_STRICT
    (log,) = read(strict)
    assert log.updates["update"][-1] < 10
    assert sorted((strict / "checkpoints").iterdir())
    assert diagnose(log)[0].fault == "advantages_changed"
