"""Loss of a row of scores and the scores' gradient as one Triton kernel: a row is read from memory once, and its gradient written once; the
second time that it is read, it lies in the cache. `cross_entropy` launches it.

C positions of a chunk · V vocabulary · B numbers that a program looks at together.

Source: Milakov and Gimelshein 2018 (arXiv 1805.02867) for maximum and sum in one pass.
"""

from typing import no_type_check

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=("z_loss",))
@no_type_check
def softmax_gradient(
    scores_CV, labels_C, loss_C, right_C, g_CV, z_loss, V, IGNORE: tl.constexpr, WANTED: tl.constexpr, B: tl.constexpr
):
    """A program makes one position: its loss, whether the first guess is right, and if WANTED the gradient of its scores."""
    c = tl.program_id(0).to(tl.int64)
    label = tl.load(labels_C + c)
    counts = label != IGNORE
    m_B, sum_B, at_B = tl.full((B,), -1e30, tl.float32), tl.zeros((B,), tl.float32), tl.zeros((B,), tl.int32)
    for start in range(0, V, B):
        v_B = start + tl.arange(0, B)
        x_B = tl.load(scores_CV + c * V + v_B, mask=v_B < V, other=-1e30).to(tl.float32)
        larger_B = tl.maximum(m_B, x_B)
        sum_B = sum_B * tl.exp2((m_B - larger_B) * LOG2_E) + tl.exp2((x_B - larger_B) * LOG2_E)
        at_B = tl.where(x_B > m_B, v_B, at_B)
        m_B = larger_B
    m = tl.max(m_B)
    total = tl.sum(sum_B * tl.exp2((m_B - m) * LOG2_E))
    guess = tl.min(tl.where(m_B == m, at_B, V))
    log_z = m + tl.log(total)
    own = tl.load(scores_CV + c * V + tl.where(counts, label, 0)).to(tl.float32)
    tl.store(loss_C + c, tl.where(counts, log_z - own + z_loss * log_z * log_z, 0.0))
    tl.store(right_C + c, (guess == label).to(tl.int64))
    if WANTED:
        factor = tl.where(counts, (1 + 2 * z_loss * log_z) / total, 0.0)
        for start in range(0, V, B):
            v_B = start + tl.arange(0, B)
            x_B = tl.load(scores_CV + c * V + v_B, mask=v_B < V, other=-1e30).to(tl.float32)
            g_B = tl.exp2((x_B - m) * LOG2_E) * factor - ((v_B == label) & counts).to(tl.float32)
            tl.store(g_CV + c * V + v_B, g_B.to(g_CV.dtype.element_ty), mask=v_B < V)
