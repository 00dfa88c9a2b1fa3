"""What a dashboard is made of, as Grafana 11's JSON: panels, variables, links, and their places on the grid.

Every function returns plain dicts in the order and with the defaults that Grafana's own types write (a test decodes and
encodes the result with them), so that a dashboard exported from Grafana differs only where somebody changed it. Panels
flow from left to right over 24 columns; row() starts a new line.
"""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TAG = "seqpar"  # every dashboard has it: the links at the top find each other by it
COLUMNS = 24

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"


def query(expr, legend="__auto", *, instant=False, kind="time_series"):
    """One PromQL query. `legend`: Grafana's template, such as "rank {{rank}}". `instant`: its value at the range's end."""
    return {"expr": " ".join(expr.split()), "legend": legend, "instant": instant, "kind": kind}


def _targets(queries):
    if isinstance(queries, dict):
        queries = [queries]
    return [{"datasource": DATASOURCE, "editorMode": "code", "expr": q["expr"], "format": q["kind"], "instant": q["instant"],
             "legendFormat": q["legend"], "range": not q["instant"], "refId": chr(ord("A") + i)}
            for i, q in enumerate(queries)]


def thresholds(*steps):
    """((colour,), (colour, from), ...): colours of values, the first one below every limit."""
    return {"mode": "absolute",
            "steps": [{"value": step[1] if len(step) > 1 else None, "color": step[0]} for step in steps]}


def value_texts(texts):
    """Mappings of numbers to (text, colour): value_texts({0: ("down", RED)})."""
    return [{"type": "value", "options": {str(value): {"text": text, "color": colour, "index": i}
                                          for i, (value, (text, colour)) in enumerate(texts.items())}}]


def _panel(kind, title, description, queries, options, *, width, height, unit=None, low=None, high=None, decimals=None,
           limits=None, mappings=None, custom=None, overrides=(), transformations=None, links=None, no_value=None,
           colour=None):
    defaults = {"unit": unit, "min": low, "max": high, "decimals": decimals, "mappings": mappings,
                "thresholds": limits or thresholds((GREEN,)), "noValue": no_value, "color": colour, "custom": custom}
    panel = {"type": kind, "title": title, "description": description, "transparent": False, "repeatDirection": "h",
             "datasource": DATASOURCE, "targets": _targets(queries), "options": options,
             "gridPos": {"w": width, "h": height},
             "fieldConfig": {"defaults": {k: v for k, v in defaults.items() if v is not None},
                             "overrides": list(overrides)}}
    if transformations:
        panel["transformations"] = transformations
    if links:
        panel["links"] = links
    return panel


def override(name, **properties):
    """Properties of one field, named with _ for what Grafana writes as a point: custom_width=120."""
    return {"matcher": {"id": "byName", "options": name},
            "properties": [{"id": key.replace("_", ".", 1) if key.startswith("custom_") else key, "value": value}
                           for key, value in properties.items()]}


def _legend(show, calcs=()):
    return {"displayMode": "table" if calcs else "list", "placement": "bottom", "showLegend": show, "calcs": list(calcs)}


def timeseries(title, description, queries, unit, *, width=12, height=8, stack=False, low=0, high=None, limits=None,
               calcs=("lastNotNull", "max"), fill=None, log=False, decimals=None, overrides=()):
    """Lines over time; `stack`: areas on top of each other. `limits`, where given, are drawn as lines."""
    custom = {"drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "auto", "pointSize": 5,
              "fillOpacity": fill if fill is not None else (60 if stack else 8),
              "stacking": {"mode": "normal" if stack else "none", "group": "A"}, "spanNulls": False,
              "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
              "thresholdsStyle": {"mode": "line" if limits else "off"}}
    options = {"legend": _legend(True, calcs), "tooltip": {"mode": "multi", "sort": "desc"}}
    return _panel("timeseries", title, description, queries, options, width=width, height=height, unit=unit,
                  low=None if log else low, high=high, limits=limits, custom=custom, decimals=decimals,
                  overrides=overrides, colour={"mode": "palette-classic"})


