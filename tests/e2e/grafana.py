"""What Grafana does with a dashboard before Prometheus sees a query: values for variables, and numbers for its own."""
import json
import re

import monitoring
from prometheus import SCRAPE_SECONDS

ALL = "$__all"
# Grafana's roundInterval: up to the first number, in seconds, an interval becomes the second.
ROUNDED = ((0.75, 0.5), (1.5, 1), (3.5, 2), (7.5, 5), (12.5, 10), (17.5, 15), (25, 20), (45, 30), (90, 60), (210, 120),
           (450, 300), (750, 600), (1050, 900), (1500, 1200), (2700, 1800), (5400, 3600))
SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(text):
    return int(text[:-1]) * SECONDS[text[-1]]


def rounded(interval):
    return next(number for limit, number in ROUNDED if interval < limit)


class Board:
    """A dashboard over a time range of a Prometheus."""

    def __init__(self, name, prometheus, begin, end):
        self.name, self.prometheus, self.begin, self.end = name, prometheus, begin, end
        content = json.loads((monitoring.DASHBOARDS / f"{name}.json").read_text())
        self.panels = [panel for panel in content["panels"] if panel["type"] != "row"]
        self.variables = [v for v in content["templating"]["list"] if v["type"] == "query"]
        self.intervals = {v["name"]: v for v in content["templating"]["list"] if v["type"] == "interval"}

    def panel(self, title):
        found, = [panel for panel in self.panels if panel["title"] == title]
        return found

    # --- variables ---

    def values(self, variable, chosen):
        """The values that a query variable offers where the ones before it are `chosen`."""
        metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
        return self.prometheus.label_values(self.interpolate(metric, chosen), label, self.begin, self.end)

    def choices(self):
        """Every value of every variable: each with every value of those before it that have no "all", the rest at all.
        Yields {variable: value}."""
        fixed = [{}]
        for variable in (v for v in self.variables if not v["includeAll"]):
            fixed = [{**chosen, variable["name"]: value} for chosen in fixed for value in self.values(variable, chosen)]
        for chosen in fixed:
            rest = {v["name"]: ALL for v in self.variables if v["includeAll"]}
            yield {**chosen, **rest}
            for variable in (v for v in self.variables if v["includeAll"]):
                for value in self.values(variable, {**chosen, **rest}):
                    yield {**chosen, **rest, variable["name"]: value}

    # --- queries ---

    def interval(self, variable):
        automatic = rounded((self.end - self.begin) / variable["auto_count"])
        return f"{max(seconds(variable['auto_min']), int(automatic))}s"

    def interpolate(self, text, chosen):
        step = max(SCRAPE_SECONDS, int(rounded((self.end - self.begin) / 1000)))
        known = {"__rate_interval": f"{max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s",
                 "__range": f"{int(self.end - self.begin)}s",
                 **{name: self.interval(variable) for name, variable in self.intervals.items()}}
        for variable in self.variables:
            value = chosen.get(variable["name"])
            if value is not None:
                # A value of a variable of many is taken for a regular expression, and escaped for it and for PromQL.
                escaped = re.sub(r"[\\^$*+?.()|\[\]{}]", lambda m: "\\\\" + m[0], value) if variable["multi"] else value
                known[variable["name"]] = variable["allValue"] if value == ALL else escaped
        return re.sub(r"\$(\w+)", lambda m: known[m[1]], text)

    def run(self, target, chosen):
        """(the query that ran, its series)"""
        expr = self.interpolate(target["expr"], chosen)
        if target["instant"]:
            return expr, self.prometheus.instant(expr, self.end)
        return expr, self.prometheus.range(expr, self.begin, self.end)
