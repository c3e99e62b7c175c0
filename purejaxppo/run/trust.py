"""What a run may import: a run is data, and opening it must not execute code it names.

A run may name registered environments, those of an adapter, and distributions and
trunks of our own.
Any other name is imported only if the user repeats it, or trusts the run.
"""

from pathlib import Path
from typing import NamedTuple

from purejaxppo import registry
from purejaxppo.config import DISTRIBUTIONS, TRUNKS, Config
from purejaxppo.env import Env
from purejaxppo.errors import ConfigError


class Trust(NamedTuple):
    """What the user, and not the run, allows to be imported.

    Attributes:
      env: the environment, or its name as the run has it; None if not given.
      distribution: the same for the factory of the distribution.
      trunk: the same for the factory of the hidden layers.
      everything: import whatever the run names.
    """

    env: Env | str | None = None
    distribution: str | None = None
    trunk: str | None = None
    everything: bool = False


def check_imports(config: Config, trust: Trust, run: Path) -> None:
    """Check that a run names nothing to import that the user has not allowed.

    Args:
      config: the configuration of the run.
      trust: what the user allows.
      run: the run's folder, for the error.

    Raises:
      ConfigError: a name that is not allowed, or not the one that the user repeated.
    """
    env_known = registry.is_registered(config.env) or _is_env(trust.env)
    _check("env", config.env, trust, env_known, run)
    known = config.distribution in DISTRIBUTIONS
    _check("distribution", config.distribution, trust, known, run)
    _check("trunk", config.trunk, trust, config.trunk in TRUNKS, run)


def _is_env(env: Env | str | None) -> bool:
    return env is not None and not isinstance(env, str)


def _check(field: str, name: object, trust: Trust, known: bool, run: Path) -> None:
    repeated = getattr(trust, field)
    if isinstance(repeated, str) and repeated != name:
        raise ConfigError(field, repeated, f"the run's own {name!r}")
    # Names of another form are refused later, before anything is imported.
    module, colon, _ = name.partition(":") if isinstance(name, str) else ("", "", "")
    if known or trust.everything or repeated == name or not colon:
        return
    raise ConfigError(
        field,
        name,
        f"a registered name, because {run} would import {module} and call what it "
        f"names; if you trust it, repeat --{field} {name} or give --trust-env "
        f"(in Python {field}= or trust_env=True)",
    )