def stat(title, description, queries, unit, *, width=4, height=4, limits=None, mappings=None, calc="lastNotNull",
         graph=True, decimals=None, links=None, text=False, no_value=None):
    """One number a series, coloured by `limits`. `text`: shows the series' name instead of its value."""
    options = {"graphMode": "area" if graph else "none", "colorMode": "value" if limits or mappings else "none",
               "justifyMode": "auto", "textMode": "name" if text else "auto", "wideLayout": True,
               "showPercentChange": False,
               "reduceOptions": {"values": False, "calcs": [calc], "fields": ""},
               "percentChangeColorMode": "standard", "orientation": "auto"}
    return _panel("stat", title, description, queries, options, width=width, height=height, unit=unit, limits=limits,
                  mappings=mappings, decimals=decimals, links=links, no_value=no_value)


def bargauge(title, description, queries, unit, *, width=12, height=8, low=0, high=None, limits=None,
             calc="lastNotNull", decimals=None):
    """A bar a series, side by side."""
    options = {"displayMode": "gradient", "valueMode": "color", "namePlacement": "auto", "showUnfilled": True,
               "sizing": "auto", "minVizWidth": 8, "minVizHeight": 16, "maxVizHeight": 300,
               "legend": _legend(False), "reduceOptions": {"values": False, "calcs": [calc], "fields": ""},
               "orientation": "horizontal"}
    return _panel("bargauge", title, description, queries, options, width=width, height=height, unit=unit, low=low,
                  high=high, limits=limits, decimals=decimals)


def state_timeline(title, description, queries, *, width=24, height=8, mappings=None, limits=None, unit=None,
                   transformations=None):
    """What state each series was in, over time."""
    options = {"showValue": "auto", "rowHeight": 0.9, "legend": {**_legend(True)},
               "tooltip": {"mode": "single", "sort": "none"}, "mergeValues": True, "alignValue": "left", "perPage": 20}
    custom = {"lineWidth": 0, "fillOpacity": 70}
    return _panel("state-timeline", title, description, queries, options, width=width, height=height, unit=unit,
                  mappings=mappings, limits=limits, custom=custom, transformations=transformations,
                  colour={"mode": "thresholds"})


def heatmap(title, description, expr, unit, *, width=12, height=8):
    """A classic histogram over time: `expr` gives a rate a bucket, by le."""
    options = {"calculate": False,
               "color": {"mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "reverse": False, "steps": 64,
                         "exponent": 0.5},
               "cellGap": 1, "cellValues": {"unit": "short"}, "yAxis": {"unit": unit, "axisPlacement": "left",
                                                                        "reverse": False},
               "showValue": "never", "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
               "legend": {"show": True}, "exemplars": {"color": "rgba(255,0,255,0.7)"},
               "filterValues": {"le": 1e-09}, "selectionMode": "x", "rowsFrame": {"layout": "auto"}}
    return _panel("heatmap", title, description, query(expr, "{{le}}", kind="heatmap"), options, width=width,
                  height=height, custom={"scaleDistribution": {"type": "linear"}})


def table(title, description, queries, *, width=24, height=8, transformations, overrides=(), sort=None):
    """Queries at the range's end, joined into rows by `transformations`."""
    options = {"frameIndex": 0, "showHeader": True, "showTypeIcons": False, "cellHeight": "sm",
               "footer": {"show": False, "reducer": [], "countRows": False},
               "sortBy": [{"displayName": sort, "desc": True}] if sort else []}
    return _panel("table", title, description, [{**q, "instant": True, "kind": "table"} for q in queries], options,
                  width=width, height=height, transformations=transformations, overrides=overrides,
                  custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "filterable": True})


