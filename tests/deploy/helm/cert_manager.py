"""What cert-manager takes, as far as the chart uses it: the fields of its Certificate and Issuer (cert-manager.io/v1) and the
attributes of its csi-driver, written down from
https://cert-manager.io/docs/reference/api-docs/ and https://cert-manager.io/docs/usage/csi-driver/ (cert-manager 1.19).
Every field of a Certificate is named, so that one which does not exist is found; kinds of issuers that the chart does not
make are left out.
"""
import jsonschema

STRING, COUNT, SWITCH = {"type": "string"}, {"type": "integer", "minimum": 1}, {"type": "boolean"}
STRINGS = {"type": "array", "items": STRING, "minItems": 1}
DURATION = {"type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"}
USAGES = ("signing", "digital signature", "content commitment", "key encipherment", "key agreement", "data encipherment",
          "cert sign", "crl sign", "encipher only", "decipher only", "any", "server auth", "client auth", "code signing")


def fields(required=(), **properties):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def resource(kind, spec):
    return fields(("apiVersion", "kind", "metadata", "spec"), apiVersion={"const": "cert-manager.io/v1"}, kind={"const": kind},
                  metadata={"type": "object", "required": ["name", "labels"]}, spec=spec)


CERTIFICATE = resource("Certificate", {
    **fields(("secretName", "issuerRef"),
             secretName=STRING, issuerRef=fields(("name",), name=STRING, kind=STRING, group=STRING),
             commonName={"type": "string", "maxLength": 64}, dnsNames=STRINGS, uris=STRINGS, ipAddresses=STRINGS,
             emailAddresses=STRINGS, isCA=SWITCH, duration=DURATION, renewBefore=DURATION,
             renewBeforePercentage={"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 100},
             privateKey=fields(algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]}, encoding={"enum": ["PKCS1", "PKCS8"]},
                               rotationPolicy={"enum": ["Never", "Always"]}, size={"enum": [256, 384, 521, 2048, 4096, 8192]}),
             usages={"type": "array", "items": {"enum": list(USAGES)}, "uniqueItems": True},
             revisionHistoryLimit=COUNT, encodeUsagesInRequest=SWITCH, literalSubject=STRING, signatureAlgorithm=STRING,
             **{key: {"type": "object"} for key in ("subject", "keystores", "nameConstraints", "secretTemplate")},
             **{key: {"type": "array"} for key in ("additionalOutputFormats", "otherNames")}),
    # "At least one of commonName, dnsNames, uris, ... or literalSubject": asked for by its webhook.
    "anyOf": [{"required": [key]} for key in ("commonName", "dnsNames", "uris", "ipAddresses", "emailAddresses")],
})
ISSUER = resource("Issuer", {
    **fields((), selfSigned=fields(crlDistributionPoints=STRINGS),
             ca=fields(("secretName",), secretName=STRING, crlDistributionPoints=STRINGS, ocspServers=STRINGS,
                       issuingCertificateURLs=STRINGS)),
    "minProperties": 1, "maxProperties": 1,
})
CSI_ATTRIBUTES = {f"csi.cert-manager.io/{key}" for key in (
    "issuer-name", "issuer-kind", "issuer-group", "common-name", "dns-names", "ip-sans", "uri-sans", "duration", "is-ca",
    "key-usages", "key-encoding", "certificate-file", "ca-file", "privatekey-file", "fs-group", "renew-before",
    "reuse-private-key", "pkcs12-enable", "pkcs12-filename", "pkcs12-password")}


def validate(manifest):
    jsonschema.validate(manifest, {"Certificate": CERTIFICATE, "Issuer": ISSUER}[manifest["kind"]])


def validate_csi(volume):
    """Of a pod's volumes: what the driver itself would refuse."""
    assert volume["csi"]["readOnly"] is True, "the driver mounts nothing that may be written"
    attributes = volume["csi"]["volumeAttributes"]
    assert set(attributes) <= CSI_ATTRIBUTES, set(attributes) - CSI_ATTRIBUTES
    assert all(isinstance(value, str) for value in attributes.values()), attributes
    assert set(attributes["csi.cert-manager.io/key-usages"].split(",")) <= set(USAGES)
    assert int(attributes.get("csi.cert-manager.io/fs-group", "1")) > 0
