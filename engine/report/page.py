"""Self-contained pages: autoescaped templates, charts as inert JSON, plotly.js inlined once from its wheel.

A page's Content-Security-Policy forbids every network request, so that "opens with no network" is enforced by the
browser and not only promised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from engine.report.figures import Figure

# One entry: a single figure, or several of which the reader picks one by its label.
Charts = Mapping[str, list[tuple[str, Figure]]]


def render(template: str, *, charts: Charts, **context: Any) -> str:
    """The page, complete. ``charts`` are drawn into the elements whose ``data-chart`` names them.

    Context values are escaped as HTML, and the charts' JSON cannot end its script element.
    """
    times: dict[tuple[str, ...], int] = {}
    drawn = {
        name: [
            {"label": label, "data": [_sharing(trace, times) for trace in figure["data"]], "layout": figure["layout"]}
            for label, figure in choices
        ]
        for name, choices in charts.items()
    }
    notes = {name: [figure["notes"] for _, figure in choices] for name, choices in charts.items()}
    labels = {name: [label for label, _ in choices] for name, choices in charts.items()}
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            chart_json=inert_json({"charts": drawn, "notes": notes, "times": list(times)}),
            chart_notes=notes,
            chart_labels=labels,
            style=Markup(_text("style.css")),
            script=Markup(_text("page.js")),
            plotly=Markup(_plotly()),
        )
    )


def inert_json(value: Any) -> Markup:
    """JSON that is safe inside a script element: nothing in it can close the element or open another."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _sharing(trace: Figure, times: dict[tuple[str, ...], int]) -> Figure:
    """The trace with its times as a number into the page's table of times: most traces have the same ones."""
    return {**trace, "x": times.setdefault(tuple(trace["x"]), len(times))}


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("engine.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _text(name: str) -> str:
    return (files("engine.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
