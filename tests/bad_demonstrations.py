"""Damaged and wrong demonstrations files, by seed, and what loading makes of each.

`python tests/bad_demonstrations.py` tries all of them and counts the outcomes.
"""

import collections
import dataclasses
import functools
import io
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from helpers import small_config
from probe_envs import HeadsProbe

from purejaxppo.env import Action, Box, EnvSpec, State
from purejaxppo.errors import ConfigError
from purejaxppo.ppo.learner import make_learner
from purejaxppo.run import demonstrations


class Demonstrated(HeadsProbe):
    """Its expert takes an operation that needs a slot, where it may."""

    def demonstrator(self, state: State) -> Action:
        op = jnp.argmax(state.action_mask["op"] & jnp.array([False, True, True, False]))
        slot = jnp.argmax(state.action_mask["slot"][op]).astype(jnp.int32)
        own = {"op": op.astype(jnp.int32), "slot": slot}
        return super().demonstrator(state) | own

    def step(self, state: State, action: Action) -> State:
        """It takes several steps to succeed."""
        state = super().step(state, action)
        success = (state.reward > 1.5).astype(jnp.float32)
        return state.replace(metrics=state.metrics | {"success": success})


ENV = Demonstrated()
CONFIG = small_config(num_demonstrations=4)
REFUSED, SAME = "refused", "same"
_HUGE = 400 * 10**12  # bytes that no machine has


class Bad(NamedTuple):
    """A file that must be refused, or, if only damaged, may still say the same."""

    name: str
    content: bytes
    damaged: bool = False


# --- sound files ---------------------------------------------------------------------


@functools.cache
def sound_file() -> bytes:
    """As a run writes it."""
    collected = jax.jit(make_learner(CONFIG, ENV).collect)(jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / demonstrations.FILE
        demonstrations.save(path, collected, ENV)
        return path.read_bytes()


def sound_arrays() -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(sound_file())) as file:
        return dict(file)


