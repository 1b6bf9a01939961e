"""Batches of few shapes on their way through a device, several at once."""

import numpy as np
import pytest
import torch

from modernbert.batch import pack
from modernbert.checkpoint.modules import Modules
from modernbert.engine.engine import Engine, load
from modernbert.engine.runner import TOGETHER, Runner, mean_in_order
from modernbert.engine.stream import FILLING, Shape, Stream, batch_of, shape_of, size_of, stage, uses_before_capture
from modernbert.errors import TextError
from modernbert.model.heads import SequenceClassifier, pool
from modernbert.text.rows import CHUNK, TruncationWarning
from modernbert.text.tokenizer import Tokenizer

FULL = [[30] * 2184, [13] * 5000, [300] * 215, [700, *[300] * 213], [8000] * 8]
LENGTHS = [[1], [16], [31], [32, 1], [300, 7, 1], [2] * 200, [1500], [4] * 500, [8192, 8192], *FULL]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("fixed", [None, (66_000, (256, 8192))])
def test_what_fills_a_batch_up_is_rows_of_its_own(lengths, fixed):
    rows = [[7 + i] * length for i, length in enumerate(lengths)]
    shape = shape_of(lengths, fixed)
    staged = torch.zeros(size_of(shape), dtype=torch.int32)
    stage(rows, shape, staged.numpy())
    found, wanted = batch_of(staged, shape), pack(rows)
    real = sum(lengths)
    assert found.rows == shape.rows and len(found.ids_T) == shape.tokens > real
    assert found.ids_T[:real].equal(wanted.ids_T) and found.pos_T[:real].equal(wanted.pos_T)
    assert found.cu_seqlens[: len(rows) + 1].equal(wanted.cu_seqlens)
    all_lengths = found.cu_seqlens.diff()
    assert (all_lengths >= 0).all() and all_lengths[len(rows) :].max() <= FILLING
    assert all_lengths.max() <= shape.max_seqlen and found.cu_seqlens[-1] == shape.tokens
    assert (found.cu_seqlens[:-1] < shape.tokens).all()  # pooling by a row's first token reads there
    starts_T = found.cu_seqlens[:-1].repeat_interleave(all_lengths)
    assert found.pos_T.equal(torch.arange(shape.tokens, dtype=torch.int32) - starts_T)


def test_many_batches_have_few_shapes():
    random = np.random.default_rng(0)
    few = {shape_of([length]) for length in range(1, 1024)}
    large = {shape_of(random.integers(2, 300, 210).tolist()).tokens for _ in range(200)}
    assert len(few) <= 6 and len(large) <= 40


def test_results_come_in_the_order_of_the_groups():
    stream = Stream(torch.device("cpu"))
    groups = [([i], [[i] * (i + 1)]) for i in range(20)]
    found = list(stream.each(groups, lambda batch: batch.ids_T[:, None]))
    assert [numbers for numbers, _, _ in found] == [[i] for i in range(20)]
    assert all(x[: i + 1].eq(i).all() for i, (_, _, x) in enumerate(found))


def test_many_texts_are_tokenised_ahead_and_keep_their_order(tiny_folder):
    engine = load(tiny_folder, device="cpu")
    texts = [f"{'word ' * (i % 7)}{i}" for i in range(CHUNK + 1100)]
    found = engine.embed(texts)
    some = [0, 5, 1023, 1024, CHUNK, CHUNK + 1, len(texts) - 1]
    np.testing.assert_allclose(found[some], engine.embed([texts[i] for i in some]), atol=1e-5)  # float32 rounding


def test_among_many_texts_the_one_that_is_wrong_is_named_by_its_number(tiny_folder, long_text):
    engine = load(tiny_folder, device="cpu")
    number = CHUNK + 7
    texts = ["x"] * (CHUNK + 10)
    texts[number] = "\ud800"
    with pytest.raises(TextError, match=f"text {number} is not valid Unicode"):
        engine.embed(texts)
    texts[number] = long_text * 30
    with pytest.raises(TextError, match=f"text {number} has .* tokens"):
        engine.embed(texts)
    with pytest.warns(TruncationWarning, match=f"text {number} lost"):
        cut = engine.embed(texts, truncate=True)
    with pytest.warns(TruncationWarning):
        np.testing.assert_allclose(cut[number], engine.embed(texts[number], truncate=True), atol=1e-5)


