#!/usr/bin/env bash
# The packaged model `tiny` from nothing: text, code, tokenizer, shards, training on every GPU of this machine, evaluation, card.
#
#     bash examples/tiny.sh CORPUS SETS [WORK [KEY=VALUE…]]
#
# CORPUS holds `SOURCE-NNNN.jsonl.zst` (the text), `validation.jsonl.zst` (held out) and, if there is one, `cloze.jsonl.gz`; SETS holds a
# folder of labelled rows a set, whose texts alone are read. KEY=VALUE change the first recipe. Preparation takes some 30 minutes on two
# cores or 3 on sixteen, training 10 minutes on four H200 (short rows, rows of 8,192, and the decay on both), then 12 on one with the larger
# vocabulary. The last step wants `pip install .[export,report]`. Whatever is stopped goes on where it was when the same command is given
# again.
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

mkdir -p run # the mean of two models, with the third run's records beside it
cp third/config.json third/log.jsonl run
python "$here/dev/mean_of.py" run/model second/model:0.5 third/model:0.5
python "$here/dev/package_model.py" run "$corpus" "$here/modernbert/pretrained/tiny" text-24 code-24 tasks-24
