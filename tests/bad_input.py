"""Bad command lines, drawn from a seed, and what must come of them.

`command_lines` gives them; `run_command_line` gives one to the command line in this
process and says what is wrong with the answer. Those and `bad_config_files` are run by

    python tests/bad_input.py [SEED]
"""

import contextlib
import io
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import bad_envs

from purejaxppo import train
from purejaxppo.config import Config
from purejaxppo.errors import EXIT_USAGE
from purejaxppo.hypers import Hypers
from purejaxppo.ranges import Number, Range, Whole, ranges_of
from purejaxppo.run import launch
from purejaxppo.run.options import Options

_PROBE = (
    "--env probe_envs:make --env-kwargs kind=observation --num-envs 4 --num-steps 8 "
    "--num-minibatches 2 --total-timesteps 192 --hidden-sizes 8 "
    "--critic-hidden-sizes 8 --no-tensorboard --no-report"
).split()
_NUMBERS = ("nan", "inf", "-inf", "1e308", "-1e308", "1e39", "10" * 12, "-" + "9" * 12)
_WORDS = ("many", "", "0x1g", "1,5", "None", "[]", "{}", "1_", "--", "\u0663x")


class CommandLine(NamedTuple):
    """Words that must be refused.

    Attributes:
      name: of the case.
      argv: the words; "{folder}" in them is an empty folder of the case's own.
      says: what the sentence must contain; tyro's own errors have to name the flag.
    """

    name: str
    argv: list[str]
    says: str


class Accepted(Exception):  # noqa: N818
    """Training would begin."""


# --- command lines ------------------------------------------------------------------


def command_lines(seed: int = 0) -> list[CommandLine]:
    """All bad command lines of a seed, at least 200."""
    draw = random.Random(seed)
    cases = [*_fields(draw), *_factories(), *_arguments(draw), *_sizes(draw)]
    cases += [*_combinations(), *_paths()]
    return [_named(case) for case in cases]


