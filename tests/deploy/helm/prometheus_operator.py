"""What the Prometheus operator takes, as far as the chart uses it: ServiceMonitor, PodMonitor and PrometheusRule
(monitoring.coreos.com/v1), written down from https://prometheus-operator.dev/docs/api-reference/api/ (0.80). Every field is
named, so that one which does not exist is found; those that the chart does not set take anything.
"""
import jsonschema

from cert_manager import fields

ANY, STRING = {}, {"type": "string"}
STRINGS = {"type": "array", "items": STRING}
NAMED = {"type": "object", "additionalProperties": STRING}
DURATION = {"type": "string", "pattern": "^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?"
                                         "(([0-9]+)ms)?)$"}
ACTIONS = ("replace", "keep", "drop", "hashmod", "labelmap", "labeldrop", "labelkeep", "lowercase", "uppercase", "keepequal",
           "dropequal")
RELABELINGS = {"type": "array", "items": fields(
    sourceLabels=STRINGS, separator=STRING, targetLabel=STRING, regex=STRING, modulus={"type": "integer"},
    replacement=STRING, action={"enum": list(ACTIONS)})}
ENDPOINT = {"port": STRING, "interval": DURATION, "scrapeTimeout": DURATION, "path": STRING, "relabelings": RELABELINGS,
            "metricRelabelings": RELABELINGS, "scheme": {"enum": ["http", "https"]},
            **{key: ANY for key in (
                "targetPort", "params", "tlsConfig", "bearerTokenSecret", "authorization", "honorLabels", "honorTimestamps",
                "trackTimestampsStaleness", "basicAuth", "oauth2", "proxyUrl", "followRedirects", "enableHttp2",
                "filterRunning")}}
MONITOR = {"selector": fields(matchLabels=NAMED, matchExpressions=ANY),
           **{key: ANY for key in (
               "jobLabel", "podTargetLabels", "namespaceSelector", "selectorMechanism", "sampleLimit", "scrapeProtocols",
               "fallbackScrapeProtocol", "targetLimit", "scrapeClassicHistograms", "nativeHistogramBucketLimit",
               "nativeHistogramMinBucketFactor", "labelLimit", "labelNameLengthLimit", "labelValueLengthLimit",
               "keepDroppedTargets", "attachMetadata", "scrapeClass", "bodySizeLimit")}}
RULE = fields(("expr",), record=STRING, alert=STRING, expr={"type": ["string", "integer"]}, **{"for": DURATION},
              keep_firing_for=DURATION, labels=NAMED, annotations=NAMED)
SPECS = {
    "ServiceMonitor": fields(("selector", "endpoints"), **MONITOR, targetLabels=STRINGS, endpoints={
        "type": "array", "minItems": 1, "items": fields(**ENDPOINT, bearerTokenFile=STRING)}),
    "PodMonitor": fields(("selector", "podMetricsEndpoints"), **MONITOR, podMetricsEndpoints={
        "type": "array", "minItems": 1, "items": fields(**ENDPOINT, portNumber={"type": "integer"})}),
    "PrometheusRule": fields(("groups",), groups={"type": "array", "items": fields(
        ("name",), name=STRING, labels=NAMED, interval=DURATION, query_offset=DURATION, limit={"type": "integer"},
        partial_response_strategy=STRING, rules={"type": "array", "items": RULE})}),
}


def validate(manifest):
    jsonschema.validate(manifest, fields(
        ("apiVersion", "kind", "metadata", "spec"), apiVersion={"const": "monitoring.coreos.com/v1"},
        kind={"enum": list(SPECS)}, metadata={"type": "object", "required": ["name", "labels"]},
        spec=SPECS[manifest["kind"]]))
