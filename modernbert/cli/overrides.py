"""Typed `key=value` settings over a frozen config, and the help that lists them.

A key names a field, with dots into nested configs and numbers into tuples: `model.hidden_size=256`, `phases.0.tokens=2e9`.
Values are Python literals; text needs no quotes.
"""

import ast
import difflib
import inspect
import itertools
import math
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from modernbert.errors import ConfigError

C = TypeVar("C")


def with_settings(config: C, settings: Sequence[str]) -> C:
    """A copy of a config with some settings changed; those of one nested config change together.

    Args:
        config: a dataclass. Where one has a method `with_`, that makes the copy, since it knows which fields follow from others.
        settings: each `key=value`; of two for one key the later one counts.

    Raises:
        ConfigError: no such key (names the nearest), or a value of another type.

    >>> from modernbert.config import ModelConfig
    >>> with_settings(ModelConfig(), ["num_hidden_layers=4", "local_rope_theta=2e4"]).local_rope_theta
    20000.0
    """
    keys = [key for key, *_ in describe(config)]
    tree: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r} is no setting; wanted key=value, such as {keys[0]}=…")
        if key not in keys:
            raise ConfigError(_unknown(key, keys))
        *way, last = key.split(".")
        branch = tree
        for name in way:
            branch = branch.setdefault(name, {})
        branch[last] = text
    return _changed(config, tree)


def _unknown(key: str, keys: Sequence[str]) -> str:
    inside = [name for name in keys if name.startswith(f"{key}.")]
    if inside:
        return f"{key!r} is a group of settings; set one of them, such as {inside[0]!r}"
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    all_of_them = f"there are {', '.join(keys)}" if len(keys) <= 12 else "--help lists them"
    return f"no setting named {key!r}; " + (f"did you mean {near[0]!r}?" if near else all_of_them)


def _changed(value: Any, tree: dict[str, Any], key: str = "") -> Any:
    """The value with a tree of changes applied: text for a whole field, another tree for parts of it."""
    if isinstance(value, tuple):
        return tuple(_changed(part, tree[str(i)], f"{key}{i}.") if str(i) in tree else part for i, part in enumerate(value))
    hints = get_type_hints(type(value))
    new = {
        name: read_value(change, hints[name], f"{key}{name}")
        if isinstance(change, str)
        else _changed(getattr(value, name), change, f"{key}{name}.")
        for name, change in tree.items()
    }
    return value.with_(**new) if hasattr(value, "with_") else replace(value, **new)


def read_value(text: str, hint: Any, key: str) -> Any:
    """Reads a value of a type from text.

    Raises:
        ConfigError: the text says something else; names the key, the type and an example.

    >>> read_value("131_072", int, "tokens"), read_value("2e9", int, "tokens"), read_value("None", int | None, "limit")
    (131072, 2000000000, None)
    >>> read_value("0.9, 0.98", tuple[float, float], "betas"), read_value("runs/a b", str, "name")
    ((0.9, 0.98), 'runs/a b')
    """
    try:
        return _typed(_literal(text), text, hint)
    except TypeError:
        wanted = "a finite number" if _is_not_finite(text) else type_name(hint)
        raise ConfigError(f"{key}={text} is not {wanted}; wanted, for example, {key}={_example(hint)}") from None


def _is_not_finite(text: str) -> bool:
    """Whether a text reads as NaN or as an infinity: nan, inf, 1e999."""
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False


def _typed(found: Any, text: str, hint: Any) -> Any:
    """The literal as the type that a field declares; TypeError where it does not fit."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for choice in sorted(arguments, key=lambda choice: choice is str):  # text fits str always: last
            try:
                return _typed(found, text, choice)
            except TypeError:
                continue
    elif origin is Literal:
        choice = next((choice for choice in arguments if choice in (found, text)), None)
        if choice is not None:
            return choice
    elif origin is tuple:
        unquoted = [_literal(item.strip()) for item in text.split(",") if item.strip()]  # a.jsonl,b.jsonl
        items = found if isinstance(found, tuple | list) else unquoted
        kinds = arguments[:1] * len(items) if arguments[-1] is Ellipsis else arguments
        if len(items) == len(kinds):
            return tuple(_typed(item, str(item), kind) for item, kind in zip(items, kinds, strict=True))
    elif hint in (str, Path):
        return hint(found if isinstance(found, str) else text)
    elif hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    elif hint is int and isinstance(found, int | float) and not isinstance(found, bool) and found == found // 1:
        return int(found)
    elif hint is float and isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
        return float(found)
    elif hint is type(None) and found is None:
        return None
    raise TypeError


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


_EXAMPLES = {int: "131_072", float: "8e-4", bool: "true", str: "words", Path: "runs/mine", type(None): "None"}


def _example(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return ",".join(_example(kind) for kind in get_args(hint) if kind is not Ellipsis)
    if get_origin(hint) is Literal:
        return str(get_args(hint)[0])
    return _EXAMPLES.get(hint) or _example(get_args(hint)[0])


def write_value(value: Any) -> str:
    """A value as `read_value` reads it.

    >>> write_value(2_000_000), write_value((0.9, 0.98)), write_value(None)
    ('2_000_000', '0.9,0.98', 'None')
    """
    if isinstance(value, tuple):
        return ",".join(map(write_value, value))
    return f"{value:_}" if type(value) is int else str(value)


def type_name(hint: Any) -> str:
    """A type as people write it.

    >>> type_name(int | None), type_name(Literal["cls", "mean"]), type_name(tuple[str, ...])
    ('int or None', 'cls or mean', 'tuple of str')
    """
    arguments = [choice for choice in get_args(hint) if choice is not Ellipsis]
    if get_origin(hint) is Literal:
        return " or ".join(map(str, arguments))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(type_name, arguments))
    if get_origin(hint) is tuple:
        return f"tuple of {', '.join(dict.fromkeys(map(type_name, arguments)))}"
    return "None" if hint is type(None) else "path" if hint is Path else str(getattr(hint, "__name__", hint))


def describe(config: Any, prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Yields key, type, present value and documentation of every setting, those of nested configs in their place.

    A mapping is no setting: it holds what only a file can say.

    >>> from modernbert.config import ModelConfig
    >>> next(describe(ModelConfig()))[:3]
    ('vocab_size', 'int', 50368)
    """
    docs, hints = field_docs(type(config)), get_type_hints(type(config))
    for field in fields(config):
        value, key = getattr(config, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from describe(value, f"{key}.")
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            for i, part in enumerate(value):
                yield from describe(part, f"{key}.{i}.")
        elif not isinstance(value, Mapping):
            yield key, type_name(hints[field.name]), value, docs.get(field.name, "")


def field_docs(kind: Any) -> dict[str, str]:
    """The string under each field of a dataclass, on one line; Python keeps it in the source only."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for field, below in itertools.pairwise(tree.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = " ".join(text.split())
    return docs
