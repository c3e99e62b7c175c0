"""`python -m purejaxppo.launch [flags] train|sweep ...`: a command as jobs of SLURM.

    python -m purejaxppo.launch --partition gpu --gpus 1 --minutes 480 \
        train --env hammer --resume-or-start RUN
    python -m purejaxppo.launch --workers 8 sweep --env hammer --param ... --run-dir DIR

A job that is preempted, or whose time ends, saves, is put into the queue again, and
then goes on. Several workers are one array of jobs. The command's flags are checked
before anything is submitted; submitit (purejaxppo[slurm]) talks to the queue.
"""

from purejaxppo.run import process

if __name__ == "__main__":  # before the imports below, which take a second
    process.end_on_signals()

import dataclasses
import importlib.util
import sys
from typing import Annotated, Literal

import tyro

from purejaxppo import train
from purejaxppo.errors import EXIT_OK, ConfigError, StorageError, first_line
from purejaxppo.ranges import Number, Text, Whole, check_ranges
from purejaxppo.run import flags
from purejaxppo.run.job import Job
from purejaxppo.sweep import command as sweep

_COMMANDS = ("train", "sweep")


@dataclasses.dataclass(frozen=True)
class Launch:
    """Where and how the jobs run."""

    cluster: Literal["slurm", "local"] = "slurm"
    """The queue; "local" runs the jobs here, in the background."""
    partition: Annotated[str, Text()] = ""
    """Partition of SLURM; "" for its default."""
    minutes: Annotated[int, Whole(1)] = 240
    """Time limit of a job, after which it saves and is put into the queue again."""
    cpus: Annotated[int, Whole(1)] = 4
    """Cores of each job."""
    gpus: Annotated[int, Whole(0)] = 0
    """GPUs of each job."""
    memory_gb: Annotated[float, Number(0.1, 1e5)] = 16.0
    """Memory of each job, in GB."""
    workers: Annotated[int, Whole(1, 10_000)] = 1
    """Number of jobs with the same command, for a sweep."""
    signal_seconds: Annotated[int, Whole(1)] = 90
    """How long before the end of its time a job is told to save; 30 for "local"."""
    requeues: Annotated[int, Whole(0)] = 100
    """How often a job goes on after its time has ended."""
    log_dir: Annotated[str, Text()] = "jobs"
    """Folder for the output of the jobs."""


def split(argv: list[str]) -> tuple[list[str], str, list[str]]:
    """Split the words into our own flags, the command, and its flags.

    Raises:
      ConfigError: there is no command.
    """
    for index, word in enumerate(argv):
        if word in _COMMANDS:
            return argv[:index], word, argv[index + 1 :]
    raise ConfigError("command", " ".join(argv), f"one of {', '.join(_COMMANDS)}")


def check_command(given: Launch, command: str, words: list[str]) -> None:
    """Check the flags of a command as it would do itself, before it waits in a queue.

    Raises:
      ConfigError: a flag that the command refuses, or one that a job needs is missing.
      SystemExit: 2 on an unknown flag, 0 after --help.
    """
    if command == "sweep":
        own, rest = sweep.parse(words)
        if own.resume:
            return
        if not own.run_dir:
            raise ConfigError("run_dir", "", "the folder that all workers share")
        sweep.make_plan(own, rest)
        return
    if given.workers > 1:
        raise ConfigError("workers", given.workers, "1 for train; a sweep has more")
    if "resume_or_start" not in flags.parse_given(words):
        allowed = "the folder with which a job begins, and goes on in the next one"
        raise ConfigError("resume_or_start", "", allowed)
    train.parse_checked(words)


def submit(given: Launch, command: str, words: list[str]) -> list[str]:
    """Submit the jobs of a command; return their numbers.

    Args:
      given: where and how they run.
      command: "train" or "sweep".
      words: its flags.

    Raises:
      ConfigError: submitit or the queue is missing, or refuses the jobs.
      StorageError: the folder of the output cannot be written.
    """
    if importlib.util.find_spec("submitit") is None:
        allowed = "what is installed: pip install 'purejaxppo[slurm]' (submitit)"
        raise ConfigError("cluster", given.cluster, allowed)
    import submitit

    try:
        executor = submitit.AutoExecutor(
            given.log_dir,
            cluster=given.cluster,
            slurm_max_num_timeout=given.requeues,
            local_max_num_timeout=given.requeues,
        )
        executor.update_parameters(
            name=f"purejaxppo-{command}",
            timeout_min=given.minutes,
            cpus_per_task=given.cpus,
            gpus_per_node=given.gpus,
            mem_gb=given.memory_gb,
            **_of_cluster(given),
        )
        job = Job([f"purejaxppo.{command}", *words])
        with executor.batch():
            jobs = [executor.submit(job) for _ in range(given.workers)]
    except OSError as error:
        raise StorageError(given.log_dir, error) from None
    except RuntimeError as error:  # the queue is not here, or refuses them
        allowed = f"a queue that takes the jobs ({first_line(error)})"
        raise ConfigError("cluster", given.cluster, allowed) from None
    return [job.job_id for job in jobs]


def _of_cluster(given: Launch) -> dict[str, object]:
    if given.cluster == "local":
        return {}
    partition = {"slurm_partition": given.partition} if given.partition else {}
    return {"slurm_signal_delay_s": given.signal_seconds, **partition}


def _main(argv: list[str]) -> int:
    own, command, words = split(argv)
    given = tyro.cli(Launch, args=own, prog="python -m purejaxppo.launch")
    check_ranges(given)
    check_command(given, command, words)
    numbers = submit(given, command, words)
    print(f"submitted {', '.join(numbers)}; output in {given.log_dir}")
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 2 (usage) or 4 (storage)."""
    argv = sys.argv[1:] if argv is None else argv
    return process.exit_code(lambda: _main(argv))


if __name__ == "__main__":
    process.run(main)
