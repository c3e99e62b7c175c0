"""Gymnasium's environments with the protocol of `purejaxppo.env`.

    python -m purejaxppo.train --env gymnasium:Pendulum-v1
    make_env("gymnasium:MountainCar-v0", max_episode_steps=500)

They are Python code, which the compiled program calls on the host. Observations are
flattened to float32, and what is discrete in them is one-hot. A Box of actions is
scaled from [-1, 1] to its bounds; a MultiDiscrete or MultiBinary has a head for each
entry. An `action_mask` in the information of a reset masks the actions. The time limit
is a truncation.

A run can be evaluated, exported and begun from, but not resumed: an instance cannot be
saved. An environment that computes with JAX itself is for `gymnax` and other adapters:
inside of a running program it may wait for ever.
"""

import functools
from typing import TYPE_CHECKING

from purejaxppo.env import EnvSpec
from purejaxppo.errors import ConfigError

if TYPE_CHECKING:  # Gymnasium is optional
    from purejaxppo.adapters.gymnasium_env import GymnasiumEnv


def make(name: str, **kwargs: object) -> "GymnasiumEnv":
    """Build an environment of Gymnasium.

    Args:
      name: its name in Gymnasium's registry, such as "Pendulum-v1"; with a module that
        registers it, "module:Name-v0".
      **kwargs: keyword arguments of `gymnasium.make`.

    Raises:
      ConfigError: Gymnasium is not installed, or observations or actions are of a kind
        that cannot be learned with.
      EnvironmentFault: there is no such environment, or it raised an error.
    """
    try:
        import gymnasium

        from purejaxppo.adapters import gymnasium_env, gymnasium_host
    except ModuleNotFoundError as error:
        allowed = f"what is installed: pip install gymnasium ({error})"
        raise ConfigError("env", f"gymnasium:{name}", allowed) from None
    own_name = f"gymnasium:{name}"
    # Its checks cost time, and print warnings about what is no fault in training.
    kwargs = {"disable_env_checker": True} | kwargs
    instances = gymnasium_host.Instances(
        own_name, functools.partial(gymnasium.make, name, **kwargs)
    )
    spec = EnvSpec(
        own_name,
        instances.heads,
        instances.max_episode_steps,
        can_resume=False,
    )
    return gymnasium_env.GymnasiumEnv(spec, instances)
