"""Action heads with a user's `distrax.Distribution`.

The user's factory builds the distribution from the outputs of the network, [..., n].
Its batch shape must begin with the leading axes of these outputs. Further batch axes
are independent parts of one action, and their log-probs are summed. distrax is imported
only if such a head is used.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import trees
from purejaxppo.env import Custom
from purejaxppo.errors import ConfigError
from purejaxppo.numerics import permissive_numerics, strongly_typed

if TYPE_CHECKING:
    import distrax


def import_distrax():
    """Import distrax, without the warnings of TFP's import, which no user can fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import distrax
    return distrax


# Network outputs [..., n] -> a distrax.Distribution (or one of TFP).
Factory = Callable[..., object]


class CustomDistribution(struct.PyTreeNode):
    """A user's distribution, with the methods of the built-in distributions.

    It holds only the outputs of the network. Each method builds the distrax object from
    them, so that each sample of a batch can be drawn with a separate key.
    """

    parameters: tuple[jax.Array, ...]  # each [..., n], the arguments of the factory
    factory: Factory = struct.field(pytree_node=False)

    @staticmethod
    def noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return a key for each sample, shape[:-1]; the last axis holds parameters."""
        return jax.random.split(key, shape[:-1])

    def sample(self, noise: jax.Array) -> jax.Array:
        """Draw a sample with each of the keys `noise` [...].

        Rounding can put a sample where the density is 0 or infinite, for example at the
        ends of a Beta. Such a log-prob would make the loss NaN, so the sample is
        replaced by the mean or the mode.
        """

        def sample_one(parameters: tuple[jax.Array, ...], key: jax.Array) -> jax.Array:
            with permissive_numerics():
                dist = _build(self.factory, parameters)
                return strongly_typed(dist.sample(seed=key))

        for _ in range(noise.ndim):
            sample_one = jax.vmap(sample_one)
        action = sample_one(self.parameters, noise)
        return self._replace_impossible(self._density(action), action)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Return the log-prob [...]; it is not finite if the action is impossible.

        The density is computed twice, so that its gradient is taken at an action with a
        finite density. The stored action of an inactive head is zeros, where the
        gradient could be NaN.
        """
        density = jax.lax.stop_gradient(self._density(action))
        safe = self._density(self._replace_impossible(density, action))
        return jnp.where(jnp.isfinite(density), safe, density)

    def entropy(self) -> jax.Array:
        """Return the entropy [...], or 0 if the distribution does not define it."""
        entropy = self.entropy_if_defined()
        return jnp.zeros(self._leading(), jnp.float32) if entropy is None else entropy

    def entropy_if_defined(self) -> jax.Array | None:
        """Return the entropy [...], or None if the distribution does not define it."""
        with permissive_numerics():
            dist = _build(self.factory, self.parameters)
            try:
                entropy = dist.entropy()
            except NotImplementedError:
                return None
            return self._sum(jnp.broadcast_to(entropy, dist.batch_shape))

    def mode(self) -> jax.Array:
        """Return the mode, or the mean if the mode is undefined or not finite."""
        return self._point_estimate(("mode", "mean"))

    def _leading(self) -> tuple[int, ...]:
        return self.parameters[0].shape[:-1]

    def _sum(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x, axis=tuple(range(len(self._leading()), x.ndim)))

    def _density(self, action: jax.Array) -> jax.Array:
        with permissive_numerics():
            density = _build(self.factory, self.parameters).log_prob(action)
            return self._sum(jnp.asarray(density))

    def _replace_impossible(self, density: jax.Array, action: jax.Array) -> jax.Array:
        """Replace actions whose log-prob is not finite by the mean or the mode."""
        substitute = jax.lax.stop_gradient(self._point_estimate(("mean", "mode")))
        return trees.where(jnp.isfinite(density), action, substitute)

    def _point_estimate(self, names: tuple[str, ...]) -> jax.Array:
        with permissive_numerics():
            dist = _build(self.factory, self.parameters)
            if jnp.issubdtype(dist.dtype, jnp.integer):
                names = ("mode",)  # the mean of integers need not be an integer
            points = [
                p for p in (_statistic(dist, name) for name in names) if p is not None
            ]
            if not points:
                raise NotImplementedError("neither mode() nor mean()")
            point = strongly_typed(points[0], dist.dtype)
            if len(points) == 2:
                point = jnp.where(jnp.isfinite(point), point, points[1])
            return point


