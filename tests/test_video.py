"""Videos of a policy: what is drawn, what is written, and what is refused."""

import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import imageio_ffmpeg
import jax
import numpy as np
import pytest
from helpers import TINY, run_command
from PIL import Image

from purejaxppo import episodes, make_env, train
from purejaxppo.env import RenderedEnv
from purejaxppo.errors import EXIT_OK, EXIT_USAGE, ConfigError, StorageError
from purejaxppo.run import encode, report, video
from purejaxppo.run.trained import load_policy

ROOT = Path(__file__).parent.parent
EVALUATE = "purejaxppo.evaluate"
NAMES = ("hammer", "scheduler", "lifecycle", "deck")


def played(name: str, baseline: str, max_steps: int | None = None, **kwargs):
    """An environment, and an episode of it that one of its baselines has played."""
    env = make_env(name, **kwargs)
    module = importlib.import_module(f"purejaxppo.envs.{name}.baselines")
    choose = module.BASELINES[baseline]
    has_notes = name == "lifecycle"

    def act(carry, states, start, keys):
        if has_notes:
            return jax.vmap(lambda s, n, k: choose(env, s, n, k))(states, carry, keys)
        return jax.vmap(lambda s, k: choose(env, s, k))(states, keys), carry

    carry = jax.tree.map(lambda x: x[None], module.blank(env)) if has_notes else ()
    key = jax.random.key(5)
    return env, episodes.record(env, act, key, carry, max_steps=max_steps)


@pytest.fixture(scope="module")
def schedule():
    return played("scheduler", "edf", num_jobs=8)


@pytest.fixture(scope="module")
def garden():
    return played("lifecycle", "gardener")


@pytest.fixture(scope="module")
def battle():
    return played("deck", "greedy")


@pytest.mark.parametrize("name", NAMES)
def test_every_environment_draws_itself(name):
    assert isinstance(make_env(name), RenderedEnv)


def test_a_recorded_episode_is_the_one_that_is_evaluated(schedule):
    env, episode = schedule
    module = importlib.import_module("purejaxppo.envs.scheduler.baselines")
    keys = jax.random.key(5)[None]
    edf = module.BASELINES["edf"]
    figures = episodes.play_baseline(env, edf, keys)
    assert episode.length == int(figures["length"][0])
    np.testing.assert_allclose(episode.episode_return, figures["return"][0], 1e-6)
    assert episode.actions["job"].shape == (episode.length,)
    assert episode.states.terminated.tolist() == [False] * episode.length + [True]


@pytest.mark.parametrize("name", ["schedule", "garden", "battle"])
def test_charts_are_pictures_that_change(name, request):
    env, episode = request.getfixturevalue(name)
    first, last = video.frames(env, episode, [0, episode.length])
    assert first.shape == last.shape
    assert first.shape[0] % 2 == first.shape[1] % 2 == 0
    assert (first != last).any()
    assert last.std() > 10  # not an empty page


def test_a_gantt_chart_has_a_bar_for_every_job_that_ran(schedule):
    from purejaxppo.envs.scheduler import render

    env, episode = schedule
    boards = episode.states.data.board
    bars = [bar for bars in render.schedule(boards, env.limits) for bar in bars]
    start = boards.start[-1]
    assert sorted(bar.job for bar in bars) == np.flatnonzero(start >= 0).tolist()
    used = np.zeros((env.limits.num_machines, env.limits.capacity, 200), int)
    for bar in bars:
        assert bar.start == start[bar.job]
        assert bar.end - bar.start == boards.instance.duration[-1][bar.job]
        assert len(bar.lanes) == boards.instance.need[-1][bar.job]
        used[bar.machine, bar.lanes, bar.start : bar.end] += 1
    assert used.max() == 1  # no unit of a machine works on two jobs
    on_time = episode.states.metrics["on_time"][-1]
    board = render._at(boards, -1)
    good = [bar.job for bar in bars if not render.is_late(bar, board)]
    weight = board.instance.weight
    np.testing.assert_allclose(weight[good].sum() / weight.sum(), on_time, 1e-5)


def test_a_garden_shows_what_matured(garden, monkeypatch):
    from purejaxppo.envs.lifecycle import render

    env, episode = garden
    gardens = []
    monkeypatch.setattr(render, "draw", lambda *args: gardens.append(args[0]) or [])
    list(env.render(episode.states, episode.actions, []))
    (drawn,) = gardens
    metrics = {n: x[-1] for n, x in episode.states.metrics.items()}
    assert render.matured(drawn).sum() == metrics["matured"]
    assert drawn.applied[:, render.CULL].sum() == metrics["culled"]
    assert drawn.applied[:, render.BLEND].sum() == metrics["blended"]


