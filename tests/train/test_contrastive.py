"""The contrastive loop: gradients by parts and by processes, resuming, what it learns, what it leaves behind."""

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import modernbert.train.contrastive as loop
from modernbert.checkpoint.training_state import latest_state
from modernbert.data.vectors import write_vectors
from modernbert.engine.engine import load
from modernbert.errors import ConfigError, DataError, TrainingError
from modernbert.tasks.contrastive import CandidateScores, InBatch, TeacherVectors
from modernbert.tasks.pairs import PairColumns, read_pairs
from modernbert.train.batches import each_batch, source_shares
from modernbert.train.contrastive import train_retriever
from modernbert.train.distributed import World
from modernbert.train.optimizers import OptimizerConfig, build_optimizers
from modernbert.train.retrieval_settings import ContrastiveConfig
from modernbert.train.retrievers import RetrieverConfig, make_retriever

ALONE = World(device=torch.device("cpu"))
THINGS = [
    "ant",
    "bee",
    "cat",
    "dog",
    "elk",
    "fox",
    "gnu",
    "hen",
    "ibis",
    "jay",
    "kite",
    "lark",
    "mole",
    "newt",
    "owl",
    "pig",
    "quail",
    "rat",
    "seal",
    "toad",
]


def rows(count=48, seed=0, **more):
    """Each thing has a name in another tongue: the letters turned round. What belongs together shares no word."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        thing = THINGS[number % len(THINGS)]
        wrong = [f"{rng.choice(THINGS)[::-1]} {rng.choice('xyz')}" for _ in range(2)]
        found.append({"query": f"which is the {thing}", "document": f"{thing[::-1]} is {number}.", "negatives": wrong, **more})
    return found


def write(path, some):
    path.write_text("".join(json.dumps(row) + "\n" for row in some))
    return str(path)


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows())


def config(file, out, **changes):
    settings = {
        "train": (file,),
        "out": str(out),
        "batch_pairs": 12,
        "optimizer": OptimizerConfig(lr=1e-2),
        "device": "cpu",
        "log_every_steps": 1,
        "save_every_steps": 2,
        "retriever": RetrieverConfig(query_length=16, document_length=24),
    }
    return ContrastiveConfig(**(settings | changes))


def lines_of(run):
    lines = [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if "loss" in line}


def weights(run):
    return load_file(Path(run) / "model" / "model.safetensors")


TOKENS = {
    "retriever": RetrieverConfig(kind="tokens", query_length=16, document_length=24),
    "in_batch": InBatch(scale=1),
    "negatives": 2,
}
EVERYTHING = {"in_batch": InBatch(symmetric=True), "dims": (16, 32), "negatives": 2}


def gradient(tiny_folder, settings, micro_batch_tokens, dropout=0.0):
    """The gradient of one step, and its loss."""
    settings = dataclasses.replace(
        settings, micro_batch_tokens=micro_batch_tokens, retriever=dataclasses.replace(settings.retriever, dropout=dropout)
    )
    torch.manual_seed(0)
    retriever = make_retriever(settings.retriever, tiny_folder, ALONE.device, torch.float32)
    retriever.module.train()
    run = loop._Run(settings, retriever, ALONE, Path(settings.out))
    found, _ = run.step(run.prepare(list(range(12)), 0))
    return torch.cat([p.grad.flatten() for p in retriever.module.parameters()]), found[0].item()


@pytest.mark.parametrize("changes", [{}, EVERYTHING, TOKENS], ids=["plain", "everything", "tokens"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_does_not_depend_on_how_a_batch_is_cut(tiny_folder, pairs_file, tmp_path, changes, dropout):
    """Cached gradients of 14 parts and more against those of one; relative, float32: 1e-5. With dropout the parts' masks differ from the
    whole's, so there a part is compared with itself: the second pass through it must drop what the first has dropped."""
    settings = config(pairs_file, tmp_path, **changes)
    if dropout:
        once, loss = gradient(tiny_folder, settings, 60, dropout)
        again, same = gradient(tiny_folder, settings, 60, dropout)
        assert torch.equal(once, again) and loss == same
        return
    whole, loss = gradient(tiny_folder, settings, 1_000_000)
    parts, same = gradient(tiny_folder, settings, 60)
    assert loss == pytest.approx(same, rel=1e-5)
    assert ((whole - parts).norm() / whole.norm()).item() < 1e-5