def _build(
    factory: Factory, parameters: tuple[jax.Array, ...]
) -> "distrax.Distribution":
    # Called before distrax is imported, so that the factory's own errors come first.
    dist = factory(*parameters)
    return import_distrax().as_distribution(dist)


def _statistic(dist: "distrax.Distribution", name: str) -> jax.Array | None:
    """Return `dist.mode()` or `dist.mean()`, or None if it is undefined.

    distrax defines neither for a bijector without a constant Jacobian. Then the result
    is the bijector applied to the base distribution's mode or mean, as in `TanhNormal`.
    """
    try:
        return jnp.asarray(getattr(dist, name)())
    except NotImplementedError:
        if not isinstance(dist, import_distrax().Transformed):
            return None
        base = _statistic(dist.distribution, name)
        return None if base is None else jnp.asarray(dist.bijector.forward(base))


def untrained_distribution(head: Custom) -> CustomDistribution:
    """Build the distribution of a head for network outputs of zero, no leading axes."""
    factory = resolve("distribution", head.distribution)
    return CustomDistribution((jnp.zeros((head.num_outputs,), jnp.float32),), factory)


def action_type(head: Custom) -> jax.ShapeDtypeStruct:
    """Return shape and dtype of one action of a head."""
    return jax.eval_shape(lambda: untrained_distribution(head).mode())


# --- validation, before compilation -----------------------------------------------


class Facts(NamedTuple):
    """Static properties of a custom distribution."""

    shape: tuple[int, ...]  # of one action
    dtype: jnp.dtype
    has_entropy: bool


def resolve(field: str, target: str | Factory) -> Factory:
    """Import the factory "package.module:factory"; return a callable unchanged.

    Raises:
      ConfigError: the module or the factory does not exist, or is not callable.
    """
    if not isinstance(target, str):
        return target
    module_name, _, name = target.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:
        raise ConfigError(
            field, target, f"a package.module:factory that can be imported ({error})"
        ) from error
    if not callable(factory):
        raise ConfigError(field, target, f"a factory that exists in {module_name}")
    return factory


def describe(field: str, target: str | Factory, sizes: tuple[int, ...]) -> Facts:
    """Check a custom distribution by tracing its sample, log-prob and gradient.

    Args:
      field: name of the setting in an error.
      target: the factory, or its "package.module:factory".
      sizes: size of the last axis of each of the factory's arguments.

    Returns:
      shape and dtype of one action, and whether the entropy is defined. If it is not,
      the head's entropy coefficient must be 0.

    Raises:
      ConfigError: distrax is not installed, or the distribution lacks a method that a
        head needs.
    """
    factory = resolve(field, target)
    try:
        import_distrax()
    except ImportError:
        raise ConfigError(
            field,
            target,
            "one of our own where distrax is not installed "
            "(pip install 'purejaxppo[distrax]')",
        ) from None
    # Two leading axes, so that a factory that only supports one is found.
    parameters = tuple(jax.ShapeDtypeStruct((2, 3, n), jnp.float32) for n in sizes)
    try:
        action, entropy = jax.eval_shape(
            lambda *p: _rehearse(CustomDistribution(p, factory)), *parameters
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        shapes = " and ".join(f"[..., {n}]" for n in sizes)
        raise ConfigError(
            field,
            target,
            f"a factory of a distrax.Distribution from float32 {shapes} that can be "
            f"sampled and differentiated ({reason})",
        ) from error
    return Facts(action.shape[2:], action.dtype, entropy is not None)


def _rehearse(dist: CustomDistribution) -> tuple[jax.Array, jax.Array | None]:
    """Return an action and the entropy, and call all other methods used in training.

    Raises:
      ValueError: the shapes of distribution, sample and mode do not match.
    """
    with permissive_numerics():
        batch_shape = _build(dist.factory, dist.parameters).batch_shape
    leading = dist.parameters[0].shape[:-1]
    if batch_shape[: len(leading)] != leading:
        raise ValueError(f"batch shape {batch_shape} for leading axes {leading}")
    action = dist.sample(dist.noise(jax.random.key(0), (*leading, 1)))
    mode = dist.mode()
    if (mode.shape, mode.dtype) != (action.shape, action.dtype):
        raise ValueError(
            f"mode {mode.dtype} {mode.shape}, sample {action.dtype} {action.shape}"
        )
    jax.grad(lambda dist: jnp.sum(dist.log_prob(action)))(dist)
    return action, dist.entropy_if_defined()
