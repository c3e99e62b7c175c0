"""The registry of environments: the module, factory and presets of each name."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType

from purejaxppo.env import Env
from purejaxppo.errors import ConfigError, UnknownName

# Names of modules, so that an environment is imported only when it is used.
REGISTRY: dict[str, str] = {
    "hammer": "purejaxppo.envs.hammer:make",
    "lifecycle": "purejaxppo.envs.lifecycle:make",
    "scheduler": "purejaxppo.envs.scheduler:make",
    "deck": "purejaxppo.envs.deck:make",
}
# Library -> the adapter module for its environments, which are named "library:name".
# The adapter's `make` takes the name.
ADAPTERS: dict[str, str] = {
    "gymnax": "purejaxppo.adapters.gymnax",
    "brax": "purejaxppo.adapters.brax",
}

Preset = Mapping[str, object]  # values of Config and Hypers, by name


def _target(name: str) -> tuple[str, dict[str, str]]:
    """Return the "module:factory" of a name, and keyword arguments for the factory."""
    library, _, inner = name.partition(":")
    if inner and library in ADAPTERS:
        return f"{ADAPTERS[library]}:make", {"name": inner}
    return REGISTRY.get(name, name), {}


def lookup(name: str) -> tuple[ModuleType, str]:
    """Import the module of an environment; return it and the name of its factory.

    Raises:
      ConfigError: neither a registered name nor an existing "module:factory".
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
        # Either the named module is missing, or a dependency that it imports.
        if error.name and module_name.startswith(error.name):
            raise ConfigError("env", name, "a module that can be imported") from None
        raise ConfigError(
            "env", name, f"an environment whose imports are installed ({error})"
        ) from None
    if not hasattr(module, attribute):
        raise ConfigError("env", name, f"a factory that exists in {module_name}")
    return module, attribute


def make_env(name: str, /, **kwargs: object) -> Env:
    """Build an environment.

    Args:
      name: a registered name, "library:name" or "package.module:factory".
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
    """Return whether the factory of an environment takes a keyword argument.

    Raises:
      ConfigError: an unknown environment.
    """
    module, attribute = lookup(name)
    parameters = inspect.signature(getattr(module, attribute)).parameters.values()
    return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)


def presets(name: str) -> dict[str, Preset]:
    """Return the presets of an environment: preset name -> values; may be empty.

    They are the dictionary PRESETS in the module `presets` of the environment's
    package, or in the environment's own module.

    Raises:
      ConfigError: an unknown environment.
    """
    module, _ = lookup(name)
    module_name = f"{module.__name__}.presets"
    if hasattr(module, "__path__") and importlib.util.find_spec(module_name):
        module = importlib.import_module(module_name)
    return dict(getattr(module, "PRESETS", {}))
