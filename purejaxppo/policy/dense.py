"""Dense layers that are fast on a CPU and give the same results as Flax's.

XLA's CPU backend compiles the gradients of Flax's layer to slow matrix products.
`benchmarks/results/layers.json` compares the speed of the two.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from purejaxppo import platforms


def apply_to_rows(f: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    """Apply `f`, a function of a matrix [rows, D], to an array [..., D].

    With a third axis XLA's CPU backend takes up to twice as long for a product and its
    gradient, even if that axis has one element.
    """
    out = f(x.reshape(-1, x.shape[-1]))
    return jax.tree.map(lambda y: y.reshape(*x.shape[:-1], *y.shape[1:]), out)


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute [rows, D] @ [D, size]."""
    return x @ kernel


def _matmul_forward(x, kernel):
    return x @ kernel, (x, kernel)


def _matmul_backward(residuals, grad):
    """Compute the gradients, with xᵀ written to memory before it is multiplied.

    XLA would fuse the transposition into the product, for which its CPU backend has
    only a slow implementation.
    """
    x, kernel = residuals
    transposed = x.T
    if platforms.backend() == "cpu":
        transposed = jax.lax.optimization_barrier(transposed)
    return grad @ kernel.T, transposed @ grad


matmul.defvjp(_matmul_forward, _matmul_backward)


def orthogonal(gain: float) -> Initializer:
    """Return flax's orthogonal initialiser, which draws one seed at a time under vmap.

    Of several seeds it would factorise a batch of matrices. XLA's batched
    factorisations wait for threads of the pool in which they run, so that those of
    several layers at once wait for each other for ever where it has few.
    """
    initializer = nn.initializers.orthogonal(gain)

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32):
        @jax.custom_batching.sequential_vmap
        def draw(key: jax.Array) -> jax.Array:
            return initializer(key, shape, dtype)

        return draw(key)

    return init


class Dense(nn.Module):
    """x @ kernel + bias for x [rows, D]; the kernel is orthogonal, scaled by `gain`."""

    size: int
    gain: float
    use_bias: bool = True

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.weights(x.shape[-1])
        return matmul(x, kernel) + bias[None]

    @nn.compact
    def weights(self, num_inputs: int) -> tuple[jax.Array, jax.Array]:
        """Return kernel [D, size] and bias [size], zeros without `use_bias`."""
        init = orthogonal(self.gain)
        kernel = self.param("kernel", init, (num_inputs, self.size))
        if not self.use_bias:
            return kernel, jnp.zeros((self.size,), kernel.dtype)
        return kernel, self.param("bias", nn.initializers.zeros, (self.size,))


def apply_layers(layers: list[Dense], x: jax.Array) -> list[jax.Array]:
    """Apply several layers to the same rows [rows, D] by one matrix product.

    A product with few columns takes as long as one with the columns of all layers.
    """
    kernels, biases = zip(
        *(layer.weights(x.shape[-1]) for layer in layers), strict=True
    )
    out = matmul(x, jnp.concatenate(kernels, axis=1)) + jnp.concatenate(biases)[None]
    ends = [sum(layer.size for layer in layers[:i]) for i in range(1, len(layers))]
    return jnp.split(out, ends, axis=-1)
