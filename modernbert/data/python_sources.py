"""Documents of Python code from installed packages: code for a model's diet that needs no download of its own."""

import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePath

from modernbert.errors import DataError

STANDARD_LIBRARY = "python"
"""Named as a package, this is the standard library of the running Python."""

CHARACTERS = range(250, 100_001)
"""A shorter file says nothing, a longer one is mostly a table."""

LONGEST_LINE = 1_000
"""Characters. A longer line is data."""

NOT_OURS = {
    "_vendor",
    "vendor",
    "_vendored",
    "vendored",
    "_distutils",
    "extern",
    "externals",
    "third_party",
    "site-packages",
}
NOT_PROSE = {"tests", "test", "testing", "_tests", "locale", "locales", "encodings", "__pycache__"}
GENERATED = re.compile(r"auto-?generated|generated (by|from|with|using|automatically)|do not (edit|modify)", re.IGNORECASE)


def python_documents(packages: Sequence[str], paths: Sequence[str] | None = None) -> Iterator[dict[str, str]]:
    """Yields the `.py` files of installed packages, in order of their names.

    Tests, vendored and generated files, tables, files of fewer than 250 or more than 100,000 characters, files that are
    not UTF-8 and exact repetitions are left out.

    Args:
        packages: names as pip knows them; "python" is the standard library of the running Python.
        paths: folders in which packages are installed; `sys.path` by default.

    Yields:
        `{"text", "source", "licence", "title"}`: the source is "python-code", the licence is what the package's
        metadata says, the title is the package with its version and the file.

    Raises:
        DataError: when a package is not installed, or its installer left no list of its files.
    """
    seen: set[bytes] = set()
    for package in packages:
        name, licence, files = _standard_library() if package == STANDARD_LIBRARY else _package(package, paths)
        for title, path in files:
            text = _text(path) if _wanted(PurePath(title)) else None
            digest = hashlib.sha256((text or "").encode()).digest()
            if text and digest not in seen:
                seen.add(digest)
                yield {"text": text, "source": "python-code", "licence": licence, "title": f"{name}: {title}"}


def _package(package: str, paths: Sequence[str] | None) -> tuple[str, str, list[tuple[str, Path]]]:
    found = next(iter(distributions(name=package, path=list(sys.path if paths is None else paths))), None)
    if found is None and package in sys.stdlib_module_names:
        raise DataError(f"{package!r} is a module of the standard library; name {STANDARD_LIBRARY!r} for all of that")
    if found is None:
        raise DataError(f"package {package!r} is not installed; run: pip install {package}")
    if found.files is None:
        raise DataError(
            f"package {package!r} was installed without a list of its files; run: pip install --force-reinstall {package}"
        )
    files = [(file.as_posix(), Path(str(found.locate_file(file)))) for file in found.files if file.suffix == ".py"]
    return f"{found.name} {found.version}", _licence(found), sorted(files)


def _standard_library() -> tuple[str, str, list[tuple[str, Path]]]:
    folder = Path(sysconfig.get_path("stdlib"))
    files = [(file.relative_to(folder).as_posix(), file) for file in folder.rglob("*.py")]
    return f"python {sys.version_info.major}.{sys.version_info.minor}", "PSF-2.0", sorted(files)


def _licence(package: Distribution) -> str:
    fields = package.metadata
    stated = [*fields.get_all("License-Expression", []), *fields.get_all("License", [])]
    for licence in stated:
        if len(licence.splitlines()) == 1:  # some packages put the whole licence there
            return licence
    classifiers = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier", []) if line.startswith("License ::")]
    return "; ".join(classifiers) or "not stated"


def _wanted(file: PurePath) -> bool:
    folders = set(file.parts[:-1])
    a_test = file.name == "conftest.py" or file.stem.startswith("test_") or file.stem.endswith("_test")
    return not (a_test or ".." in folders or folders & (NOT_OURS | NOT_PROSE) or file.stem.endswith("_pb2"))


def _text(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError):
        return None
    if len(text) not in CHARACTERS or GENERATED.search(text[:1_000]):
        return None
    return text if max(map(len, text.splitlines())) <= LONGEST_LINE else None
