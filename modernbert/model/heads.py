"""What sits on the encoder: one class a task, each from a `Batch` to its output.

B rows · T tokens in the batch · D hidden · M chosen positions · V vocabulary · C classes.

Source: facts §1.3; attribute names are those of the published checkpoints.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import Batch
from modernbert.config import ModelConfig, Pooling
from modernbert.model.encoder import Encoder
from modernbert.model.layers import LayerNorm, Linear


class PredictionHead(nn.Module):
    """Dense, GELU, norm: the step between the encoder and any decoder or classifier."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, bias=False)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)

    def forward(self, x_XD: Float[Tensor, "X D"]) -> Float[Tensor, "X D"]:
        return self.norm(F.gelu(self.dense(x_XD)))


def pool(x_TD: Float[Tensor, "T D"], batch: Batch, pooling: Pooling) -> Float[Tensor, "B D"]:
    """One vector a row: its first token (cls), or the float32 mean of all its tokens (mean). Rows must not be empty."""
    if pooling == "cls":
        return x_TD[batch.cu_seqlens[:-1]]
    lengths_B = batch.cu_seqlens.diff()
    row_T = torch.arange(batch.rows, device=x_TD.device).repeat_interleave(lengths_B, output_size=len(x_TD))
    sums_BD = x_TD.new_zeros((batch.rows, x_TD.shape[-1]), dtype=torch.float32).index_add_(0, row_T, x_TD.float())
    return (sums_BD / lengths_B[:, None]).to(x_TD.dtype)


class MaskedLM(nn.Module):
    """Scores over the vocabulary; the decoder shares the embedding's weights and has a bias of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Encoder(config)
        self.head = PredictionHead(config)
        self.decoder = Linear(config.hidden_size, config.vocab_size, bias=True)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Makes decoder and embedding one parameter, where the config says so; needed again after weights were assigned."""
        if self.config.tie_word_embeddings:
            self.decoder.weight = self.model.embeddings.tok_embeddings.weight

    def set_rope(self, **changes: float) -> None:
        """As `Encoder.set_rope`; the config follows."""
        self.model.set_rope(**changes)
        self.config = self.model.config

    def forward(self, batch: Batch, at_M: Int[Tensor, "M"] | None = None) -> Float[Tensor, "M V"]:
        """Logits at the token positions `at_M` of the batch only, or at all of them: the vocabulary's product is the dearest."""
        x_TD = self.model(batch)
        return self.decoder(self.head(x_TD if at_M is None else x_TD[at_M]))


class Classifier(nn.Module):
    """Encoder, prediction head, dropout and a linear classifier, which the task heads below apply to rows or to tokens."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.model = Encoder(config)
        self.head = PredictionHead(config)
        self.drop = nn.Dropout(config.classifier_dropout)
        self.classifier = Linear(config.hidden_size, classes, bias=True)

    def classify(self, x_XD: Float[Tensor, "X D"]) -> Float[Tensor, "X C"]:
        return self.classifier(self.drop(self.head(x_XD)))

    def pooled(self, batch: Batch) -> Float[Tensor, "B D"]:
        return pool(self.model(batch), batch, self.config.classifier_pooling)


class SequenceClassifier(Classifier):
    """Scores a row: classes, several labels, or a regression with one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.num_labels)

    def forward(self, batch: Batch) -> Float[Tensor, "B C"]:
        return self.classify(self.pooled(batch))


class TokenClassifier(Classifier):
    """Scores every token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.num_labels)

    def forward(self, batch: Batch) -> Float[Tensor, "T C"]:
        return self.classify(self.model(batch))


class QuestionAnswerer(Classifier):
    """Scores every token as the start and as the end of the answer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, 2)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
        start_T, end_T = self.classify(self.model(batch)).unbind(-1)
        return start_T, end_T


class MultipleChoice(Classifier):
    """Scores rows in groups: each `choices` rows in turn are the choices of one question."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, 1)

    def forward(self, batch: Batch, choices: int) -> Float[Tensor, "questions choices"]:
        return self.classify(self.pooled(batch)).view(-1, choices)


class Embedder(nn.Module):
    """One vector a row, pooled as the config says; not normalised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Encoder(config)

    def forward(self, batch: Batch) -> Float[Tensor, "B D"]:
        return pool(self.model(batch), batch, self.config.classifier_pooling)


class LateInteraction(nn.Module):
    """One short unit vector a token, for MaxSim search (ColBERT; 128 wide, no bias, as the paper's retrieval models)."""

    width = 128

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Encoder(config)
        self.linear = Linear(config.hidden_size, self.width, bias=False)

    def forward(self, batch: Batch) -> Float[Tensor, "T 128"]:
        return F.normalize(self.linear(self.model(batch)), dim=-1)