def test_the_cached_gradient_is_that_of_a_plain_backward(tiny_folder, pairs_file, tmp_path):
    """Without our cache: vectors with their graph, the cross-entropy written out, one backward."""
    settings = config(pairs_file, tmp_path, negatives=0)
    cached, _ = gradient(tiny_folder, settings, 60)
    retriever = make_retriever(settings.retriever, tiny_folder, ALONE.device, torch.float32)
    run = loop._Run(settings, retriever, ALONE, tmp_path)
    pairs = run.pairs
    query_BD = retriever.forward(pairs.rows, pairs.query_P[:12].tolist(), True)
    document_BD = retriever.forward(pairs.rows, pairs.document_P[:12].tolist(), False)
    logits_BB = 20 * torch.nn.functional.cosine_similarity(query_BD[:, None], document_BD[None], dim=-1)
    torch.nn.functional.cross_entropy(logits_BB, torch.arange(12)).backward()  # the first 12 things differ: no false negatives
    plain = torch.cat([p.grad.flatten() for p in retriever.module.parameters()])
    assert ((cached - plain).norm() / plain.norm()).item() < 1e-5


def test_two_processes_give_the_curve_and_the_weights_of_one(tiny_folder, pairs_file, tmp_path):
    """gloo on the CPU, negatives of both processes for both. Float32 sums are taken in another order: losses agree to 1e-4, and weights
    to 2 % of the way that the largest could go (Adam divides by small gradients)."""
    train_retriever(config(pairs_file, tmp_path / "one", micro_batch_tokens=60, **EVERYTHING), tiny_folder)
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\nsys.path[:0] = sys.argv[1:3]\nimport torch\ntorch.set_num_threads(1)\n"
        "from test_contrastive import EVERYTHING, config, train_retriever\n"
        "train_retriever(config(sys.argv[3], sys.argv[4], micro_batch_tokens=60, **EVERYTHING), sys.argv[5])\n"
    )
    here = Path(__file__).parent
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = [str(here), str(here.parents[1]), pairs_file, str(tmp_path / "two"), str(tiny_folder)]
    done = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = (lines_of(tmp_path / run) for run in ("one", "two"))
    assert one.keys() == two.keys() and len(one) == 4
    for step in one:
        assert one[step]["loss"] == pytest.approx(two[step]["loss"], abs=1e-4)
        assert one[step]["accuracy"] == pytest.approx(two[step]["accuracy"], abs=1e-4)
    one, two = (weights(tmp_path / run) for run in ("one", "two"))
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=0.02 * 1e-2 * 4)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may catch it or tidy up after it."""


@pytest.mark.parametrize("steps", [1, 3])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tiny_folder, pairs_file, tmp_path, monkeypatch, capsys, steps):
    """Bit for bit, with dropout and a random choice of negatives."""
    changes = {"negatives": 1, "epochs": 1.5, "retriever": RetrieverConfig(query_length=16, document_length=24, dropout=0.2)}
    train_retriever(config(pairs_file, tmp_path / "whole", **changes), tiny_folder)
    killed, rest = config(pairs_file, tmp_path / "killed", **changes), iter(range(steps))
    set_learning_rates = loop.set_learning_rates

    def set_rates(*arguments):
        if next(rest, None) is None:
            raise Killed
        set_learning_rates(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "set_learning_rates", set_rates)
        with pytest.raises(Killed):
            train_retriever(killed, tiny_folder)
    saved = latest_state(tmp_path / "killed" / "checkpoints")
    assert (saved is None) == (steps < 2)
    capsys.readouterr()
    train_retriever(killed, tiny_folder)
    assert ("resumed from" in capsys.readouterr().err) == (saved is not None)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert [line["loss"] for line in lines_of(tmp_path / "whole").values()] == [
        line["loss"] for line in lines_of(tmp_path / "killed").values()
    ]


def test_sigkill_leaves_a_run_that_goes_on(tiny_folder, pairs_file, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "modernbert", "finetune", "dense", str(tiny_folder), f"train={pairs_file}", f"out={run}"]
    command += ["epochs=500", "batch_pairs=12", "save_every_steps=1", "log_every_steps=1", "device=cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while process.poll() is None and latest_state(run / "checkpoints") is None and time.time() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    saved = latest_state(run / "checkpoints")
    settings = json.loads((run / "config.json").read_text())
    assert settings["epochs"] == 500 and saved is not None
    retriever = make_retriever(RetrieverConfig(), tiny_folder, ALONE.device, torch.float32)
    module = torch.nn.ModuleDict({"retriever": retriever.module})
    progress, folder = loop.resume(run / "checkpoints", module, build_optimizers(module, OptimizerConfig()))
    assert folder == saved and progress.step >= 1


def test_it_learns_to_find_and_other_libraries_load_what_it_found(tiny_folder, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    train, dev = write(tmp_path / "train.jsonl", rows(60)), write(tmp_path / "things.jsonl", rows(20))
    prompts = {"query_prompt": "query: ", "document_prompt": "text: "}
    settings = config(
        train, tmp_path / "run", epochs=12, batch_pairs=20, dev=(dev,), save_every_steps=1000, evaluations=2,
        retriever=RetrieverConfig(query_length=24, document_length=24, **prompts),
    )  # fmt: skip
    folder = train_retriever(settings, tiny_folder)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    searched = [line["dev"]["things"] for line in lines if "dev" in line]
    assert len(searched) == 2 and searched[-1] > 0.9
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["pairs"] == {"train": 60} and result["dev"]["scores"][0]["seeds"][0]["ndcg@10"] == pytest.approx(
        searched[-1], abs=1e-5
    )

    engine = load(folder, device="cpu")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    for use, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        mine = engine.embed(THINGS[:3], prompt_name=use)
        np.testing.assert_allclose(mine, encode(THINGS[:3]), atol=1e-4)  # float32, another attention
        np.testing.assert_allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-5)


def test_late_interaction_learns_from_scores_and_leaves_a_pylate_folder(tiny_folder, tmp_path):
    scored = [{**row, "scores": [3.0, *[1.0] * len(row["negatives"])]} for row in rows(40)]
    train, dev = write(tmp_path / "train.jsonl", scored), write(tmp_path / "dev.jsonl", rows(20))
    settings = config(
        train, tmp_path / "run", epochs=10, batch_pairs=20, dev=(dev,), save_every_steps=1000,
        **TOKENS | {"in_batch": InBatch(weight=0), "scores": CandidateScores(weight=1, min_max=True)},
    )  # fmt: skip
    folder = train_retriever(settings, tiny_folder)
    lines = list(lines_of(tmp_path / "run").values())
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    engine = load(folder, device="cpu")
    assert (engine.modules.late.query_length, engine.modules.late.query_prefix) == (16, "[unused0]")
    retriever = make_retriever(settings.retriever, folder, ALONE.device, torch.float32)
    pairs = read_pairs([("s", ("row 1", {"query": "an owl, or", "document": "lwo is 3."}))], PairColumns(), retriever.encode)
    for use, text in ((True, "an owl, or"), (False, "lwo is 3.")):
        trained = retriever.forward(pairs.rows, [0 if use else 1], use).detach().numpy()
        np.testing.assert_allclose(trained, engine.embed_tokens(text, query=use), atol=1e-5)


@pytest.mark.parametrize(("kind", "suffix"), [("cosine", ".npy"), ("mse", ".parquet"), ("similarities", ".npy")])
def test_a_student_moves_towards_its_teachers_vectors(tiny_folder, pairs_file, tmp_path, kind, suffix):
    """The teacher is a fixed projection of word counts, 24 wide against the student's 32."""
    retriever = make_retriever(RetrieverConfig(), tiny_folder, ALONE.device, torch.float32)
    texts = read_pairs(loop.pair_rows((pairs_file,)), PairColumns(), retriever.encode).texts
    table = np.random.default_rng(0).normal(size=(256, 24)).astype(np.float32)
    vectors = np.stack([sum(table[ord(letter)] for letter in text) for text in texts])
    write_vectors(tmp_path / f"teacher{suffix}", vectors, texts)
    teacher = TeacherVectors(weight=1, kind=kind, file=str(tmp_path / f"teacher{suffix}"), scale=5)
    settings = config(pairs_file, tmp_path / "run", epochs=5, in_batch=InBatch(weight=0), teacher=teacher)
    train_retriever(settings, tiny_folder)
    losses = [line["loss"] for line in lines_of(tmp_path / "run").values()]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:2])
    assert "projection.weight" not in weights(tmp_path / "run")


