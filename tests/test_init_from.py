"""`--init-from`: what a run begins with comes from another, and nothing else does."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    TINY,
    assert_trees_equal,
    forget_checksum,
    small_config,
    trees_differ,
)
from probe_envs import make

from purejaxppo import evaluate, load_policy, make_train, train
from purejaxppo.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_STORAGE,
    EXIT_USAGE,
    ConfigError,
)
from purejaxppo.ppo import learner, normalize
from purejaxppo.ppo.init import initial_of
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.update import as_arrays
from purejaxppo.run import arrays, checkpoint, init_from, launch, record, seeds
from purejaxppo.run.options import Options, validate_options

ENV, ENV_FLAG = make("observation", continuous=True), ("--env", "probe_envs:make")
# Another seed, objective and schedule; the networks and spaces are those of TINY.
FLAGS = (
    *TINY,
    *("--seed", "7", "--anchor", "--kl-coef", "0.1", "--learning-rate", "0.01"),
    *("--normalize-observations", "fixed", "--keep-checkpoints", "9"),
)


@pytest.fixture(scope="module")
def source(tiny_run):
    """The state at the best checkpoint of the run that others begin with."""
    return load_policy(tiny_run, env=ENV).state


@pytest.fixture(scope="module")
def begun(tiny_run, tmp_path_factory) -> Path:
    """A run that began with the parameters of `tiny_run`.

    An earlier start was killed at once, and this one before its first update. When it
    is resumed, its source is gone.
    """
    path = tmp_path_factory.mktemp("begun")
    (path / "run/initial/00000000").mkdir(parents=True)
    shutil.copytree(tiny_run, path / "source")
    flags = ["--init-from", str(path / "source"), "--run-dir", str(path / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "_run", lambda runner, begin: EXIT_INTERRUPTED)
        assert train.main([*FLAGS, *flags]) == EXIT_INTERRUPTED
    shutil.rmtree(path / "source")
    assert train.main(["--resume", str(path / "run"), *ENV_FLAG]) == EXIT_OK
    return path / "run"


def state_at(run: Path, step: int):
    like = load_policy(run, "latest", env=ENV).state
    return checkpoint.restore(run / "checkpoints", step, like)[0]


# --- a run from the command line ----------------------------------------------------


def test_the_first_state_has_the_given_parameters_and_all_else_anew(begun, source):
    first = state_at(begun, 0)
    assert_trees_equal(first.params, source.params)
    assert_trees_equal(first.obs_stats, source.obs_stats)
    assert_trees_equal(first.reference.params, source.params)
    assert_trees_equal(first.reference.obs_stats, source.obs_stats)
    assert int(first.update_count) == 0
    assert all(not np.any(x) for x in jax.tree.leaves(first.opt_state))
    assert any(np.any(x) for x in jax.tree.leaves(source.opt_state))
    last = state_at(begun, 6)
    assert_trees_equal(last.reference, first.reference.replace(carry=last.carry))
    assert trees_differ(last.params.policy, first.params.policy)


def test_the_first_evaluation_is_that_of_the_source(begun, tiny_run):
    there = evaluate(tiny_run, env=ENV)
    header, first = (begun / "evals.csv").read_text().splitlines()[:2]
    here = dict(zip(header.split(","), first.split(","), strict=True))
    assert there.keys() <= here.keys()
    assert {name: float(here[name]) for name in there} == there


def test_the_run_says_where_it_came_from(begun, source):
    origin = json.loads((begun / "config.json").read_text())["init_from"]
    assert origin.pop("run").endswith("/source")
    assert origin.pop("digest") == arrays.digest(initial_of(source))
    assert origin == {
        **{"env": "probe_envs:make", "which": "best", "parts": "both", "seed": 0},
        **{"update": 6, "steps": 192},
    }


@pytest.fixture
def cut(begun, tmp_path) -> Path:
    """A copy of that run, as if it had been killed at its end."""
    path = tmp_path / "run"
    shutil.copytree(begun, path)
    (path / "summary.json").unlink()
    return path


def test_a_run_with_a_checkpoint_goes_on_from_there(cut, monkeypatch):
    resumed = []
    monkeypatch.setattr(launch, "_run", lambda _, go_on: resumed.append(go_on) or 0)
    assert train.main(["--resume", str(cut), *ENV_FLAG]) == EXIT_OK
    assert [go_on.__name__ for go_on in resumed] == ["run_from_checkpoint"]


@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_a_start_without_its_copy_is_refused(cut, damage, capsys):
    shutil.rmtree(cut / "checkpoints")
    (cut / "metrics.csv").unlink()
    if damage == "lost":
        shutil.rmtree(cut / "initial")
    else:
        (cut / "initial/00000000/meta.json").write_text("{}")
    assert train.main(["--resume", str(cut), *ENV_FLAG]) == EXIT_USAGE
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"checkpoint: {cut / 'initial'}")


def test_make_train_begins_with_the_same_state(begun, source, monkeypatch):
    """To the bit, as does a run that is killed and resumed, for that one was."""
    config = train.parse([*FLAGS, "--init-from", "there"])[0].config
    monkeypatch.setattr(learner, "_train_from", lambda task, state, _: (state, {}))
    begin = jax.jit(make_train(config, ENV))
    state, metrics = begin(jax.random.key(7), initial=initial_of(source))
    assert_trees_equal(state, state_at(begun, 0))
    assert metrics == {}


# --- which parts --------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(source):
    """By parts: the first states of two seeds, and the metrics; cloning is on."""
    config = train.parse(TINY)[0].config
    changes = {"num_demonstrations": 2, "cloning_steps": 2, "normalize_rewards": True}
    config = dataclasses.replace(config, **changes)
    env = make("observation", continuous=True, limit=3)
    scale = jax.tree.map(lambda x: x + 1, normalize.init(jnp.zeros(())))
    given = source.replace(return_stats=scale)
    init = make_learner(config, env).init
    init = seeds.map_over_seeds(init, 2, 0, None, None, None)

    @jax.jit
    def first(given):
        keys, hypers = seeds.seed_keys(0, 2), as_arrays(config.hypers)
        names = ("both", "policy", "critic")
        return {n: init(keys, hypers, None, initial_of(given, n)) for n in names}

    return given, first(given)


@pytest.mark.parametrize("name", ["both", "policy", "critic"])
def test_the_parts_are_taken_by_every_seed_and_the_others_are_new(parts, name):
    given, first = parts
    state, metrics = first[name]
    for i in range(2):
        mine = jax.tree.map(lambda x, i=i: x[i], state)
        assert_trees_equal(mine.obs_stats, given.obs_stats)
        for network in ("policy", "critic"):
            here, there = (getattr(s.params, network) for s in (mine, given))
            assert trees_differ(here, there) == (name not in ("both", network))
        taken = given.return_stats.mean == mine.return_stats.mean
        assert bool(taken) == (name != "policy")
    # A policy that is given is not cloned.
    assert ("cloning/samples" in metrics) == (name == "critic")


def test_an_anchor_needs_a_policy():
    config = small_config(anchor=True, num_demonstrations=0, kl_coef=0.1)
    with pytest.raises(ConfigError, match="anchor: got True; allowed is False without"):
        jax.eval_shape(make_train(config), jax.random.key(0))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", (0, "init_from", 0, "init_from")),
        ("--init-parts policy", (0, "init_from", 8, 'preset "default"')),
        ("--init-parts critic", (6, 'preset "default"', 0, "init_from")),
        ("--critic-warmup 8", (0, "init_from", 8, 'preset "default"')),
        ("--critic-warmup 5", (0, "init_from", 5, "flag")),
        ("--num-demonstrations 9", (0, "init_from", 0, "init_from")),
    ],
)
def test_what_replaces_cloning_and_the_warm_up(flags, expected):
    argv = f"--env hammer --init-from there {flags}".split()
    resolved, _ = train.parse(argv)
    names = ("num_demonstrations", "critic_warmup")
    values = [(getattr(resolved.config, n), resolved.sources[n]) for n in names]
    assert (*values[0], *values[1]) == expected
    plain, _ = train.parse(["--env", "hammer"])
    assert (plain.config.num_demonstrations, plain.config.critic_warmup) == (6, 8)


# --- what does not fit ----------------------------------------------------------------


def load(run: Path, *flags: str) -> init_from.Start:
    """What a run with these flags would begin with."""
    argv = [*TINY, "--init-from", str(run), *flags]
    resolved, options = train.parse(argv)
    said: list[str] = []
    start = init_from.load(make_learner(resolved.config), options, said.append)
    return start._replace(sentences=[*said, *start.sentences])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--hidden-sizes 16", r"'bias'\] is float32 \(16,\) here and float32 \(8,\) t"),
        ("--hidden-sizes 16", r"; hidden_sizes is \(16,\) here and \(8,\) there$"),
        (
            "--critic-hidden-sizes 4",
            r"params\.critic\['critic'\].* float32 \(4,\) here",
        ),
        ("--distribution tanh_normal", "got 'tanh_normal'; allowed is normal, with"),
        ("--core gru --num-minibatches 1", "absent there; core is gru here and none"),
        ("--activation relu", "activation: got 'relu'; allowed is tanh, with which"),
        ("--normalize-observations off", r"allowed is running or fixed, because .* wi"),
        # Discrete heads have relu by default.
        (
            "--env-kwargs kind=both continuous=False --activation tanh",
            r"'logits'\].* here and absent th",
        ),
        ("--init-seed-index 1", "init_seed_index: got 1; allowed is a number from 0 t"),
        ("--init-parts critic --shared-trunk", "init_parts: got 'critic'; allowed is "),
    ],
)
def test_what_does_not_fit_is_named(tiny_run, flags, sentence):
    with pytest.raises(ConfigError, match=sentence) as error:
        load(tiny_run, *flags.split())
    assert "\n" not in str(error.value)


def test_a_part_that_is_not_taken_need_not_fit(tiny_run, source):
    flags = ("--critic-hidden-sizes", "4", "--init-parts", "policy")
    initial = load(tiny_run, *flags).initial
    assert initial is not None
    assert_trees_equal(initial, initial_of(source, "policy"))


def test_a_misfit_is_one_sentence_before_a_folder_is_made(tiny_run, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--init-from", str(tiny_run), "--hidden-sizes", "9", "--run-dir", str(run)]
    compiled: list[str] = []
    listen = lambda event, seconds, **_: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        assert train.main([*TINY, *flags]) == EXIT_USAGE
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert capsys.readouterr().err.count("\n") == 1
    assert not run.exists()
    assert not [event for event in compiled if "backend_compile" in event]


def test_a_run_that_cannot_be_recorded_leaves_nothing(tiny_run, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "write", full)
    flags = ["--init-from", str(tiny_run), "--run-dir", str(tmp_path / "run")]
    assert train.main([*TINY, *flags]) == EXIT_STORAGE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["init_parts", "init_which", "init_seed_index"])
def test_details_without_a_run_are_refused(name):
    values = {"init_parts": "critic", "init_which": "latest", "init_seed_index": 1}
    options = dataclasses.replace(Options(), **{name: values[name]})
    with pytest.raises(ConfigError, match=f"{name}: got .* without init_from"):
        validate_options(options)


def test_parameters_that_mean_something_else_are_said(tiny_run):
    assert len(load(tiny_run).sentences) == 1
    said = load(tiny_run, "--max-std", "9", "--no-normalize-rewards").sentences
    assert "seed 0, best, at 192 steps" in said[0]
    assert "max_std differ" in said[1]
    assert "normalize_rewards is False here and True in" in said[2]


# --- a run of somebody else -----------------------------------------------------------


def rewrite(run: Path, group: str, **values: object) -> None:
    recorded = json.loads((run / "config.json").read_text())
    recorded[group] |= values
    (run / "config.json").write_text(json.dumps(recorded))
    forget_checksum(run)


def test_nothing_that_the_source_names_is_imported(killed, tmp_path, monkeypatch):
    sprung = tmp_path / "sprung"
    (tmp_path / "trap_module.py").write_text(f"open({str(sprung)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    rewrite(killed, "config", env="trap_module:make")
    assert load(killed).origin["env"] == "trap_module:make"
    assert not sprung.exists()
    assert "trap_module" not in sys.modules


def test_no_link_out_of_the_source_is_followed(killed, tmp_path):
    shutil.move(killed / "checkpoints", tmp_path / "elsewhere")
    (killed / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"init_from: got .* no symbolic link"):
        load(killed)


def test_a_configuration_that_was_changed_is_refused(killed):
    recorded = json.loads((killed / "config.json").read_text())
    recorded["config"]["activation"] = "relu"
    (killed / "config.json").write_text(json.dumps(recorded))
    with pytest.raises(ConfigError, match=r"init_from: got .* it was changed since"):
        load(killed, "--activation", "relu")


def test_a_damaged_checkpoint_is_left_for_the_one_before(killed):
    files = (killed / "checkpoints/00000006/state").rglob("*")
    largest = max((f for f in files if f.is_file()), key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    start = load(killed, "--init-which", "latest")
    assert "is damaged" in start.sentences[0]
    assert start.origin["update"] == 4


def test_one_of_several_seeds_is_taken(killed, source):
    shutil.rmtree(killed / "checkpoints")
    rewrite(killed, "options", num_seeds=2, seed=3)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), source)
    moved = jax.tree.map(lambda x: x.at[1].add(1.0), both.params)
    metadata = {"best": [{}, {}]}
    checkpoint.save(killed / "checkpoints", 6, both.replace(params=moved), metadata)
    start = load(killed, "--init-seed-index", "1")
    assert start.origin["seed"] == 4
    assert start.initial is not None
    assert_trees_equal(
        start.initial.params, jax.tree.map(lambda x: x + 1.0, source.params)
    )


def test_parameters_that_are_not_finite_are_refused(killed, source):
    broken = jax.tree.map(lambda x: x.at[...].set(jnp.nan), source.params)
    metadata = {"best": [{}]}
    state = source.replace(params=broken)
    checkpoint.save(killed / "checkpoints", 7, state, metadata)
    with pytest.raises(ConfigError, match=r"finite, as params\.\w+\['.*'\] is not"):
        load(killed, "--init-which", "latest")
