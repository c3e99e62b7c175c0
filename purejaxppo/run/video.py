"""Videos and still pictures of a trained policy, drawn by its environment.

An environment that can draw itself has a method `render`; see `RenderedEnv` in env.py.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from purejaxppo import episodes
from purejaxppo.env import Env, RenderedEnv
from purejaxppo.episodes import Recorded
from purejaxppo.errors import ConfigError, StorageError, whole_number
from purejaxppo.ppo import evaluation
from purejaxppo.ppo.types import Task, TrainState
from purejaxppo.run import encode, files

Frame = np.ndarray  # uint8 [H, W, 3]

FRAMES_PER_SECOND = 20
HOLD_SECONDS = 1.0  # how long the last picture of an episode stays
MAX_FRAMES = 300  # of an episode; a longer one is shown faster
GIF_COLORS = 128


def check_files(video: Path | None, gif: Path | None) -> None:
    """Check that files of these names can be written here, before anything is drawn.

    Raises:
      ConfigError: a suffix is wrong, a folder is missing, or no encoder is installed.
    """
    for field, path, suffix in (("video", video, ".mp4"), ("gif", gif, ".gif")):
        if path is None:
            continue
        if path.suffix.lower() != suffix:
            raise ConfigError(field, str(path), f"a file whose name ends in {suffix}")
        files.check_writable(field, path)
    if video is not None and importlib.util.find_spec("imageio_ffmpeg") is None:
        allowed = "--gif alone, until purejaxppo[video] is installed (imageio-ffmpeg)"
        raise ConfigError("video", str(video), allowed)


def check_rendered(env: Env) -> RenderedEnv:
    """Return an environment that can draw itself.

    Raises:
      ConfigError: it cannot.
    """
    if isinstance(env, RenderedEnv):
        return env
    allowed = "an environment with `render` and `seconds_per_step`, see purejaxppo.env"
    raise ConfigError("env", env.spec.name, allowed)


def record(
    task: Task, state: TrainState, num_episodes: int = 1, *, deterministic: bool = True
) -> list[Recorded]:
    """Play the first episodes of the policy's evaluation.

    Args:
      task: the policy, and an environment that can draw itself.
      state: the parameters and the normaliser, of one seed.
      num_episodes: number of episodes.
      deterministic: take the mode of the policy; if False, sample.

    Raises:
      ConfigError: the environment has no `render`, or the evaluation fewer episodes.
    """
    check_rendered(task.env)
    keys = evaluation.episode_keys(task.config)
    whole_number("video_episodes", num_episodes, 1, len(keys))
    act = evaluation.make_act(
        task.policy,
        state.params,
        state.obs_stats,
        deterministic=deterministic,
    )
    carry = task.policy.initial_carry(1)
    return [episodes.record(task.env, act, key, carry) for key in keys[:num_episodes]]


def steps_shown(num_steps: int, seconds_per_step: float) -> list[int]:
    """Return the step that each frame of a video shows, from 0 to `num_steps`.

    The last one is repeated, so that a viewer can look at the end.
    """
    seconds = num_steps * seconds_per_step
    num = min(max(math.ceil(seconds * FRAMES_PER_SECOND), 1), MAX_FRAMES)
    shown = [round(i * num_steps / num) for i in range(num + 1)]
    return shown + [num_steps] * round(HOLD_SECONDS * FRAMES_PER_SECOND)


def frames(env: Env, episode: Recorded, steps: list[int]) -> Iterator[Frame]:
    """Draw an episode at some of its steps, each picture once however often it shows.

    Args:
      env: an environment that can draw itself.
      episode: one of its episodes.
      steps: ascending indices of states; an index may be repeated.

    Raises:
      ConfigError: `render` is missing, or yields no uint8 [H, W, 3].
    """
    distinct = sorted(set(steps))
    drawn = check_rendered(env).render(episode.states, episode.actions, distinct)
    for step, frame in zip(distinct, drawn, strict=True):
        is_frame = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
        if not (is_frame and frame.ndim == 3 and frame.shape[2] == 3):
            got = f"{getattr(frame, 'dtype', type(frame))} {np.shape(frame)}"
            raise ConfigError("render", got, "uint8 [H, W, 3]")
        yield from [frame] * steps.count(step)


def still(task: Task, state: TrainState) -> Frame:
    """Draw the end of the first episode of the policy's evaluation.

    Args:
      task: the policy, and an environment that can draw itself.
      state: the parameters and the normaliser, of one seed.

    Raises:
      ConfigError: the environment cannot be drawn here.
    """
    (episode,) = record(task, state)
    return next(frames(task.env, episode, [episode.length]))


def film(env: Env, played: list[Recorded]) -> list[Frame]:
    """Draw whole episodes, one after the other."""
    seconds = check_rendered(env).seconds_per_step
    return [
        frame
        for episode in played
        for frame in frames(env, episode, steps_shown(episode.length, seconds))
    ]


def write(pictures: list[Frame], video: Path | None, gif: Path | None) -> None:
    """Write a film into an MP4 file, a GIF file, or both.

    Args:
      pictures: the frames, all of one size.
      video: the MP4 file, or None.
      gif: the GIF file, or None.

    Raises:
      StorageError: a file cannot be written.
    """
    if video is not None:
        _write(video, lambda: encode.mp4(pictures, FRAMES_PER_SECOND))
    if gif is not None:
        _write(gif, lambda: encode.gif(pictures, FRAMES_PER_SECOND, GIF_COLORS))


def _write(path: Path, encoded: Callable[[], bytes]) -> None:
    try:
        files.replace(path, encoded())
    except OSError as error:
        raise StorageError(path, error) from None
