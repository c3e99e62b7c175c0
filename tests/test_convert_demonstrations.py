"""Files of robomimic, Minari and LeRobot as laid out: converted, or refused."""

import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

import h5py
import jax
import numpy as np
import pyarrow
import pytest
from helpers import run_command, small_config
from probe_envs import HeadsProbe, make
from pyarrow import parquet

from purejaxppo.env import Box, Choice, Discrete, EnvSpec, State
from purejaxppo.errors import EXIT_OK, EXIT_USAGE, ConfigError
from purejaxppo.ppo.learner import make_learner
from purejaxppo.run import conversion, demonstrations, hdf5, lerobot
from purejaxppo.run.conversion import ActionRange
from purejaxppo.run.recorded import Format

COMMAND = "purejaxppo.convert_demonstrations"


class Plain:
    """An environment that observes and does what a test says."""

    def __init__(self, obs: object, **heads: object):
        self.obs, self.spec = obs, EnvSpec("plain", heads, 9, "success")

    def reset(self, key: jax.Array) -> State:
        zero, no = jax.numpy.zeros(()), jax.numpy.zeros((), bool)
        obs = jax.tree.map(
            jax.numpy.zeros, self.obs, is_leaf=lambda x: type(x) is tuple
        )
        return State((), obs, zero, no, no, metrics={"success": zero})

    def step(self, state: State, action: object) -> State:
        return state


