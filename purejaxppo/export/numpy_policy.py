"""Runs a policy that `python -m purejaxppo.export RUN policy.npz` has written.

This file needs NumPy alone, and nothing else of purejaxppo: copy it to where the policy
is to run. An episode of a policy goes like this:

    policy = load("policy.npz")
    carry = policy.initial()
    while True:
        action, carry = policy.act(obs, carry, mask={"op": [True, False, True, True]})

The action is the policy's mode, that which `python -m purejaxppo.evaluate` takes.

FORMAT. The file is an .npz of float32 arrays and one string array, `metadata`, which is
JSON; nothing in it is pickled. Layers compute x @ kernel + bias.

obs/mean, obs/std [D]           z = clip((obs - mean) / std, -obs_clip, obs_clip); they
                                are missing where the policy sees plain observations
hidden/I/kernel, .../bias       hidden layers from I = 0, each followed by `activation`
core/input/..., core/hidden/... gates of the recurrent core, [., 4 H] in the order i, f,
                                g, o for "lstm", [., 3 H] r, z, n for "gru"
core/norm/scale, .../bias [H]   LayerNorm of the core's output
heads/NAME/kernel, .../bias     the head's output: its mean, or logits [n]

Of the metadata, `obs_size`, `obs_clip`, `activation`, `num_hidden`, `core` ("none",
"gru", "lstm"), `core_size`, `norm_epsilon` and `heads` say how to compute an action. A
head has a `name` and a `kind`: "box" (`size`; `squash` is "tanh" or "none"), "discrete"
(`n`; `parent` and `active_when`, or null) or "choice" (`k` of `n`). `mask` is the shape
of its mask, or null; `active` is whether its activity depends on the environment's
state. An action is for `action_repeat` control steps. The rest of the metadata says
where the policy is from.
"""

from __future__ import annotations

import json

import numpy as np

FORMAT = 1
INVALID_LOGIT = np.float32(-1e9)  # of a choice that the mask forbids


def sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # does not overflow, unlike 1 / (1 + exp(-x))


ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "swish": lambda x: x * sigmoid(x),
    "elu": lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
}


