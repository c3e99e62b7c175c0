"""The command line as a user meets it: words, exit codes, where values come from."""

import ast
import collections
import csv
import dataclasses
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from helpers import TINY, forget_checksum, run_command

from purejaxppo import config, evaluate, hypers, load_policy, train
from purejaxppo.config import Config, Hypers
from purejaxppo.errors import EXIT_OK, EXIT_STRICT, EXIT_USAGE, ConfigError
from purejaxppo.ranges import field_names
from purejaxppo.registry import presets
from purejaxppo.run import options, record
from purejaxppo.run.options import Options
from purejaxppo.validation import validate

ENV = ("--env", "probe_envs:make")
SMALL = (
    "--env probe_envs:make --env-kwargs kind=observation --num-envs 4 --num-steps 8 "
    "--num-minibatches 2 --num-epochs 2 --total-timesteps 192 --hidden-sizes 8 "
    "--critic-hidden-sizes 8 --reset fresh --num-evals 2 --eval-episodes 4 "
    "--no-tensorboard --no-report"
).split()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--env hamer", "env: got 'hamer'; allowed is one of"),
        ("--env no.such:thing", "allowed is a module that can be imported"),
        ("--preset fast", "preset: got 'fast'; allowed is one of cs224r, default"),
        ("--num-envs 0", "num_envs: got 0; allowed is a whole number of at least 1"),
        ("--num-steps -3", "num_steps: got -3; allowed is a whole number of at least"),
        ("--num-minibatches 7", "num_minibatches: got 7; allowed is a divisor of"),
        ("--learning-rate nan", "learning_rate: got nan; allowed is a number in"),
        ("--gamma 1.5", "gamma: got 1.5; allowed is a number in [0, 1]"),
        ("--total-timesteps 5", "total_timesteps: got 5; allowed is at least one"),
        ("--seed -1", "seed: got -1; allowed is a whole number of at least 0"),
        ("--num-seeds 0", "num_seeds: got 0; allowed is"),
        ("--env-kwargs protocol", "env_kwargs: got 'protocol'; allowed is pairs"),
        ("--head-entropy-coef arm", "head_entropy_coef: got 'arm'; allowed is pairs"),
        ("--env-kwargs reward=lots", "reward: got 'lots'; allowed is one of dense"),
        ("--env-kwargs speed=2", "allowed is what hammer takes"),
        ("--resume /no/such/run", "resume: got '/no/such/run'; allowed is the folder"),
        ("--run-dir a --resume b", "resume: got 'b'; allowed is the folder of a run"),
        ("--demonstrations /no/file.npz", "allowed is a file that exists"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    flags, sentence, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert train.main(flags.split()) == EXIT_USAGE
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # else the next attempt would find a folder


def test_bad_input_is_refused_within_seconds_of_the_start(tmp_path):
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "purejaxppo.train", "--num-minibatches", "7"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == EXIT_USAGE
    assert result.stderr.startswith("num_minibatches: got 7; allowed is a divisor of")
    # 1 s on an idle machine; this bound only catches a compilation.
    assert time.monotonic() - started < 10


def test_engine_is_refused_where_the_environment_has_none(capsys):
    assert train.main([*SMALL, "--engine", "mjx"]) == EXIT_USAGE
    assert (
        "engine: got 'mjx'; allowed is auto: probe_envs:make has no"
        in capsys.readouterr().err
    )


def test_unknown_flag_is_exit_code_2():
    with pytest.raises(SystemExit) as info:
        train.main(["--learning-rte", "1"])
    assert info.value.code == EXIT_USAGE


def test_run_folder_must_be_new_and_writable(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert train.main([*SMALL, "--run-dir", str(tmp_path / "full")]) == EXIT_USAGE
    assert "allowed is a new or empty folder" in capsys.readouterr().err
    inside_a_file = tmp_path / "full" / "file" / "run"
    assert train.main([*SMALL, "--run-dir", str(inside_a_file)]) == EXIT_USAGE
    assert "allowed is a folder that can be written" in capsys.readouterr().err


def test_print_config_says_where_each_value_comes_from(capsys):
    flags = "--env hammer --preset cs224r --gamma 0.9 --print-config".split()
    assert train.main(flags) == EXIT_OK
    rows = {
        line.split()[0]: line for line in capsys.readouterr().out.strip().splitlines()
    }
    names = {f.name for c in (Config, Hypers, Options) for f in dataclasses.fields(c)}
    assert set(rows) == names - {"hypers"}
    assert rows["gamma"].split()[1:] == ["0.9", "flag"]
    assert rows["preset"].split()[1:] == ["cs224r", "flag"]
    assert rows["env"].split()[1:] == ["hammer", "default"]
    assert rows["num_demonstrations"].endswith('preset "cs224r"')
    assert rows["target_kl"].endswith('preset "default"')
    assert rows["dual_clip"].split()[1:] == ["inf", "default"]


def test_flags_win_over_presets_and_presets_over_defaults():
    resolved, _ = train.parse("--env hammer --preset cs224r --num-envs 32".split())
    assert resolved.config.num_envs == 32
    assert resolved.config.env_kwargs["protocol"] == "cs224r"
    flags = "--env hammer --preset cs224r --env-kwargs reward=sparse".split()
    kwargs = train.parse(flags)[0].config.env_kwargs
    assert kwargs == {"protocol": "cs224r", "reward": "sparse"}


def test_values_keep_their_types():
    flags = "--env-kwargs a=1 b=0.5 c=word d=(1,2) e=None --target-kl inf".split()
    made = train.parse(flags)[0].config
    assert made.env_kwargs == {"a": 1, "b": 0.5, "c": "word", "d": (1, 2), "e": None}
    assert made.hypers.target_kl == math.inf


def test_a_limit_of_a_single_head_is_switched_off_by_the_word_for_it():
    flags = "--entropy-floor 0.5 --entropy-coef 0.1 --head-entropy-floor op=-inf"
    made = train.parse(flags.split())[0].config
    assert made.hypers.head_entropy_floor == {"op": -math.inf}
    validate(made)


def help_of(flags: str, capsys) -> str:
    """What --help prints, as one line, without frames."""
    with pytest.raises(SystemExit) as info:
        train.main([*flags.split(), "--help"])
    assert info.value.code == EXIT_OK
    return " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())


def test_help_has_groups_and_every_flag_in_one_of_them(capsys):
    text = help_of("", capsys)
    titles = re.findall(r"(\w+) options [─-]{3}", text)
    groups = "environment rollout update policy exploration imitation evaluation run"
    assert titles == groups.split()
    names = {n for c in (Config, Hypers, Options) for n in field_names(c)} - {"hypers"}
    for name in names:
        assert len(re.findall(f" --{name.replace('_', '-')}[ ,]", text)) == 1, name


def test_help_has_the_most_used_flags_first(capsys):
    text = help_of("", capsys)
    first = "env preset total-timesteps num-envs learning-rate num-epochs "
    first += "hidden-sizes entropy-coef num-demonstrations num-evals seed run-dir "
    first += "keep-checkpoints"
    places = [text.index(f" --{name} ") for name in first.split()]
    assert places == sorted(places)


def test_help_shows_the_defaults_of_the_environment(capsys):
    sentence = "Environment steps of training (per seed). (default: %d)"
    assert sentence % 500_000 in help_of("", capsys)
    assert sentence % 2_000_000 in help_of("--env scheduler", capsys)
    assert sentence % 1_000_000 in help_of("--env=scheduler --preset=toy", capsys)


@pytest.mark.parametrize("module", [config, hypers, options])
def test_every_flag_has_a_sentence(module):
    tree = ast.parse(Path(module.__file__).read_text())
    found = 0
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, text in itertools.pairwise(cls.body):
            if isinstance(field, ast.AnnAssign) and cls.name != "Resolved":
                assert isinstance(text, ast.Expr)
                assert ast.literal_eval(text.value).endswith(".")
                found += 1
    assert found > 10


def test_another_environment_is_a_flag():
    assert train.parse(["--env", "deck"])[0].sources["env"] == "flag"


def test_pairs_are_named_one_by_one_in_the_sources():
    flags = "--env hammer --preset cs224r --env-kwargs reward=sparse --gamma 0.99"
    resolved, _ = train.parse(flags.split())
    assert resolved.sources["env_kwargs.protocol"] == 'preset "cs224r"'
    assert resolved.sources["env_kwargs.reward"] == "flag"
    assert resolved.sources["gamma"] == "default"  # as it would be without the flag


def test_the_engine_is_an_argument_of_the_environment():
    resolved, _ = train.parse("--engine mjx".split())
    assert resolved.config.env_kwargs == {"engine": "mjx"}
    flags = "--preset cs224r --env-kwargs reward=dense --engine mjx"
    assert train.parse(flags.split())[0].config.env_kwargs == {
        **{"protocol": "cs224r", "reward": "dense", "engine": "mjx"}
    }


def test_dictionaries_of_heads_and_lists_of_sizes():
    flags = "--head-entropy-coef op=0.01 slot=1 --hidden-sizes 3 4 --no-stagger"
    made = train.parse(flags.split())[0].config
    assert made.hypers.head_entropy_coef == {"op": 0.01, "slot": 1}
    assert (made.hidden_sizes, made.stagger) == ((3, 4), False)


@pytest.mark.parametrize(
    "flags",
    [
        *("--num-envs many", "--core rnn", "--env", "--resume", "--hidden-sizes 3 x"),
        *("word", "--stagger False", "--help-me"),
    ],
)
def test_words_that_are_no_flags_are_exit_code_2(flags):
    with pytest.raises(SystemExit) as info:
        train.main(flags.split())
    assert info.value.code == EXIT_USAGE


def test_every_preset_of_hammer_is_valid():
    for name in presets("hammer"):
        validate(Config.preset("hammer", name))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run, and the names of all that XLA was given to compile meanwhile."""
    path = tmp_path_factory.mktemp("run") / "run"
    names = []

    def listen(event, seconds, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(details["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        flags = ["--run-dir", str(path), "--learning-rate", "1e-3"]
        assert train.main([*SMALL, *flags]) == EXIT_OK
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return path, names


@pytest.fixture(scope="module")
def finished_run(finished):
    return finished[0]


def test_nothing_compiles_twice(finished):
    path, names = finished
    functions = ("init", "evaluate", "chunk", "evaluate_stochastic")
    programs = {f"jit({name})" for name in functions}
    ledger = json.loads((path / "summary.json").read_text())["compile_seconds"]
    assert len(ledger) == len(programs)
    count = collections.Counter(names)
    assert {name: count[name] for name in programs} == dict.fromkeys(programs, 1)
    # What is left is single operations on few numbers: a key, a count.
    operations = "convert_element_type optimization_barrier broadcast_in_dim stage "
    operations += "_threefry_seed"
    assert set(count) - programs <= {f"jit({name})" for name in operations.split()}


def test_a_run_leaves_configuration_metrics_and_summary(finished_run):
    resolved, own = record.read_config(finished_run)
    expected, _ = train.parse([*SMALL, "--learning-rate", "1e-3"])
    assert resolved == expected
    assert own.run_dir == str(finished_run)
    written = json.loads((finished_run / "config.json").read_text())
    assert written["versions"]["jax"]
    assert (written["format"], written["env_version"]) == (2, 1)
    assert written["command"][:3] == ["python", "-m", "purejaxppo.train"]
    with (finished_run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["update"]) for row in rows] == list(range(1, 7))
    assert [int(row["steps"]) for row in rows] == [32 * i for i in range(1, 7)]
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert list(rows[0])[:4] == ["update", "steps", "seconds", "seed"]
    needed = (
        "loss/policy loss/value entropy approx_kl/last approx_kl/mean approx_kl/max "
        "clip_frac ratio/mean ratio/std ratio/min ratio/max value/explained_variance "
        "grad_norm advantages/mean advantages/std update/learning_rate update/epochs "
        "ratio/first_minibatch_error ratio/last_epoch_std steps_per_second "
        "train/episode_return train/episodes status"
    ).split()
    assert set(needed) <= set(rows[0])
    summary = json.loads((finished_run / "summary.json").read_text())
    assert set(summary["compile_seconds"]) == {
        *("init", "update", "evaluate", "evaluate_stochastic")
    }
    assert "eval_stochastic/mean_return" in summary["stochastic"]


def test_evaluations_are_before_training_and_at_the_eval_points(finished_run):
    with (finished_run / "evals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["update"]) for row in rows] == [0, 3, 6]


def test_best_is_the_last_of_equals_by_worst_block_then_mean(finished_run):
    with (finished_run / "evals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[1:]
    key = [
        (float(r["eval/min_block_success"]), float(r["eval/episode_success"]))
        for r in rows
    ]
    best = max(range(len(rows)), key=lambda i: (key[i], i))
    summary = json.loads((finished_run / "summary.json").read_text())
    assert summary["best"]["update"] == int(rows[best]["update"])
    assert summary["best_of_seeds"] == [{"seed": 0, **summary["best"]}]


def test_resuming_a_finished_run_says_so(finished_run, capsys):
    assert train.main(["--resume", str(finished_run)]) == EXIT_OK
    assert "nothing to resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--gamma 0.5", "gamma: got 0.5; allowed is the run's own 0.99 with --resume"),
        ("--num-seeds 2", "num_seeds: got 2; allowed is the run's own 1"),
        ("--env-kwargs kind=cue", "allowed is the run's own {'kind': 'observation'}"),
        ("--run-dir other", "run_dir: got 'other'; allowed is the run's own"),
        ("--keep-checkpoints 0", "keep_checkpoints: got 0; allowed is a whole number"),
    ],
)
def test_resume_refuses_what_would_change_the_run(
    finished_run, flags, sentence, capsys
):
    assert train.main(["--resume", str(finished_run), *flags.split()]) == EXIT_USAGE
    assert sentence in capsys.readouterr().err


def test_resume_bears_flags_that_say_what_the_run_says(finished_run, capsys):
    flags = ["--gamma", "0.99", "--strict", "--env-kwargs", "kind=observation"]
    assert train.main(["--resume", str(finished_run), *flags]) == EXIT_OK
    assert "nothing to resume" in capsys.readouterr().err


def test_a_queued_job_starts_a_run_once_and_then_goes_on_with_it(tmp_path, capsys):
    run = tmp_path / "run"
    job = [*TINY, "--resume-or-start", str(run)]  # the same words every time
    assert train.main([*job, "--run-dir", "other"]) == EXIT_USAGE
    assert train.main(["--resume-or-start", ""]) == EXIT_USAGE
    sentences = capsys.readouterr().err.splitlines()
    assert sentences[0].startswith("run_dir: got 'other'; allowed is none where resume")
    assert sentences[1].startswith("resume_or_start: got ''; allowed is a path")
    assert train.main(job) == EXIT_OK
    assert "resum" not in capsys.readouterr().err
    assert train.main(job) == EXIT_OK
    assert f"{run} is finished; nothing to resume" in capsys.readouterr().err
    (run / "summary.json").unlink()  # killed at its end
    assert train.main([*job, "--gamma", "0.5"]) == EXIT_USAGE
    assert "gamma: got 0.5; allowed is the run's own" in capsys.readouterr().err
    assert train.main([*job, "--env", "probe_envs:make"]) == EXIT_OK
    assert "resuming" in capsys.readouterr().err
    assert (run / "summary.json").exists()


def edited(run: Path, path: Path, **changes) -> Path:
    """A copy of a run that was killed at its end; None takes an entry away."""
    shutil.copytree(run, path)
    (path / "summary.json").unlink()
    entries = json.loads((path / "config.json").read_text()) | changes
    entries = {name: entry for name, entry in entries.items() if entry is not None}
    (path / "config.json").write_text(json.dumps(entries))
    forget_checksum(path)
    return path


def test_a_run_of_the_first_format_resumes(finished_run, tmp_path, capsys):
    settings = json.loads((finished_run / "config.json").read_text())["options"]
    first = {"format": None, "env_version": None, "options": None}
    path = edited(finished_run, tmp_path / "run", **first, settings=settings)
    assert train.main(["--resume", str(path), *ENV]) == EXIT_OK
    assert "at 192 steps" in capsys.readouterr().err
    summary = json.loads((finished_run / "summary.json").read_text())
    again = json.loads((path / "summary.json").read_text())
    assert again["stochastic"] == summary["stochastic"]


def test_a_run_of_another_version_of_the_environment(finished_run, tmp_path, capsys):
    path = edited(finished_run, tmp_path / "run", env_version=7)
    assert train.main(["--resume", str(path), *ENV]) == EXIT_USAGE
    sentence = "resume: got 'probe_observation of version 7'; allowed is a run with"
    assert sentence in capsys.readouterr().err
    for f in (evaluate, load_policy):
        with pytest.raises(ConfigError, match=r"run: got 'probe_obs.* of version 7'"):
            f(path, env=ENV[1])


EVALUATE = "purejaxppo.evaluate"


def test_the_command_evaluates_a_run(finished_run, tmp_path):
    path = edited(finished_run, tmp_path / "run")
    flags = "--which latest --episodes 2 --stochastic".split()
    root, tests = Path(__file__).parent.parent, Path(__file__).parent
    said = subprocess.run(
        [sys.executable, "-m", EVALUATE, str(path), *ENV, *flags],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (root, tests)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == EXIT_OK, said.stderr
    metrics = json.loads((path / "evaluation.json").read_text())
    lines = [line.split()[0] for line in said.stdout.splitlines()]
    assert lines == sorted(metrics)
    assert "eval_stochastic/mean_return" in metrics


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--seed-index 1", "seed_index: got 1; allowed is a number from 0 to 0\n"),
        ("--which worst", "invalid choice 'worst'"),
    ],
)
def test_the_command_refuses_what_it_cannot_evaluate(
    finished_run, flags, sentence, capsys
):
    code = run_command(EVALUATE, str(finished_run), *ENV, *flags.split())
    assert code == EXIT_USAGE
    assert sentence in capsys.readouterr().err


def test_evaluation_of_a_run_repeats_what_training_said(finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())
    metrics = evaluate(finished_run, "best", env=ENV[1])
    assert metrics["eval/min_block_success"] == summary["best"]["worst"]
    loaded = load_policy(finished_run, env=ENV[1])
    state = loaded.learner.task.env.reset(jax.random.key(0))
    action, _ = loaded.act(state)
    assert action["move"].shape == ()


def test_strict_stops_at_the_first_fault(tmp_path, capsys):
    flags = [*SMALL, "--run-dir", str(tmp_path / "run"), "--learning-rate", "0"]
    assert train.main([*flags, "--strict"]) == EXIT_STRICT
    assert "ratio/last_epoch_std is below 1e-4" in capsys.readouterr().err


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """A finished run of two seeds that is evaluated after every update."""
    path = tmp_path_factory.mktemp("runs") / "two"
    flags = [*SMALL, "--run-dir", str(path), "--env", "probe_envs:Target"]
    flags += ["--env-kwargs", "--learning-rate", "0.05", "--num-seeds", "2"]
    assert train.main([*flags, "--num-evals", "6", "--keep-checkpoints", "1"]) == 0
    return path


def test_each_seed_has_a_best_checkpoint_of_its_own(two_seeds):
    with (two_seeds / "evals.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["update"]) > 0]
    summary = json.loads((two_seeds / "summary.json").read_text())
    updates = []
    for seed in range(2):
        own = [row for row in rows if row["seed"] == str(seed)]
        names = ("eval/min_block_success", "eval/episode_success", "update")
        worst, mean, update = max(tuple(float(r[n]) for n in names) for r in own)
        best = {"seed": seed, "update": update, "worst": worst, "mean": mean}
        assert summary["best_of_seeds"][seed] == best
        metrics = evaluate(two_seeds, "best", seed_index=seed, trust_env=True)
        assert (metrics[names[0]], metrics[names[1]]) == (worst, mean)
        assert load_policy(two_seeds, "best", seed, trust_env=True).update == update
        assert load_policy(two_seeds, "latest", seed, trust_env=True).update == 6
        updates.append(update)
    assert updates[0] != updates[1]  # else this test would show nothing
    kept = [int(path.name) for path in (two_seeds / "checkpoints").iterdir()]
    assert sorted(kept) == sorted({*updates, 6})


def test_seeds_in_one_program_are_the_seeds_alone(tmp_path, finished_run):
    path = tmp_path / "two"
    flags = [*SMALL, "--run-dir", str(path), "--learning-rate", "1e-3"]
    assert train.main([*flags, "--num-seeds", "2"]) == EXIT_OK

    def losses(run, seed):
        with (run / "metrics.csv").open(newline="") as file:
            return [
                float(row["loss/value"])
                for row in csv.DictReader(file)
                if row["seed"] == str(seed)
            ]

    assert losses(path, 0) == losses(finished_run, 0)  # to the bit
    assert losses(path, 1) != pytest.approx(losses(path, 0), rel=1e-3)


def test_a_screen_that_goes_away_does_not_end_the_run(tmp_path):
    """As with `2>&1 | head -1`."""
    command = [sys.executable, "-m", "purejaxppo.train", *SMALL]
    process = subprocess.Popen(
        [*command, "--run-dir", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"run {tmp_path / 'run'}\n"
    process.stdout.close()
    assert process.wait(timeout=300) == EXIT_OK
    assert (tmp_path / "run" / "summary.json").exists()


def test_demonstrations_file_is_what_was_cloned(tmp_path):
    flags = [*SMALL, "--env-kwargs", "kind=endless", "--num-demonstrations", "3"]
    flags += ["--cloning-steps", "5"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert train.main([*flags, "--run-dir", str(first)]) == EXIT_OK
    file = first / "demonstrations.npz"
    again = [*flags, "--run-dir", str(second), "--demonstrations", str(file)]
    assert train.main(again) == EXIT_OK
    assert metrics_of(first) == metrics_of(second)


@pytest.mark.parametrize("kind", ["fails", "far"])
def test_a_bad_demonstrator_stops_the_run_before_anything_is_cloned(
    kind, tmp_path, capsys
):
    path = tmp_path / "run"
    flags = [*SMALL, "--env", "bad_demonstrations:bad_demonstrator", "--env-kwargs"]
    flags += [f"kind={kind}", "--num-demonstrations", "3", "--cloning-steps", "2"]
    assert train.main([*flags, "--run-dir", str(path)]) == EXIT_USAGE
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("env: got 'bad_demonstrator'; allowed is an environment")
    assert not (path / "demonstrations.npz").exists()
    assert not (path / "checkpoints").exists()


def test_a_clone_that_is_not_finite_stops_the_run(tmp_path, capsys):
    """Demonstrated actions at the very end of what a distribution covers."""
    flags = [*SMALL, "--env-kwargs", "kind=endless", "continuous=True"]
    flags += ["--distribution", "custom_distributions:beta", "--cloning-steps", "2"]
    flags += ["--num-demonstrations", "3", "--demonstration-noise", "9"]
    path = tmp_path / "run"
    assert train.main([*flags, "--run-dir", str(path)]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert re.search(r"cloning/last_loss: got (nan|inf); allowed is", said)
    assert not (path / "checkpoints").exists()


def metrics_of(run: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv, without what a clock says."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    clock = ("seconds", "steps_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]
