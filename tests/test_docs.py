"""The README and the pages under docs/ do what they say. The gate (.ci/run) runs the README's own two commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import modernbert
from dev.cli_page import page
from modernbert.checkpoint.names import PACKAGED, packaged_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / "examples" / "first_result.sh").read_text()


def blocks(language, page=README):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def commands():
    return [line for block in blocks("bash") for line in block.splitlines()]


@pytest.mark.parametrize("code", blocks("python"))
def test_the_readme_s_python_runs(code):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("command", [line for line in commands() if not line.startswith(("pip", "bash")) and line not in EXAMPLE])
def test_the_readme_s_commands_run(command, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("name", packaged_names())
def test_the_python_of_a_packaged_model_s_card_runs_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python", (PACKAGED / name / "README.md").read_text())
    exec(compile(code, "README.md", "exec"), {})


def test_the_commands_that_the_tests_leave_to_the_gate_are_in_it():
    gate = (ROOT / ".ci" / "run").read_text()
    left = [line for line in commands() if line.startswith(("pip", "bash"))]
    assert [line.split()[0] for line in left] == ["pip", "bash"]
    assert "grep -m1 '^pip install' README.md" in gate
    assert left[1] == "bash .ci/run"
    assert left[0].endswith('modernbert fill-mask "The capital of France is [MASK]."') and "grep -q Paris" in gate
    assert "bash examples/first_result.sh" in gate


def test_every_page_that_the_readme_names_exists():
    missing = [link for link in re.findall(r"\]\((?!http)([^)#]+)\)", README) if not (ROOT / link).exists()]
    assert missing == []


def test_the_page_of_the_command_line_is_current():
    assert (ROOT / "docs" / "cli.md").read_text() == page(), "run: python dev/cli_page.py > docs/cli.md"


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == modernbert.__version__
