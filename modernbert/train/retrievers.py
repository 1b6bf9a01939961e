"""The two kinds of retrievers that contrastive training makes: one vector a text, or one a token. Texts in, vectors out.

T tokens · D width of a text's vector · O width of a token's.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.checkpoint.folder import load_model
from modernbert.checkpoint.modules import (
    Dense,
    Modules,
    load_late_interaction,
    read_modules,
    save_late_interaction,
    save_sentence_transformer,
)
from modernbert.checkpoint.settings import read_config
from modernbert.config import ModelConfig, Pooling
from modernbert.engine.engine import Engine, tokenizer_of
from modernbert.errors import ConfigError
from modernbert.model.encoder import Encoder
from modernbert.model.expansion import encode_half_seen
from modernbert.model.heads import Embedder, LateInteraction
from modernbert.tasks.contrastive import TokenVectors, Vectors
from modernbert.tasks.pairs import TokenRows
from modernbert.vectors import LateSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrieverConfig:
    """What a retriever does with texts."""

    kind: Literal["vector", "tokens"] = "vector"
    """One vector a text, or one a token for late interaction (ColBERT)."""
    pooling: Pooling = "mean"
    """Of one vector a text; mean as the paper's retrieval models."""
    query_prompt: str = ""
    """Put before a query; saved with the model, which puts it there by itself."""
    document_prompt: str = ""
    query_length: int = 64
    """Tokens of the longest query, special tokens and prompt included; longer ones lose their end, which is reported. With one vector a
    token, queries are filled up to it with [MASK]: 32 is usual there."""
    document_length: int = 512
    dropout: float = 0.0
    """Of attention's output."""


@runtime_checkable
class Retriever(Protocol):
    """What the loop asks of either kind."""

    module: nn.Module
    width: int

    def encode(self, texts: Sequence[str], is_query: bool) -> tuple[list[list[int]], int]:
        """Token rows that fit, and how many texts were cut."""

    def sizes(self, rows: TokenRows, numbers: Sequence[int], is_query: bool) -> list[int]:
        """How many vectors each text has."""

    def tokens(self, rows: TokenRows, numbers: Sequence[int], is_query: bool) -> list[int]:
        """How many tokens each text costs."""

    def forward(self, rows: TokenRows, numbers: Sequence[int], is_query: bool) -> Tensor:
        """The vectors of some texts, end to end."""

    def join(self, x: Tensor, queries: Sequence[int], documents: Sequence[int]) -> Vectors | TokenVectors:
        """Queries' vectors and then documents', told apart by how many each text has."""

    def save(self, folder: Path) -> None:
        """Writes a folder that other libraries load."""

    def engine(self) -> Engine:
        """The model as it is now, ready for use."""


def make_retriever(settings: RetrieverConfig, folder: Path, device: torch.device, dtype: torch.dtype) -> Retriever:
    """A retriever that begins with the weights of a folder: of any head, or of a retriever.

    Raises:
        ConfigError: settings that the model does not allow.
        CheckpointError, TokenizerError: the folder is foreign or damaged.
    """
    found = read_config(folder)
    for name in ("query_length", "document_length"):
        if not 8 <= getattr(settings, name) <= found.max_position_embeddings:
            raise ConfigError(f"{name}={getattr(settings, name)}: the model reads 8 to {found.max_position_embeddings} tokens")
    kind = VectorRetriever if settings.kind == "vector" else TokenRetriever
    return kind(settings, folder, found, device, dtype)


