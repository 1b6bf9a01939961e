import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "attention.md"


def test_the_page_on_attention_runs_and_names_every_backend():
    from modernbert.kernels.attention import BACKENDS

    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(code, PAGE.name, "exec"), {})
    assert re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE) == list(BACKENDS)
