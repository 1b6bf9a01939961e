#!/usr/bin/env bash
# The whole table of the first slice again, for the packaged model or another: run it when a model or its tokenizer changes.
#
#     bash dev/first_slice.sh CORPUS [MODEL [SHORT_TEXTS]] | tee record.md
#
# CORPUS holds `SOURCE-NNNN.jsonl.zst`, `validation.jsonl.zst` and `cloze.jsonl.gz`; a row whose file is missing says so. SHORT_TEXTS is a
# .jsonl of short documents, for packing. A quarter of an hour on two CPU cores without packing, which reads the whole corpus once.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
corpus=$(cd "$1" && pwd) model=${2:-tiny} short=${3:+$(realpath "$3")}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
title() { printf '\n## %s\n\n' "$1"; }
with() { if [ -e "$1" ]; then shift; "$@"; else echo "not measured: there is no $1"; fi; }

title "Commit and machine"
git -C "$here" describe --always --dirty
python -c "import platform, torch; print(platform.platform(), 'torch', torch.__version__)"
title "Masked tokens: bits per masked byte"
with "$corpus/validation.jsonl.zst" modernbert eval masked "$model" "$corpus/validation.jsonl.zst"
title "Facts and forms"
with "$corpus/cloze.jsonl.gz" modernbert eval cloze "$model" "$corpus/cloze.jsonl.gz"
title "Rows of 8,192 tokens"
with "$corpus/validation.jsonl.zst" modernbert eval positions "$model" "$corpus/validation.jsonl.zst" --rows 30
title "fill-mask, a fresh process"
time modernbert fill-mask --model "$model" "The capital of France is [MASK]."
title "Equality with transformers, packed as alone, windows, parameter counts, the announcement's samples, the whole corpus in rows"
(cd "$here" && python -m pytest -q tests/model tests/hf/test_announcement.py tests/data/test_packing.py)
title "Packing"
tokenizer=$(python -c "import sys; from modernbert.checkpoint.names import resolve; print(resolve(sys.argv[1]).absolute())" "$model")
for texts in "$(ls "$corpus"/*-[0-9][0-9][0-9][0-9].jsonl.zst 2> /dev/null || true)" "$short"; do
  [ -n "$texts" ] || { echo "not measured: no texts"; continue; }
  modernbert prepare tokens $texts --tokenizer "$tokenizer" -o "$work/shards" > "$work/log" 2>&1
  modernbert bench data "$work/shards" $texts
  rm -r "$work/shards"
done
