"""Suites: every set that is there, once, from where it should begin, with one table at the end."""

import dataclasses
import gzip
import json

import pytest
from train.labelled import has_paris, sentences

import modernbert.train.suite as module
from modernbert.checkpoint.settings import read_config
from modernbert.cli.recipe_group import recipes_of
from modernbert.data.labelled import Source
from modernbert.errors import ConfigError, DataError
from modernbert.recipes.suites import development, glue
from modernbert.tasks.sequence import SequenceTask
from modernbert.train.finetune import FinetuneConfig
from modernbert.train.suite import Member, run_suite
from modernbert.train.suite_report import Baseline, Outcome, SuiteReport, report_suite

RECIPES = recipes_of("modernbert.recipes.finetune")

QUICK = FinetuneConfig(
    task=SequenceTask(),
    learning_rates=(1e-3, 1e-4),
    seeds=(0, 1),
    epochs=1,
    batch_rows=8,
    max_length=64,
    dropout=0.0,
    device="cpu",
)


def put(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def local(name):
    return (Source(train=f"{name}/train.jsonl.gz", dev=f"{name}/dev.jsonl.gz"),)


@pytest.fixture
def sets(tmp_path):
    """Two sets, `first` with inference's classes; `absent` is not there."""
    for name, positive in (("first", "entailment"), ("second", "yes")):
        rows = [{**has_paris(words), "label": positive if "Paris" in words else "other"} for words in sentences(24)]
        put(tmp_path / "sets" / name / "train.jsonl.gz", rows)
        put(tmp_path / "sets" / name / "dev.jsonl.gz", rows[:8])
    return tmp_path / "sets"


MEMBERS = (
    Member(name="first", config=QUICK, sources=local("first"), published=0.9),
    Member(name="absent", config=QUICK, sources=local("absent")),
    Member(name="second", config=QUICK, sources=local("second"), begins_from="first"),
    Member(name="third", config=QUICK, sources=local("second"), begins_from="absent"),
    Member(name="guessed", config=QUICK, sources=local("second"), begins_from="first", zero_shot=("yes", "other")),
)


def plain(member, task, train, dev):
    return "always yes", {"accuracy": 0.5}


def test_a_suite_runs_what_is_there_and_goes_on_where_it_was(tiny_folder, sets, tmp_path, monkeypatch):
    begun = []
    original = module.finetune

    def counted(config, model):
        begun.append((config.out.rpartition("/")[2], str(model)))
        return original(config, model)

    monkeypatch.setattr(module, "finetune", counted)
    out = tmp_path / "out"
    report = run_suite(MEMBERS, tiny_folder, sets, out, baseline=plain)
    assert begun == [("first", str(tiny_folder)), ("second", str(out / "first" / "model")), ("third", str(tiny_folder))]
    found = {outcome.name: outcome for outcome in report.outcomes}
    assert found["absent"].note == "not in the data folder" and found["absent"].scores == ()
    assert found["third"].note == "not from absent, which did not run"
    assert len(found["first"].scores) == 2 and len(found["guessed"].scores) == 1 and 0 <= found["guessed"].mean <= 1
    assert found["first"].baseline.scores == {"accuracy": 0.5} and len(found["second"].data["train"]["sha256"]) == 64
    runs = json.loads((out / "first" / "result.json").read_text())["runs"]
    means = {rate: sum(run["scores"]["accuracy"] for run in runs if run["learning_rate"] == rate) / 2 for rate in (1e-3, 1e-4)}
    assert found["first"].mean == max(means.values()) and found["first"].learning_rate in means
    assert read_config(out / "second" / "model").extra["id2label"] == {"0": "other", "1": "yes"}
    record = json.loads((out / "suite.json").read_text())
    assert SuiteReport.from_json(record) == report and {"device", "torch", "commit"} <= record["environment"].keys()

    monkeypatch.setattr("modernbert.train.finetune.train_once", None)  # nothing is trained again,

    def never(*_):
        raise AssertionError("nor measured")

    again = run_suite(MEMBERS, tiny_folder, sets, out, baseline=never)
    assert [dataclasses.replace(outcome, seconds=0) for outcome in again.outcomes] == [
        dataclasses.replace(outcome, seconds=0) for outcome in report.outcomes
    ]


def test_without_a_model_the_baselines_run_alone(sets, tmp_path):
    report = run_suite(MEMBERS, None, sets, tmp_path / "out", baseline=plain)
    assert [bool(outcome.baseline) for outcome in report.outcomes] == [True, False, True, True, True]
    assert "| first | accuracy | – |  | 50.0 | always yes | 90.0 |  |  |  |" in report.to_markdown().splitlines()


def test_a_member_whose_runs_all_fail_is_noted_and_the_others_go_on(tiny_folder, sets, tmp_path):
    broken = dataclasses.replace(MEMBERS[0], config=dataclasses.replace(QUICK, learning_rates=(1e30,), epochs=2))
    report = run_suite((broken, dataclasses.replace(MEMBERS[2], begins_from=None)), tiny_folder, sets, tmp_path / "out")
    assert report.outcomes[0].note.startswith("every run failed: the loss is nan") and len(report.outcomes[1].scores) == 2


def test_a_folder_without_any_set_and_classes_that_are_not_named_are_refused(tiny_folder, sets, tmp_path):
    with pytest.raises(DataError, match=r"^none of the suite's sets is in .*; wanted files such as absent/dev.jsonl.gz$"):
        run_suite(MEMBERS[1:2], tiny_folder, sets, tmp_path / "out")
    odd = dataclasses.replace(MEMBERS[4], zero_shot=("yes", "no"))
    with pytest.raises(ConfigError, match=r"has the classes other, which are not among yes, no$"):
        run_suite((MEMBERS[0], odd), tiny_folder, sets, tmp_path / "out")


def test_a_model_that_reads_less_than_a_recipe_asks_gets_shorter_rows(tiny_folder, sets, tmp_path):
    long = dataclasses.replace(
        MEMBERS[0], config=dataclasses.replace(QUICK, max_length=10_000, learning_rates=(1e-3,), seeds=(0,))
    )
    report = run_suite((long,), tiny_folder, sets, tmp_path / "out")
    assert report.outcomes[0].note == "rows of 8,192 tokens, which the model reads" and report.outcomes[0].scores


def test_a_suite_under_torchrun_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"^a suite runs in one process; start several with a GPU, --only and an --out"):
        run_suite(MEMBERS, None, tmp_path, tmp_path)