def load(content: bytes, folder: Path):
    """The demonstrations of a file with that content."""
    path = folder / demonstrations.FILE
    path.write_bytes(content)
    return demonstrations.load(path, ENV, CONFIG)


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npy_with(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """A member whose header is that text, true or not."""
    text = header.encode("latin1") + b"\n"
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED):
    """An .npz of such members, each with its true checksum."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        for name, content in members.items():
            zipped.writestr(zipfile.ZipInfo(f"{name}.npy"), content, compression)
    return file.getvalue()


def sound_members() -> dict[str, bytes]:
    return {name: npy(array) for name, array in sound_arrays().items()}


# --- damages -------------------------------------------------------------------------


def structure(content: bytes) -> np.ndarray:
    """Positions of all that is in the file beside the data of its members."""
    is_data = np.zeros(len(content), bool)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        for member in file.infolist():
            start = member.header_offset + 30 + len(member.filename)
            is_data[start : start + member.compress_size] = True
    return np.flatnonzero(~is_data)


def flipped_bits(num: int, rng: np.random.Generator) -> Iterator[Bad]:
    """Anywhere in a compressed and in a plain file; each second in their structure."""
    files = {
        "deflated": sound_file(),
        "stored": archive(sound_members(), zipfile.ZIP_STORED),
    }
    places = {name: structure(content) for name, content in files.items()}
    for i in range(num):
        name = list(files)[i // 2 % 2]
        content = bytearray(files[name])
        place = rng.choice(places[name]) if i % 2 else rng.integers(len(content))
        bit = int(rng.integers(8))
        content[place] ^= 1 << bit
        yield Bad(f"{name}: bit {bit} of byte {place} flipped", bytes(content), True)


def damages(num: int, rng: np.random.Generator) -> Iterator[Bad]:
    """Files that are cut, overwritten, shifted or longer than they were."""
    content = sound_file()
    for length in (0, 1, 4, 21, 22, len(content) - 1):
        yield Bad(f"cut to {length} bytes", content[:length], True)
    for _ in range(num):
        a, b = sorted(rng.integers(0, len(content), 2).tolist())
        noise = rng.bytes(int(rng.integers(1, 65)))
        head, tail = content[:a], content[a:]
        yield Bad(f"cut to {a} bytes", head, True)
        yield Bad(f"without bytes {a} to {b}", head + content[b + 1 :], True)
        yield Bad(f"zeros over {a} to {b}", head + bytes(b - a) + content[b:], True)
        yield Bad(f"noise at {a}", head + noise + tail[len(noise) :], True)
        yield Bad(f"noise put in at {a}", head + noise + tail, True)
    yield Bad("noise at the end", content + rng.bytes(50), True)
    yield Bad("noise at the start", rng.bytes(50) + content, True)


# --- files that are whole, and wrong -------------------------------------------------


def wrong_members() -> Iterator[Bad]:
    """Members that are no sound arrays, under true checksums."""
    members, arrays = sound_members(), sound_arrays()
    shape = arrays["obs"].shape

    def header(descr: object, shape: object, order: bool = False) -> str:
        return repr({"descr": descr, "fortran_order": order, "shape": shape})

    contents = {
        "400 TB": npy_with(header("<f4", (_HUGE // 4,))),
        "400 TB of the right rank": npy_with(header("<f4", (4, 7, _HUGE // 112))),
        "more than 64 bits": npy_with(header("<f4", (2**70, 2**70))),
        "0 times too much": npy_with(header("<f4", (0, 2**70))),
        "negative": npy_with(header("<f4", (-1, 4))),
        "doubly negative": npy_with(header("<f4", (-4, -7, 4)), bytes(448)),
        "no dtype": npy_with(header("nonsense", shape)),
        "no shape": npy_with(header("<f4", "many")),
        "no dictionary": npy_with("[1, 2"),
        "code for a dictionary": npy_with("__import__('os').getcwd()"),
        "a header of 60,000 blanks": npy_with(" " * 60_000),
        "a header longer than the member": b"\x93NUMPY\x01\x00\xff\xff{",
        "a header of Python 2": npy_with(
            "{'descr':'<f4','fortran_order':0,'shape':1L}"
        ),
        "format 9": npy_with(header("<f4", shape), version=9),
        "data cut": members["obs"][:-1],
        "data too long": members["obs"] + b"\0",
        "nothing": b"",
        "a pickle": npy(arrays["obs"].astype(object), allow_pickle=True),
        "claims to be a pickle": npy_with(header("|O", shape), bytes(8 * 112)),
        "records": npy(np.zeros(shape, [("a", "<f4")])),
    }
    for name, content in contents.items():
        yield Bad(f"obs: {name}", archive(members | {"obs": content}))
    broken_bool = bytearray(members["valid"])
    broken_bool[-arrays["valid"].size] = 2
    yield Bad("valid: a byte of 2", archive(members | {"valid": bytes(broken_bool)}))


def wrong_arrays() -> Iterator[Bad]:
    """Members that are missing, or of another dtype or shape."""
    members, arrays = sound_members(), sound_arrays()
    for name, array in arrays.items():
        without = {other: x for other, x in members.items() if other != name}
        yield Bad(f"{name}: missing", archive(without))
        others = [array[None], np.zeros(array.shape, "U3")]
        if name != "env":
            wide = array.astype(array.dtype.newbyteorder(">"))
            others += [array.astype(complex), np.resize(array, (2, 3, 1)), wide]
        for other in others:
            if (other.shape, other.dtype) != (array.shape, array.dtype):
                kind = f"{name}: {other.dtype.str} {other.shape}"
                yield Bad(kind, archive(members | {name: npy(other)}))
    for name in ("action/other", "nonsense", "obs/actor"):
        extra = {name: members["obs"]}
        yield Bad(f"{name}: one too many", archive(members | extra))


def wrong_values() -> Iterator[Bad]:
    """Arrays of the right kind whose numbers cannot be."""
    arrays = sound_arrays()

    def changed(name: str, index: object, value: object) -> Bad:
        array = arrays[name].copy()
        array[index] = value
        members = sound_members() | {name: npy(array)}
        return Bad(f"{name}: {value} at {index}", archive(members))

    first = (0, 0)
    for name in ("obs", "reward", "action/aim"):
        for value in (np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38):
            yield changed(name, first, value)
    for value in (1.0001, -1.5, 2.0):
        yield changed("action/aim", first, value)
    for name, n in (("op", 4), ("slot", 3), ("cards", 5)):
        for value in (-1, n, n + 7, 2**31 - 1, -(2**31)):
            yield changed(f"action/{name}", first, value)
    yield changed("action/cards", first, (1, 1))
    yield changed("valid", ..., False)
    yield changed("valid", (slice(None), 0), False)
    yield changed("format", (), 2)
    yield changed("env", (), "probe_cue")
    yield from _masked(arrays, changed)


def _masked(arrays, changed) -> Iterator[Bad]:
    """The mask of a head that matters forbids what was chosen."""
    at = next(zip(*np.nonzero(arrays["valid"] & arrays["active/op"]), strict=True))
    yield changed("action_mask/op", (*at, arrays["action/op"][at]), False)
    slot = arrays["valid"] & arrays["active/op"] & np.isin(arrays["action/op"], (1, 2))
    at = next(zip(*np.nonzero(slot), strict=True))
    row = (arrays["action/op"][at], arrays["action/slot"][at])
    yield changed("action_mask/slot", (*at, *row), False)
    at = next(zip(*np.nonzero(arrays["valid"] & arrays["active/cards"]), strict=True))
    yield changed("action_mask/cards", (*at, arrays["action/cards"][at][1]), False)


def wrong_archives() -> Iterator[Bad]:
    """Zip archives that are none of ours, and files that are no archives."""
    content, members = sound_file(), sound_members()
    yield Bad("an .npy", npy(sound_arrays()["obs"]))
    yield Bad("an .npy of 400 TB", npy_with("{'descr': '<f4', 'shape': (9,)}"))
    yield Bad("a pickle", b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00}\x94.")
    yield Bad("text", b"hello")
    yield Bad("no members", archive({}))
    yield Bad("bzip2", archive(members, zipfile.ZIP_BZIP2))
    yield Bad("lzma", archive(members, zipfile.ZIP_LZMA))
    yield Bad("a member that is no .npy", content.replace(b"obs.npy", b"obs.txt"))
    yield Bad("two members of one name", content.replace(b"reward.npy", b"active.npy"))
    encrypted, size, wrong_sum = (bytearray(content) for _ in range(3))
    entry = content.index(b"PK\x01\x02")  # the first of the central directory
    encrypted[entry + 8] |= 1
    size[entry + 24 : entry + 28] = (2**32 - 2).to_bytes(4, "little")
    wrong_sum[entry + 16] ^= 0xFF
    yield Bad("an encrypted member", bytes(encrypted))
    yield Bad("a member of 4 GB", bytes(size))
    yield Bad("a member of another checksum", bytes(wrong_sum))


def bad_files(seed: int = 0, num_flips: int = 400, num_damages: int = 20) -> list[Bad]:
    """All of them; by seed which bits, and what is cut or overwritten.

    Args:
      seed: of the damages.
      num_flips: files with one flipped bit.
      num_damages: of each kind of larger damage.
    """
    rng = np.random.default_rng(seed)
    return [
        *flipped_bits(num_flips, rng),
        *damages(num_damages, rng),
        *wrong_members(),
        *wrong_arrays(),
        *wrong_values(),
        *wrong_archives(),
    ]


def outcome(bad: Bad, folder: Path) -> str:
    """REFUSED or SAME where all is well, else what went wrong."""
    try:
        loaded = load(bad.content, folder)
    except ConfigError as error:
        return REFUSED if "\n" not in str(error) else f"many lines: {error}"
    except (Exception, MemoryError) as error:
        return f"traceback: {type(error).__name__}: {error}"
    if not bad.damaged:
        return "taken"
    expected = load(sound_file(), folder)
    leaves = zip(jax.tree.leaves(loaded), jax.tree.leaves(expected), strict=True)
    equal = all(a.tobytes() == b.tobytes() for a, b in leaves)
    return SAME if equal else "taken with other numbers"


# --- demonstrators -------------------------------------------------------------------


BAD_KINDS = ("fails", "nan", "far", "blind", "sound")


@dataclasses.dataclass(frozen=True)
class BadDemonstrator:
    """Two steps, then success; its expert is not what it should be.

    `kind` is "fails" (never succeeds), "nan" or "far" (actions), "blind" (observes
    NaN) or "sound"; or, as an array, its index in BAD_KINDS, so that one compiled
    program serves all of them.
    """

    kind: str | jax.Array

    def _is(self, name: str) -> jax.Array:
        number = BAD_KINDS.index(self.kind) if isinstance(self.kind, str) else self.kind
        return jnp.asarray(number == BAD_KINDS.index(name))

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("bad_demonstrator", {"move": Box(2)}, 4, "success")

    def reset(self, key: jax.Array) -> State:
        zero, no = jnp.zeros((), jnp.float32), jnp.zeros((), bool)
        obs = jnp.stack([jax.random.uniform(key), zero])
        return State(obs, obs, zero, no, no, metrics={"success": zero})

    def step(self, state: State, action: Action) -> State:
        del action
        count = state.data[1] + 1
        obs = jnp.stack([state.data[0], count])
        success = (count >= 2) & ~self._is("fails")
        return state.replace(
            data=obs,
            obs=jnp.where(self._is("blind"), jnp.nan, obs),
            metrics={"success": success.astype(jnp.float32)},
        )

    def demonstrator(self, state: State) -> Action:
        wrong = self._is("nan") | self._is("far")
        value = jnp.where(self._is("nan"), jnp.nan, 3.0)
        # Sound at first, so that only a look at every step finds it.
        value = jnp.where(wrong & (state.data[1] > 0), value, 0.5)
        return {"move": jnp.full((2,), value, jnp.float32)}


def bad_demonstrator(kind: str) -> BadDemonstrator:
    """Build the environment; see `BadDemonstrator`."""
    return BadDemonstrator(kind)


def main() -> int:
    """Try all files; the exit code is 1 if any was not refused as it should be."""
    outcomes = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for bad in bad_files(int(sys.argv[1]) if len(sys.argv) > 1 else 0):
            what = outcome(bad, Path(folder))
            outcomes[what.split(":")[0]] += 1
            if what not in (REFUSED, SAME):
                print(f"{bad.name}: {what}"[:200])
    print(dict(outcomes))
    return int(not set(outcomes) <= {REFUSED, SAME})


if __name__ == "__main__":
    sys.exit(main())
