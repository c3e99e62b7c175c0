"""Environments by name: which module a name stands for, its factory, its presets."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType

from purejaxppo.env import Env
from purejaxppo.errors import ConfigError, UnknownName

# Strings, so that naming an environment is what imports it, and nothing else does.
REGISTRY: dict[str, str] = {
    "hammer": "purejaxppo.envs.hammer:make",
    "lifecycle": "purejaxppo.envs.lifecycle:make",
    "scheduler": "purejaxppo.envs.scheduler:make",
    "deck": "purejaxppo.envs.deck:make",
}
# Other libraries' environments, as "library:name": the module that adapts them, whose
# `make` takes the name.
ADAPTERS: dict[str, str] = {
    "gymnax": "purejaxppo.adapters.gymnax",
    "brax": "purejaxppo.adapters.brax",
}

Preset = Mapping[str, object]  # values of Config and Hypers, by plain name


def _target(name: str) -> tuple[str, dict[str, str]]:
    """The "module:factory" behind a name, and what the name says to the factory."""
    library, _, inner = name.partition(":")
    if inner and library in ADAPTERS:
        return f"{ADAPTERS[library]}:make", {"name": inner}
    return REGISTRY.get(name, name), {}


def lookup(name: str) -> tuple[ModuleType, str]:
    """The module of an environment, imported, and the name of its factory.

    Raises:
      ConfigError: neither a registered name nor a "module:factory" that exists.
    """
    target, _ = _target(name)
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        adapted = [f"{library}:NAME" for library in ADAPTERS]
        known = [*REGISTRY, *adapted, "package.module:factory"]
        raise UnknownName("env", name, known)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only the module that was asked for: a missing dependency of it is not a typo.
        if error.name and module_name.startswith(error.name):
            raise ConfigError("env", name, "a module that can be imported") from None
        raise ConfigError(
            "env", name, f"an environment whose imports are installed ({error})"
        ) from None
    if not hasattr(module, attribute):
        raise ConfigError("env", name, f"a factory that exists in {module_name}")
    return module, attribute


def make_env(name: str, /, **kwargs: object) -> Env:
    """The environment of that registered name, "library:name" or "module:factory".

    Args:
      name: which environment.
      **kwargs: keyword arguments of its factory.

    Raises:
      ConfigError: an unknown name, or keyword arguments that the factory rejects.
    """
    module, attribute = lookup(name)
    factory: Callable[..., Env] = getattr(module, attribute)
    try:
        return factory(**{**_target(name)[1], **kwargs})
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(
            "env_kwargs", kwargs, f"what {name} takes ({error})"
        ) from None


def takes_argument(name: str, argument: str) -> bool:
    """Whether the factory of an environment takes that keyword argument.

    Raises:
      ConfigError: an unknown environment.
    """
    module, attribute = lookup(name)
    parameters = inspect.signature(getattr(module, attribute)).parameters.values()
    return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)


def presets(name: str) -> dict[str, Preset]:
    """Preset name -> its values; empty for an environment that has no presets.

    They are PRESETS of the module `presets` in the environment's package, or of the
    environment's own module.

    Raises:
      ConfigError: an unknown environment.
    """
    module, _ = lookup(name)
    beside = f"{module.__name__}.presets"
    if hasattr(module, "__path__") and importlib.util.find_spec(beside):
        module = importlib.import_module(beside)
    return dict(getattr(module, "PRESETS", {}))
