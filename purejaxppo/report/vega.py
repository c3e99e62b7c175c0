"""The Vega-Lite specification that draws every chart, and the JavaScript to read it.

All charts have the same specification and differ in their data alone, so that nothing
of a run ever becomes part of a specification.
"""

from typing import Any

_HEIGHT = 182  # pixels
_X = {"field": "x", "type": "quantitative"}
_Y = {
    "field": "y",
    "type": "quantitative",
    "scale": {"zero": False},
    "title": None,
    # Vega's own labels of a line that is level are rounded to whole numbers.
    "axis": {
        "labelExpr": "abs(datum.value) >= 1e4 ? format(datum.value, '~s')"
        " : format(datum.value, '.6~g')"
    },
}
# The data hold colours and dashes themselves.
_COLOUR = {"field": "colour", "type": "nominal", "scale": None, "legend": None}
_DASH = {"field": "dash", "type": "nominal", "scale": None, "legend": None}
_DETAIL = {"field": "key", "type": "nominal"}
_AWAY = -1e15  # out of sight
_GREY = "#8b93a1"  # replaced by the page's style where it is text


def specification(
    last: float, first: float = 0.0, *, log: bool = False
) -> dict[str, Any]:
    """Return the Vega-Lite specification of all charts with one horizontal axis.

    Args:
      last: the end of the axis, that of the last step for example.
      first: the start of the axis.
      log: whether it is logarithmic.
    """
    # Its own format would write the prefix of the largest, "0k", at each tick.
    is_small = abs(last) < 1.0
    label = f"format(datum.value, '{'.2~g' if is_small else '~s'}')"
    scale = {"domain": [first, last if last > first else first + 1.0], "nice": False}
    x = _X | {
        "scale": scale | ({"type": "log"} if log else {}),
        "axis": {"labelExpr": label, "tickCount": 5, "title": None, "labelFlush": True}
        | ({"labelOverlap": "greedy", "labelSeparation": 12} if log else {}),
    }
    return {
        "width": "container",
        "height": _HEIGHT,
        "background": None,
        "padding": 4,
        "autosize": {"type": "fit", "contains": "padding", "resize": True},
        "datasets": {n: [] for n in ("lines", "bands", "dots", "rules", "spans")},
        "params": [{"name": "cursor", "value": first * 1e-9 if log else _AWAY}],
        "layer": [*_span_layers(), *_line_layers(x), *_rule_layers(), _cursor_layer()],
        "config": _config(),
    }


def _span_layers() -> list[dict[str, Any]]:
    """Where findings of the doctor show: a shaded span with a number."""
    first = {"field": "first", "type": "quantitative"}
    colour = {"color": _COLOUR}
    label = {"text": {"field": "label", "type": "nominal"}, "y": {"value": 7}}
    text = {"type": "text", "align": "left", "dx": 3, "fontWeight": "bold"}
    return [
        {
            "data": {"name": "spans"},
            "mark": {"type": "rect", "opacity": 0.16},
            "encoding": {"x": first, "x2": {"field": "last"}} | colour,
        },
        {
            "data": {"name": "spans"},
            "mark": {"type": "rule", "opacity": 0.7},
            "encoding": {"x": first} | colour,
        },
        {
            "data": {"name": "spans"},
            "mark": text,
            "encoding": {"x": first} | label | colour,
        },
    ]


def _line_layers(x: dict[str, Any]) -> list[dict[str, Any]]:
    shared = {"color": _COLOUR, "detail": _DETAIL}
    width = {"field": "width", "type": "quantitative", "scale": None, "legend": None}
    band = {"y": _Y | {"field": "low"}, "y2": {"field": "high"}}
    return [
        {
            "data": {"name": "bands"},
            "mark": {"type": "area", "opacity": 0.18},
            "encoding": {"x": x} | band | shared,
        },
        {
            "data": {"name": "lines"},
            "mark": {"type": "line", "strokeJoin": "round"},
            "encoding": {"x": x, "y": _Y, "strokeDash": _DASH, "strokeWidth": width}
            | shared,
        },
        {
            "data": {"name": "dots"},
            "mark": {"type": "point", "filled": True, "size": 22, "opacity": 1},
            "encoding": {"x": x, "y": _Y} | shared,
        },
    ]


def _rule_layers() -> list[dict[str, Any]]:
    """Values of the configuration: a dashed line with its name."""
    text = {"type": "text", "align": "left", "baseline": "bottom", "dx": 4, "dy": -2}
    label = {"text": {"field": "label", "type": "nominal"}, "x": {"value": 0}}
    rule = {"type": "rule", "strokeDash": [5, 4], "color": _GREY}
    return [
        {"data": {"name": "rules"}, "mark": rule, "encoding": {"y": _Y}},
        {"data": {"name": "rules"}, "mark": text, "encoding": {"y": _Y} | label},
    ]


def _cursor_layer() -> dict[str, Any]:
    """The vertical line under the pointer, which the page's script moves."""
    return {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "color": _GREY, "clip": True},
        "encoding": {"x": {"datum": {"expr": "cursor"}, "type": "quantitative"}},
    }


def _config() -> dict[str, Any]:
    axis = {
        "labelColor": _GREY,
        "gridColor": _GREY,
        "gridOpacity": 0.2,
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "labelFontSize": 11,
    }
    return {
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False},
        "axisY": {"tickCount": 5, "minExtent": 44},
        "text": {"color": _GREY, "fontSize": 11},
    }


def library() -> str:
    """Return the JavaScript of Vega-Lite and its parts, for one script element."""
    import vl_convert  # here, because it is 80 MB that only a page needs

    bundle = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]
    return bundle.replace("</script", "<\\/script")
