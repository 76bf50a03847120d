"""A service of objects, as Amazon's S3 is: moto's, behind https and a look at each request's signature."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import botocore.session
import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

REGION = "us-east-1"


@dataclass
class ObjectStore:
    """A running service. ``authority``: the PEM of who vouches for it; ``given``: what it was rightly asked for."""

    address: str
    authority: Path
    key: str
    secret: str
    given: list[str]

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Keep an object."""
        credentials = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret}
        path_style = botocore.config.Config(signature_version="s3v4", s3={"addressing_style": "path"})
        client = botocore.session.Session().create_client(
            "s3", REGION, endpoint_url=f"https://{self.address}", config=path_style, **credentials
        )
        trust = ssl.create_default_context(cafile=str(self.authority))
        header = {"content-type": "application/octet-stream"}
        for action, more in (("create_bucket", {}), ("put_object", {"Key": name})):
            url = client.generate_presigned_url(action, {"Bucket": bucket, **more}, HttpMethod="PUT")
            httpx.put(url, content=content if more else b"", headers=header, verify=trust).raise_for_status()


@contextmanager
def object_store(folder: Path, key: str, secret: str) -> Iterator[ObjectStore]:
    """Run a service on loopback that knows one pair of keys; ``folder`` is for its certificate."""
    store = ObjectStore("", folder / "authority.pem", key, secret, [])
    private = folder / "service.pem"
    _certify(store.authority, private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(store.authority, private)
    server = make_server(
        "127.0.0.1", 0, _signed_only(store), threaded=True, ssl_context=context, request_handler=_Quiet
    )
    store.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""


def _certify(certificate: Path, private: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "objects")])
    now = datetime.datetime.now(datetime.UTC)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(host, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    clear = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, clear))


def _signed_only(store: ObjectStore) -> Callable[..., Iterable[bytes]]:
    """Return moto's service, which looks whether a request is signed, and not by whom, behind a look at that."""
    service = create_backend_app("s3")

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if not _is_signed(environ, store):
            start("403 Forbidden", [("Content-Length", "0")])
            return []
        if environ["REQUEST_METHOD"] == "GET":
            store.given.append(environ["PATH_INFO"])
        found: Iterable[bytes] = service(environ, start)
        return found

    return answer


def _variable(header: str) -> str:
    return header.upper().replace("-", "_")


def _is_signed(environ: dict[str, Any], store: ObjectStore) -> bool:
    """Whether a request was signed in its URL with the service's keys (signature version 4, by botocore's)."""
    asked = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    signature = asked.pop("X-Amz-Signature", "")
    if not asked.get("X-Amz-Credential", "").startswith(f"{store.key}/"):
        return False
    url = f"https://{environ['HTTP_HOST']}{quote(environ['PATH_INFO'])}?{urlencode(asked, quote_via=quote)}"
    names = asked["X-Amz-SignedHeaders"].split(";")
    sent = {"CONTENT_TYPE": environ.get("CONTENT_TYPE", ""), **environ}
    headers = {name: sent.get(f"HTTP_{_variable(name)}", sent.get(_variable(name))) for name in names}
    request = botocore.awsrequest.AWSRequest(environ["REQUEST_METHOD"], url, headers=headers)
    request.context["timestamp"] = asked["X-Amz-Date"]
    signer = botocore.auth.S3SigV4QueryAuth(botocore.credentials.Credentials(store.key, store.secret), "s3", REGION)
    words = signer.string_to_sign(request, signer.canonical_request(request))
    return bool(signer.signature(words, request) == signature)
