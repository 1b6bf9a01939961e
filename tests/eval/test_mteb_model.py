"""What mteb 2.26 asks of an encoder, by its protocol."""

from enum import StrEnum

import numpy as np

from modernbert.checkpoint.modules import Modules
from modernbert.engine.engine import Engine, load
from modernbert.eval.mteb_model import MtebModel


class PromptType(StrEnum):
    query = "query"
    document = "document"


def test_batches_become_vectors_with_the_prompt_of_their_use(tiny_folder):
    plain = load(tiny_folder, device="cpu")
    engine = Engine(plain.model, plain.tokenizer, modules=Modules(pooling="mean", prompts={"query": "find: "}))
    model, batches = MtebModel(engine), [{"text": ["ants", "bees dig"]}, {"text": ["cats"]}]
    texts = ["ants", "bees dig", "cats"]
    settings = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    np.testing.assert_allclose(
        model.encode(batches, prompt_type=PromptType.query, **settings), engine.embed(texts, prompt_name="query")
    )
    vectors = model.encode(batches, prompt_type=PromptType.document, **settings)
    np.testing.assert_allclose(vectors, plain.embed(texts), atol=1e-6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(model.similarity(vectors, vectors), unit @ unit.T, atol=1e-5)
    np.testing.assert_allclose(model.similarity_pairwise(vectors, vectors), np.ones(3), atol=1e-5)
