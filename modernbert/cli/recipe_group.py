"""A command for each recipe of a module: a function that returns a config, whose fields are the settings."""

import ast
import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from modernbert.cli.overrides import describe, with_settings, write_value
from modernbert.errors import ConfigError

Recipe = Callable[[], Any]


def recipes_of(*module_names: str) -> dict[str, Recipe]:
    """The public functions of some modules, by name."""
    modules = map(importlib.import_module, module_names)
    functions = [function for module in modules for function in inspect.getmembers(module, inspect.isfunction)]
    return {name: f for name, f in functions if f.__module__ in module_names and not name.startswith("_")}


def written_in(*module_names: str) -> dict[str, tuple[str, str]]:
    """Name, module and docstring of each recipe, read from the source: importing the modules would load torch, for a page of help."""
    found = {}
    for module in module_names:
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name] = (module, ast.get_docstring(node) or "")
    return found


class RecipeCommand(click.Command):
    """A recipe; its help lists every setting. The callbacks get its config first, then the parameters: `fit` before the settings are
    applied, `run` after."""

    def __init__(
        self,
        name: str,
        module: str,
        help: str,
        run: Callable[..., None],
        params: list[click.Parameter],
        fit: Callable[..., Any] | None = None,
    ) -> None:
        self.module, self.run_config, self.fit = module, run, fit
        settings = click.Argument(["settings"], metavar="[KEY=VALUE]...", nargs=-1)
        super().__init__(
            name, params=[*params, settings], callback=self.run, help=help, short_help=" ".join(help.partition("\n\n")[0].split())
        )

    def recipe(self) -> Any:
        """The config; the recipe's module is imported for it."""
        assert self.name is not None
        return recipes_of(self.module)[self.name]()

    def run(self, settings: tuple[str, ...], **values: Any) -> None:
        config = with_settings(self.recipe(), settings)  # a wrong setting is found before a model is looked for
        if self.fit is not None:
            config = with_settings(self.fit(self.recipe(), **values), settings)
        self.run_config(config, **values)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        rows = [(f"{key}={write_value(value)}", f"{kind}. {text}") for key, kind, value, text in describe(self.recipe())]
        with formatter.section("Settings"):
            formatter.write_dl(rows, col_max=4)  # the text goes below the key


class RecipeGroup(click.Group):
    """The recipes of some modules as commands; a module is imported when the settings of one are asked for."""

    recipe_modules: tuple[str, ...]
    run_config: Callable[..., None]
    recipe_params: tuple[click.Parameter, ...] = ()
    fit: Callable[..., Any] | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(written_in(*self.recipe_modules))

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        found = written_in(*self.recipe_modules)
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1, cutoff=0.0)[0]
            raise ConfigError(f"no recipe named {name!r}; did you mean {near!r}? There are {', '.join(sorted(found))}")
        return RecipeCommand(name, *found[name], self.run_config, list(self.recipe_params), self.fit)


def recipe_group(
    name: str,
    *,
    module: str,
    more: tuple[str, ...] = (),
    run: Callable[..., None],
    help: str,
    params: tuple[click.Parameter, ...] = (),
    metavar: str = "",
    fit: Callable[..., Any] | None = None,
) -> RecipeGroup:
    """A verb over the recipes of a module, or of several.

    Args:
        name: the verb.
        module: where the recipes are; imported when the verb runs.
        more: other modules with recipes.
        run: gets a recipe's config with the settings applied, and the values of `params`.
        help: of the verb.
        params: that every recipe takes before its settings.
        metavar: how the usage line shows them.
        fit: makes a recipe's config fit the values of `params`; settings are applied to what it returns.
    """
    group = RecipeGroup(name, help=help, subcommand_metavar=f"RECIPE {metavar}[KEY=VALUE]...")
    group.recipe_modules, group.run_config, group.recipe_params, group.fit = (module, *more), run, params, fit
    return group
