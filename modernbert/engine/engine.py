"""A model ready for use: texts in; words, vectors, labels, spans or an order out.

    texts ─→ rows that fit ─→ token-budget groups ─→ Batch ─→ model ─→ answers, in the order of the texts

`Engine` is the face; each family of tasks is a file beside this one, of functions over `runner.Runner`.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modernbert.batch import Batch
from modernbert.checkpoint.folder import class_of, load_model
from modernbert.checkpoint.modules import Modules, read_modules
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import read_config, read_pooling
from modernbert.engine import answer, classify, embed, fill_mask, tag
from modernbert.engine.classify import Ranked
from modernbert.engine.hardware import choose_device, choose_inference_dtype, read_dtype
from modernbert.engine.measured import int8_gain
from modernbert.engine.native_layers import use_native_layers
from modernbert.engine.quantized import quantize_model, sample
from modernbert.engine.runner import Runner
from modernbert.engine.tag import Aggregation
from modernbert.errors import CheckpointError, HardwareError
from modernbert.model.fp8 import quantize_fp8
from modernbert.text.tokenizer import Tokenizer
from modernbert.vectors import Precision


def load(
    name_or_folder: str | Path | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    batch_invariant: bool = False,
) -> "Engine":
    """Loads a model with the head that its folder holds, and its tokenizer.

    Args:
        name_or_folder: a packaged model's name, a folder, or `org/name` on the Hugging Face hub; None is our own model.
        device: None takes the best one here; the CPU for int8.
        dtype: "float32", "bfloat16", "float16", "int8" or "fp8", or the same of torch; None is bfloat16 on a GPU or CPU that
            computes in it natively, float32 elsewhere. int8 makes the encoder's weights a quarter as large and its products faster;
            layers that lose too much in it stay in float32 (`engine.quantized`), and all do, with a warning, on a CPU where int8 is
            the slower one. fp8 is for NVIDIA's GPUs from Ada on: the products behind norms in 8-bit floats, the rest in bfloat16.
        batch_invariant: give a text bit for bit the same vector, words, labels or tags in any batch, at any place in it.

    Raises:
        CheckpointError, ConfigError, TokenizerError: nothing has that name, or what it holds is foreign or damaged.
        HardwareError: the device is not there, or is no CPU and int8 was asked for, or has no fp8.
    """
    folder = resolve(name_or_folder)
    wanted = None if dtype is None else read_dtype(dtype)
    device = choose_device("cpu" if wanted == torch.int8 and device is None else device)
    if wanted == torch.int8 and not _int8_pays(device):
        wanted = torch.float32
    cls, tokenizer = class_of(folder), tokenizer_of(folder)
    if wanted == torch.int8:
        model = load_model(cls, folder)
        quantize_model(model, sample(tokenizer), remember=True)
    elif wanted == torch.float8_e4m3fn:
        model = load_model(cls, folder, device=device, dtype=torch.bfloat16)
        quantize_fp8(model)
    else:
        model = load_model(cls, folder, device=device, dtype=wanted or choose_inference_dtype(device))
    if device.type == "cpu":
        use_native_layers(model)
    modules = read_modules(folder) or Modules(pooling=read_pooling(folder))
    return Engine(model, tokenizer, modules=modules, batch_invariant=batch_invariant)


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder.

    Raises:
        TokenizerError: it is missing or damaged.
        CheckpointError: it has more tokens than the model embeds.
    """
    tokenizer, embedded = Tokenizer.load(folder), read_config(folder).vocab_size
    if tokenizer.vocab_size > embedded:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model embeds {embedded:,}; "
            "they are not from the same training: fetch both again from one place"
        )
    return tokenizer


