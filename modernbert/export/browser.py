"""A page that runs a model in the browser: static files beside its ONNX files, no build step, nothing from elsewhere.

index.html  app.js  style.css          the page
page.json                              which models there are, in which forms
words/                                 the masked language model, for filling masks; where the folder has one
labels/                                the classifier of texts; where the folder has one
vectors/                               its encoder, or another model, for embedding and search
package.json                           what `npm install` puts beside it: transformers.js and its WebAssembly
"""

import dataclasses
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from modernbert.checkpoint.atomic import staged
from modernbert.checkpoint.folder import class_of
from modernbert.checkpoint.modules import Modules, read_modules
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import read_config, read_pooling
from modernbert.checkpoint.weights import write_json
from modernbert.errors import CheckpointError
from modernbert.export.check import Agreement
from modernbert.export.folder import export
from modernbert.model.heads import LateInteraction, MaskedLM, SequenceClassifier

STATIC = ("index.html", "app.js", "style.css", "package.json")
DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8", "q4": "q4", "q4f16": "q4f16"}
"""What transformers.js calls our forms."""

SECTIONS = {MaskedLM: "words", SequenceClassifier: "labels"}
"""What the page does with a head beside searching, which it does with any encoder."""


def export_page(
    name_or_folder: str | Path | None,
    out: str | Path,
    *,
    vectors: str | Path | None = None,
    forms: Sequence[str] = ("int8", "fp32"),
) -> list[Agreement]:
    """Writes the page and its models; `npm install` in the folder, and any server of static files, do the rest.

    Args:
        name_or_folder: what `checkpoint.names.resolve` understands; None is our own model. The page fills masks with a masked language
            model and names the classes of a classifier; with any other head, and with one that gives a number, it only searches.
        out: the folder, made if need be; other files in it stay.
        vectors: the model that embeds and searches, named likewise; None is the same one.
        forms: names in `graph.FORMS`; the page begins with the first.

    Returns:
        How close each file comes to the model.

    Raises:
        CheckpointError, ConfigError, TokenizerError, ExportError, MissingExtraError: as `export`; or what shall search is a
            late-interaction model, whose vectors the page cannot compare.
    """
    folder, out = resolve(name_or_folder), Path(out)
    searching = folder if vectors is None else resolve(vectors)
    head = class_of(folder)
    modules = read_modules(searching) or Modules(pooling=read_pooling(searching))
    if class_of(searching) is LateInteraction or modules.dense:
        raise CheckpointError(
            f"{searching}: the page searches by one pooled vector a text, without a projection; export another model"
        )
    sections = {"vectors": searching}
    if head in SECTIONS and not (head is SequenceClassifier and read_config(folder).num_labels == 1):  # one number is no class
        sections = {SECTIONS[head]: folder, **sections}
    found = []
    for section, source in sections.items():
        for one in export(source, out / section, embedding=section == "vectors", forms=forms):
            found.append(dataclasses.replace(one, file=f"{section}/{one.file}"))
    with staged(out) as stage:
        for name in STATIC:
            shutil.copyfile(str(resources.files("modernbert.export") / "page" / name), stage / name)
        models = {section: [DTYPES[form] for form in forms] for section in sections}
        write_json(stage / "page.json", {"models": models, "pooling": modules.pooling, "prompts": dict(modules.prompts)})
    return found
