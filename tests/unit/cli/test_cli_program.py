"""Words, flags and ends of the program: help, wrong use, fast start, pipes, interrupts and terminals."""

from __future__ import annotations

import fcntl
import importlib
import os
import pty
import re
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from contextlib import closing
from pathlib import Path

import pytest
from stagelight import __version__
from stagelight.cli.program import VERBS, build_parser
from stored import span, store, traces

from .conftest import DAY, PROGRAM, Run

HEAVY = ("opentelemetry.sdk", "opentelemetry.exporter", "grpc", "genai_prices", "rich", "yaml", "starlette", "uvicorn")
WRITTEN_VERBS = sorted(set(VERBS) - {"demo"})
SGR = re.compile(r"\x1b\[[0-9;]*m")


def test_help_comes_without_heavy_imports() -> None:
    """The overview and a command's help are there at once: no SDK, no gRPC, no price data, no tables."""
    script = (
        "import sys\nfrom stagelight.cli import main\n"
        "assert main(['--help']) == 0 and main(['cost', '--help']) == 0 and main(['--version']) == 0\n"
        f"print(sorted(name for name in sys.modules if name.startswith({HEAVY!r})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)

    assert done.stderr == "[]\n"
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)
    assert done.stdout.endswith(f"stagelight {__version__}\n")


@pytest.mark.parametrize("verb", WRITTEN_VERBS)
def test_every_command_explains_itself_with_examples(verb: str, run: Run) -> None:
    """Help says what the command does, describes every flag, and shows it in use."""
    result = run(verb, "--help")
    parser = build_parser(verb, importlib.import_module(f"stagelight.cli.{verb}"))

    assert (result.status, result.err) == (0, "")
    assert f"\nExamples:\n  {'eval' if verb == 'env' else 'stagelight'}" in result.out
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []
    assert result.out == run("help", verb).out


def test_no_words_are_a_call_for_help(run: Run) -> None:
    """The bare program shows the overview."""
    assert run() == run("--help")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trunes"], "stagelight: 'trunes' is not a command. Did you mean `turns`? The commands are: demo, up, run,"),
        (["--verbose"], "stagelight: '--verbose' is not a flag. The commands are: "),
        (["cost", "--by", "modle"], "accepted: model, stage, day, feature, tenant, user; did you mean model? See"),
        (["cost", "--bye", "x"], "--bye is not a flag of this command, did you mean --by? (it has --help, --by,"),
        (["cost", "--sin", "1h"], "--sin is not a flag of this command"),
        (["cost", "extra"], "'extra' is one word too many."),
        (["cost", "--since", "yesterday"], "'yesterday' is not a time; accepted: a length of time before now (30s,"),
        (["cost", "--since", "2026-13-01"], "'2026-13-01' is not a time"),
        (["cost", "--since", "9" * 40 + "w"], "is not a time"),
        (["cost", "--since", "1h", "--until", "2h"], "--since is not before --until"),
        (["cost", "--limit", "0"], "accepted: a whole number from 1 to 1,000,000"),
        (["cost", "--limit", "9" * 30], "accepted: a whole number from 1 to 1,000,000"),
        (["turns", "--limit"], "expected one argument"),
        (["up", "--port", "65536"], "accepted: a whole number from 0 to 65,535"),
        (["up", "--retention-days", "-1"], "accepted: a number above 0, up to 1,000,000"),
        (["up", "--retention-gib", "0.0001"], "--retention-gib 0.0001 is not accepted; accepted: 0.001 or more"),
        (["tail", "--only", "metrics"], "'metrics' is not accepted; accepted: spans, logs"),
        (["prices", "tts-1", "--characters", "4"], "--provider is needed to price a call"),
    ],
)
def test_wrong_use_names_what_is_accepted(words: list[str], message: str, run: Run) -> None:
    """One line on standard error, exit code 2, nothing on standard output."""
    result = run(*words)

    assert (result.status, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1


def test_any_time_that_is_accepted_can_be_asked_for(run: Run, scene: Path) -> None:
    """Times before and after what a database can hold are cut to its ends."""
    for since in ("all", "0001-01-01", "2026-09-21T14:00:00+00:00", "520w", "99999d"):
        for until in ("now", "9999-12-31", "9999-12-31T00:00:00Z"):
            assert "gpt-4o-mini" in run("cost", "--since", since, "--until", until, "--source", scene).out


def test_a_reader_that_goes_away_is_no_failure(scene: Path) -> None:
    """`| head` ends the command silently."""
    command = [*PROGRAM, "traces", *DAY, "--source", str(scene)]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=120, check=False)
    os.close(writing)

    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_sentence(scene: Path) -> None:
    """Output that cannot be written is said once, without a traceback."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [*PROGRAM, "traces", *DAY, "--source", str(scene)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (1, "stagelight: [Errno 28] No space left on device\n")


def test_an_interrupt_ends_a_command_quietly(scene: Path) -> None:
    """Ctrl-C gives 130 and no traceback."""
    # Where the tests run in the background of a shell, an interrupt would be ignored from birth.
    script = (
        "import signal, sys\nfrom stagelight.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nsys.exit(main(sys.argv[1:]))"
    )
    following = subprocess.Popen(
        [sys.executable, "-c", script, "tail", "--since", "1h", "--source", str(scene)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with following:
        assert following.stderr is not None
        waiting = following.stderr.readline()
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=60)

    assert waiting == "Nothing yet: waiting for what arrives. Ctrl-C ends it.\n"
    assert (following.returncode, out, err) == (130, "", "")


def in_terminal(columns: int, *words: str, program: tuple[str, ...] = PROGRAM, **variables: str) -> str:
    """What a command shows on a terminal of this width."""
    main_end, command_end = pty.openpty()
    fcntl.ioctl(command_end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    shown = b""
    with subprocess.Popen(
        [*program, *words],
        stdout=command_end,
        stderr=subprocess.DEVNULL,
        stdin=command_end,
        env={**environment, "TERM": "xterm-256color", **variables},
    ) as command:
        os.close(command_end)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and select.select([main_end], [], [], 120)[0]:
            try:
                piece = os.read(main_end, 65_536)
            except OSError:  # the command has ended: Linux says so by an error
                break
            if not piece:
                break
            shown += piece
        assert command.wait(timeout=60) == 0
    os.close(main_end)
    return shown.decode("utf-8").replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [200, 120, 80, 60, 40])
def test_a_terminal_gets_colour_and_its_own_width(columns: int, scene: Path) -> None:
    """Lines of a table fit, no figure is cut, and what was left out is named."""
    shown = in_terminal(columns, "cost", *DAY, "--source", str(scene))
    plain = SGR.sub("", shown)

    assert "\x1b[" in shown
    if columns >= 80:  # below, rows are blocks and the terminal breaks their lines
        assert max(map(len, plain.splitlines())) <= columns
    assert all(figure in plain for figure in ("0.000 910 00", "0.000 337 20", "0.000 000 48", "0.001 247 68"))
    assert ("left out on" in plain) == (columns < 160)


def test_long_lines_are_broken_at_spaces(tmp_path: Path) -> None:
    """No word of advice is cut in two, and a pipe gets the same words."""
    store(tmp_path / "empty.db")
    words = ("turns", *DAY, "--source", str(tmp_path / "empty.db"))
    advice = SGR.sub("", in_terminal(80, *words)).splitlines()
    plain = run_piped(*words)

    assert " ".join(advice).split() == plain.split()
    assert len(advice) > 3
    assert all(len(line) <= 80 or " " not in line for line in advice)


def run_piped(*words: str) -> str:
    """What a command writes into a pipe."""
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize("width", [20, 40])
def test_a_broken_line_keeps_its_margin_and_its_long_words(width: int) -> None:
    """What follows stands below the line's first word; a word longer than the terminal is not cut."""
    address = "http://127.0.0.1:4318/" + "x" * 40
    script = (
        "from stagelight.cli.output import Cell, Screen\n"
        f"Screen().line(Cell('    -> ', 'dim'), 'see what is written at {address} please')\n"
        "Screen().line('')\n"
        "Screen().line('a  b')\n"
    )
    lines = SGR.sub("", in_terminal(width, program=(sys.executable, "-c", script))).splitlines()

    assert [line.strip() for line in lines[-2:]] == ["", "a  b"]
    assert all(line.startswith("    ") for line in lines[:-2])
    assert " ".join(lines[:-2]).split() == ["->", "see", "what", "is", "written", "at", address, "please"]
    assert max(len(line) for line in lines if address not in line) <= width


