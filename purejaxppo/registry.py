"""The registry of environments: the module, factory and presets of each name."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType

from purejaxppo.env import Env, EnvSpec
from purejaxppo.errors import ConfigError, PurejaxppoError, UnknownName, summary

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
    "gymnasium": "purejaxppo.adapters.gymnasium",
    "envelope": "purejaxppo.adapters.envelope",
}

Preset = Mapping[str, object]  # values of Config and Hypers, by name


def _target(name: str) -> tuple[str, dict[str, str]]:
    """Return the "module:factory" of a name, and keyword arguments for the factory."""
    library, _, inner = name.partition(":")
    if inner and library in ADAPTERS:
        return f"{ADAPTERS[library]}:make", {"name": inner}
    return REGISTRY.get(name, name), {}


def is_registered(name: object) -> bool:
    """Return whether a name is that of a registered environment or "library:name".

    What such a name imports does not depend on who wrote it. Gymnasium, however,
    imports a module that the name begins with: "gymnasium:module:name" is none of them.
    """
    if not isinstance(name, str):
        return False
    library, _, inner = name.partition(":")
    imports = library == "gymnasium" and ":" in inner
    return name in REGISTRY or bool(inner and library in ADAPTERS and not imports)


def lookup(name: str) -> tuple[ModuleType, str]:
    """Import the module of an environment; return it and the name of its factory.

    Raises:
      ConfigError: neither a registered name nor an existing "module:factory".
    """
    target, _ = _target(name)
    module_name, _, attribute = target.partition(":")
    if not module_name.strip(".") or not attribute or module_name.startswith("."):
        adapted = [f"{library}:NAME" for library in ADAPTERS]
        known = [*REGISTRY, *adapted, "package.module:factory"]
        raise UnknownName("env", name, known)
    module = _import(name, module_name)
    if not callable(getattr(module, attribute, None)):
        raise ConfigError("env", name, f"a factory that exists in {module_name}")
    return module, attribute


def _import(name: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Either the named module is missing, or a dependency that it imports.
        if error.name and module_name.startswith(error.name):
            raise ConfigError("env", name, "a module that can be imported") from None
        raise ConfigError(
            "env", name, f"an environment whose imports are installed ({error})"
        ) from None
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        allowed = f"a module that can be imported ({summary(error)})"
        raise ConfigError("env", name, allowed) from error


def make_env(name: str, /, **kwargs: object) -> Env:
    """Build an environment.

    Args:
      name: a registered name, "library:name" or "package.module:factory".
      **kwargs: keyword arguments of its factory.

    Raises:
      ConfigError: an unknown name, keyword arguments that the factory rejects, or a
        factory that raises or returns no environment.
    """
    module, attribute = lookup(name)
    factory: Callable[..., Env] = getattr(module, attribute)
    try:
        env = factory(**{**_target(name)[1], **kwargs})
        spec = env.spec
    except PurejaxppoError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's factory raises
        raise _factory_error(name, kwargs, error) from error
    if not isinstance(spec, EnvSpec) or not callable(env.step):
        allowed = "a factory of an environment, with spec, reset and step"
        raise ConfigError("env", name, f"{allowed}, not of a {type(env).__name__}")
    return env


def _factory_error(
    name: str, kwargs: Mapping[str, object], error: BaseException
) -> ConfigError:
    """Return the error for a factory that raised: its arguments, or anything else."""
    inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
    rejected = isinstance(error, TypeError) and not inside
    if rejected or "unexpected keyword argument" in str(error):
        return ConfigError("env_kwargs", dict(kwargs), f"what {name} takes ({error})")
    allowed = f"a factory that makes an environment ({summary(error)})"
    return ConfigError("env", name, allowed)


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
        module = _import(name, module_name)
    return dict(getattr(module, "PRESETS", {}))
