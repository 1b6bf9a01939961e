"""docs/finetune.md says what is there; its commands are checked with those of the other pages."""

import re
from pathlib import Path

from modernbert.recipes.suites import development
from modernbert.train.finetune import FinetuneConfig

PAGE = (Path(__file__).parents[2] / "docs" / "finetune.md").read_text()


def test_the_page_counts_the_sets_and_names_every_setting_that_it_explains():
    assert f"for {len(development())} sets" in PAGE
    named = {key for key in re.findall(r"`(\w+)(?:=\w+)?`", PAGE) if key in FinetuneConfig.__dataclass_fields__}
    assert named >= {"recompute", "trains", "batch_rows", "micro_batch_tokens"}
