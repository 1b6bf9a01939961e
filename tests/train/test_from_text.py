"""One command from a folder of text to a model: every stage, once, whatever stops it between."""

import dataclasses
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import modernbert.train.from_text as pipeline
from modernbert.checkpoint.folder import load_model
from modernbert.cli import main
from modernbert.config import ModelConfig
from modernbert.data.documents import read_documents
from modernbert.data.shards import TokenShards
from modernbert.engine.engine import load
from modernbert.errors import ConfigError, DataError
from modernbert.model.heads import MaskedLM
from modernbert.recipes.pretrain import three_phases
from modernbert.train.from_text import from_text
from modernbert.train.report import read_log

CHECKOUT = Path(__file__).parents[2]
PAIRS = list(zip(["red", "blue", "green", "black"], ["fox", "whale", "frog", "crow"], strict=True))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    rng = random.Random(0)
    for name, count in (("zoo", 60), ("park", 30)):
        texts = [
            " ".join("the {} {} sleeps.".format(*rng.choice(PAIRS)) for _ in range(rng.randint(2, 60))) for _ in range(count)
        ]
        (folder / f"{name}-0001.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def toy(out):
    recipe = three_phases()
    model = ModelConfig(vocab_size=384, num_hidden_layers=1, hidden_size=64, intermediate_size=64, num_attention_heads=1)
    sizes = ((6_000, 64), (3_000, 128), (3_000, 128))
    phases = [
        dataclasses.replace(phase, tokens=tokens, length=length, decay_tokens=phase.decay_tokens and tokens, warmup_tokens=0)
        for phase, (tokens, length) in zip(recipe.phases, sizes, strict=True)
    ]
    return dataclasses.replace(
        recipe,
        out=str(out),
        model=model,
        phases=tuple(phases),
        micro_batch_tokens=512,
        save_every_tokens=1_500,
        log_every_steps=2,
        device="cpu",
    )


@pytest.fixture(scope="module")
def made(text, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "zoo-model"
    assert from_text(toy(out), text, licence=["zoo: CC0"], command="modernbert from-text …") == out / "model"
    return out


def test_the_model_folder_is_whole_and_the_better_of_two(made):
    evaluation = json.loads((made / "evaluation.json").read_text())
    scores = {name: found["total"]["bits_per_byte"] for name, found in evaluation["models"].items()}
    assert scores.keys() == {"run/model", "average"} and evaluation["best"] == min(scores, key=scores.get)
    assert len(evaluation["averaged"]) > 1
    model, best = (load_model(MaskedLM, folder, dtype=torch.float32) for folder in (made / "model", made / evaluation["best"]))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), best.parameters(), strict=True))
    assert load(made / "model", device="cpu").fill_mask("the green[MASK] sleeps.")[0]["score"] > 0
    assert (made / "model" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_card_says_what_went_in_and_how_good_it_is(made):
    card = (made / "model" / "README.md").read_text()
    manifest = TokenShards.open(made / "shards").manifest
    assert card.startswith("---\npipeline_tag: fill-mask\n") and "# zoo-model\n" in card
    for part in (
        "- zoo: CC0",
        f"| zoo | {manifest.sources[1]['documents']:,} |",
        "| 2 | 3,000 | 128 | 20% | 0.5 of the peak, flat |",
    ):
        assert part in card
    total = json.loads((made / "evaluation.json").read_text())["models"]["average"]["total"]
    assert f"| **all** | {total['bits_per_byte']:.3f} | {total['accuracy']:.1%} | {total['masked']:,} |" in card
    assert "`modernbert from-text …`" in card and "{" not in card


def test_held_out_documents_are_never_trained_on(made, text):
    kept = [document.text for document in read_documents([made / "held_out.jsonl"])]
    shards = TokenShards.open(made / "shards")
    trained = [shards.tokenizer().decode(shards.document(i).tolist()) for i in range(len(shards))]
    everything = [document.text for document in read_documents([text])]
    assert sorted(kept + trained) == sorted(everything) and len(kept) == 5  # every 18th of 90
    assert TokenShards.open(made / "held_out").manifest.documents == len(kept)


def test_all_phases_ran(made):
    log, _ = read_log(made / "run")
    config = json.loads((made / "run" / "config.json").read_text())
    assert [phase["tokens"] for phase in config["phases"]] == [6_000, 3_000, 3_000]
    assert log[-1]["tokens"] >= 12_000 and log[-1]["rate"] < 0.5
    assert json.loads((made / "model" / "config.json").read_text())["global_rope_theta"] == 160_000.0


STAGES = ["write_shards", "pretrain", "average", "evaluate_masked", "write_card"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_stage_is_not_done_again(made, text, tmp_path, monkeypatch, stage):
    """Stopped at the beginning of a stage and started again, the command does that stage and the later ones, and no other."""
    out = tmp_path / "zoo-model"
    shutil.copytree(made, out)
    for part in ["shards", "held_out", "run", "average", "evaluation.json", "model"][[0, 2, 3, 4, 5][STAGES.index(stage)] :]:
        shutil.rmtree(out / part) if (out / part).is_dir() else (out / part).unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != ".lock"}

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, stage, stopped)
        with pytest.raises(KeyboardInterrupt):
            from_text(toy(out), text)
    from_text(toy(out), text, licence=["zoo: CC0"], command="modernbert from-text …")
    kept = {path for path in before if path.relative_to(out).parts[0] not in ("run", "average") and path.name != "verified.json"}
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)
    assert (out / "model" / "model.safetensors").read_bytes() == (made / "model" / "model.safetensors").read_bytes()


