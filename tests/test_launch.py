"""Commands as jobs of a queue: checked first, stopped in the middle, gone on with."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import TINY

from purejaxppo import launch
from purejaxppo.errors import EXIT_OK, EXIT_USAGE
from purejaxppo.run.job import Job

_LOCAL = ["--cluster", "local"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "--partition gpu",
            "command: got '--partition gpu'; allowed is one of train, ",
        ),
        (
            "train --env hammer",
            "resume_or_start: got ''; allowed is the folder with wh",
        ),
        ("--workers 2 train --resume-or-start x", "workers: got 2; allowed is 1 for t"),
        ("train --resume-or-start x --num-minibatches 7", "num_minibatches: got"),
        (
            "--cpus 0 train --resume-or-start x",
            "cpus: got 0; allowed is a whole number",
        ),
        ("sweep --param gamma=0.9,0.99", "run_dir: got ''; allowed is the folder that"),
        ("sweep --run-dir x --param gama=0,1", "param: got 'gama'; allowed is"),
    ],
)
def test_what_is_wrong_is_said_before_anything_waits(
    words, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert launch.main(words.split()) == EXIT_USAGE
    error = capsys.readouterr().err
    assert error.startswith(sentence)
    assert error.count("\n") == 1


def launched(folder: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command.

    It is a process of its own, because submitit's logger keeps the streams of its first
    use; and it writes to files, because a job here would keep pipes open.
    """
    root, tests = Path(__file__).parent.parent, Path(__file__).parent
    out, errors = folder / "out", folder / "errors"
    with out.open("w") as stdout, errors.open("w") as stderr:
        ran = subprocess.run(
            [sys.executable, "-m", "purejaxppo.launch", *words],
            stdout=stdout,
            stderr=stderr,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(tests)))},
        )
    return ran.returncode, out.read_text(), errors.read_text()


def test_without_a_queue_it_says_so(tmp_path):
    logs = str(tmp_path / "jobs")
    words = ["--log-dir", logs, "train", "--resume-or-start", "x"]
    code, _, errors = launched(tmp_path, *words)
    assert code == EXIT_USAGE
    assert errors.startswith("cluster: got 'slurm'; allowed is a queue that takes")
    assert errors.count("\n") == 1


def test_without_submitit_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    job = ["train", "--resume-or-start", str(tmp_path / "run")]
    assert launch.main([*_LOCAL, *job]) == EXIT_USAGE
    assert "pip install 'purejaxppo[slurm]'" in capsys.readouterr().err


def test_a_job_that_fails_says_with_what(capfd):
    with pytest.raises(RuntimeError, match="train --nothing: ended with exit code 2"):
        Job(["purejaxppo.train", "--nothing"])()


def wait_for(path: Path, text: str, number: int = 1) -> None:
    """Until the files that match have the text so often."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        found = "".join(x.read_text() for x in path.parent.glob(path.name))
        if found.count(text) >= number:
            return
        time.sleep(0.2)
    pytest.fail(f"no {text!r} in {path}: {found}")


def test_a_job_that_is_preempted_saves_and_goes_on(tmp_path):
    run, logs = tmp_path / "run", tmp_path / "jobs"
    flags = [*TINY, "--resume-or-start", str(run), "--checkpoint-every", "0"]
    flags[flags.index("--total-timesteps") + 1] = str(32 * 20_000)
    words = [*_LOCAL, "--log-dir", str(logs), "train", *flags]
    code, out, errors = launched(tmp_path, *words)
    assert code == EXIT_OK, errors
    told = re.fullmatch(r"submitted (\d+); output in (.*)\n", out)
    assert told
    assert told[2] == str(logs)
    queue = int(told[1])  # the process that stands for it
    wait_for(run / "metrics.csv", "\n", 5)
    job = Path(f"/proc/{queue}/task/{queue}/children").read_text().split()[0]
    os.kill(int(job), signal.SIGUSR2)  # as the queue preempts it
    try:
        wait_for(logs / "*.err", "saved; go on with --resume")
        wait_for(logs / "*.err", f"resuming {run} at ")
    finally:
        os.kill(queue, signal.SIGINT)  # as submitit cancels a job