def _named(case: CommandLine) -> CommandLine:
    return case._replace(name=f"{case.name}: {' '.join(case.argv[-4:])[:60]!r}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _fields(draw: random.Random) -> Iterator[CommandLine]:
    """Each field with values that are outside of its range."""
    ranges: dict[str, Range] = {}
    for cls in (Config, Hypers, Options):
        ranges |= {n: r for n, r in ranges_of(cls).items() if n != "hypers"}
    for name, range_ in ranges.items():
        for word in _outside(range_, draw):
            argv = [*_PROBE, f"{_flag(name)}={word}"]
            says = word if type(range_).__name__ == "_Truth" else name
            yield CommandLine(f"field {name}", argv, says)


def _outside(range_: Range, draw: random.Random) -> list[str]:
    """Words that a flag of that range must refuse."""
    if isinstance(range_, Whole):
        near = [range_.low - 1, range_.below]
        words = map(str, [draw.choice(near), near[-1] * draw.randint(2, 99)])
        return [*words, draw.choice(_NUMBERS[:6]), draw.choice(_WORDS)]
    if isinstance(range_, Number):
        far = draw.choice(["1e308", "-1e308", "1e39", "-1e39", "1" * 300])
        off = [x for x in ("inf", "-inf") if float(x) != range_.off]
        return ["nan", far, draw.choice(off), draw.choice(_WORDS)]
    if type(range_).__name__ in ("_Truth", "_OneOf", "Widths", "OneOfOrFactory"):
        return [draw.choice(["maybe", "tanhh", "-3", "1e9"])]
    return []


def _factories() -> Iterator[CommandLine]:
    """Environments that are missing, fail, or are not what the protocol says."""
    names = (
        "hamer :make probe_envs: probe_envs probe_envs:nothing no.such:make .:make "
        "..tests:make probe_envs:make:twice probe_envs:make.spec bad_imports:make "
        "bad_envs:NOT_CALLABLE bad_envs:raises bad_envs:needs_argument "
        "bad_envs:gives_none bad_envs:gives_class bad_envs:gives_spec bad_envs:exits "
        "gymnax:NoSuchThing-v0 gymnax: brax:nothing gymnasium:nothing gymnasium: "
        "os:system os:getcwd json:loads sys:exit probe_envs:HeadsProbe.reset "
        "a\u00e9:b 1:2"
    ).split()
    for name in names:
        library = name.partition(":")[0]
        says = library if library in ("gymnax", "brax") else "env"
        yield CommandLine("factory", ["--env", name], says)
    for fault in bad_envs.FAULTS:
        argv = ["--env", "bad_envs:make", "--env-kwargs", f"fault={fault}"]
        yield CommandLine("environment", argv, "")
    for name in ("custom_distributions:nothing", "os:getcwd", "no.such:thing", ":"):
        argv = [*_PROBE, "--env-kwargs", "continuous=True", "--distribution", name]
        yield CommandLine("distribution", argv, "distribution")


def _arguments(draw: random.Random) -> Iterator[CommandLine]:
    """Keyword arguments of the environment, and values of single heads."""
    words = ["kind", "=both", "kind==", "kind=both=3", "1=2", "a b=3", "kind=[1,", "é"]
    words += ["class=3", "speed=2", "kind=None", "kind=3", "limit=-1"]
    words += ["limit=0", "limit=1e9", "kind={1:2}", "kind=" + "(" * 300, "=", ""]
    words += ["limit=" + "9" * 5000, "kind=\\x", "limit=2.5"]
    for word in words:
        argv = ["--env", "probe_envs:make", "--env-kwargs", word]
        yield CommandLine("argument", argv, "")
    for flag in ("head-entropy-coef", "head-entropy-floor", "head-entropy-coef-final"):
        for word in ("move", "move=x", "arm=0.1", f"move={draw.choice(_NUMBERS[3:])}"):
            yield CommandLine("head", [*_PROBE, f"--{flag}", word], flag[:12])
        yield CommandLine("head", [*_PROBE, f"--{flag}", "move=(1,)"], "")


def _sizes(draw: random.Random) -> Iterator[CommandLine]:
    """What is inside every range, and larger than any memory or any int32."""
    size = str(10**9 + draw.randint(0, 9))
    million = str(10**6 + draw.randint(0, 9))
    huge = ["--total-timesteps", "2000000000"]
    for flags in (
        ["--num-envs", size],
        ["--num-steps", size],
        ["--num-envs", million, "--num-steps", million],
        ["--num-envs", "1000000", "--num-steps", "2000", "--num-evals", "1"],
        ["--num-starts", size, "--reset", "pool"],
        ["--num-minibatches", size],
        ["--num-seeds", size],
        ["--num-seeds", "60000", "--hidden-sizes", "4096", "4096"],
        ["--hidden-sizes", "65535", "65535"],
        ["--critic-hidden-sizes", *["65535"] * 3],
        ["--core", "lstm", "--core-size", "65535"],
        ["--eval-episodes", "60000", "--eval-blocks", "30000"],
        ["--num-demonstrations", size],
        ["--num-demonstrations", "3", "--cloning-batch", size],
        ["--num-evals", size, "--num-envs", "2", "--num-steps", "1"],
        ["--num-envs", size, "--num-steps", "1", "--num-minibatches", "1"],
    ):
        yield CommandLine("size", ["--env", "deck", *huge, *flags], "")


def _combinations() -> Iterator[CommandLine]:
    """Values that do not go together."""
    for text, says in (
        ("--num-minibatches 7", "num_minibatches"),
        ("--core gru --sequence-length 5", "sequence_length"),
        ("--total-timesteps 31", "total_timesteps"),
        ("--min-std 0.5 --init-std 0.1", "min_std"),
        ("--min-std 2 --init-std 2 --max-std 1", "min_std"),
        ("--anchor", "anchor"),
        ("--normalize-observations fixed", "normalize_observations"),
        ("--learning-rate-schedule kl", "target_kl"),
        ("--entropy-coef 0 --entropy-floor 0.1", "entropy_floor"),
        ("--engine mjx", "engine"),
        ("--preset fast", "preset"),
        ("--seed 4294967295 --num-seeds 2", "seed"),
        ("--run-dir a --resume b", "resume"),
        ("--resume /no/such/run", "resume"),
        ("--demonstrations /no/such/file.npz", "demonstrations"),
        ("--demonstration-noise inf", "demonstration_noise"),
        ("--eval-seed 4294967296", "eval_seed"),
        ("--entropy-coef 1e308", "entropy_coef"),
        ("--learning-rte 1", "learning-rte"),
        ("word", "word"),
        ("--num-envs", "num-envs"),
        ("--num-envs 4 4", "4"),
        ("--num-envs 4 --num-envs x", "num-envs"),
        ("--stagger False", "False"),
        ("--core rnn", "core"),
        ("--env", "env"),
        ("--resume", "resume"),
    ):
        yield CommandLine("combination", [*_PROBE, *text.split()], says)
    yield CommandLine("combination", [*_PROBE, "--hidden-sizes"], "hidden")


def _paths() -> Iterator[CommandLine]:
    """Folders and files that cannot be used."""
    for path in ("{folder}/a\nb", "{folder}/a\0b", "{folder}/a\tb", "{folder}/a\x1bb"):
        yield CommandLine("path", [*_PROBE, "--run-dir", path], "run_dir")
        yield CommandLine("path", ["--resume", path], "resume")
        yield CommandLine("path", [*_PROBE, "--demonstrations", path], "")
    for path in ("/dev/null/run", "/proc/run", "{folder}/" + "n" * 300, "\0"):
        yield CommandLine("path", [*_PROBE, "--run-dir", path], "run_dir")
    for path in ("/dev/null", "{folder}", "/proc/self/mem", "{folder}/" + "n" * 300):
        yield CommandLine("path", ["--resume", path], "resume")
    for path in ("/dev/null", "{folder}", "/proc/self/mem", "{folder}/" + "n" * 300):
        argv = [*_PROBE, "--num-demonstrations", "2", "--demonstrations", path]
        yield CommandLine("path", argv, "demonstrations")


# --- running one --------------------------------------------------------------------


def run_command_line(case: CommandLine, folder: Path) -> list[str]:
    """What is wrong with the answer to a bad command line; nothing is right.

    Args:
      case: the command line.
      folder: empty; nothing may be in it afterwards.
    """
    argv = [word.replace("{folder}", str(folder)) for word in case.argv]
    if not any(word.startswith(("--run-dir", "--resume")) for word in argv):
        argv += ["--run-dir", str(folder / "run")]
    wrong = answer(argv, case.says)
    if left := [path.name for path in folder.iterdir()]:
        wrong.append(f"left {left}")
    return wrong


def answer(argv: list[str], says: str) -> list[str]:
    """What is wrong with the answer to words that must be refused.

    Args:
      argv: the words.
      says: what the sentence has to contain.
    """
    output, errors, wrong = io.StringIO(), io.StringIO(), []
    begins = mock.patch.object(launch, "_run", side_effect=Accepted)
    try:
        with begins, contextlib.redirect_stdout(output):
            with contextlib.redirect_stderr(errors):
                code, by_tyro = train.main(argv), False
    except SystemExit as error:
        code, by_tyro = error.code, True
    except Accepted:
        return ["accepted"]
    except BaseException as error:  # whatever escapes is the finding
        return [f"{type(error).__name__}: {str(error)[:200]}"]
    text = errors.getvalue()
    if code != EXIT_USAGE:
        wrong.append(f"exit code {code}")
    if not by_tyro and (text.count("\n") != 1 or not text.strip()):
        wrong.append(f"not one line: {text[:300]!r}")
    plain = text.replace("-", "_")
    if says.replace("-", "_") not in plain:
        wrong.append(f"does not say {says!r}: {text[:300]!r}")
    if "Traceback" in text:
        wrong.append("a traceback")
    return wrong


def findings(
    cases: list, run_one: Callable[[Any, Path], list[str]]
) -> dict[str, list[str]]:
    """Case -> what is wrong with its answer, of those with something wrong.

    Args:
      cases: command lines or config files.
      run_one: runs one of them in an empty folder.
    """
    found = {}
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            if wrong := run_one(case, Path(folder)):
                found[case.name] = wrong
    return found


def main(seed: int) -> int:
    """Run all cases of a seed; how many are answered wrongly."""
    import bad_config_files

    lines, files = command_lines(seed), bad_config_files.config_files(seed)
    found = findings(lines, run_command_line)
    found |= findings(files, bad_config_files.run_config_file)
    for name, wrong in found.items():
        print(f"{name}: {'; '.join(wrong)}")
    print(f"{len(lines)} command lines, {len(files)} config files: {len(found)} wrong")
    return len(found)


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)))
