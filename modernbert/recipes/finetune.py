"""Fine-tuning recipes: `modernbert finetune RECIPE MODEL train=FILE dev=FILE out=FOLDER key=value …`.

All are for models of base's width; narrower ones, such as `tiny`, get them from the command line as `FinetuneConfig.for_width` changes
them. The GLUE ones are ModernBERT-base's best settings of the paper (Warner et al. 2024, app. E.1, table 6; facts §3.1), with the column
names of the GLUE files on the hub; each says what was best for large. Batch 64 (ACL version).
"""

from modernbert.tasks.choice import ChoiceTask
from modernbert.tasks.quality import QualityTask
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.spans import SpanTask
from modernbert.tasks.tagging import TaggingTask
from modernbert.train.finetune import FinetuneConfig


def classification() -> FinetuneConfig:
    """One class for each text, or pair of texts (task.text_pair=COLUMN)."""
    return FinetuneConfig(task=SequenceTask(), out="runs/classification", learning_rates=(8e-5,))


def multi_label() -> FinetuneConfig:
    """Any number of labels for each text."""
    task = SequenceTask(label="labels", problem_type="multi_label_classification", metric="f1_micro")
    return FinetuneConfig(task=task, out="runs/multi_label", learning_rates=(8e-5,), epochs=5)


def regression() -> FinetuneConfig:
    """A number for each text, or pair of texts (task.text_pair=COLUMN)."""
    task = SequenceTask(label="score", problem_type="regression", metric="spearman")
    return FinetuneConfig(task=task, out="runs/regression", learning_rates=(8e-5,), epochs=5)


def quality() -> FinetuneConfig:
    """How good a text is, from 0 to 5, in the manner of FineWeb-Edu: a number on a frozen encoder, for bulk annotation.

    trains=all moves the encoder too. Rates and epochs are FineWeb-Edu's (Penedo et al. 2024, arXiv 2406.17557); its labels are a large
    model's.
    """
    return FinetuneConfig(
        task=QualityTask(),
        out="runs/quality",
        trains="classifier",
        learning_rates=(3e-4,),
        epochs=20,
        batch_rows=256,
        dropout=0.0,
    )


def tagging() -> FinetuneConfig:
    """A tag for each word: named entities in BIO; task.metric=accuracy for other tags."""
    return FinetuneConfig(task=TaggingTask(), out="runs/tagging", learning_rates=(8e-5,), epochs=5)


def question_answering() -> FinetuneConfig:
    """Where the answer to a question stands in a context, if anywhere; long contexts are read through windows."""
    return FinetuneConfig(task=SpanTask(), out="runs/question_answering", learning_rates=(5e-5,), epochs=2)


def multiple_choice() -> FinetuneConfig:
    """Which of several answers to a question is right."""
    return FinetuneConfig(task=ChoiceTask(), out="runs/multiple_choice", batch_rows=16)


def cola() -> FinetuneConfig:
    """GLUE: is a sentence acceptable? Matthews' correlation.

    Large: learning_rates=3e-5 weight_decay=8e-6 epochs=5.
    """
    return _glue("cola", SequenceTask(text="sentence", metric="matthews"), 8e-5, 1e-6, 5)


def sst2() -> FinetuneConfig:
    """GLUE: is a sentence of a film review positive?

    Large: learning_rates=1e-5 weight_decay=1e-6 epochs=3.
    """
    return _glue("sst2", SequenceTask(text="sentence"), 8e-5, 1e-5, 2)


def mrpc() -> FinetuneConfig:
    """GLUE: do two sentences say the same? MODEL is the folder that `mnli` made: so the paper did it.

    Large: learning_rates=8e-5 weight_decay=5e-6 epochs=2.
    """
    return _glue("mrpc", SequenceTask(text="sentence1", text_pair="sentence2"), 5e-5, 5e-6, 10)


def stsb() -> FinetuneConfig:
    """GLUE: how alike are two sentences, from 0 to 5? Spearman's correlation. MODEL is the folder that `mnli` made.

    Large: learning_rates=8e-5 weight_decay=1e-5 epochs=10.
    """
    task = SequenceTask(text="sentence1", text_pair="sentence2", problem_type="regression", metric="spearman")
    return _glue("stsb", task, 8e-5, 5e-6, 10)


def qqp() -> FinetuneConfig:
    """GLUE: are two questions the same?

    Large: learning_rates=5e-5 weight_decay=8e-6 epochs=2.
    """
    return _glue("qqp", SequenceTask(text="question1", text_pair="question2"), 5e-5, 5e-6, 10)


def mnli() -> FinetuneConfig:
    """GLUE: does one sentence follow from another, contradict it, or neither? `mrpc`, `stsb` and `rte` begin from its model.

    Large: learning_rates=3e-5 weight_decay=1e-5 epochs=1.
    """
    return _glue("mnli", SequenceTask(text="premise", text_pair="hypothesis"), 5e-5, 5e-6, 1)


def qnli() -> FinetuneConfig:
    """GLUE: does a sentence answer a question?

    Large: learning_rates=3e-5 weight_decay=5e-6 epochs=2.
    """
    return _glue("qnli", SequenceTask(text="question", text_pair="sentence"), 8e-5, 5e-6, 2)


def rte() -> FinetuneConfig:
    """GLUE: does one sentence follow from another? MODEL is the folder that `mnli` made: without it RTE is 20 to 30 points lower.

    Large: learning_rates=5e-5 weight_decay=8e-6 epochs=3.
    """
    return _glue("rte", SequenceTask(text="sentence1", text_pair="sentence2"), 5e-5, 1e-5, 3)


def _glue(name: str, task: SequenceTask, learning_rate: float, weight_decay: float, epochs: int) -> FinetuneConfig:
    return FinetuneConfig(
        task=task,
        train=f"{name}/train.jsonl",
        dev=f"{name}/dev.jsonl",
        out=f"runs/{name}",
        learning_rates=(learning_rate,),
        weight_decay=weight_decay,
        epochs=epochs,
        batch_rows=64,
        max_length=256,
        seeds=(1618, 42, 6033, 3145),
    )
