"""`python -m purejaxppo.evaluate RUN`: a run's policy on its fixed seed blocks.

The function is `purejaxppo.evaluate`. Importing this module would put the module in
the function's place, so it can only be run.
"""

from purejaxppo.run import process

if __name__ == "__main__":  # before the imports below, which take a second
    process.end_on_signals()

import sys
from pathlib import Path
from typing import Annotated

import tyro

from purejaxppo.errors import (
    EXIT_OK,
    StorageError,
)
from purejaxppo.run import folder
from purejaxppo.run.trained import (
    TrainedPolicy,
    Which,
    check_episodes,
    evaluate_policy,
    load_policy,
)
from purejaxppo.run.video import check_files, film, record, write

if __name__ != "__main__":
    raise ImportError(
        "purejaxppo.evaluate is a command, `python -m purejaxppo.evaluate RUN`; "
        "the function is `from purejaxppo import evaluate`"
    )


def evaluate_run(
    run: Annotated[Path, tyro.conf.Positional],
    which: Which = "best",
    stochastic: bool = False,
    episodes: int | None = None,
    seed_index: int = 0,
    env: str | None = None,
    distribution: str | None = None,
    trunk: str | None = None,
    trust_env: bool = False,
    video: Path | None = None,
    gif: Path | None = None,
    video_episodes: int = 2,
) -> int:
    """Evaluate a run's policy on its fixed seed blocks, and write RUN/evaluation.json.

    Args:
      run: Folder of the run.
      which: Checkpoint: the best by its worst block, or the latest.
      stochastic: Sample actions, instead of taking the policy's mode.
      episodes: Episodes per block; as many as in training where not given.
      seed_index: Which seed of a run of several.
      env: The run's environment, needed where it is a package.module:factory.
      distribution: The same for the factory of its distribution.
      trunk: The same for the factory of its hidden layers.
      trust_env: Import whatever the run names.
      video: MP4 file for a video of the first episodes (purejaxppo[video]).
      gif: GIF file for the same.
      video_episodes: How many episodes a video shows.
    """
    check_episodes(episodes)
    check_files(video, gif)
    policy = load_policy(
        run,
        which,
        seed_index,
        env=env,
        distribution=distribution,
        trunk=trunk,
        trust_env=trust_env,
    )
    if video is not None or gif is not None:
        show(policy, video, gif, video_episodes, deterministic=not stochastic)
    metrics = evaluate_policy(policy, deterministic=not stochastic, episodes=episodes)
    try:
        folder.write_json(run / "evaluation.json", metrics)
    except OSError as error:
        raise StorageError(run / "evaluation.json", error) from None
    finally:
        width = max(map(len, metrics))
        for name, value in metrics.items():
            print(f"{name:<{width}}  {value:.4f}")
    return EXIT_OK


def show(
    policy: TrainedPolicy,
    video: Path | None,
    gif: Path | None,
    num_episodes: int,
    *,
    deterministic: bool,
) -> None:
    """Write a video of the first episodes, and print how they went.

    Args:
      policy: the loaded policy.
      video: the MP4 file, or None.
      gif: the GIF file, or None.
      num_episodes: how many episodes it shows.
      deterministic: take the mode of the policy; if False, sample.
    """
    played = record(
        policy.learner.task, policy.state, num_episodes, deterministic=deterministic
    )
    write(film(policy.learner.task.env, played), video, gif)
    for path in filter(None, (video, gif)):
        told = [f"return {x.episode_return:.2f} in {x.length} steps" for x in played]
        # The standard output is the table of metrics alone.
        print(f"{path}: {', '.join(told)}", file=sys.stderr)


def main() -> int:
    """Run the command line; the exit code is 0, 2 (usage) or 4 (storage)."""
    return process.exit_code(
        lambda: tyro.cli(
            evaluate_run,
            prog="python -m purejaxppo.evaluate",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    )


process.run(main)
