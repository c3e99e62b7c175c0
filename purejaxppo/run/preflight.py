"""Checks before a run's folder is made: numerics, environment and memory."""

import jax

from purejaxppo.check import check_signature
from purejaxppo.config import Config
from purejaxppo.errors import ConfigError
from purejaxppo.ppo import learner
from purejaxppo.ppo import mesh as mesh_lib
from purejaxppo.ppo.learner import Learner
from purejaxppo.registry import make_env
from purejaxppo.run import devices
from purejaxppo.run.memory import check_memory
from purejaxppo.run.options import Options, gives_policy
from purejaxppo.validation import validate, validate_first_policy


def make_learner(config: Config, options: Options) -> Learner:
    """Make the learner of a run after checking everything that tracing can show.

    Args:
      config: the configuration of the run.
      options: the options of the run.

    Raises:
      ConfigError: a value that cannot be used; before anything compiles.
    """
    check_precision()
    validate(config)
    validate_first_policy(config, gives_policy(options))
    env = make_env(config.env, **config.env_kwargs)
    check_signature(config.env, env)
    mesh = devices.choose(config, env.spec, options)
    made = learner.make_learner(config, env, devices.having(mesh_lib.ENVS, mesh))
    check_memory(made, options, devices.count(mesh))
    return made


def check_precision() -> None:
    """Check that JAX's numbers have 32 bits, as those of checkpoints.

    Raises:
      ConfigError: JAX is set to 64 bits.
    """
    if jax.dtypes.canonicalize_dtype("float64") != "float32":
        allowed = "False, because checkpoints and environments hold numbers of 32 bits"
        raise ConfigError("JAX_ENABLE_X64", True, allowed)
