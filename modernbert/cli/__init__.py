"""The command line: each verb parses, calls one function and prints.

Verbs import what they call when they run, so that `modernbert --help` and a mistyped option answer without loading torch.
"""

import errno
from typing import Any

import click

from modernbert import __version__
from modernbert.cli.answer import answer
from modernbert.cli.average import average
from modernbert.cli.bench import bench
from modernbert.cli.classify import classify
from modernbert.cli.embed import embed
from modernbert.cli.evaluate import evaluate
from modernbert.cli.export import export
from modernbert.cli.fill_mask import fill_mask
from modernbert.cli.finetune import finetune
from modernbert.cli.from_text import from_text
from modernbert.cli.prepare import prepare
from modernbert.cli.pretrain import pretrain
from modernbert.cli.report import report
from modernbert.cli.rerank import rerank
from modernbert.cli.tag import tag
from modernbert.errors import ModernBertError

_ADVICE = {
    errno.ENOSPC: "; make room, and give the same command again",
    errno.EEXIST: ", and a folder is wanted there; give another name",
}


class _QuietGroup(click.Group):
    """Turns our own errors, and those of files and disks, into one line and exit code 2, and Ctrl-C into silence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModernBertError as error:
            click.echo(f"modernbert: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)
        except OSError as error:
            if error.errno == errno.EPIPE:  # who read our output has left: click leaves quietly
                raise
            what = error.filename2 or error.filename or "a file cannot be read or written"
            click.echo(f"modernbert: {what}: {error.strerror or error}{_ADVICE.get(error.errno or 0, '')}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(130)  # 128 + SIGINT, as shells report it


@click.group(cls=_QuietGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """ModernBERT, from raw text to the masked word.

    \b
    modernbert fill-mask "The capital of France is [MASK]."
    """


for _verb in (
    fill_mask,
    embed,
    classify,
    tag,
    answer,
    rerank,
    prepare,
    pretrain,
    from_text,
    finetune,
    average,
    export,
    report,
    evaluate,
    bench,
):
    main.add_command(_verb)