def test_a_table_of_battles_has_every_turn_and_card(battle):
    from purejaxppo.envs.deck import render

    _, episode = battle
    runs, length = episode.states.data.run, episode.length
    shown = render.battle(runs, episode.actions, length)
    prompts = int(runs.offer[:length].any(axis=1).sum())
    cards = sum(len(turn.cards) for turn in shown.turns)
    held = int(np.sum((episode.actions["play"] == 0) & ~runs.offer[:length].any(1)))
    assert cards + held + prompts == length
    in_combat = ~runs.offer.any(axis=1) & (runs.turn > 0)
    places = {(int(c), int(t)) for c, t in zip(runs.combat, runs.turn, strict=True)}
    turns = {(c, t) for c, t in places if t > 0}
    assert len(shown.turns) == len(turns)
    assert in_combat[0]
    assert len(shown.taken) == prompts
    assert all(len(kinds) == 3 for kinds in shown.taken.values())
    assert shown.combat == int(episode.states.metrics["combats_won"][-1])


def test_steps_of_a_video():
    hold = [4] * 20
    assert video.steps_shown(4, 0.05) == [0, 1, 2, 3, 4, *hold]
    assert video.steps_shown(4, 0.1) == [0, 0, 1, 2, 2, 2, 3, 4, 4, *hold]
    assert video.steps_shown(4, 0.025) == [0, 2, 4, *hold]
    long = video.steps_shown(100_000, 1.0)
    assert len(long) == video.MAX_FRAMES + 21
    assert (long[0], long[-1]) == (0, 100_000)


def _frames(num: int) -> list[np.ndarray]:
    frames = np.zeros((num, 30, 41, 3), np.uint8)
    frames[:, :10] = 200
    for i, frame in enumerate(frames):
        frame[:, i] = (250, 20, 20)
    return list(frames)


def test_files_hold_all_frames(tmp_path):
    frames = _frames(6)
    with Image.open(io.BytesIO(encode.gif(frames, 20, 64))) as gif:
        assert (gif.n_frames, gif.size) == (6, (41, 30))
        assert gif.info["duration"] == 50
    with Image.open(io.BytesIO(encode.png(frames[0]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), frames[0])
    movie = tmp_path / "a.mp4"
    movie.write_bytes(encode.mp4(frames, 20))
    assert movie.read_bytes()[4:8] == b"ftyp"
    num, seconds = imageio_ffmpeg.count_frames_and_secs(movie)
    assert (num, seconds) == (6, 0.3)


def test_an_encoder_that_fails_is_an_error_of_storage(tmp_path, monkeypatch):
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "false")
    with pytest.raises(StorageError, match=r"a\.mp4 cannot be written \(ffmpeg: 1\)"):
        video.write(_frames(2), tmp_path / "a.mp4", None)
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_picture_takes_no_space():
    frames = _frames(2)
    once, often = (encode.gif([*frames, *[frames[1]] * n], 20, 64) for n in (0, 20))
    assert len(often) < len(once) + 50


class Stripes:
    """A policy's environment of the tests, which draws its steps as stripes."""

    seconds_per_step = 0.1

    def __init__(self, shape=(16, 16, 3), dtype=np.uint8):
        self.env = make_env("probe_envs:make", kind="observation", continuous=True)
        self.spec, self.reset, self.step = self.env.spec, self.env.reset, self.env.step
        self.frame = np.zeros(shape, dtype)

    def render(self, states, actions, steps):
        del actions
        for step in steps:
            frame = self.frame.copy()
            frame[:, : 1 + step % 8] = 255
            assert states.reward.shape[0] > step
            yield frame


@pytest.fixture(scope="module")
def striped_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("striped") / "run"
    flags = [x if x != "probe_envs:make" else "test_video:Stripes" for x in TINY]
    first = flags.index("--env-kwargs")
    flags = flags[: first + 1] + flags[first + 3 :]
    assert train.main([*flags, "--run-dir", str(path)]) == EXIT_OK
    return path


def test_the_command_writes_both_files(striped_run, tmp_path, capsys):
    words = [str(striped_run), "--env", "test_video:Stripes", "--video-episodes", "1"]
    movie, gif = tmp_path / "a.mp4", tmp_path / "a.gif"
    words += ["--video", str(movie), "--gif", str(gif)]
    assert run_command(EVALUATE, *words) == EXIT_OK
    said = capsys.readouterr()
    assert f"{gif}: return " in said.err
    assert said.out.startswith("eval/block0_return")
    with Image.open(gif) as picture:
        assert picture.size == (16, 16)
    assert movie.read_bytes()[4:8] == b"ftyp"
    assert sorted(tmp_path.iterdir()) == [gif, movie]