def load(path) -> Policy:
    """Load an exported policy.

    Args:
      path: the .npz file.

    Raises:
      ValueError: the file is of another format.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    metadata = json.loads(str(arrays.pop("metadata")))
    if metadata["format"] != FORMAT:
        raise ValueError(f"{path} has format {metadata['format']}, not {FORMAT}")
    return Policy(metadata, arrays)


class Policy:
    """A policy: `metadata` and `arrays` as in the file; it changes nothing in itself.

    Observations, carries, masks and actions may all have the same leading axes [...],
    of several environments; for one environment there are none.
    """

    def __init__(self, metadata: dict, arrays: dict[str, np.ndarray]):
        self.metadata, self.arrays = metadata, arrays
        self.heads = metadata["heads"]

    def initial(self, leading: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
        """Return the carry with which each episode begins: zeros [..., H].

        Args:
          leading: the leading axes.
        """
        num = {"none": 0, "gru": 1, "lstm": 2}[self.metadata["core"]]
        return (np.zeros((*leading, self.metadata["core_size"]), np.float32),) * num

    def act(self, obs, carry=(), mask=None) -> tuple[dict, tuple[np.ndarray, ...]]:
        """Choose the action of every head.

        Args:
          obs: [..., obs_size], what the actor sees, as the environment gives it.
          carry: what the last call returned; at the first step of an episode, and
            always where there is no core, `initial()`.
          mask: head -> bool, True is allowed, [..., n], or for a child of a discrete
            head [..., parent's n, n]; of every head that has a mask.

        Returns:
          head -> action (box: float32 [..., size], in [-1, 1]; discrete: int32 [...];
          choice: int32 [..., k]), and the carry for the next step. The action of a
          head that is not active (see `active`) means nothing.

        Raises:
          ValueError: `obs` has another size, or the mask of a head is missing.
        """
        x, carry = self._features(self._normalized(obs), carry)
        action: dict[str, np.ndarray] = {}
        for head in self.heads:
            out = self._dense(f"heads/{head['name']}", x)
            allowed = self._mask_of(head, mask or {}, action)
            action[head["name"]] = _mode(head, out, allowed)
        return action, carry

    def active(self, action: dict, active=None) -> dict:
        """Return which heads' actions have an effect, head -> bool [...].

        Args:
          action: result of `act`.
          active: head -> bool [...], of the state, for heads whose `active` is true.
        """
        given, result = active or {}, {}
        for head in self.heads:
            is_active = np.asarray(given.get(head["name"], True))
            if head.get("parent") is not None:
                is_active = is_active & result[head["parent"]]
                if head["active_when"] is not None:
                    chosen = np.isin(action[head["parent"]], head["active_when"])
                    is_active = is_active & chosen
            result[head["name"]] = is_active
        return result

    def _dense(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.arrays[name + "/kernel"] + self.arrays[name + "/bias"]

    def _normalized(self, obs) -> np.ndarray:
        x, size = np.asarray(obs, np.float32), self.metadata["obs_size"]
        if x.shape[-1:] != (size,):
            raise ValueError(f"obs: got shape {list(x.shape)}, not [{size}]")
        if "obs/mean" not in self.arrays:
            return x
        limit = np.float32(self.metadata["obs_clip"])
        scaled = (x - self.arrays["obs/mean"]) / self.arrays["obs/std"]
        return np.clip(scaled, -limit, limit)

    def _features(self, x: np.ndarray, carry) -> tuple[np.ndarray, tuple]:
        for index in range(self.metadata["num_hidden"]):
            x = self._dense(f"hidden/{index}", x)
            x = ACTIVATIONS[self.metadata["activation"]](x)
        if self.metadata["core"] == "none":
            return x, ()
        step = self._lstm if self.metadata["core"] == "lstm" else self._gru
        carry = step(x, carry)
        return self._layer_norm(carry[-1]), carry

    def _lstm(self, x: np.ndarray, carry) -> tuple[np.ndarray, np.ndarray]:
        cell, hidden = carry
        gates = self._dense("core/input", x) + self._dense("core/hidden", hidden)
        i, f, g, o = np.split(gates, 4, axis=-1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        return cell, sigmoid(o) * np.tanh(cell)

    def _gru(self, x: np.ndarray, carry) -> tuple[np.ndarray]:
        (hidden,) = carry
        ir, iz, new = np.split(self._dense("core/input", x), 3, axis=-1)
        hr, hz, kept = np.split(self._dense("core/hidden", hidden), 3, axis=-1)
        z = sigmoid(iz + hz)
        new = np.tanh(new + sigmoid(ir + hr) * kept)
        return ((1.0 - z) * new + z * hidden,)

    def _layer_norm(self, x: np.ndarray) -> np.ndarray:
        mean = x.mean(axis=-1, keepdims=True)
        variance = x.var(axis=-1, keepdims=True)
        x = (x - mean) / np.sqrt(variance + np.float32(self.metadata["norm_epsilon"]))
        return x * self.arrays["core/norm/scale"] + self.arrays["core/norm/bias"]

    def _mask_of(self, head: dict, mask: dict, action: dict) -> np.ndarray | None:
        """Return the head's mask [..., n]; one that allows nothing allows all."""
        if head["mask"] is None:
            return None
        name, shape = head["name"], head["mask"]
        if name not in mask:
            raise ValueError(f"mask: the head {name} needs one, of shape {shape}")
        allowed = np.asarray(mask[name], bool)
        if list(allowed.shape[-len(shape) :]) != shape:
            raise ValueError(f"mask: {name} has {list(allowed.shape)}, not {shape}")
        if len(shape) == 2:  # a row for each choice of the parent
            row = action[head["parent"]][..., None, None]
            allowed = np.take_along_axis(allowed, row, axis=-2)[..., 0, :]
        return allowed | ~allowed.any(axis=-1, keepdims=True)


def _mode(head: dict, out: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    """Return the most likely action for a head's output [..., n] and its mask."""
    if head["kind"] == "box":
        out = np.tanh(out) if head["squash"] == "tanh" else out
        return np.clip(out, np.float32(-1.0), np.float32(1.0))
    logits = out if allowed is None else np.where(allowed, out, INVALID_LOGIT)
    if head["kind"] == "discrete":
        return np.argmax(logits, axis=-1).astype(np.int32)
    best_first = np.argsort(-logits, axis=-1, kind="stable")  # the first of equal ones
    return best_first[..., : head["k"]].astype(np.int32)