def test_the_page_shows_the_table_the_picture_and_the_record(tmp_path):
    outcomes = (
        Outcome(name="a", metric="f1", scores=(0.5, 0.7), learning_rate=1e-4, seconds=90, published=0.8),
        Outcome(name="b", metric="accuracy", scores=(0.25,), baseline=Baseline(name="CRF", scores={"accuracy": 0.2}, seconds=1)),
        Outcome(name="c", metric="accuracy", note="not in the data folder"),
    )
    report = SuiteReport(outcomes=outcomes, record={"model": "m", "environment": {"torch": "2"}})
    (tmp_path / "suite.json").write_text(json.dumps(report.to_json()))
    page = report_suite(tmp_path).read_text()
    assert "| a | f1 | 60.0 ± 14.1 | 2 |  |  | 80.0 | 0.0001 | 1.5 |  |" in page
    assert "| b | accuracy | 25.0 | 1 | 20.0 | CRF |  |  | 0.0 |  |" in page
    assert "| **mean of 2** |  | 42.5 |" in page and '- environment: {"torch": "2"}' in page
    picture = (tmp_path / "suite.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


def test_the_glue_suite_hands_mnli_over_to_the_three_small_tasks():
    members = {member.name: member for member in glue()}
    assert {name for name, member in members.items() if member.begins_from == "mnli"} == {"rte", "mrpc", "stsb"}
    assert len(members) == 8 and next(iter(members)) == "mnli"
    assert round(sum(100 * member.published for member in members.values()) / 8, 1) == 88.4  # the paper's average
    assert all(member.config.seeds == (1618, 42, 6033, 3145) for member in members.values())
    large = {member.name: member for member in glue("large")}
    assert round(sum(100 * member.published for member in large.values()) / 8, 1) == 90.5  # the paper says 90.4
    for name, member in large.items():
        config, help = member.config, " ".join(RECIPES[name].__doc__.split())
        assert f"Large: learning_rates={config.learning_rates[0]:.0e} ".replace("e-0", "e-") in help
        assert f"weight_decay={config.weight_decay:.0e} epochs={config.epochs}.".replace("e-0", "e-") in help


def test_every_member_of_a_suite_has_a_name_of_its_own_and_follows_what_it_begins_from():
    for members in (glue(), development(), development("tiny")):
        names = [member.name for member in members]
        assert len(set(names)) == len(names)
        assert all(member.begins_from in (None, *names[:place]) for place, member in enumerate(members))
    assert len(development()) == 31 and all(member.config.seeds == (0, 1, 2) for member in development())


def test_tiny_trains_on_the_same_sets_as_base_and_on_two_to_begin_from():
    base, tiny = ({member.name: member for member in development(size)} for size in ("base", "tiny"))
    assert set(tiny) - set(base) == {"squads", "lookups"} and set(base) <= set(tiny)
    for name, member in base.items():
        assert (tiny[name].config.task, tiny[name].sources) == (member.config.task, member.sources)
        if not member.zero_shot:
            assert tiny[name].config.learning_rates[0] > member.config.learning_rates[0]


@pytest.mark.parametrize("name", [member.name for member in glue()])
def test_glue_is_read_from_the_hub_s_files_and_from_ours(name, tmp_path):
    """The columns of nyu-mll/glue are those that the recipes read; of ours, those of the published files under our names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (member,) = [member for member in glue() if member.name == name]
    task = member.config.task
    columns = {column: ["x", "y"] for column in (task.text, task.text_pair) if column} | {"label": [0, 1], "idx": [0, 1]}
    (tmp_path / name).mkdir()
    for split in ("train", "validation_matched" if name == "mnli" else "validation"):
        pq.write_table(pa.table(columns), tmp_path / name / f"{split}-00000-of-00001.parquet")
    ours = {"text_a": "x", "text_b": "y"} if task.text_pair else {"text": "x"}
    answer = "score" if name == "stsb" else "label"
    for split in ("train", "dev"):
        put(tmp_path / f"glue_{name}" / f"{split}.jsonl.gz", [{**ours, answer: 0}, {**ours, answer: 1}])
    for source in member.sources:
        train, _ = module.write_rows(source, tmp_path, tmp_path / "out")
        rows = list(module.read_table(train))
        task.fit(rows)
        assert len([task.fit(rows).label_of(row) for row in rows]) == 2
        assert all(row[1][column] for row in rows for column in (task.text, task.text_pair) if column)