def test_the_report_has_the_end_of_an_episode(striped_run, tmp_path, monkeypatch):
    policy = load_policy(striped_run, env="test_video:Stripes")
    task, state, lines = policy.learner.task, policy.state, []
    report.write_still(tmp_path, task, state, lines.append)
    (episode,) = video.record(task, state)
    (last,) = task.env.render(episode.states, episode.actions, [episode.length])
    with Image.open(tmp_path / report.STILL) as picture:
        assert np.array_equal(np.asarray(picture), last)
    assert lines == []
    problem = RuntimeError("no crayons\nat all")
    monkeypatch.setattr(Stripes, "render", mock.Mock(side_effect=problem))
    report.write_still(tmp_path, task, state, lines.append)
    assert lines == ["warning: no picture in report.html (no crayons)"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--video a.avi", "video: got 'a.avi'; allowed is a file whose name ends in"),
        ("--gif a.mp4", "gif: got 'a.mp4'; allowed is a file whose name ends in .gif"),
        ("--gif no/a.gif", "gif: got 'no/a.gif'; allowed is a file in a folder that"),
        ("--gif a.gif --video-episodes 0", "video_episodes: got 0; allowed is a whole"),
        ("--gif a.gif --video-episodes 99", "allowed is a whole number from 1 to 20"),
    ],
)
def test_the_command_refuses(
    flags, sentence, striped_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = [str(striped_run), "--env", "test_video:Stripes", *flags.split()]
    assert run_command(EVALUATE, *words) == EXIT_USAGE
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_cannot_draw_itself(tiny_run, tmp_path, capsys):
    words = [
        str(tiny_run),
        "--env",
        "probe_envs:make",
        "--gif",
        str(tmp_path / "a.gif"),
    ]
    assert run_command(EVALUATE, *words) == EXIT_USAGE
    sentence = "allowed is an environment with `render` and `seconds_per_step`"
    assert sentence in capsys.readouterr().err


def test_videos_without_their_encoder(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"until purejaxppo\[video\] is installed"):
        video.check_files(Path("a.mp4"), None)
    video.check_files(None, Path("a.gif"))


@pytest.mark.parametrize(
    ("shape", "dtype", "got"),
    [((4, 4, 3), np.float32, "float32"), ((4, 4), np.uint8, r"\(4, 4\)")],
)
def test_a_render_that_yields_no_picture(shape, dtype, got, schedule):
    env = Stripes(shape, dtype)
    with pytest.raises(ConfigError, match=rf"render: got .*{got}.*allowed is uint8 \["):
        next(video.frames(env, schedule[1], [0]))


# The hammer is drawn in a process of its own: OpenGL stays loaded, in one way of many.
DRAW_HAMMER = """
import jax, numpy as np, sys
from purejaxppo import episodes, make_env
from purejaxppo.errors import ConfigError
from purejaxppo.run import video
env = make_env("hammer")
act = lambda carry, states, start, keys: (jax.vmap(env.demonstrator)(states), carry)
episode = episodes.record(env, act, jax.random.key(3), (), max_steps=12)
try:
    first, last = video.frames(env, episode, [0, 12])
except ConfigError as error:
    sys.exit(str(error))
assert first.shape == last.shape == (360, 480, 3), first.shape
moved = np.abs(first.astype(int) - last).max(-1) > 30
red = (first[..., 0] > 150) & (first[..., 1] < 90)
print(moved.mean(), red.mean(), first.std())
"""


def draw_hammer(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", DRAW_HAMMER],
        env=environment | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_hammer_is_drawn_or_the_library_is_named():
    drawn = draw_hammer()
    if drawn.returncode:
        assert drawn.stderr.startswith("MUJOCO_GL: got '"), drawn.stderr
        assert "libosmesa6" in drawn.stderr
        return
    moved, red, spread = map(float, drawn.stdout.split())
    assert 0.005 < moved < 0.5  # the arm moves, the scene does not
    assert red > 0.01  # the arm is in the picture
    assert spread > 20


@pytest.mark.parametrize(
    ("way", "variables"),
    [
        ("osmesa", {"PYOPENGL_PLATFORM": "egl"}),  # which excludes OSMesa
        ("egl", {"__EGL_VENDOR_LIBRARY_DIRS": "/none"}),  # no driver
    ],
)
def test_a_machine_without_opengl_is_told_what_to_install(way, variables):
    refused = draw_hammer(MUJOCO_GL=way, **variables)
    assert refused.returncode == 1
    sentence = f"MUJOCO_GL: got '{way}'; allowed is egl or osmesa with its library, "
    assert refused.stderr.startswith(sentence), refused.stderr
    assert "libosmesa6" in refused.stderr
    assert refused.stderr.count("\n") == 1
