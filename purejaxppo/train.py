"""`python -m purejaxppo.train`: flags to configuration to run.

Defaults, then the environment's preset, then `--preset`, then flags: a flag always
wins, and `--print-config` says where every value comes from.
"""

import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
import time
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Annotated, Any

from purejaxppo.config import PAIRS, Config, Hypers
from purejaxppo.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_STRICT,
    EXIT_USAGE,
    ConfigError,
    PurejaxppoError,
    TrainingStopped,
)
from purejaxppo.run import layers
from purejaxppo.run.options import RESUMABLE, Options, validate_options
from purejaxppo.validation import validate


def _sentences(cls: type) -> dict[str, str]:
    """Field name -> the sentence under it, read from the source."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            sentence = ast.literal_eval(text.value)
            found[ast.unparse(field.target)] = " ".join(sentence.split())
    return found


def _flag_fields() -> list[tuple[str, type, str, type]]:
    """(name, type, help, owner) of every flag, options first."""
    rows = []
    for owner in (Options, Config, Hypers):
        sentences = _sentences(owner)
        for field in dataclasses.fields(owner):
            if field.name != "hypers":
                rows.append((field.name, field.type, sentences[field.name], owner))
    return rows


def _flags_class(defaults: dict[str, Any]) -> type:
    """One flat dataclass of all flags, its defaults those that would apply."""
    import tyro

    def annotated(name: str, kind: type, sentence: str) -> Any:
        if name in PAIRS:
            pairs = tyro.conf.arg(help=sentence, metavar="K=V")
            return Annotated[tuple[str, ...], pairs]
        return Annotated[kind, tyro.conf.arg(help=sentence)]

    fields = [
        (
            name,
            annotated(name, kind, sentence),
            dataclasses.field(default=defaults[name]),
        )
        for name, kind, sentence, _ in _flag_fields()
    ]
    return dataclasses.make_dataclass("Flags", fields, frozen=True)


def _given(argv: list[str]) -> set[str]:
    """Names of the flags on the command line."""
    names = set()
    for word in argv:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("-", "_")
            known = {row[0] for row in _flag_fields()}
            names.add(name if name in known else name.removeprefix("no_"))
    return names


def _value_of_flag(argv: list[str], flag: str, default: str) -> str:
    """The value of a flag that must be known before the others are parsed."""
    value = default
    for i, word in enumerate(argv):
        if word == flag and i + 1 < len(argv):
            value = argv[i + 1]
        elif word.startswith(flag + "="):
            value = word.partition("=")[2]
    return value


def _parse_pair(field: str, pair: str) -> tuple[str, Any]:
    key, equals, text = pair.partition("=")
    if not equals or not key.isidentifier():
        raise ConfigError(field, pair, "pairs of the form NAME=VALUE")
    try:
        return key, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return key, text  # a plain word needs no quotes


def _read_flags(
    argv: list[str], config: Config, options: Options
) -> tuple[dict[str, Any], set[str]]:
    """Every flag's value, and the names of those that were given.

    Args:
      config, options: the values of flags that are not given.

    Raises:
      SystemExit: 2 on an unknown flag or a word that is no number, 0 after --help.
    """
    import tyro

    defaults = dataclasses.asdict(options)
    defaults |= {name: layers.value_of(config, name) for name in layers.value_names()}
    for name in PAIRS:
        defaults[name] = tuple(f"{k}={v}" for k, v in defaults[name].items())
    flags = tyro.cli(
        _flags_class(defaults),
        args=argv,
        prog="python -m purejaxppo.train",
        description="Train a policy with PPO, in one jitted program.",
    )
    given = _given(argv)
    values = {field.name: getattr(flags, field.name) for field in fields_of(flags)}
    for name in PAIRS:
        pairs = values[name] if name in given else ()
        values[name] = dict(_parse_pair(name, pair) for pair in pairs)
    return values, given


def parse(argv: list[str]) -> tuple[layers.Layered, Options, set[str]]:
    """Configuration, options, and the names of the flags given.

    Raises:
      ConfigError: a value that cannot be used.
      SystemExit: 2 on an unknown flag, 0 after --help.
    """
    env = _value_of_flag(argv, "--env", Config.env)
    preset = _value_of_flag(argv, "--preset", Options.preset)
    base = layers.resolve(env, preset, {}).config
    values, given = _read_flags(argv, base, Options())
    options = Options(**{f.name: values[f.name] for f in fields_of(Options)})
    validate_options(options)
    chosen = {name: values[name] for name in layers.value_names() if name in given}
    if "engine" in given:
        layers.require_engine_choice(env, options.engine)
        engine = {"engine": options.engine}
        chosen["env_kwargs"] = chosen.get("env_kwargs", {}) | engine
    return layers.resolve(env, preset, chosen), options, given


def _resumed(argv: list[str], run: Path) -> tuple[layers.Layered, Options]:
    """Configuration and options of a run; flags may only change how it is kept.

    Raises:
      ConfigError: no run there, or a flag that says other than the run.
    """
    from purejaxppo.run import folder

    layered, options = folder.read_config(run)
    own = dataclasses.asdict(options)
    own |= {n: layers.value_of(layered.config, n) for n in layers.value_names()}
    values, given = _read_flags(argv, layered.config, options)
    values |= {name: own[name] | values[name] for name in PAIRS}
    for name in sorted(given - RESUMABLE - {"resume", "print_config"}):
        if values[name] != own[name]:
            allowed = f"the run's own {own[name]!r} with --resume"
            raise ConfigError(name, values[name], allowed)
    free = RESUMABLE | {"print_config"}
    options = dataclasses.replace(options, **{n: values[n] for n in free})
    validate_options(options)
    return layered, options


def _resume(argv: list[str], run: Path) -> int:
    layered, options = _resumed(argv, run)
    if options.print_config:
        print(layers.describe(layered, options, _given(argv)))
        return EXIT_OK
    from purejaxppo.run import runner

    return runner.resume(layered, options, run)


def _start(argv: list[str]) -> int:
    layered, options, given = parse(argv)
    validate(layered.config)
    if options.print_config:
        print(layers.describe(layered, options, given))
        return EXIT_OK
    from purejaxppo.run import runner

    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = layered.config.env.replace(":", ".")
    path = Path(options.run_dir or f"runs/{name}-{stamp}")
    command = ["python", "-m", "purejaxppo.train", *argv]
    return runner.start(layered, options, path, command)


def _main(argv: list[str]) -> int:
    run = _value_of_flag(argv, "--resume", "")
    return _resume(argv, Path(run)) if run else _start(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 2 (usage), 3 (strict) or 130."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _main(argv)
    except TrainingStopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        return EXIT_STRICT
    except PurejaxppoError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:  # before the run has a handler of its own
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