@pytest.mark.parametrize(("columns", "left_out"), [(200, set()), (80, {"started", "calls", "feature", "status"})])
def test_turns_on_a_narrow_terminal_keep_their_stages(columns: int, left_out: set[str], scene: Path) -> None:
    """Where the time went is what the list is for: when a turn started gives way to it."""
    shown = SGR.sub("", in_terminal(columns, "turns", *DAY, "--source", str(scene)))
    named = re.search(r"left out on \d+ columns: (.*?)\nstages: ", shown, re.DOTALL)
    titles = set() if named is None else set(named[1].replace("\n", " ").split(", "))

    assert left_out <= titles
    assert not {"stages", "trace", "turn", "took", "cost USD", "outcome"} & titles
    assert "stages: " in shown
    assert max(map(len, shown.splitlines())) <= columns


def test_a_terminal_without_rich_gets_plain_text(scene: Path) -> None:
    """Without the extra the tables are plain, the answer is the same."""
    script = "import sys; sys.modules['rich'] = None; from stagelight.cli import main; sys.exit(main(sys.argv[1:]))"
    shown = in_terminal(120, "errors", *DAY, "--source", str(scene), program=(sys.executable, "-c", script))

    assert shown == (Path(__file__).parent / "golden" / "errors.txt").read_text("utf-8")


def test_no_color_means_none(scene: Path) -> None:
    """NO_COLOR leaves the words and takes the colours."""
    shown = in_terminal(120, "errors", *DAY, "--source", str(scene), NO_COLOR="1")

    assert "RateLimitError" in shown
    assert not any(code in shown for code in ("[31m", "[33m", "[35m"))


def test_a_waterfall_on_a_terminal_uses_its_width(scene: Path) -> None:
    """Bars are blocks, with the first token and the first audio marked on the turn."""
    shown = SGR.sub("", in_terminal(150, "turns", f"{2:032x}", "--utc", "--source", str(scene)))
    turn = next(line for line in shown.splitlines() if line.startswith("turn "))

    assert turn.count("█") > 40
    assert turn.index("T█") < turn.index("A█")


def test_fault_is_one_sentence(tmp_path: Path, run: Run) -> None:
    """A record that nobody foresaw ends a command with one sentence: class and place, without values or traceback."""
    path = tmp_path / "store.db"
    store(path, traces(span(1, attributes={"stagelight.stage": "turn"})))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE spans SET attributes = '[\"secret\"]'")

    result = run("turns", "--since", "all", "--source", str(path))

    assert (result.status, result.out) == (1, "")
    assert re.fullmatch(
        r"stagelight: this is a fault of Stagelight, please report it: \w+Error at _rows.py:\d+ .*\n", result.err
    )
    assert "secret" not in result.err