def _texts(random: np.random.Generator, count: int) -> list[str]:
    words = ["the", "capital", "of", "France", "is", "Paris", "and", "seven", "days", "make", "a", "week"]
    return [" ".join(random.choice(words, random.integers(1, 60))) for _ in range(count)]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_text_gives_the_same_bits_in_any_batch_where_that_is_asked_for(tiny_folder, pooling):
    engine = load(tiny_folder, device="cpu", batch_invariant=True)
    engine.modules = type(engine.modules)(pooling=pooling)
    random = np.random.default_rng(1)
    texts = _texts(random, 40)
    alone = np.stack([engine.embed(text) for text in texts[:5]])
    together = engine.embed(texts)
    np.testing.assert_array_equal(alone, together[:5])
    for _ in range(3):
        order = random.permutation(len(texts))[: random.integers(2, len(texts))]
        np.testing.assert_array_equal(engine.embed([texts[i] for i in order]), together[order])
    np.testing.assert_allclose(together, _plain(engine, pooling).embed(texts), atol=1e-5)


def test_the_mean_of_a_row_has_the_same_bits_at_any_place():
    """Rows of up to 700 tokens behind others of any length, empty ones between; within float32 rounding of the plain mean."""
    random = np.random.default_rng(0)
    rows = [torch.randn(length, 8) for length in (1, 63, 64, 65, 128, 129, 700)]
    alone = [mean_in_order(row, pack([[0] * len(row)])) for row in rows]
    for _ in range(20):
        order = [*random.permutation(len(rows))]
        lengths = [length for i in order for length in (int(random.integers(0, 70)), 0, len(rows[i]))]
        batch = pack([[0] * length for length in lengths])
        x_TD = torch.randn(sum(lengths), 8)
        for i, start in zip(order, batch.cu_seqlens[2::3].tolist(), strict=False):
            x_TD[start : start + len(rows[i])] = rows[i]
        found = mean_in_order(x_TD, batch)[2::3]
        assert all(one.equal(alone[i][0]) for one, i in zip(found, order, strict=True))
        torch.testing.assert_close(found, pool(x_TD, batch, "mean")[2::3], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_prompt_that_is_not_pooled_is_left_out_of_rows_that_a_stream_has_filled_up(tiny_folder, pooling):
    """Those of the filling may have fewer tokens than the prompt, or none."""
    plain, streamed = load(tiny_folder, device="cpu"), load(tiny_folder, device="cpu")
    streamed._runner._streams = True
    texts = _texts(np.random.default_rng(0), 300)
    for engine in (plain, streamed):
        engine.modules = Modules(pooling=pooling, prompts={"query": "what of this: "}, include_prompt=False)
    np.testing.assert_allclose(
        streamed.embed(texts, prompt_name="query"), plain.embed(texts, prompt_name="query"), atol=1e-5
    )  # float32 rounding


def _plain(engine: Engine, pooling: str) -> Engine:
    return Engine(engine.model, engine.tokenizer, modules=type(engine.modules)(pooling=pooling))


def test_rows_and_tokens_are_those_of_plain_batches(tiny_folder):
    plain = load(tiny_folder, device="cpu")
    runner = Runner(plain.model, Tokenizer.load(tiny_folder))
    runner._streams = True
    rows = [[5] * length for length in (3, 1, 40, 17, 200)]
    streamed = runner.per_token(rows, runner.encoder, "test", 64)
    for row, found in zip(rows, streamed, strict=True):
        wanted = plain.model.model(pack([row])).detach().numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.gpu
def test_small_batches_replay_a_graph_with_the_same_vectors(tiny_folder):
    engine = load(tiny_folder, device="cuda", dtype="bfloat16")
    texts = [f"{'word ' * i}Paris" for i in range(12)]
    first = [engine.embed(text) for text in texts]
    for _ in range(5):
        np.testing.assert_allclose([engine.embed(text) for text in texts], first, atol=2e-2)  # bfloat16
    assert engine._runner.stream.graphs.kept


def test_full_batches_have_few_shapes():
    random = np.random.default_rng(0)
    found = set()
    for mean in (12, 30, 80, 300, 700, 2000):
        for _ in range(50):
            lengths = random.integers(mean // 2, 3 * mean // 2, 131_072 // mean)
            found.add(shape_of(lengths[: lengths.cumsum().searchsorted(65_535)].tolist()))
    assert len(found) <= 18 and {shape.tokens for shape in found} == {65_536}


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", FULL)
def test_full_batches_replay_a_graph_with_the_same_vectors(tiny_folder, monkeypatch, lengths):
    """Other ids in the same shape, others in between; the kernels are the same, but a mean's sums are of no certain order."""
    monkeypatch.setattr("modernbert.engine.stream.FULL_USES_BEFORE_CAPTURE", 0)
    runner = load(tiny_folder, device="cuda", dtype="bfloat16")._runner
    compute = lambda batch: pool(runner.encoder(batch).float(), batch, "mean")  # noqa: E731
    random = np.random.default_rng(0)
    batches = [
        [random.integers(5, 200, length).tolist() for length in some] for some in (lengths, [17] * 3800, lengths[1:], lengths)
    ]
    groups = [(list(range(len(rows))), rows) for rows in batches]
    replayed = [x[: len(rows)] for _, rows, x in runner.stream.each(groups, compute, "test")]
    shapes = {shape_of([len(row) for row in rows]) for rows in batches}
    assert len(runner.stream.graphs.kept) == sum(uses_before_capture(shape) is not None for shape in shapes)
    plain = [x[: len(rows)] for _, rows, x in runner.stream.each(groups, compute)]
    for found, wanted in zip(replayed, plain, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_shapes_count_as_equal_when_their_numbers_are():
    assert shape_of([16]) == Shape(tokens=32, rows=9, max_seqlen=32) == shape_of([9, 2])


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_on_a_gpu_batches_that_are_not_waited_for_give_the_vectors_of_those_that_are(tiny_folder, pooling):
    """Within what float16 rounds, with products of another size; another text's vector is as far away as it is long."""
    engine = load(tiny_folder, device="cuda", dtype="float16")
    engine.modules = Modules(pooling=pooling, prompts={"query": "what of this: "}, include_prompt=False)
    texts = _texts(np.random.default_rng(0), 3000)
    assert engine._runner._streams
    for given in ({}, {"prompt_name": "query"}, {"batch_tokens": 3000}):
        streamed = engine.embed(texts, **given)
        engine._runner._streams = False
        plain = engine.embed(texts, **given)
        engine._runner._streams = True
        assert np.linalg.norm(streamed - plain) < 3e-2 * np.linalg.norm(plain)


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_on_a_gpu_a_text_gives_the_same_bits_in_any_batch_where_that_is_asked_for(tiny_folder, long_text, pooling):
    engine = load(tiny_folder, device="cuda", dtype="bfloat16", batch_invariant=True)
    engine.modules = Modules(pooling=pooling)
    random = np.random.default_rng(1)
    texts = [*_texts(random, 200), long_text]
    together = engine.embed(texts, truncate=True)
    for _ in range(5):
        order = random.permutation(len(texts))[: random.integers(2, len(texts))]
        np.testing.assert_array_equal(engine.embed([texts[i] for i in order], truncate=True), together[order])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_words_and_classes_have_the_same_bits_in_any_batch_where_that_is_asked_for(head_folder, tiny_folder, device):
    """Heads see one count of vectors, whatever a batch holds, because it chooses kernels."""
    words = load(tiny_folder, device=device, batch_invariant=True)
    classes = load(head_folder(SequenceClassifier, num_labels=3), device=device, batch_invariant=True)
    random = np.random.default_rng(2)
    texts = [f"{text} [MASK] {text}" for text in _texts(random, TOGETHER + 9)]
    for engine, decoder, ask in ((words, words.model.decoder, "fill_mask"), (classes, classes.model.classifier, "classify")):
        counts: set[int] = set()
        decoder.register_forward_hook(lambda _, given, __, counts=counts: counts.add(len(given[0])))
        together = getattr(engine, ask)(texts, 3)
        order = random.permutation(len(texts))[:20].tolist()
        assert getattr(engine, ask)([texts[i] for i in order], 3) == [together[i] for i in order]
        assert counts == {TOGETHER}
