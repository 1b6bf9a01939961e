"""Rows of data sets on the Hugging Face hub, as a stream: nothing is kept on the disk. The only door to `datasets`."""

from collections.abc import Iterator
from typing import Any

from modernbert.errors import DataError, MissingExtraError

HUB = "hf:"
"""How a name of the hub begins where files can be named too."""


def hub_rows(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads every row of a data set in the hub's order, with its place for messages.

    Args:
        name: `hf:OWNER/NAME`, `hf:OWNER/NAME:CONFIG` or `hf:OWNER/NAME:CONFIG:SPLIT`; the split is "train" if none is named.

    Raises:
        DataError: there is no such data set, config or split, or no way to the hub.
        MissingExtraError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(f"reading {name} needs the package datasets: pip install 'modernbert[datasets]'") from error
    repository, config, split, *rest = [*name.removeprefix(HUB).split(":"), "", ""]
    if not repository or any(rest):
        raise DataError(
            f"{name!r} names no data set; wanted {HUB}OWNER/NAME, {HUB}OWNER/NAME:CONFIG or {HUB}OWNER/NAME:CONFIG:SPLIT"
        )
    number = 0
    try:
        for row in datasets.load_dataset(repository, config or None, split=split or "train", streaming=True):
            number += 1
            yield f"{name}, row {number}", row
    except (OSError, ValueError, RuntimeError) as error:  # all that it raises for names, files and connections
        why = " ".join(str(error).split())
        raise DataError(
            f"cannot read {name} after {number:,} rows ({why}); check its name and the connection, and give the same command again, "
            "or fetch its parquet files and name those"
        ) from error