@pytest.mark.parametrize("kind", ["cosine", "similarities"])
def test_a_teacher_says_nothing_of_the_sources_that_it_is_not_for(tiny_folder, tmp_path, kind):
    """The loss of each step is that of a run without a teacher exactly where the batch is of such a source."""
    prose, code = (write(tmp_path / f"{name}.jsonl", rows(24, seed)) for seed, name in enumerate(("prose", "code")))
    retriever = make_retriever(RetrieverConfig(), tiny_folder, ALONE.device, torch.float32)
    texts = read_pairs(loop.pair_rows((prose, code)), PairColumns(), retriever.encode).texts
    write_vectors(tmp_path / "teacher.npy", np.random.default_rng(0).normal(size=(len(texts), 32)), texts)
    losses = {}
    for name, weight in (("alone", 0), ("taught", 1)):
        teacher = TeacherVectors(weight=weight, kind=kind, file=str(tmp_path / "teacher.npy"), not_for=("code",))
        settings = config(prose, tmp_path / name, teacher=teacher, optimizer=OptimizerConfig(lr=1e-9))
        train_retriever(dataclasses.replace(settings, train=(prose, code)), tiny_folder)
        losses[name] = [line["loss"] for line in lines_of(tmp_path / name).values()]
    same = [one == other for one, other in zip(*losses.values(), strict=True)]
    assert same == [False, True, False, True]


