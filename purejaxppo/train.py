"""`python -m purejaxppo.train`: start or resume a run from the command line.

Values come from the defaults, then the environment's "default" preset (where it has no
presets, from `purejaxppo.defaults`), then `--preset`, then flags; later ones replace
earlier ones. `--print-config` prints the source of each value.
"""

from purejaxppo.run import process

if __name__ == "__main__":  # before the imports below, which take a second
    process.end_on_signals()

import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from purejaxppo import presets, registry
from purejaxppo.config import (
    Config,
    Resolved,
    resolve,
    value_names,
    value_of,
    with_overrides,
)
from purejaxppo.errors import (
    EXIT_OK,
    ConfigError,
)
from purejaxppo.ranges import field_names
from purejaxppo.run import flags, record
from purejaxppo.run.options import (
    OF_RESUME,
    RESUMABLE,
    Options,
    gives_policy,
    validate_options,
)
from purejaxppo.validation import validate, validate_first_policy


def parse(argv: list[str]) -> tuple[Resolved, Options]:
    """Parse the command line of a new run: configuration, sources, and options.

    Raises:
      ConfigError: a value that cannot be used.
      SystemExit: 2 on an unknown flag, 0 after --help.
    """
    origin = flags.parse_origin(argv)
    base = resolve(origin.env, origin.preset, origin.values).config
    values, options = flags.parse_flags(argv, base, Options())
    validate_options(options)
    for name in OF_RESUME:
        if getattr(options, name):
            raise ConfigError(name, True, "False without --resume")
    changed = presets.merge(origin.values, _changes(base, values))
    if options.engine != Options.engine:
        if not registry.takes_argument(origin.env, "engine"):
            allowed = f"auto: {origin.env} has no choice of engine"
            raise ConfigError("engine", options.engine, allowed)
        engine = {"env_kwargs": {"engine": options.engine}}
        changed = presets.merge({"env_kwargs": {}} | changed, engine)
    resolved = resolve(origin.env, origin.preset, changed)
    return _without_imitation(resolved, options, flags.parse_given(argv)), options


def parse_checked(argv: list[str]) -> tuple[Resolved, Options]:
    """Parse the command line of a new run, and check how its values go together.

    Raises:
      ConfigError: a value that cannot be used.
      SystemExit: 2 on an unknown flag, 0 after --help.
    """
    resolved, options = parse(argv)
    validate(resolved.config)
    validate_first_policy(resolved.config, gives_policy(options))
    return resolved, options


def _without_imitation(
    resolved: Resolved, options: Options, given: Mapping[str, str]
) -> Resolved:
    """Switch off what `init_from` replaces: cloning, and the warm-up of its critic."""
    config, sources = resolved
    replaced = ["num_demonstrations"] if gives_policy(options) else []
    has_critic = options.init_from and options.init_parts != "policy"
    if has_critic and "critic_warmup" not in given:
        replaced.append("critic_warmup")
    off = dict.fromkeys((n for n in replaced if value_of(config, n)), 0)
    return Resolved(
        with_overrides(config, off), sources | dict.fromkeys(off, presets.INIT_FROM)
    )


def _changes(base: Config, values: Mapping[str, object]) -> dict[str, object]:
    """Return the values that differ from `base`; for dictionaries, the entries."""
    changed = {}
    for name, value in values.items():
        old = value_of(base, name)
        if value != old:
            if isinstance(value, dict) and isinstance(old, dict):
                value = {k: x for k, x in value.items() if k not in old or old[k] != x}
            changed[name] = value
    return changed


def parse_resumed(argv: list[str], run: Path) -> tuple[Resolved, Options]:
    """Parse the command line of a resumed run. Flags cannot change its training.

    Args:
      argv: the words of the command line.
      run: folder of the run.

    Raises:
      ConfigError: there is no run, or a flag differs from the run.
      SystemExit: 2 on an unknown flag, 0 after --help.
    """
    resolved, own = record.read_config(run)
    own = dataclasses.replace(own, **dict.fromkeys(OF_RESUME, False))
    values, options = flags.parse_flags(argv, resolved.config, own)
    pairs = {n: (value_of(resolved.config, n), values[n]) for n in value_names()}
    pairs |= {n: (getattr(own, n), getattr(options, n)) for n in field_names(Options)}
    of_command = OF_RESUME | {"resume", "resume_or_start", "print_config"}
    for name in sorted(pairs.keys() - RESUMABLE - of_command):
        was, wanted = pairs[name]
        if wanted != was:
            allowed = f"the run's own {was!r} with --resume"
            raise ConfigError(name, wanted, allowed)
    options = dataclasses.replace(options, resume="", resume_or_start="")
    validate_options(options)
    return resolved, options


def describe(resolved: Resolved, options: Options) -> str:
    """Format a table of all values and their sources."""
    config, sources = resolved
    rows = [
        (name, _show(value_of(config, name)), sources.get(name, presets.DEFAULT))
        for name in value_names()
    ]
    for name, value in dataclasses.asdict(options).items():
        is_default = value == getattr(Options, name)
        source = presets.DEFAULT if is_default else presets.FLAG
        rows.append((name, _show(value), source))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}"
        for name, value, source in rows
    )


def _show(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in value.items()) or "-"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value) if value != "" else "-"


def _resume(argv: list[str], run: Path, given: Mapping[str, str]) -> int:
    resolved, options = parse_resumed(argv, run)
    if options.print_config:
        print(describe(resolved, options))
        return EXIT_OK
    from purejaxppo.run import launch
    from purejaxppo.run.trust import Trust

    factories = given.get("env"), given.get("distribution"), given.get("trunk")
    trust = Trust(*factories, options.trust_env)
    return launch.resume(resolved, options, run, trust)


def _start(argv: list[str]) -> int:
    resolved, options = parse_checked(argv)
    if options.print_config:
        print(describe(resolved, options))
        return EXIT_OK
    from purejaxppo.run import launch

    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = resolved.config.env.replace(":", ".")
    run_dir = options.run_dir or options.resume_or_start
    options = dataclasses.replace(options, run_dir=run_dir, resume_or_start="")
    path = Path(run_dir or f"runs/{name}-{stamp}")
    command = ["python", "-m", "purejaxppo.train", *argv]
    return launch.start(resolved, options, path, command)


def _main(argv: list[str]) -> int:
    given = flags.parse_given(argv)
    paths = ("resume", "resume_or_start", "run_dir", "demonstrations", "init_from")
    for name in paths:
        if given.get(name) == "":
            allowed = "a path, and not the value of a variable that is not set"
            raise ConfigError(name, "", allowed)
    if "resume" in given:
        return _resume(argv, Path(given["resume"]), given)
    queued = given.get("resume_or_start")
    if queued is not None and record.exists(Path(queued)):
        return _resume(argv, Path(queued), given)
    return _start(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 2, 3, 4 or 130.

    2 is a usage error, 3 a fault with `--strict`, 4 a folder that cannot be written,
    and 130 an interrupt.
    """
    argv = sys.argv[1:] if argv is None else argv
    return process.exit_code(lambda: _main(argv))


if __name__ == "__main__":
    process.run(main)
