"""A picture of a retrieval report: for each set a bar a system, with its interval."""

from pathlib import Path

from modernbert.errors import MissingExtraError
from modernbert.eval.retrieval import RetrievalReport


def draw(report: RetrievalReport, path: str | Path) -> None:
    """Writes a .png. Raises MissingExtraError: matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no global state
    except ImportError as error:
        raise MissingExtraError("a plot needs matplotlib: pip install 'modernbert[report]'") from error
    systems, sets = report.systems, report.sets
    figure = Figure(figsize=(max(6.0, 0.35 * len(sets) * (len(systems) + 1)), 4.5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(systems)
    for number, system in enumerate(systems):
        scores = [report.score(system, name) for name in sets]
        heights = [100 * score.mean for score in scores]
        below = [100 * max(0.0, score.mean - score.interval[0]) for score in scores]
        above = [100 * max(0.0, score.interval[1] - score.mean) for score in scores]
        places = [place + (number - (len(systems) - 1) / 2) * width for place in range(len(sets))]
        axes.bar(places, heights, width, yerr=(below, above), label=system, error_kw={"linewidth": 0.8, "ecolor": "0.3"})
    axes.set_xticks(
        range(len(sets)), [f"{name}\n{report.score(systems[0], name).metric}" for name in sets], rotation=45, ha="right"
    )
    axes.set(ylabel="percent, with 95 % intervals", ylim=(0, 100))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(ncols=len(systems), loc="outside upper center", frameon=False)
    figure.savefig(path, dpi=110)
