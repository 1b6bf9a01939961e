"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) in an encoder's matrices, by peft: the only door to it."""

from torch import nn

from modernbert.errors import MissingExtraError

_MATRICES = r"layers\.\d+\.(attn|mlp)\.(Wqkv|Wi|Wo)"


def add_adapters(encoder: nn.Module, rank: int) -> None:
    """Puts trainable adapters beside the matrices of every layer, in place; the encoder's own weights rest.

    Args:
        rank: of the adapters; alpha is twice that.

    Raises:
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("trains=adapters needs peft: pip install 'modernbert[adapters]'") from error
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_MATRICES), encoder)


def merge_adapters(model: nn.Module) -> None:
    """Adds what the adapters learned to the matrices themselves, in place, and takes the adapters away."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
