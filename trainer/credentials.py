"""Content credentials: what a generated file says of itself, signed, so that a changed byte shows (C2PA).

Every video and picture that `samples` and `dailies sample` write carries a C2PA manifest: made by a trained model
(IPTC's `trainedAlgorithmicMedia`; a composite where pictures were given), by which checkpoint, trained on which
manifest digest, from which prompt as given and as used, with which seed and task, from which given files.  Signed with
the user's certificate chain, or with a development one that is made per root: readers then call the file valid, and its
signer not trusted, which is what a development certificate is.

A signature holds random numbers, so two runs give other bytes; the pictures are the same.
Cost: 10 ms a file.  Source: C2PA 2.2; c2pa-python.
"""

import dataclasses
import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError, ModelError
from schemas.store import Store

LABEL = "org.dailies.generation"
"""Our assertion in the C2PA manifest."""
_MADE_BY_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_MADE_WITH_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_TYPES = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg"}
_CHAIN, _KEY = "chain.pem", "key.pem"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsConfig:
    """Whether and as whom generated files are signed."""

    sign: bool = True
    """Whether files carry content credentials."""
    certificate: str = ""
    """PEM file, the signer's certificate first, then its chain; empty for a development one made for this root."""
    key: str = ""
    """PEM file of the private key to it; it is read when signing, and never copied."""
    algorithm: str = "es256"
    """es256, es384, es512, ps256, ps384, ps512 or ed25519, as the key is."""

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("credentials need both `certificate` and `key`, or neither")
        if self.algorithm not in ("es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"):
            raise ValueError(f"no C2PA algorithm is called `{self.algorithm}`")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a file says of how it was made."""

    checkpoint: str
    """Digest of the DiT's weights."""
    autoencoder: str
    manifest: str
    """Digest of the manifest that the DiT was trained on."""
    prompt: str
    """As the user gave it."""
    prompt_used: str
    """As the model read it (after expansion)."""
    seed: int
    task: str
    sampling: str
    """Solver, steps and guidance, as JSON."""
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What was given: SHA-256 of each file by its role, and a region, a gap or a strength."""


def sign(path: str | os.PathLike[str], made: Generation, config: CredentialsConfig, secrets: Path) -> None:
    """Sign a file in place; it is replaced whole or left as it was.

    Args:
        secrets: Folder of the root's development certificate.

    Raises:
        ConfigError: If the certificate or key does not read, or is none that C2PA takes.
    """
    import c2pa

    chain, key = (Path(config.certificate), Path(config.key)) if config.certificate else development(secrets)
    try:
        info = c2pa.C2paSignerInfo(config.algorithm.encode(), chain.read_bytes(), key.read_bytes(), None)
        signer = c2pa.Signer.from_info(info)
    except (OSError, c2pa.C2paError) as e:
        raise ConfigError(f"content credentials: certificate {chain} and key {key} do not sign: {e}") from e
    path = Path(path)
    signed = path.with_name(f"{path.stem}.signed{path.suffix}")
    try:
        with c2pa.Builder(json.dumps(_claims(path, made))) as builder:
            builder.sign_file(path, signed, signer)
    except c2pa.C2paError as e:
        signed.unlink(missing_ok=True)
        raise ConfigError(f"content credentials: {path.name} cannot be signed with {chain}: {e}") from e
    os.replace(signed, path)


def _claims(path: Path, made: Generation) -> dict[str, Any]:
    source = _MADE_WITH_MODEL if made.given else _MADE_BY_MODEL
    action = {"action": "c2pa.created", "digitalSourceType": source}
    return {
        "claim_generator_info": [{"name": "dailies", "version": version("dailies")}],
        "title": path.name,
        "format": _TYPES[path.suffix],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": LABEL, "data": dataclasses.asdict(made)},
        ],
    }


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file says of itself, and whether that is what was signed.

    Returns:
        state (`Valid`, `Trusted` or `Invalid`), problems (codes), signer, and generation (our assertion, or null).

    Raises:
        ModelError: If the file has no credentials, or none that can be read.
    """
    import c2pa

    try:
        with c2pa.Reader(os.fspath(path)) as reader:
            found = json.loads(reader.json())
    except (OSError, c2pa.C2paError) as e:
        raise ModelError(f"{path} carries no content credentials that can be read: {e}") from e
    active = found["manifests"][found["active_manifest"]]
    ours = [a["data"] for a in active.get("assertions", []) if a["label"] == LABEL]
    problems = [s["code"] for s in found.get("validation_status", []) if s["code"] != "signingCredential.untrusted"]
    return {
        "state": found.get("validation_state", "Invalid"),
        "problems": problems,
        "signer": _signer(active),
        "generation": ours[0] if ours else None,
    }


def _signer(active: Mapping[str, Any]) -> str:
    info = active.get("signature_info", {})
    return str(info.get("common_name") or info.get("issuer") or "")


def secrets_of(store: Store) -> Path:
    """Where a root's development certificate lies; that of a root in an object store stays on this machine."""
    return store.on_this_machine("secrets", "c2pa")


def development(secrets: Path) -> tuple[Path, Path]:
    """Certificate chain and key of this root's development signer, made when first asked for.

    Two processes that ask at once get the same one: the folder appears whole, and the second to come takes the first's.
    """
    if not (secrets / _KEY).exists():
        secrets.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".c2pa-", dir=secrets.parent))
        chain, key = _make_development()
        (staged / _CHAIN).write_bytes(chain)
        with open(os.open(staged / _KEY, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as f:
            f.write(key)
        try:
            os.rename(staged, secrets)
        except OSError:  # another process was first
            shutil.rmtree(staged)
    return secrets / _CHAIN, secrets / _KEY


def _make_development() -> tuple[bytes, bytes]:
    """A leaf certificate under an authority of its own, as C2PA asks for it; the authority's key is forgotten."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text: str) -> x509.Name:
        pairs = [(x509.NameOID.ORGANIZATION_NAME, "dailies development"), (x509.NameOID.COMMON_NAME, text)]
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])

    authority_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name, leaf_name = name("dailies development authority"), name("dailies development signer")
    now = datetime.datetime.now(datetime.UTC)

    def begin(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=3650))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )

    def usage(*, signs_certificates: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs_certificates,
            key_cert_sign=signs_certificates,
            crl_sign=signs_certificates,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    authority = (
        begin(authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    leaf = (
        begin(leaf_name, leaf_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return leaf.public_bytes(pem) + authority.public_bytes(pem), key
