"""`modernbert answer`: answers to questions, as spans of a context."""

import json
import sys

import click

import modernbert
from modernbert.cli import inputs
from modernbert.cli.texts import read_texts
from modernbert.errors import TextError


@click.command()
@click.argument("question", required=False)
@click.argument("context", required=False)
@inputs.model
@inputs.dtype
@inputs.files
@inputs.column("question", "the question")
@inputs.column("context", "the text with the answer")
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="How many answers.")
@click.option("--max-answer-len", type=click.IntRange(min=1), default=15, show_default=True, help="Tokens of the longest answer.")
@click.option("--impossible", is_flag=True, help='Let "there is no answer" compete, as an empty one.')
@inputs.as_json("a question, as the question-answering pipeline returned it")
def answer(
    question: str | None,
    context: str | None,
    model: str | None,
    dtype: str | None,
    files: tuple[str, ...],
    question_column: str,
    context_column: str,
    top_k: int,
    max_answer_len: int,
    impossible: bool,
    as_json: bool,
) -> None:
    """Answers to questions, as spans of a context.

    A context `-` is all of standard input; it may be longer than the model reads. The model needs a question-answering head.

    \b
    modernbert answer --model FOLDER "Who wrote it?" "Ada Lovelace wrote the notes."
    modernbert answer --model FOLDER "Who wrote it?" - < book.txt
    modernbert answer --model FOLDER --file questions.jsonl --json
    """
    if (question is None) != (context is None):
        raise click.UsageError("give a QUESTION and its CONTEXT (- for standard input), or --file FILE")
    places, read = inputs.read_inputs((), files, (question_column, context_column)) if files or question is None else ([], [])
    if question is not None and context is not None:
        places.insert(0, "the text")
        read.insert(0, (_utf8(question), _utf8(context) if context != "-" else _standard_input()))
    engine = modernbert.load(model, dtype=dtype)
    with inputs.named(places):
        found = engine.answer(
            [one[0] for one in read],
            [one[1] for one in read],
            top_k,
            max_answer_len=max_answer_len,
            handle_impossible_answer=impossible,
        )
    for (asked, _), answers in zip(read, found, strict=True):
        if as_json:
            click.echo(json.dumps(answers))
            continue
        if files:
            click.echo(inputs.on_one_line(asked))
        for one in [answers] if top_k == 1 else answers:
            shown = inputs.on_one_line(one["answer"]) if one["answer"] else "(no answer)"
            click.echo(f"  {one['score']:.3f}  {one['start']}–{one['end']}  {shown}")


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"standard input is not UTF-8 ({error}); convert it first, for example with iconv") from None


def _utf8(argument: str) -> str:
    if argument == "-":
        return argument  # a question; standard input holds the context
    ((_, text),) = read_texts([argument])
    return text
