"""What the packaged models' cards say of measurements, from the files that the measuring commands write."""

import json
from types import SimpleNamespace

from dev.package_embed import card, dims_said, speed_said
from dev.package_model import positions_said, taught
from modernbert.eval.positions import Band, PositionResult


def test_the_card_compares_the_near_and_the_far_end_of_long_rows():
    counts = {511: 40, 1023: 50, 2047: 70, 4095: 70, 8191: 60}
    found = PositionResult(
        bands=tuple(Band(first=(last + 1) // 2, last=last, masked=100, right=n, bits=1.0) for last, n in counts.items()),
        rows=3,
        length=8192,
        rate=0.15,
        seed=0,
        paired=10,
        in_long=0.61,
        in_short=0.605,
        difference_se=0.002,
    )
    said = positions_said(json.loads(json.dumps(found.to_json())))
    assert "50.0% at positions 512 to 1,023 and 60.0% at positions 4,096 to 8,191" in said
    assert "+0.50 ± 0.20 points" in said and "(3 of held-out documents" in said


MODEL = SimpleNamespace(config=SimpleNamespace(hidden_size=384, max_position_embeddings=8192), parameters=list)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def stage(run, name, hour, model, teacher, kind, pairs, commit):
    """Records of a stage of 40 steps that was stopped after 30 of them, and went on from step 20."""
    optimizer = {"name": "muon", "muon_lr": 0.02, "lr": 4e-3} if kind == "cosine" else {"name": "adamw", "lr": 5e-4}
    config = {"model": model, "batch_pairs": 1000, "teacher": {"kind": kind, "file": teacher}, "optimizer": optimizer}
    environment = {"device": "a card", "modernbert": "1.0", "commit": commit}
    started = {"started": f"2026-11-28T{hour:02}:00:00Z", "step": 0}
    steps = [{"step": n, "loss": 1 / n, "tokens": 100_000 * n, "pairs_per_second": 100.0} for n in (10, 20, 30, 40)]
    lines = [started, *steps[:3], {**started, "step": 20}, *steps[2:], {"step": 40, "dev": {"ants": 0.5}}]
    write(run / name / "config.json", config)
    write(run / name / "result.json", {"pairs": pairs, "texts": 2 * sum(pairs.values()), "environment": environment})
    write(run / name / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def scores_of(value, device):
    one = {"system": "m", "data": "ants", "metric": "ndcg@10", "interval": [value - 0.1, value + 0.1], "difference": None}
    return {"environment": {"device": device}, "scores": [{**one, "seeds": [{"ndcg@10": value}]}]}


def test_the_card_tells_of_every_round_from_its_own_records(tmp_path):
    stage(tmp_path, "distilled", 1, "/x/pretrained/tiny", "teacher.parquet", "cosine", {"ants": 1000}, "abc1234")
    stage(tmp_path, "embed", 2, "distilled/model", "teacher.parquet", "similarities", {"ants": 1000}, "abc1234")
    stage(tmp_path, "again", 3, "between", "committee.parquet", "cosine", {"ants": 1000, "bees": 2000}, None)
    write(tmp_path / "between" / "mean.json", {"distilled/model": 0.35, "embed/model": 0.65})
    write(tmp_path / "model" / "mean.json", {"between": 0.5, "again/model": 0.5})
    write(tmp_path / "committee.json", {"st:studied-all": 0.6, "st:/x/minilm/model": 0.4})
    write(tmp_path / "studied-all" / "studied.json", {"begins": "/x/minilm/model", "steps": "150"})
    write(tmp_path / "begun.md", "A person said so.")
    write(tmp_path / "eval.json", scores_of(0.5, "a card"))
    said = card(tmp_path, tmp_path / "tiny-embed", MODEL)
    rows = [line for line in said.splitlines() if line.startswith(("| distilled |", "| embed |", "| again |"))]
    assert rows == [
        "| distilled | tiny | `tiny_distilled` | teacher | 40 of 1,000 pairs | 4,000,000 | 400 | 0.02 |",
        "| embed | distilled | `tiny_embed` | teacher | 40 of 1,000 pairs | 4,000,000 | 400 | 0.0005 |",
        "| again | between | `tiny_distilled` | committee | 40 of 1,000 pairs | 4,000,000 | 400 | 0.02 |",
    ]
    assert "`between` is 0.35 × distilled + 0.65 × embed" in said and "The weights are 0.5 × between + 0.5 × again" in said
    assert "The teacher `committee` is a committee (`dev/committee.py`): 0.6 × studied-all + 0.4 × minilm, whose" in said
    assert "studied-all is minilm after 150 steps" in said and "at last with a committee" in said
    assert "Together 20 minutes on a card" in said and "Code: commit abc1234, version 1.0." in said
    assert "| source | distilled, embed | again |" in said and "| bees |  | 2,000 |\n| **all** | 1,000 | 3,000 |" in said
    assert "## How it was made\n\nA person said so.\n" in said and "says of 6,000 texts" in said
    assert "| ants | ndcg@10 | 50.0 (40.0–60.0) |\n\n## Make it again" in said


def test_a_card_whose_rounds_left_no_records_keeps_all_but_what_was_measured_anew(tmp_path):
    stage(tmp_path / "first", "distilled", 1, "tiny", "teacher.parquet", "cosine", {"ants": 1000}, "abc1234")
    write(tmp_path / "first" / "eval.json", scores_of(0.5, "a card"))
    write(tmp_path / "first" / "dims.json", {"scores": [{**scores_of(0.5, "")["scores"][0], "system": "m, 64 dimensions"}] * 2})
    before = card(tmp_path / "first", tmp_path / "tiny-embed", MODEL).replace("## Pairs", "A person said so.\n\n## Pairs")
    write(tmp_path / "tiny-embed" / "README.md", before)
    assert card(tmp_path / "later", tmp_path / "tiny-embed", MODEL) == before
    write(tmp_path / "later" / "eval.json", scores_of(0.7, "another"))
    after = card(tmp_path / "later", tmp_path / "tiny-embed", MODEL)
    assert after == before.replace("50.0 (40.0–60.0) |\n\nVectors", "70.0 (60.0–80.0) |\n\nVectors").replace(
        "splits, on a card", "splits, on another"
    )
    assert after != before


def test_the_card_shows_what_cut_vectors_lose_and_nothing_where_nobody_measured(tmp_path):
    scores = [
        {"system": system, "data": "ants", "metric": "ndcg@10", "seeds": [{"ndcg@10": value}]}
        for system, value in (("m", 0.5), ("m, 128 dimensions", 0.48), ("m, 64 dimensions", 0.4))
    ]
    (tmp_path / "dims.json").write_text(json.dumps({"scores": scores}))
    assert dims_said([tmp_path / "dims.json"]).strip().splitlines()[-3:] == [
        "| set | figure | all | 128 | 64 |",
        "| --- | --- | ---: | ---: | ---: |",
        "| ants | ndcg@10 | 50.0 | 48.0 (-2.0) | 40.0 (-10.0) |",
    ]
    assert dims_said([]) == speed_said(tmp_path / "speed.json") == ""


def test_the_card_shows_speed_beside_both_peers(tmp_path):
    found = {
        "environment": {"cpu": "a chip"},
        "threads": 2,
        "time": "clock",
        "texts_per_second": {"ours": {"n": 5, "median": 100.4, "min": 90, "max": 110}},
        "times_minilm": {"ours": {"median": 3.06}},
        "times_minilm_int8": {"ours": {"median": 1.2}},
    }
    (tmp_path / "speed.json").write_text(json.dumps(found))
    said = speed_said(tmp_path / "speed.json")
    assert "(a chip, 2 threads, by clock, 5 turns, medians;" in said and said.strip().endswith(
        "| ours | 100 (90 – 110) | 3.06 | 1.20 |"
    )


def test_the_card_tells_of_the_stage_of_pairs_and_of_the_mean_and_of_nothing_where_there_was_none(tmp_path):
    assert taught(tmp_path) == ""
    asked = {"steps": 2400, "tokens": 65536, "lengths": [1024, 128], "pairs": 2048, "all_pairs": 1_300_000, "peak": 0.2}
    asked |= {"environment": {"device": "a card"}, "teachers": {"scores": {"peer-0-rte": 0.7, "ours-0-rte": 0.6}}}
    lines = [{"step": 1, "seconds": 1.0}, {"step": 2400, "seconds": 270.0, "held_out": {"rte": 0.05, "qnli": 0.07}}]
    for folder in ("pairs", "model"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pairs" / "config.json").write_text(json.dumps(asked))
    (tmp_path / "pairs" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = " ".join(taught(tmp_path).split())
    assert "2,400 steps, each of 65,536 tokens of text in rows of 1,024, 128 in turn" in said
    assert "2,048 pairs of texts without labels, of 1,300,000" in said and "say of it, 2 in all" in said
    assert "4.5 minutes on one a card" in said and "rte 0.050, qnli 0.070" in said and "mean_of" not in said
    (tmp_path / "model" / "mean.json").write_text(json.dumps({"taught/model": 0.4, "annealed": 0.6}))
    assert "0.4 of `taught/model` and 0.6 of `annealed`" in taught(tmp_path)
