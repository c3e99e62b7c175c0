"""Environments and factories that are wrong in one way each, as users write them."""

import dataclasses

import jax.numpy as jnp
from probe_envs import Probe

from purejaxppo.env import Box, Discrete, EnvSpec

NOT_CALLABLE = 3


@dataclasses.dataclass(frozen=True)
class _Bad(Probe):
    """The probe "observation", wrong in the way that `fault` names."""

    fault: str = ""

    @property
    def spec(self):
        right = super().spec
        if self.fault == "spec_raises":
            raise RuntimeError("no spec today")
        specs = {
            "spec_none": None,
            "no_heads": dataclasses.replace(right, heads={}),
            "heads_list": dataclasses.replace(right, heads=[Discrete(2)]),
            "head_of_none": dataclasses.replace(right, heads={"move": Discrete(0)}),
            "head_size_text": dataclasses.replace(right, heads={"move": Box("2")}),
            "head_unknown": dataclasses.replace(right, heads={"move": "Discrete"}),
            "no_parent": dataclasses.replace(right, heads={"move": Discrete(2, "op")}),
            "limit_zero": dataclasses.replace(right, max_episode_steps=0),
            "no_success": dataclasses.replace(right, success="luck"),
        }
        return specs.get(self.fault, right)

    def reset(self, key):
        state = super().reset(key)
        if self.fault == "reset_raises":
            raise KeyError("start")
        faults = {
            "reset_tuple": (state.obs, state.reward),
            "obs_matrix": state.replace(obs=jnp.zeros((2, 2))),
            "obs_int": state.replace(obs=jnp.zeros((1,), jnp.int32)),
            "reward_vector": state.replace(reward=jnp.zeros((1,))),
            "flag_float": state.replace(terminated=jnp.zeros(())),
            "mask_of_no_head": state.replace(action_mask={"op": jnp.ones(2, bool)}),
            "mask_shape": state.replace(action_mask={"move": jnp.ones(3, bool)}),
            "obs_none": state.replace(obs=None),
        }
        return faults.get(self.fault, state)

    def step(self, state, action):
        if self.fault == "step_raises":
            raise ValueError("this\nwas never\ntried")
        if self.fault == "step_branches":
            return state if action["move"] > 0 else super().step(state, action)
        after = super().step(state, action)
        faults = {
            "step_shape": after.replace(obs=jnp.zeros((2,))),
            "step_dtype": after.replace(reward=jnp.zeros((), jnp.int32)),
            "step_structure": after.replace(metrics={}),
            "step_none": None,
            "step_data": after.replace(data=after.data[:1]),
        }
        return faults.get(self.fault, after)


FAULTS = (
    "spec_raises spec_none no_heads heads_list head_of_none head_size_text "
    "head_unknown no_parent limit_zero no_success reset_raises reset_tuple "
    "obs_matrix obs_int reward_vector flag_float mask_of_no_head mask_shape obs_none "
    "step_raises step_branches step_shape step_dtype step_structure step_none step_data"
).split()


def make(fault: str = "") -> _Bad:
    """The environment of that fault."""
    return _Bad("observation", fault=fault)


def raises():
    """A factory that fails."""
    raise OSError("no licence\nfor this machine")


def needs_argument(size):
    """A factory that cannot be called without arguments."""
    return make(str(size))


def gives_none():
    """A factory that forgot to return."""


def gives_class():
    """A factory that returns a class and no environment."""
    return Probe


def gives_spec():
    """A factory that returns something else."""
    return EnvSpec("spec", {"move": Discrete(2)})


def exits():
    """A factory that ends the process."""
    raise SystemExit(7)