ENV = Plain((3,), arm=Box(2))


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def robomimic(path: Path, lengths: tuple[int, ...] = (4, 2), size: int = 2) -> Path:
    """Demonstrations whose last step is done; numbers are float64, as there."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"], data.attrs["total"] = "{}", sum(lengths)
        for i, n in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = n
            demo["actions"], demo["rewards"] = numbers(n, size, seed=i), np.arange(n)
            demo["dones"] = (np.arange(n) == n - 1).astype(int)
            demo["states"] = np.zeros((n, 7))
            for name in ("obs", "next_obs"):
                demo[f"{name}/object"] = numbers(n, 2, seed=9 + i)
                demo[f"{name}/grip"] = np.full(n, i, float)
        file["mask/train"] = np.array([b"demo_0"])
    return path


def minari(path: Path, obs: np.ndarray, actions: np.ndarray) -> Path:
    """One episode that is truncated at its last step."""
    n = len(actions)
    with h5py.File(path, "w") as file:
        episode = file.create_group("episode_0")
        episode.attrs["id"], episode.attrs["total_steps"] = 0, n
        episode["observations"], episode["actions"] = obs, actions
        episode["rewards"], episode["terminations"] = np.ones(n), np.zeros(n, bool)
        episode["truncations"] = np.arange(n) == n - 1
        episode["infos/x"] = np.zeros(n + 1)
    return path


def convert(path: Path, env: object = ENV, format: Format = "robomimic", **given):
    """Convert a file; `keys` and `range_` as the command has them."""
    keys = given.get(
        "keys", {"": ("object", "grip")} if format == "robomimic" else {"": ()}
    )
    episodes = hdf5.read(path, format, keys)
    return conversion.convert(path, episodes, env, given.get("range_", ActionRange()))


# --- what is converted -------------------------------------------------------------


def test_episodes_are_in_the_order_of_their_numbers_and_padded(tmp_path):
    """demo_10 comes after demo_9, whereas the file lists it after demo_1."""
    made, told = convert(robomimic(tmp_path / "x.hdf5", lengths=(4, *[2] * 9, 3)))
    assert made.obs.shape == (11, 4, 3)
    np.testing.assert_array_equal(made.valid.sum(axis=1), [4, *[2] * 9, 3])
    np.testing.assert_allclose(made.obs[0, :, :2], numbers(4, 2, seed=9), rtol=1e-6)
    np.testing.assert_array_equal(made.obs[:, 0, 2], np.arange(11))
    np.testing.assert_array_equal(made.reward[10], [0, 1, 2, 0])
    np.testing.assert_allclose(
        made.action["arm"][10, :3], numbers(3, 2, seed=10), rtol=1e-6
    )
    assert told == ["episodes: 11, of 2 to 4 steps, 25 in all"]


def test_the_order_of_keys_is_that_of_the_columns(tmp_path):
    path = robomimic(tmp_path / "x.hdf5")
    one, _ = convert(path)
    other, _ = convert(path, keys={"": ("grip", "object")})
    np.testing.assert_array_equal(one.obs[..., [2, 0, 1]], other.obs)


def test_minari_has_an_observation_more_than_actions(tmp_path):
    obs, actions = numbers(5, 3), numbers(4, 2)
    made, told = convert(minari(tmp_path / "x.hdf5", obs, actions), format="minari")
    np.testing.assert_allclose(made.obs[0], obs[:4], rtol=1e-6)
    assert told == ["episodes: 1, of 4 to 4 steps, 4 in all"]


def test_a_folder_of_minari_and_groups_of_arrays(tmp_path):
    """Dictionary spaces are groups; the names of actions are those of heads."""
    (tmp_path / "set/data").mkdir(parents=True)
    path = minari(tmp_path / "set/data/main_data.hdf5", numbers(5, 3), numbers(4, 2))
    env = Plain({"actor": (2,), "critic": (3,)}, arm=Box(1), op=Discrete(3))
    with h5py.File(path, "a") as file:
        episode = file["episode_0"]
        del episode["observations"], episode["actions"]
        episode["observations/goal/near"] = numbers(5, 1)
        episode["observations/at"] = numbers(5)
        episode["actions/arm"] = numbers(4)
        episode["actions/op"] = np.array([[2], [0], [1], [1]])
    keys = {"actor": ("at", "goal/near"), "critic": ("at", "at", "goal/near")}
    made, _ = convert(tmp_path / "set", env, "minari", keys=keys)
    assert {name: x.shape for name, x in made.obs.items()} == {
        **{"actor": (1, 4, 2), "critic": (1, 4, 3)}
    }
    np.testing.assert_allclose(made.obs["actor"][0, :, 0], numbers(5)[:4], rtol=1e-6)
    np.testing.assert_allclose(made.action["arm"][0, :, 0], numbers(4), rtol=1e-6)
    np.testing.assert_array_equal(made.action["op"][0], [2, 0, 1, 1])


def test_columns_of_actions_go_to_the_heads_in_their_order(tmp_path):
    env = Plain((3,), wrist=Box(1), arm=Box(2))
    made, _ = convert(robomimic(tmp_path / "x.hdf5", size=3), env)
    expected = numbers(4, 3, seed=0)
    np.testing.assert_allclose(made.action["wrist"][0], expected[:, :1], rtol=1e-6)
    np.testing.assert_allclose(made.action["arm"][0], expected[:, 1:], rtol=1e-6)


def test_an_episode_ends_at_its_first_end_and_may_have_none(tmp_path):
    path = robomimic(tmp_path / "x.hdf5", lengths=(4, 2, 3))
    with h5py.File(path, "a") as file:
        file["data/demo_0/dones"][...] = [0, 1, 1, 1]  # done while successful
        file["data/demo_1/dones"][...] = 0
    made, told = convert(path)
    np.testing.assert_array_equal(made.valid.sum(axis=1), [2, 2, 3])
    assert told[1:] == [
        "steps after the end of their episode, left out: 2",
        "episodes without an end, taken as cut off: 1",
    ]


def test_actions_of_another_range_are_scaled_or_clipped_if_asked(tmp_path):
    actions = np.array([[-2.0, 2.0], [0.0, 1.0], [-3.0, 0.5]])
    path = minari(tmp_path / "x.hdf5", numbers(4, 3), actions)
    wide, told = convert(path, format="minari", range_=ActionRange(-3.0, 3.0))
    np.testing.assert_allclose(wide.action["arm"][0], actions / 3, rtol=1e-6)
    assert len(told) == 1
    clipped, told = convert(path, format="minari", range_=ActionRange(clip=True))
    np.testing.assert_allclose(clipped.action["arm"][0], actions.clip(-1, 1))
    assert told[1] == "3 of 6 numbers of actions are outside of -1 to 1, and clipped"
    sentence = (
        "a file that has actions within -1 to 1: 3 of 6 numbers of actions are "
        "outside, the farthest at step 2 of episode_0; --action-bounds LOW HIGH says "
        "of what range they are, --clip clips them"
    )
    with pytest.raises(ConfigError, match=sentence):
        convert(path, format="minari")


# --- what is refused ---------------------------------------------------------------


def changed(name: str, value: object):
    """A change of a file: another array in a place, or none."""

    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


def _external(file: h5py.File) -> None:
    del file["data/demo_0/obs/grip"]
    file["data/demo_0/obs/grip"] = h5py.ExternalLink("/etc/other.hdf5", "/x")


def _soft(file: h5py.File) -> None:
    del file["data/demo_0/rewards"]
    file["data/demo_0/rewards"] = h5py.SoftLink("/data/demo_0/states")


def _outside_of_the_file(file: h5py.File) -> None:
    del file["data/demo_0/rewards"]
    external = [("/etc/passwd", 0, 32)]
    file.create_dataset("data/demo_0/rewards", (4,), "<f8", external=external)


def _virtual(file: h5py.File) -> None:
    del file["data/demo_0/rewards"]
    layout = h5py.VirtualLayout((4,), "<f8")
    layout[:] = h5py.VirtualSource("/etc/other.hdf5", "x", (4,))
    file.create_virtual_dataset("data/demo_0/rewards", layout)


def _huge(file: h5py.File) -> None:
    del file["data/demo_0/rewards"]
    file.create_dataset("data/demo_0/rewards", (10**13,), "<f8", chunks=(1000,))


NAN = np.array([[0, 0], [0, np.nan], [0, 0], [0, 0]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (changed("data", None), "has data; in the file there is mask"),
        (
            changed("data/demo_0/obs/grip", None),
            "demo_0/obs/grip; in data/demo_0/obs th",
        ),
        (
            changed("data/demo_1/rewards", None),
            "has data/demo_1/rewards; in data/demo_1",
        ),
        (
            changed("data/demo_0/obs/object", numbers(6, 2)),
            "of one length in data/demo_0",
        ),
        (
            changed("data/demo_0/obs/object", numbers(4, 5)),
            r"\(3,\) a step, .* not \(6,\)",
        ),
        (
            changed("data/demo_0/actions", numbers(4, 3)),
            r"actions/arm of shape \(2,\) a s",
        ),
        (
            changed("data/demo_0/actions", numbers(3, 2)),
            "4 actions for the 4 rewards of d",
        ),
        (
            changed("data/demo_1/dones", np.zeros(3)),
            "2 ends for the 2 rewards of demo_1",
        ),
        (changed("data/demo_0/rewards", NAN), r"has rewards of shape \(\) a step"),
        (
            changed("data/demo_0/rewards", NAN[:, 1]),
            "rewards, also at step 1 of demo_0",
        ),
        (
            changed("data/demo_0/actions", NAN),
            "in actions/arm, also at step 1 of demo_0",
        ),
        (
            changed("data/demo_0/obs/object", 1e9 * NAN),
            "observations, also at step 1 of",
        ),
        (
            changed("data/demo_0/rewards", b"text"),
            "numbers, one or more a step, in data/",
        ),
        (
            changed("data/demo_0/rewards", np.zeros(0)),
            "numbers, one or more a step, in d",
        ),
        (_external, "has data/demo_0/obs/grip itself, not a link"),
        (_soft, "has data/demo_0/rewards itself, not a link"),
        (
            _outside_of_the_file,
            "has data/demo_0/rewards in itself, not in another file",
        ),
        (_virtual, "has data/demo_0/rewards in itself, not in another file"),
        (
            _huge,
            "as much as it claims in data/demo_0/rewards: 80,000,000,000,000 bytes",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence(tmp_path, change, sentence):
    path = robomimic(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(ConfigError, match=sentence) as error:
        convert(path)
    assert str(error.value).startswith(f"source: got {str(path)!r}; allowed is a file")
    assert "\n" not in str(error.value)


def test_observations_must_be_chosen_where_there_are_several(tmp_path):
    with pytest.raises(ConfigError, match=r"observations: got \(\); .* grip, object,"):
        convert(robomimic(tmp_path / "x.hdf5"), keys={"": ()})
    path = minari(tmp_path / "y.hdf5", numbers(5, 3), numbers(4, 2))
    with pytest.raises(ConfigError, match="has keys in episode_0/observations, which"):
        convert(path, format="minari", keys={"": ("at",)})


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (HeadsProbe(), "env: got .* without masks and activity"),
        (Plain((3,), a=Box(1), b=Box(2)), "env: got 'plain'; .* with 2 continuous act"),
        (
            Plain((3,), a=Box(1), b=Discrete(2)),
            "env: got 'plain'; .* with 2 continuous",
        ),
        (Plain((3,), op=Discrete(4)), r"actions/op of shape \(\) a step, as the env"),
        (Plain((3,), op=Choice(4, 2)), "has whole numbers as actions/op, not float64"),
        (Plain((4,), arm=Box(2)), r"observations of shape \(4,\) a step, as the env"),
    ],
)
def test_an_environment_that_does_not_fit_is_named(tmp_path, env, sentence):
    with pytest.raises(ConfigError, match=sentence):
        convert(robomimic(tmp_path / "x.hdf5"), env)


def test_whole_numbers_out_of_range_are_refused(tmp_path):
    path = minari(tmp_path / "x.hdf5", numbers(5, 3), np.array([0, 1, 3, 2]))
    assert convert(path, Plain((3,), op=Discrete(4)), "minari")
    with pytest.raises(ConfigError, match="has action/op within 0 to 2"):
        convert(path, Plain((3,), op=Discrete(3)), "minari")


@pytest.mark.parametrize("bounds", [(1.0, -1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_bounds_must_be_bounds(tmp_path, bounds):
    with pytest.raises(ConfigError, match=r"action_bounds: got .* the lower one first"):
        convert(robomimic(tmp_path / "x.hdf5"), range_=ActionRange(*bounds))


def test_what_is_no_such_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("hello")
    whole = robomimic(tmp_path / "x.hdf5").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    for name, sentence in (
        *(("pipe", "exists"), ("missing", "exists"), ("", "exists")),
        *(("text", "is undamaged HDF5"), ("half", "is undamaged HDF5")),
    ):
        with pytest.raises(ConfigError, match=f"allowed is a file that {sentence}"):
            convert(tmp_path / name)
    with pytest.raises(ConfigError, match="has episode_0; there is data, mask"):
        convert(tmp_path / "x.hdf5", format="minari")


# --- LeRobot -----------------------------------------------------------------------


def frames(episodes: Mapping[int, int], **others: object) -> pyarrow.Table:
    """Rows of episodes, number -> length, as LeRobot has them; the last row first."""
    index = [(number, i) for number, n in episodes.items() for i in range(n)][::-1]
    vectors = pyarrow.list_(pyarrow.float32(), 2)
    state = [[number, 0.1 * i] for number, i in index]
    columns = {
        "observation.state": pyarrow.array(state, vectors),
        "observation.tip": pyarrow.array([[-i] for _, i in index]),
        "observation.image": pyarrow.array([{"path": "x.png"} for _ in index]),
        "action": pyarrow.array([[0.01 * i, -0.5] for _, i in index], vectors),
        "episode_index": [number for number, _ in index],
        "frame_index": [i for _, i in index],
        "next.reward": pyarrow.array([float(i) for _, i in index], pyarrow.float32()),
        "next.done": [i == 2 for _, i in index],
    }
    columns |= others
    return pyarrow.table({n: x for n, x in columns.items() if x is not None})


def dataset(path: Path, *tables: pyarrow.Table) -> Path:
    """The folder of a dataset, a file for each table."""
    folder = path / "data/chunk-000"
    folder.mkdir(parents=True)
    for i, table in enumerate(tables):
        parquet.write_table(table, folder / f"file-{i:03d}.parquet")
    return path


def of_lerobot(path: Path, *keys: str):
    return conversion.convert(path, lerobot.read(path, {"": keys}), ENV, ActionRange())


def test_lerobots_files_hold_one_episode_or_several(tmp_path):
    """Rows are in the order of their frames, episodes in that of their numbers."""
    path = dataset(tmp_path / "set", frames({0: 4, 10: 3}), frames({2: 2}))
    made, told = of_lerobot(path, "state", "tip")
    np.testing.assert_array_equal(made.obs[:, 0, 0], [0, 2, 10])
    np.testing.assert_allclose(made.obs[0, :3, 1], [0, 0.1, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(made.obs[0, :3, 2], [0, -1, -2])
    np.testing.assert_allclose(made.action["arm"][0, 1], [0.01, -0.5], rtol=1e-6)
    np.testing.assert_array_equal(made.valid.sum(axis=1), [3, 2, 3])
    np.testing.assert_array_equal(made.reward[0, :3], [0, 1, 2])
    assert told[1:] == [
        "steps after the end of their episode, left out: 1",
        "episodes without an end, taken as cut off: 1",
    ]


def test_lerobot_without_rewards_and_ends(tmp_path):
    bare = frames({0: 4}, **{"next.reward": None, "next.done": None})
    made, told = of_lerobot(dataset(tmp_path / "set", bare), "tip", "state")
    np.testing.assert_array_equal(made.reward, np.zeros((1, 4)))
    assert told == ["episodes: 1, of 4 to 4 steps, 4 in all"]


@pytest.mark.parametrize(
    ("columns", "keys", "sentence"),
    [
        ({"action": None}, ("state", "tip"), "has numbers in action; there is observ"),
        ({}, ("state", "tips"), "has observation.tips; there is state, tip"),
        (
            {},
            (),
            r"observations: got \(\); allowed is some of state, tip, in the order",
        ),
        (
            {"action": [[1.0], [1.0, 2.0]]},
            ("state", "tip"),
            "as many numbers in each r",
        ),
        (
            {"action": [[1.0, 2.0], None]},
            ("state", "tip"),
            "as many numbers in each row",
        ),
        (
            {"action": [["a"], ["b"]]},
            ("state", "tip"),
            "has numbers in action; there is",
        ),
    ],
)
def test_what_is_wrong_with_lerobots_files_is_named(tmp_path, columns, keys, sentence):
    path = dataset(tmp_path / "set", frames({0: 2}, **columns))
    with pytest.raises(ConfigError, match=sentence) as error:
        of_lerobot(path, *keys)
    assert "\n" not in str(error.value)


def test_files_that_are_none_of_lerobots_are_refused(tmp_path):
    path = dataset(tmp_path / "set", frames({0: 2}))
    with pytest.raises(ConfigError, match="folder of a dataset, with data/chunk-000"):
        of_lerobot(tmp_path / "set" / "data", "state", "tip")
    other = tmp_path / "set/data/chunk-000/file-001.parquet"
    other.write_bytes(b"PAR1 no more")
    with pytest.raises(ConfigError, match="is undamaged Parquet"):
        of_lerobot(path, "state", "tip")
    other.unlink()
    other.symlink_to(tmp_path / "set/data/chunk-000/file-000.parquet")
    with pytest.raises(ConfigError, match="is there itself, not a link"):
        of_lerobot(path, "state", "tip")
    other.unlink()
    parquet.write_table(frames({1: 2}, action=None), other)
    with pytest.raises(ConfigError, match="has the same columns in all its files"):
        of_lerobot(path, "state", "tip")


# --- the command -------------------------------------------------------------------


def test_the_command_writes_what_training_clones(tmp_path, capsys):
    env = make("observation", continuous=True, limit=3)
    source = tmp_path / "x.hdf5"
    target = numbers(2, 1)
    minari(source, target, np.sign(target[:1]) * 0.9)
    out = tmp_path / "out.npz"
    words = [str(source), str(out), "--format", "minari", "--env", "probe_envs:make"]
    words += ["--env-kwargs", "kind=observation", "continuous=True", "limit=3"]
    assert run_command(COMMAND, *words) == EXIT_OK
    assert "--num-demonstrations 1" in capsys.readouterr().out
    config = small_config(
        num_demonstrations=1,
        cloning_steps=200,
        cloning_batch=4,
        cloning_learning_rate=0.02,
        normalize_observations="fixed",
    )
    loaded = demonstrations.load(out, env, config)
    init = jax.jit(make_learner(config, env).init)
    _, metrics = init(jax.random.key(0), demonstrations=loaded)
    assert float(metrics["cloning/samples"]) == 1
    assert float(metrics["cloning/refused"]) == 0
    assert metrics["cloning/last_loss"] < metrics["cloning/first_loss"] - 0.1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--env hamer", "env: got 'hamer'; allowed is one of"),
        ("--env-kwargs kind", "env_kwargs: got 'kind'; allowed is pairs of the form"),
        ("--critic-observations x", "critic_observations: got ('x',); allowed is none"),
        (
            "--observations object",
            "observations of shape (1,) a step, as the environment",
        ),
    ],
)
def test_bad_words_are_one_sentence_and_leave_no_file(
    tmp_path, words, sentence, capsys
):
    source, out = robomimic(tmp_path / "x.hdf5"), tmp_path / "out.npz"
    command = [
        str(source),
        str(out),
        "--format",
        "robomimic",
        "--env",
        "probe_envs:make",
    ]
    assert run_command(COMMAND, *command, *words.split()) == EXIT_USAGE
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.hdf5"]


@pytest.mark.parametrize("name", ["out.hdf5", "missing/out.npz"])
def test_a_file_that_cannot_be_written_is_refused_first(tmp_path, name, capsys):
    words = ["no-source", str(tmp_path / name), "--format", "minari", "--env", "deck"]
    assert run_command(COMMAND, *words) == EXIT_USAGE
    assert capsys.readouterr().err.startswith("out: got ")


def test_without_its_library_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "h5py", None)  # as if it were not installed
    runpy.run_path(hdf5.__file__)  # which does not import it by itself
    words = ["x.hdf5", str(tmp_path / "o.npz"), "--format", "minari", "--env", "deck"]
    assert run_command(COMMAND, *words) == EXIT_USAGE
    error = capsys.readouterr().err
    assert "format: got 'minari'; allowed is a format whose reader is there" in error
    assert "purejaxppo[hdf5]" in error
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    runpy.run_path(lerobot.__file__)
    assert run_command(COMMAND, *words[:3], "lerobot", *words[4:]) == EXIT_USAGE
    assert "purejaxppo[lerobot] brings it (pyarrow)" in capsys.readouterr().err
