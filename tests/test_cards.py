"""What the packaged models' cards say of measurements, from the files that the measuring commands write."""

import json

from dev.package_embed import dims_said, speed_said
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
    asked |= {"environment": {"device": "a card"}, "teachers": [{"scores": {"peer-0-rte": 0.7, "ours-0-rte": 0.6}}]}
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
