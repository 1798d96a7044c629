"""An authority of the tests' own and its certificate for 127.0.0.1."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM, PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()


def certificates(folder: Path) -> tuple[str, tuple[str, str]]:
    """The bundle of the authority, and (certificate, key) of a server on loopback, as PEM files in `folder`."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("authority of tests", "127.0.0.1")
    )
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    ca = _signed(ca_name, ca_name, ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=0))
    certificate = _signed(name, ca_name, key, ca_key, loopback)
    files = {"ca.pem": ca.public_bytes(PEM), "server.pem": certificate.public_bytes(PEM)}
    files["server.key"] = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, PLAIN)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return str(folder / "ca.pem"), (str(folder / "server.pem"), str(folder / "server.key"))


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    ca_key: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    return builder.add_extension(extension, critical=False).sign(ca_key, hashes.SHA256())
