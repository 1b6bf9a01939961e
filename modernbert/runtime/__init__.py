"""Exported folders at work without torch: onnxruntime, tokenizers and numpy. Nothing here imports torch, installed or not.

from modernbert.runtime.model import load

load("exported").embed(["a text", "another"])
"""
