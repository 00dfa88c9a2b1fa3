"""TLS to the coordinator, and the token that says who you are: the files that `seqpar` takes, and its environment variables."""
from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple, Union

import grpc

from seqpar import errors

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Tls:
    """How the coordinator is reached over TLS; all files are PEM.

    ca: whose certificate of the coordinator is believed; default: those that grpcio brings. cert, key: shown for mutual TLS,
    both or neither. server_name: that the coordinator's certificate must have; default: the host that is dialled.
    token_file: your token, read again at each call. token: the token itself.
    """

    ca: Optional[PathLike] = None
    cert: Optional[PathLike] = None
    key: Optional[PathLike] = None
    server_name: Optional[str] = None
    token_file: Optional[PathLike] = None
    token: Optional[str] = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Optional["Tls"]:
        """From SEQPAR_TLS_CA, SEQPAR_TLS_CERT, SEQPAR_TLS_KEY, SEQPAR_TLS_SERVER_NAME, SEQPAR_TOKEN_FILE and SEQPAR_TOKEN; None
        where neither one of the first three nor SEQPAR_TLS asks for TLS. InvalidError for a token without TLS: it would
        travel in the clear."""
        names = {"ca": "SEQPAR_TLS_CA", "cert": "SEQPAR_TLS_CERT", "key": "SEQPAR_TLS_KEY",
                 "server_name": "SEQPAR_TLS_SERVER_NAME", "token_file": "SEQPAR_TOKEN_FILE", "token": "SEQPAR_TOKEN"}
        given = {field: environment[name] for field, name in names.items() if environment.get(name)}
        wanted = environment.get("SEQPAR_TLS", "").lower() in ("1", "true", "yes", "on")
        if wanted or given.keys() & {"ca", "cert", "key"}:
            return cls(**given)
        for field in ("token_file", "token"):
            if field in given:
                raise _wrong(names[field], "a token is never sent without TLS", "SEQPAR_TLS_CA=FILE, or SEQPAR_TLS=1")
        return None


def secure_channel(server: str, tls: Tls, options: Sequence[Tuple[str, Any]]) -> grpc.Channel:
    """InvalidError where a file cannot be read, or cert stands without key."""
    if (tls.cert is None) != (tls.key is None):
        raise _wrong("tls.cert" if tls.key is None else "tls.key", "a certificate and its key are given together")
    credentials = grpc.ssl_channel_credentials(_read("tls.ca", tls.ca), _read("tls.key", tls.key), _read("tls.cert", tls.cert))
    if tls.token_file is not None or tls.token is not None:
        _token(tls)
        credentials = grpc.composite_channel_credentials(credentials, grpc.metadata_call_credentials(_TokenPlugin(tls)))
    if tls.server_name:
        options = [*options, ("grpc.ssl_target_name_override", tls.server_name)]
    return grpc.secure_channel(server, credentials, options=options)


class _TokenPlugin(grpc.AuthMetadataPlugin):
    def __init__(self, tls: Tls) -> None:
        self._tls = tls

    def __call__(self, context: Any, callback: Callable[..., None]) -> None:
        try:
            callback((("authorization", f"Bearer {_token(self._tls)}"),), None)
        except errors.SeqparError as error:
            callback((), error)


def _token(tls: Tls) -> str:
    held = _read("tls.token_file", tls.token_file)
    token = (tls.token or "" if held is None else held.decode(errors="replace")).strip()
    if not token or not all("!" <= c <= "~" for c in token):
        raise _wrong("tls.token", "must be one word of visible ASCII characters")
    return token


def _read(field: str, path: Optional[PathLike]) -> Optional[bytes]:
    if path is None:
        return None
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise _wrong(field, f"{path} cannot be read: {error.strerror}") from None


def _wrong(field: str, what: str, nearest: str = "") -> errors.InvalidError:
    return errors.invalid([errors.Violation(field, what, nearest)])
