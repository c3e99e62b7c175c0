"""What is on screen: a terminal, a pipe, and what breaks under one."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress_bar import ProgressBar

from purejaxppo.run import progress as progress_lib
from purejaxppo.run import snapshot as snapshot_lib
from purejaxppo.run.progress import Progress
from purejaxppo.run.snapshot import Snapshot, duration

SNAPSHOT = Snapshot(
    steps=1_230_000,
    total_steps=20_000_000,
    steps_per_second=45_123.0,
    seconds_left=416.0,
    episode_return=-123.456,
    success=0.97,
    approx_kl=0.01,
    worst_block=0.85,
)
EVERYTHING = "1.23M/20M steps  6:56 left  success 97%  worst 85%  return -123  45.1k/s"


class Terminal(io.StringIO):
    """A stream that says it is a terminal; rich takes its size from COLUMNS."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def screen(text: str) -> list[str]:
    """The lines of a terminal that was written this text; one live line at most."""
    lines = [""]
    for code, control, plain in re.findall(
        r"\x1b\[([0-9;?]*[A-Za-z])|([\r\n])|([^\x1b\r\n]+)", text
    ):
        if code == "2K":
            lines[-1] = ""
        elif code == "1A":
            lines.pop()
        elif control == "\n":
            lines.append("")
        lines[-1] += plain
    return [line.rstrip() for line in lines]


def test_a_terminal_shows_messages_above_one_line_with_a_bar():
    stream = Terminal()
    progress = Progress(stream)
    progress.line("run [here]")
    with progress.phase("compiling init"):
        assert screen(stream.getvalue())[0] == "run [here]"
        assert re.fullmatch("━+  compiling init 0 s", screen(stream.getvalue())[1])
    progress.show(SNAPSHOT)
    progress.line("a message")
    run, message, live = screen(stream.getvalue())
    assert (run, message) == ("run [here]", "a message")
    assert re.fullmatch(rf"[━╸╺]+  {re.escape(EVERYTHING)}", live)
    assert len(live) <= 80 - len("^C")  # or an interrupt would wrap the line
    with progress.phase("evaluating", announce=False):
        live = screen(stream.getvalue())[-1]
        assert "1.23M/20M steps  evaluating 0 s  success 97%" in live
    progress.close()
    assert screen(stream.getvalue()) == ["run [here]", "a message", ""]


def test_the_line_moves_on_by_itself(monkeypatch):
    monkeypatch.setattr(progress_lib, "_REFRESH_PER_SECOND", 20)
    stream = Terminal()
    with Progress(stream).phase("compiling init"):
        deadline = time.monotonic() + 10
        while "compiling init 1 s" not in screen(stream.getvalue())[-1]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (200, EVERYTHING),
        (78, EVERYTHING),
        (64, "1.23M/20M steps  6:56 left  success 97%  worst 85%"),
        (40, "1.23M/20M steps  6:56 left"),
        (30, "1.23M/20M steps"),
        (17, "1.23M/20M steps"),
        (6, "1.23M/"),
    ],
)
def test_columns_give_way_where_the_terminal_is_narrow(width, expected):
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    bar = ProgressBar(SNAPSHOT.total_steps, SNAPSHOT.steps)
    columns = snapshot_lib.columns(SNAPSHOT)
    (line,) = console.render_lines(snapshot_lib.row(bar, columns, width))
    text = "".join(segment.text for segment in line).rstrip()
    assert len(text) <= width
    assert text.lstrip("━╸╺").strip() == expected


def test_figures_that_are_not_there_are_not_shown():
    snapshot = SNAPSHOT._replace(
        success=None, worst_block=None, episode_return=float("nan")
    )
    expected = ["1.23M/20M steps", "6:56 left", "45.1k/s"]
    assert snapshot_lib.columns(snapshot) == expected
    snapshot = SNAPSHOT._replace(success=float("nan"), worst_block=1.0)
    assert snapshot_lib.columns(snapshot)[2] == "worst 100%"
    snapshot = SNAPSHOT._replace(success=None, worst_block=-1234.5)
    assert snapshot_lib.columns(snapshot)[2] == "worst -1234"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (45_123, "45.1k"), (999_900, "1M"), (2e9, "2G")],
)
def test_numbers_have_three_digits_and_a_unit(number, text):
    assert snapshot_lib._short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(41.4, "41 s"), (200, "3:20"), (3731, "1:02:11")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_terminal_is_left_as_it_was_found():
    stream, before = Terminal(), (sys.stdout, sys.stderr)
    progress = Progress(stream)
    with pytest.raises(KeyError), progress.phase("compiling init"):
        raise KeyError
    assert screen(stream.getvalue()) == [""]
    progress.show(SNAPSHOT)
    progress.close()
    progress.close()
    assert screen(stream.getvalue()) == [""]
    assert "?25" not in stream.getvalue()  # the cursor was never hidden
    assert (sys.stdout, sys.stderr) == before


def test_colours_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    progress = Progress(stream)
    progress.show(SNAPSHOT)
    progress.line("a message")
    progress.close()
    assert not re.search(r"\x1b\[[0-9;]*m", stream.getvalue().replace("\x1b[0m", ""))
    assert EVERYTHING in stream.getvalue()


def plain_output(stream: io.StringIO) -> list[str]:
    progress = Progress(stream)
    progress.line("run [here]")
    with progress.phase("compiling init"), progress.phase("evaluating", False):
        pass
    progress.show(SNAPSHOT)  # too soon after the announcement
    progress._last_plain -= 5
    progress.show(SNAPSHOT)
    progress.show(SNAPSHOT)
    progress.close()
    return stream.getvalue().splitlines()


PLAIN = [
    "run [here]",
    "compiling init ...",
    "1,230,000 steps  45,123 steps/s  6:56 left  return -123.46  success 0.97  "
    "kl 0.010  worst block 0.85",
]


def test_a_pipe_gets_few_plain_lines(monkeypatch):
    assert plain_output(io.StringIO()) == PLAIN
    # For colours in a log some set this; a line in a log cannot be rewritten.
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert plain_output(io.StringIO()) == PLAIN


def test_a_terminal_that_cannot_rewrite_lines_gets_plain_ones(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert plain_output(Terminal()) == PLAIN


def test_a_long_phase_is_repeated_in_a_pipe(monkeypatch):
    monkeypatch.setattr(progress_lib, "_PLAIN_SECONDS", 0.05)
    stream = io.StringIO()
    with Progress(stream).phase("compiling init"):
        time.sleep(0.5)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "compiling init ..."
    assert re.fullmatch(r"compiling init \.\.\. \d s", lines[1])


def use(progress: Progress) -> None:
    progress.line("a message")
    with progress.phase("compiling init"):
        progress.show(SNAPSHOT)
    progress.close()


def test_a_stream_that_fails_is_given_up_in_silence(monkeypatch, tmp_path):
    closed = (tmp_path / "file").open("w")
    closed.close()
    use(Progress(closed))
    with Path("/dev/full").open("w") as full:  # no space left on device
        use(Progress(full))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        use(Progress(broken))
    monkeypatch.setattr(sys, "stderr", None)  # as with 2>&-
    use(Progress())


def test_a_reader_that_goes_away_does_not_change_the_exit_code():
    """Python flushes standard error once more at its end."""
    code = (
        "import sys\n"
        "from purejaxppo.run.progress import Progress\n"
        "progress = Progress()\n"
        "progress.line('first')\n"
        "sys.stdin.readline()\n"
        "for _ in range(3): progress.line('more')\n"
        "print('alive', file=sys.stderr, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stderr.readline() == "first\n"
        process.stderr.close()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(timeout=20) == 0
