"""The masked-language-model loss, as a sum: whoever knows how many labels a whole step has divides by that.

M masked positions · V vocabulary.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from modernbert.batch import Batch
from modernbert.kernels.cross_entropy import CHUNK, IGNORE, linear_cross_entropy
from modernbert.model.heads import MaskedLM

__all__ = ["IGNORE", "MaskedLMLoss"]


class MaskedLMLoss(nn.Module):
    """A masked language model and its loss as one module, so that one graph holds both; scores of all positions never exist at once."""

    def __init__(self, model: MaskedLM, z_loss: float = 0.0, chunk: int = CHUNK) -> None:
        super().__init__()
        self.model, self.z_loss, self.chunk = model, z_loss, chunk

    def forward(
        self, batch: Batch, masked_M: Int[Tensor, "M"], labels_M: Int[Tensor, "M"]
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """Summed cross-entropy in nats (float32) and the number of right first guesses, over labels other than −100."""
        x_MD = self.model.head(self.model.model(batch)[masked_M])
        decoder = self.model.decoder
        return linear_cross_entropy(x_MD, decoder.weight, decoder.bias, labels_M, self.z_loss, self.chunk)
