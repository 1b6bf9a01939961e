import contextlib
import errno
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from modernbert import cli
from modernbert.errors import TextError, naming


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["fill-mask", "--help"],
        ["fill-mask"],
        ["fill-mask", "--tpo-k", "3"],
        ["nosuch"],
        ["pretrain", "--help"],
        ["finetune", "clasification"],
    ],
)
def test_help_and_mistyped_options_do_not_import_torch(arguments):
    code = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); sys.argv[1:] = {arguments}"
    assert run_python(f"{code}; from modernbert.cli import main; main()").stdout.splitlines()[-1] == "False"


def test_help_answers_at_once():
    start = time.perf_counter()
    run_python("from modernbert.cli import main; main(['--help'])")
    assert time.perf_counter() - start < 2  # 0.15 s on a quiet machine; loading torch takes 2 s and more


def test_our_errors_are_one_line_and_exit_code_2(monkeypatch):
    @click.command("break")
    def break_() -> None:
        raise TextError("a text of two\nlines: wanted one")

    monkeypatch.setitem(cli.main.commands, "break", break_)
    done = CliRunner().invoke(cli.main, ["break"])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", "modernbert: a text of two lines: wanted one\n")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli.main, ["prepare", "python", "click", "-o", str(tmp_path / "file" / "code.jsonl")])
    assert (done.exit_code, done.stderr) == (
        2,
        f"modernbert: {tmp_path / 'file'}: File exists, and a folder is wanted there; give another name\n",
    )


@pytest.mark.parametrize(("path", "named"), [("runs/log.jsonl", "runs/log.jsonl"), (None, "a file cannot be read or written")])
def test_a_full_disk_is_one_line(monkeypatch, path, named):
    @click.command("fill")
    def fill() -> None:
        with naming(Path(path)) if path else contextlib.nullcontext():
            raise OSError(errno.ENOSPC, "No space left on device")  # as a write to an open file says it: without a name

    monkeypatch.setitem(cli.main.commands, "fill", fill)
    done = CliRunner().invoke(cli.main, ["fill"])
    wanted = f"modernbert: {named}: No space left on device; make room, and give the same command again\n"
    assert (done.exit_code, done.stderr) == (2, wanted)


def test_ctrl_c_is_quiet(monkeypatch):
    @click.command("wait")
    def wait() -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.main.commands, "wait", wait)
    done = CliRunner().invoke(cli.main, ["wait"])
    assert (done.exit_code, done.output) == (130, "")


def test_a_reader_that_leaves_early_is_no_error():
    script = (
        "from modernbert.cli import main; import click; main.add_command(click.Command('much', callback=much)); main(['much'])"
    )
    code = f"def much(): [click.echo('x' * 1000) for _ in range(1000)]\n{script}"
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with writer, writer.stdout as out, writer.stderr as problems:
        out.read(10)
        out.close()
        assert problems.read() == ""