def joined(names, labels, hidden=()):
    """Transformations of a table: one row for each set of labels; value columns get `names`, by query, and columns of
    labels the names in `labels`, in their order."""
    hide = ["Time", "__name__", "instance", "job", *hidden]
    values = {"Value": names[0]} if len(names) == 1 else {f"Value #{chr(ord('A') + i)}": n for i, n in enumerate(names)}
    order = {source: i for i, source in enumerate([*labels, *values])}
    return [{"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {name: True for name in hide}, "indexByName": order,
                                           "renameByName": {**labels, **values}}}]


def row(title):
    return {"type": "row", "collapsed": False, "title": title, "panels": []}


def variable(name, label, expr, *, many=True, description=""):
    """A variable filled by a query such as label_values(metric, label); `many`: several values, or all, may be chosen."""
    made = {"type": "query", "name": name, "label": label, "hide": 0, "skipUrlSync": False, "description": description,
            "query": {"qryType": 1, "query": expr, "refId": f"variable-{name}"}, "datasource": DATASOURCE,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]} if many else
                       {"selected": False, "text": "", "value": ""},
            "multi": many, "allowCustomValue": True, "refresh": 2, "sort": 3 if many else 4, "includeAll": many}
    if many:
        made["allValue"] = ".*"
    return {**made, "regex": "", "auto": False, "auto_min": "10s", "auto_count": 30}


def _datasource_variable():
    return {"type": "datasource", "name": "datasource", "label": "Data source", "hide": 0, "skipUrlSync": False,
            "query": "prometheus", "current": {"selected": False, "text": "Prometheus", "value": "prometheus"},
            "multi": False, "allowCustomValue": True, "refresh": 1, "includeAll": False, "regex": "", "auto": False,
            "auto_min": "10s", "auto_count": 30}


def link(title, uid, *, keep=(), tooltip=""):
    """A link of a panel or field to a dashboard; `keep`: query parameters, such as "var-job_id=${__data.fields.Job}"."""
    url = f"/d/{uid}?" + "&".join(["${datasource:queryparam}", "${__url_time_range}", *keep])
    return {"title": title, "type": "link", "icon": "external link", "tooltip": tooltip, "url": url, "tags": [],
            "asDropdown": False, "targetBlank": False, "includeVars": False, "keepTime": False}


def field_link(title, uid, keep):
    """The same as an entry of a field's `links`."""
    url = f"/d/{uid}?" + "&".join(["${datasource:queryparam}", "${__url_time_range}", *keep])
    return {"title": title, "url": url, "targetBlank": False}


def _placed(items):
    """Panels with ids and places."""
    x = y = line = 0
    placed = []
    for number, item in enumerate(items, 1):
        if item["type"] == "row":
            x, y, line = 0, y + line, 0
            placed.append({**item, "id": number, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
            y += 1
            continue
        width, height = item["gridPos"]["w"], item["gridPos"]["h"]
        if x + width > COLUMNS:
            x, y, line = 0, y + line, 0
        placed.append({**item, "id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, line = x + width, max(line, height)
    return placed


def dashboard(uid, title, description, variables, items, *, since="now-1h", refresh="30s"):
    others = {"title": "seqpar", "type": "dashboards", "icon": "external link", "tooltip": "", "tags": [TAG],
              "asDropdown": False, "targetBlank": False, "includeVars": True, "keepTime": True}
    built_in = {"name": "Annotations & Alerts", "datasource": {"type": "grafana", "uid": "-- Grafana --"},
                "enable": True, "hide": True, "iconColor": "rgba(0, 211, 255, 1)", "type": "dashboard", "builtIn": 1}
    return {"uid": uid, "title": title, "description": description, "tags": [TAG], "timezone": "browser",
            "editable": True, "graphTooltip": 1, "time": {"from": since, "to": "now"}, "fiscalYearStartMonth": 0,
            "refresh": refresh, "schemaVersion": 41, "panels": _placed(items),
            "templating": {"list": [_datasource_variable(), *variables]}, "annotations": {"list": [built_in]},
            "links": [others]}