class _Base:
    """What both kinds share: where the weights come from, and how a row is cut."""

    def __init__(
        self, settings: RetrieverConfig, folder: Path, found: ModelConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.settings, self.saved_config, self.device = settings, found, device
        self.config = found.with_(attention_dropout=settings.dropout, classifier_pooling=settings.pooling)
        self.tokenizer = tokenizer_of(folder)
        self.module = self.make(folder).to(device).float()
        self.module.model.compute_dtype = dtype  # type: ignore[union-attr]

    def make(self, folder: Path) -> nn.Module:
        raise NotImplementedError

    def cut(self, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
        rows = self.tokenizer.encode(texts)
        lost = sum(len(row) > length for row in rows)
        return [row if len(row) <= length else [*row[: length - 1], row[-1]] for row in rows], lost

    def tokens(self, rows: TokenRows, numbers: Sequence[int], is_query: bool) -> list[int]:
        return rows.lengths[list(numbers)].tolist()


class VectorRetriever(_Base):
    """One vector a text."""

    def make(self, folder: Path) -> nn.Module:
        self.width = self.config.hidden_size
        return load_model(Embedder, folder, config=self.config, dtype=torch.float32, device=self.device)

    def encode(self, texts: Sequence[str], is_query: bool) -> tuple[list[list[int]], int]:
        said = self.settings
        prompt, length = (said.query_prompt, said.query_length) if is_query else (said.document_prompt, said.document_length)
        return self.cut([prompt + text for text in texts] if prompt else texts, length)

    def sizes(self, rows: TokenRows, numbers: Sequence[int], is_query: bool) -> list[int]:
        return [1] * len(numbers)

    def forward(self, rows: TokenRows, numbers: Sequence[int], is_query: bool) -> Tensor:
        return self.module(rows.pack(numbers).to(self.device))

    def join(self, x: Tensor, queries: Sequence[int], documents: Sequence[int]) -> Vectors:
        return Vectors(query_BD=x[: len(queries)], document_KD=x[len(queries) :])

    @property
    def modules(self) -> Modules:
        said = self.settings
        prompts = {"query": said.query_prompt, "document": said.document_prompt}
        return Modules(
            pooling=said.pooling,
            normalize=True,
            prompts=prompts if any(prompts.values()) else {},
        )

    def save(self, folder: Path) -> None:
        assert isinstance(self.module, Embedder)
        save_sentence_transformer(self.module, self.saved_config, folder, self.modules, tokenizer=self.tokenizer)

    def engine(self) -> Engine:
        return Engine(self.module.eval(), self.tokenizer, modules=self.modules)


class TokenRetriever(_Base):
    """One vector a token, as PyLate has it: a prefix token, queries filled up with masks that nobody sees, no punctuation in documents."""

    def make(self, folder: Path) -> nn.Module:
        said = self.settings
        late = getattr(read_modules(folder), "late", None)
        if late is not None:
            module, late = load_late_interaction(folder)
            module.model.config = self.config
        else:
            module = LateInteraction(self.config)
            nn.init.normal_(module.linear.weight, std=self.config.hidden_size**-0.5)
            module.model = load_model(Encoder, folder, config=self.config, dtype=torch.float32)
            own = self.tokenizer.id("[Q] ") is not None and self.tokenizer.id("[D] ") is not None
            prefixes = ("[Q] ", "[D] ") if own else ("[unused0]", "[unused1]")
            late = LateSettings(query_prefix=prefixes[0], document_prefix=prefixes[1])
        self.late = dataclasses.replace(late, query_length=said.query_length, document_length=said.document_length)
        ids = [self.tokenizer.id(prefix) for prefix in (self.late.query_prefix, self.late.document_prefix)]
        if None in ids:
            raise ConfigError(
                f"the vocabulary has neither '[Q] ' and '[D] ' nor {self.late.query_prefix!r} and {self.late.document_prefix!r} to mark "
                "queries and documents; train a tokenizer with `modernbert prepare tokenizer`, which has unused tokens"
            )
        self.prefix = {True: ids[0], False: ids[1]}
        self.skipped = np.array([id for word in self.late.skiplist_words if (id := self.tokenizer.id(word)) is not None])
        self.width = module.width
        return module

    def encode(self, texts: Sequence[str], is_query: bool) -> tuple[list[list[int]], int]:
        length = self.late.query_length if is_query else self.late.document_length
        rows, lost = self.cut(texts, length - 1)
        return [[row[0], int(self.prefix[is_query] or 0), *row[1:]] for row in rows], lost

    def sizes(self, rows: TokenRows, numbers: Sequence[int], is_query: bool) -> list[int]:
        if is_query:
            return [self.late.query_length] * len(numbers)
        return [int(np.isin(rows[number], self.skipped, invert=True).sum()) for number in numbers]

    def tokens(self, rows: TokenRows, numbers: Sequence[int], is_query: bool) -> list[int]:
        return self.sizes(rows, numbers, True) if is_query else super().tokens(rows, numbers, False)

    def forward(self, rows: TokenRows, numbers: Sequence[int], is_query: bool) -> Tensor:
        assert isinstance(self.module, LateInteraction)
        if not is_query:
            batch = rows.pack(numbers)
            kept_T = torch.from_numpy(np.isin(batch.ids_T.numpy(), self.skipped, invert=True))
            return self.module(batch.to(self.device))[kept_T.to(self.device)]
        ids_BL = torch.full((len(numbers), self.late.query_length), self.tokenizer.mask_id)
        for place, number in enumerate(numbers):
            ids_BL[place, : len(rows[number])] = torch.from_numpy(rows[number])
        lengths_B = torch.from_numpy(rows.lengths[list(numbers)])
        seen_BL = torch.arange(self.late.query_length) < lengths_B[:, None]
        x_BLD = encode_half_seen(self.module.model, ids_BL.to(self.device), seen_BL.to(self.device))
        return F.normalize(self.module.linear(x_BLD.flatten(0, 1)), dim=-1)

    def join(self, x: Tensor, queries: Sequence[int], documents: Sequence[int]) -> TokenVectors:
        texts = x.split([*queries, *documents])
        return TokenVectors(queries=texts[: len(queries)], documents=texts[len(queries) :])

    def save(self, folder: Path) -> None:
        assert isinstance(self.module, LateInteraction)
        save_late_interaction(self.module, self.saved_config, folder, self.late, tokenizer=self.tokenizer)

    def engine(self) -> Engine:
        assert isinstance(self.module, LateInteraction)
        dense = (Dense(weight_OE=self.module.linear.weight.detach()),)
        modules = Modules(pooling=None, dense=dense, similarity="MaxSim", late=self.late)
        return Engine(self.module.model.eval(), self.tokenizer, modules=modules)
