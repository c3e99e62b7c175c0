"""Hidden layers of a user's own, as `--trunk` names them, and some that cannot be."""

import flax.linen as nn
import jax


class Convolutions(nn.Module):
    """Rows are pictures of 3 x 3 with one channel."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(-1, 3, 3, 1)
        x = nn.relu(nn.Conv(4, (2, 2))(x))
        return nn.Dense(self.features)(x.reshape(x.shape[0], -1))


def convolutions(role: str) -> nn.Module:
    return Convolutions({"actor": 6, "critic": 5}[role])


def no_module(role: str) -> object:
    return len(role)


def fails(role: str) -> nn.Module:
    raise RuntimeError(f"no weights for the {role}")


class _Wrong(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind == "statistics":
            return nn.BatchNorm(use_running_average=True)(x)
        if self.kind == "dropout":
            return nn.Dropout(0.5, deterministic=False)(x)
        return {"scalar": x.sum(), "half": x.astype("float16"), "rows": x[:1]}[
            self.kind
        ]


def statistics(role: str) -> nn.Module:
    return _Wrong("statistics")


def dropout(role: str) -> nn.Module:
    return _Wrong("dropout")


def scalar(role: str) -> nn.Module:
    return _Wrong("scalar")


def half(role: str) -> nn.Module:
    return _Wrong("half")


def rows(role: str) -> nn.Module:
    return _Wrong("rows")
