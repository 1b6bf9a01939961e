"""A run's page: what it counts, and that it shows the curves of the log."""

import json

import pytest

from modernbert.errors import TrainingError
from modernbert.recipes.pretrain import first_result, three_phases
from modernbert.train.report import read_log, report, validation_of
from modernbert.train.settings import settings


def line(step, **changes):
    made = {"step": step, "tokens": step * 1000, "loss": 10.0 / step, "accuracy": 0.1 * step, "rate": 1.0}
    return made | {"tokens_per_second": 100 * step, "seconds": float(step)} | changes


@pytest.fixture
def run(tmp_path):
    """A run killed after step 4, whose last checkpoint was of step 2: steps 3 and 4 stand in the log twice."""
    begin = {"started": "2026-11-23T08:00:00Z", "step": 0, "device": "some CPU"}
    lines = [
        begin,
        *map(line, (1, 2, 3, 4)),
        begin | {"step": 2},
        line(3, seconds=1.5, loss=3.0),
        line(4, seconds=3.0),
        line(5, seconds=4.5),
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    (tmp_path / "config.json").write_text(json.dumps(settings(first_result())))
    return tmp_path


def test_repeated_steps_count_once_and_as_last_written(run):
    log, sessions = read_log(run)
    assert [one["step"] for one in log] == [1, 2, 3, 4, 5]
    assert log[2]["loss"] == 3.0
    assert [one["step"] for one in sessions] == [0, 2]


def test_the_page_sums_the_sessions_up_and_shows_the_curves(run):
    text = report(run).read_text()
    assert "| tokens | 5,000 of 1,000,000 planned |" in text
    assert f"| time in training | {(2.0 + 4.5) / 60:.1f} minutes |" in text  # what the killed session lost is not counted
    assert "100 to 500" in text and "some CPU" in text
    picture = (run / "report.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


def test_the_page_tells_fill_epochs_and_what_was_held_out(run):
    """A log of this version, of two folders: every panel has its curve, and the held-out loss its dots."""
    more = {"fill": 0.9996, "epochs": [1.25, 0.5], "waiting": 0.001, "of_peak": 0.25}
    lines = [line(step, **more) for step in (6, 7)]
    held_out = [
        {"step": step, "tokens": step * 1000, "validation_loss": 2.0 + step, "validation_accuracy": 0.3} for step in (1, 7)
    ]
    with (run / "log.jsonl").open("a") as file:
        file.write("".join(json.dumps(one) + "\n" for one in [*lines, *held_out]))
    config = json.loads((run / "config.json").read_text()) | {"shards": ["data/web", "data/code"]}
    (run / "config.json").write_text(json.dumps(config))
    text = report(run).read_text()
    assert "| rows filled | 99.96% with tokens |" in text
    assert "| passes in the last phase | web 1.25, code 0.50 |" in text
    assert (
        "| share of the bf16 peak | 25.00% (median) |" in text and "| time spent waiting for batches | 0.10% (median) |" in text
    )
    assert "| held out | loss 9.0000 at the last checkpoint, 3.0000 at step 1 |" in text
    assert [one["step"] for one in validation_of(run)] == [1, 7]
    assert [one["step"] for one in read_log(run)[0]] == [1, 2, 3, 4, 5, 6, 7]  # lines of what is held out are no steps


def test_the_page_has_a_table_of_the_phases_with_what_they_change(run):
    config = settings(three_phases())
    (run / "config.json").write_text(json.dumps(config))
    text = report(run).read_text()
    assert (
        "| phase | tokens | length | long_from | long_times | mask_rate | warmup_tokens | decay_tokens | peak | global_rope_theta |"
        in text
    )
    assert "| 0 | 600,000 | 128 | – | – | 0.2 | 20,000 | 0 | 1.0 | – |" in text
    assert "| 2 | 200,000 | 512 | 256 | 2.0 | 0.2 | 0 | 200,000 | 0.5 | 160,000.0 |" in text


def test_a_line_that_was_cut_short_is_left_out(run):
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo{"step": 7}\n{"step": 8, "l')
    assert [one["step"] for one in read_log(run)[0]] == [1, 2, 3, 4, 5]


def test_a_run_that_has_only_begun_is_refused(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"started": "2026-11-23T08:00:00Z", "step": 0}\n')
    with pytest.raises(TrainingError, match=r"log\.jsonl holds no loss yet"):
        report(tmp_path)


def test_a_folder_without_a_log_is_refused_by_name(tmp_path):
    with pytest.raises(TrainingError, match=r"no log\.jsonl in .*wanted the folder of a pre-training run"):
        report(tmp_path)