def test_mixed_batches_are_of_all_sources(tiny_folder, tmp_path, monkeypatch):
    seen, each = [], loop.each_batch
    monkeypatch.setattr(loop, "each_batch", lambda *given: (seen.append(batch) or batch for batch in each(*given)))
    files = tuple(write(tmp_path / f"{name}.jsonl", rows(24, seed)) for seed, name in enumerate(("prose", "code")))
    train_retriever(config(files[0], tmp_path / "run", mixed=True, train=files), tiny_folder)
    assert sorted(pair for batch in seen[:4] for pair in batch) == list(range(48))
    assert all(0 < sum(pair < 24 for pair in batch) < 12 for batch in seen)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["pairs"] == {"prose": 24, "code": 24}


def numbered(counts):
    found = [(name, ("row", {"query": f"q{name}{i}", "document": f"d{name}{i}"})) for name, n in counts.items() for i in range(n)]
    return read_pairs(found, PairColumns(), lambda texts, is_query: ([[0]] * len(texts), 0))


def test_every_pair_comes_once_a_pass_in_batches_of_one_source():
    pairs = numbered({"a": 25, "b": 7})
    batches = each_batch(pairs.source_P, source_shares(pairs, ()), 8, seed=0)
    seen = {0: [], 1: []}
    for _ in range(40):
        batch = next(batches)
        sources = set(pairs.source_P[batch])
        assert len(sources) == 1 and len(set(batch)) == len(batch)
        seen[sources.pop()] += batch
    for source, size in ((0, 25), (1, 7)):
        assert len(seen[source]) > 2 * size
        for first in range(0, len(seen[source]) - size, size):
            assert len(set(seen[source][first : first + size])) == size


@pytest.mark.parametrize(("weights", "shares"), [((), [0.75, 0.25]), (("a:2",), [6 / 7, 1 / 7]), (("a:0",), [0, 1])])
def test_sources_come_as_often_as_their_pairs_times_their_weights(weights, shares):
    pairs = numbered({"a": 30, "b": 10})
    assert source_shares(pairs, weights).tolist() == pytest.approx(shares)
    batches = each_batch(pairs.source_P, source_shares(pairs, weights), 5, seed=1)
    found = np.bincount([pairs.source_P[next(batches)[0]] for _ in range(70)], minlength=2) / 70
    assert found.tolist() == pytest.approx(shares, abs=1.5 / 70)


def test_what_cannot_be_trained_is_said(tiny_folder, pairs_file, tmp_path):
    def fails(error, message, **changes):
        with pytest.raises(error, match=message):
            train_retriever(config(pairs_file, tmp_path / "run", **changes), tiny_folder)

    with pytest.raises(ConfigError, match="there is nothing to learn from"):
        config(pairs_file, tmp_path, in_batch=InBatch(weight=0))
    with pytest.raises(ConfigError, match="mixed=True: batches are of no one source"):
        config(pairs_file, tmp_path, mixed=True, weights=("pairs:2",))
    with pytest.raises(ConfigError, match="dims and teacher are for one vector a text"):
        config(pairs_file, tmp_path, **TOKENS, dims=(16,))
    fails(ConfigError, r"weights=pears:2: wanted NAME:NUMBER with a source of the pairs; there are pairs", weights=("pears:2",))
    unsaid = TeacherVectors(not_for=("pears",))
    fails(ConfigError, "teacher.not_for=pears: no such source of the pairs; there are pairs", teacher=unsaid)
    fails(DataError, "the pairs have no column 'scores'", scores=CandidateScores(weight=1))
    fails(ConfigError, r"dims=\(64,\): the vectors have 32 dimensions", dims=(64,))
    fails(ConfigError, "query_length=4: the model reads 8 to 8192 tokens", retriever=RetrieverConfig(query_length=4))
    np.save(tmp_path / "short.npy", np.zeros((3, 2)))
    few = TeacherVectors(weight=1, file=str(tmp_path / "short.npy"))
    fails(DataError, r"has the shape \(3, 2\), and there are \d+ distinct texts", teacher=few)


def test_a_folder_with_another_run_is_not_overwritten(tiny_folder, pairs_file, tmp_path):
    train_retriever(config(pairs_file, tmp_path, epochs=0.25), tiny_folder)
    with pytest.raises(TrainingError, match=r"holds a run with other settings \(seed differ\)"):
        train_retriever(config(pairs_file, tmp_path, epochs=0.25, seed=1), tiny_folder)