def test_real_text_goes_through_every_stage(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for source, files in (("pages", "docs/*.md"), ("code", "modernbert/model/*.py")):
        documents = [{"text": path.read_text(encoding="utf-8")[:3000]} for path in sorted(CHECKOUT.glob(files))[:25]]
        (texts / f"{source}.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    model = from_text(toy(tmp_path / "out"), texts, licence=["code: Apache-2.0"], command="modernbert from-text …")
    card = (model / "README.md").read_text()
    assert "| pages | " in card and "| code | " in card
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["models"]["average"]["total"]
    assert 2 < found["bits_per_byte"] < 8  # it has seen next to nothing, and a byte is 8 bits
    assert len(load(model, device="cpu").fill_mask("The capital of France is[MASK].", top_k=5)) == 5


def test_a_finished_model_is_left_alone(made, text, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "pretrain", None)
    before = (made / "model" / "README.md").stat().st_mtime_ns
    assert from_text(toy(made), text) == made / "model"
    assert (made / "model" / "README.md").stat().st_mtime_ns == before
    assert f"{made / 'model'} is there" in capsys.readouterr().err


def test_other_text_and_too_little_are_refused(made, text, tmp_path):
    (tmp_path / "a.txt").write_text("alone")
    with pytest.raises(DataError, match=r"was begun with other files than those of .*a\.txt; give out= another folder"):
        from_text(toy(made), tmp_path / "a.txt")
    with pytest.raises(ConfigError, match="begin_from=tiny has a tokenizer of its own, and from-text makes another"):
        from_text(dataclasses.replace(toy(tmp_path / "out"), begin_from="tiny"), text)
    with pytest.raises(DataError, match=r"a\.txt holds 1 documents; wanted two or more"):
        from_text(toy(tmp_path / "out"), tmp_path / "a.txt")


def test_the_verb_takes_a_recipe_a_folder_and_settings(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        pipeline, "from_text", lambda config, text, **more: calls.append((config, text, more)) or tmp_path / "model"
    )
    given = [
        "from-text",
        "three_phases",
        "texts",
        "--licence",
        "a: CC0",
        "--licence",
        "b: MIT",
        "out=mine",
        "model.vocab_size=512",
    ]
    done = CliRunner().invoke(main, given)
    assert done.stdout == f"{tmp_path / 'model'}\n", done.stderr
    ((config, text, more),) = calls
    assert (config.out, config.model.vocab_size, text, more["licence"]) == ("mine", 512, "texts", ("a: CC0", "b: MIT"))