class Engine:
    """A model ready for use; made by `load`, or from parts that are already in memory.

    Where a method takes `truncate`, a text that is longer than the model reads is an error; with `truncate=True` it is cut, and a
    `TruncationWarning` says which texts lost how many tokens. `tag` and `answer` read long texts in windows and cut nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        modules: Modules | None = None,
        batch_invariant: bool = False,
    ) -> None:
        """Puts the parts together.

        Args:
            model: one of `checkpoint.folder.ARCHITECTURES`, in eval mode, on the device and in the dtype that it shall run in.
                Every one embeds; the other tasks need their head.
            tokenizer: the one that the model was trained with.
            modules: what `embed` does after the encoder; None pools as the config's `classifier_pooling` says.
            batch_invariant: as in `load`.
        """
        self._runner = Runner(model, tokenizer, batch_invariant=batch_invariant)
        self.model = model
        self.config = self._runner.config
        self.tokenizer = tokenizer
        self.device = self._runner.device
        self.modules = modules or Modules(pooling=self.config.classifier_pooling)

    def fill_mask(self, text: str | Iterable[str], top_k: int = 5) -> list[Any]:
        """The likeliest words at each mask, exactly as transformers' fill-mask pipeline returns them.

        Args:
            text: a text with one `[MASK]` or more, or several such texts.
            top_k: words for each mask.

        Returns:
            For a text with one mask a list of `Word`, likeliest first; with several masks a list of such lists. For several
            texts a list with the answer to each; for a list of a single text, the pipeline's habit, the answer alone.

        Raises:
            TextError: a text has no mask, is too long for the model or is not valid Unicode; says which.
            ConfigError: `top_k` is not between 1 and the size of the vocabulary.
            CheckpointError: the model has no masked-language-model head.
        """
        return fill_mask.fill_mask(self._runner, text, top_k)

    def logits(self, batch: Batch, at_M: Int[Tensor, "M"]) -> Float[Tensor, "M V"]:
        """Scores over the vocabulary, in float32 on the model's device, at the token positions `at_M` of the batch.

        Raises:
            CheckpointError: the model has no masked-language-model head.
        """
        return fill_mask.logits(self._runner, batch, at_M)

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        normalize: bool = False,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        truncate: bool = False,
        batch_tokens: int | None = None,
    ) -> np.ndarray:
        """One vector a text: pooled, projected and normalised as the model's folder says.

        Args:
            texts: a text, or several of any lengths. An empty one is embedded as `[CLS] [SEP]`.
            prompt: text to put before each text.
            prompt_name: name of a prompt in the folder, such as "query"; with neither, the folder's default, if it has one.
            normalize: scale the vectors to length 1, after `truncate_dim`.
            truncate_dim: keep only the first dimensions, which models trained with Matryoshka losses bear.
            precision: int8, uint8, binary or ubinary for smaller vectors: see `embed.quantize`, also for its ranges.
            truncate: cut texts that are too long, and warn, in place of the error.
            batch_tokens: tokens that go through the model together; None is what this device is fast with: 65,536 in 16 bits on an
                NVIDIA GPU from Ampere on. Fewer take less memory; the vectors do not depend on it.

        Returns:
            float32 [texts, width] in the order of the texts, [width] for a single string; smaller types as `precision` says.

        Raises:
            TextError: a text is too long for the model or is not valid Unicode; says which.
            ConfigError: no prompt has that name, or a setting is out of its range.
            CheckpointError: the model gives a vector for each token, none for a text.
        """
        return embed.embed(
            self._runner,
            self.modules,
            texts,
            prompt=prompt,
            prompt_name=prompt_name,
            normalize=normalize,
            truncate_dim=truncate_dim,
            precision=precision,
            truncate=truncate,
            batch_tokens=batch_tokens,
        )

    def embed_tokens(
        self, texts: str | Iterable[str], *, query: bool = False, truncate: bool = False, batch_tokens: int | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """A unit vector for each token, special tokens included, by the late-interaction head (ColBERT); compare by MaxSim.

        A folder in PyLate's dialect says more: prefixes, lengths, masks that fill up queries, tokens of documents to leave out.

        Args:
            texts: a text, or several.
            query: whether they are queries, which such a folder treats otherwise than documents.
            truncate: cut texts that are too long, and warn, in place of the error.
            batch_tokens: tokens that go through the model together; None leaves it to the device.

        Returns:
            float32 [tokens, width] for each text; for a single string that alone.

        Raises:
            TextError: a text is too long for the model or is not valid Unicode; says which.
            CheckpointError: the model has no late-interaction head.
        """
        return embed.embed_tokens(self._runner, self.modules, texts, query=query, truncate=truncate, batch_tokens=batch_tokens)

    def classify(self, texts: Any, top_k: int | None = 1, *, truncate: bool = False) -> Any:
        """Classes of texts, or of pairs of texts, as transformers' text-classification pipeline returns them.

        One class of several is scored by softmax, several at once (`problem_type` multi_label_classification) or a single one
        by sigmoid, and a regression gives its value.

        Args:
            texts: a text, a pair as a tuple or as {"text": …, "text_pair": …}, or several of either.
            top_k: 1 is the likeliest class alone; a greater number that many of them, and None all.
            truncate: cut texts that are too long (of a pair, the longer), and warn, in place of the error.

        Returns:
            {"label", "score"} for each text; a list of these, best first, where `top_k` is not 1. A single string gives a list, a
            single pair its label alone: the pipeline's habit.

        Raises:
            TextError: a text is too long for the model or is not valid Unicode; says which.
            CheckpointError: the model has no sequence-classification head.
        """
        return classify.classify(self._runner, texts, top_k, truncate=truncate)

    def zero_shot(
        self,
        texts: str | Iterable[str],
        labels: Sequence[str] | str,
        hypothesis_template: str = "This example is {}.",
        *,
        multi_label: bool = False,
        truncate: bool = False,
    ) -> Any:
        """Classes that the model was not trained on, by natural language inference: does the text entail "This example is {label}."?

        Args:
            texts: a text, or several.
            labels: names of the classes; a single string is cut at its commas.
            hypothesis_template: with one `{}` for the label.
            multi_label: score each label for itself, entailment against contradiction; else the labels share 1.
            truncate: cut texts that are too long, and warn, in place of the error.

        Returns:
            {"sequence", "labels", "scores"}, likeliest first, for each text; for a single string that alone. So does
            transformers' zero-shot-classification pipeline.

        Raises:
            TextError: a text is too long for the model or is not valid Unicode; says which.
            ConfigError: none of the model's classes is called entailment, or the template has no place for a label.
            CheckpointError: the model has no sequence-classification head.

        Source: Yin et al. 2019 (arXiv 1909.00161).
        """
        return classify.zero_shot(self._runner, texts, labels, hypothesis_template, multi_label, truncate)

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        *,
        return_documents: bool = True,
        truncate: bool = False,
    ) -> list[Ranked]:
        """Documents in the order of their relevance to a query, by a cross-encoder; as sentence-transformers' CrossEncoder.rank.

        Args:
            query: tokenised once, whatever the number of documents.
            documents: in any order and of any lengths.
            top_k: how many to return; None is all.
            return_documents: whether to give the texts too.
            truncate: cut documents that are too long, and warn, in place of the error.

        Returns:
            {"corpus_id", "score", "text"}, best first; `corpus_id` is the document's place in `documents`. Scores go through the
            activation that the folder states, else the sigmoid.

        Raises:
            TextError: a document is too long for the model or is not valid Unicode; says which.
            ConfigError: the model has more labels than one.
            CheckpointError: the model has no sequence-classification head.
        """
        return classify.rerank(self._runner, query, documents, top_k, return_documents, truncate)

    def tag(
        self,
        texts: Any,
        aggregation: Aggregation | None = "simple",
        *,
        ignore_labels: Sequence[str] = ("O",),
        is_split_into_words: bool = False,
        max_length: int | None = None,
        overlap: int = 256,
    ) -> Any:
        """Entities in texts, as transformers' token-classification pipeline returns them.

        A text of any length is read: beyond `max_length` in windows that overlap, whose scores are joined token by token.

        Args:
            texts: a text, or several; with `is_split_into_words` a list of words, or several.
            aggregation: how tokens become entities: "simple" joins neighbours of one class; "first", "average" and "max" let the
                tokens of a word agree before that; None gives tokens.
            ignore_labels: classes to leave out.
            is_split_into_words: the texts are lists of words; they are read, and counted in, as joined by single spaces.
            max_length: tokens of a window, special tokens included; None is what the model reads.
            overlap: tokens that a window shares with the one before; each token is judged where it has most around it.

        Returns:
            For each text a list of {"entity_group", "score", "word", "start", "end"}, in their order, with places in characters;
            of {"entity", "score", "index", "word", "start", "end"} for None. For a single text that list alone.

        Raises:
            TextError: a text is not valid Unicode, or is no list of words; says which.
            CheckpointError: the model has no token-classification head.
        """
        return tag.tag(self._runner, texts, aggregation, ignore_labels, is_split_into_words, max_length, overlap)

    def answer(
        self,
        question: str | Iterable[str],
        context: str | Iterable[str],
        top_k: int = 1,
        *,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        max_length: int | None = None,
        overlap: int = 128,
    ) -> Any:
        """Answers to questions, as spans of a context; in the shape of transformers' question-answering pipeline (gone from 5).

        A context of any length is read: beyond `max_length` in windows that overlap.

        Args:
            question: a question, or several.
            context: the text that holds the answer; one for each question, or one for all.
            top_k: answers to return.
            max_answer_len: tokens of the longest answer.
            handle_impossible_answer: let "there is none" compete, as an empty answer.
            max_length: tokens of question and window together, special tokens included; None is what the model reads.
            overlap: tokens that a window shares with the one before.

        Returns:
            {"score", "start", "end", "answer"} with places in characters; a list of these, best first, where `top_k` is not 1.
            One of that for each question; for a single question and context that alone.

        Raises:
            TextError: a question leaves no room for its context, or a context holds no word; says which.
            CheckpointError: the model has no question-answering head.

        Source: Devlin et al. 2019 (arXiv 1810.04805) §4.2 and §4.3.
        """
        return answer.answer(
            self._runner, question, context, top_k, max_answer_len, handle_impossible_answer, max_length, overlap
        )


def _int8_pays(device: torch.device) -> bool:
    """Whether int8 is the faster choice here; warns where it is not.

    Raises:
        HardwareError: the device is no CPU.
    """
    if device.type != "cpu":
        raise HardwareError(f"int8 runs on the CPU, not on {device}; leave the device or the dtype out")
    gain = int8_gain()
    if gain < 1:
        said = f"takes {1 / gain:.1f} times as long as float32" if gain else "has no exact product in this PyTorch"
        warnings.warn(f"int8 {said} on this CPU: the model runs in float32", stacklevel=3)
    return gain >= 1
