"""Clients of S3 from the standard AWS settings: boto3's, and Arrow's for datasets that Arrow scans.

Since 2025 the SDKs add a checksum to every put, as a trailer of a body in `aws-chunked` encoding over https. AWS checks
it; many other stores refuse it. So other endpoints get checksums only where S3 requires them, unless the user sets
AWS_REQUEST_CHECKSUM_CALCULATION or AWS_RESPONSE_CHECKSUM_VALIDATION, or the same keys in the profile.
"""

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from gristmill.records.errors import UserError
from gristmill.records.stores.held_put import mark_sending
from gristmill.records.stores.s3_listing import take_objects

if TYPE_CHECKING:
    import pyarrow.fs

CONNECT_S, READ_S = 10.0, 30.0  # timeouts of a try; less when the bound on retries is small
AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
CHECKSUMS = ("request_checksum_calculation", "response_checksum_validation")
WHEN_REQUIRED = "when_required"
CONNECTIONS = 64
USER_AGENT = f"gristmill Boto3/{boto3.__version__} Botocore/{botocore.__version__}"  # botocore's takes 0.1 ms a request


def is_aws(endpoint: str) -> bool:
    """Whether an endpoint is one of AWS itself, a private one in a VPC included."""
    return (urlsplit(endpoint).hostname or "").endswith(AWS_HOSTS)


def connect(uri: str, patience_s: float) -> Any:
    """A new client, whose session reads environment, files and role again. Raises UserError for wrong settings."""
    session = boto3.session.Session()
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=min(CONNECT_S, max(1.0, patience_s / 3)),
        read_timeout=min(READ_S, max(1.0, patience_s / 3)),
        max_pool_connections=CONNECTIONS,
        user_agent=USER_AGENT,
    )
    try:
        client = session.client("s3", config=config)
        if not is_aws(client.meta.endpoint_url):  # most compatible stores have no host name per bucket
            profile = session._session.get_scoped_config()
            unset = {
                key: WHEN_REQUIRED for key in CHECKSUMS if not os.environ.get(f"AWS_{key.upper()}", profile.get(key))
            }
            client = session.client("s3", config=config.merge(Config(s3={"addressing_style": "path"}, **unset)))
    except ValueError:  # its text may hold the password before an @
        raise UserError(f"{uri}: AWS_ENDPOINT_URL is not an address; write http://host:port") from None
    except BotoCoreError as error:
        raise UserError(f"{uri}: {error}") from None
    client.meta.events.register("before-send.s3.PutObject", mark_sending)
    client.meta.events.register("before-parse.*.ListObjectsV2", take_objects)  # before those of botocore
    return client


def session_keys() -> Any:
    """The keys of environment, files or role, as botocore's `Credentials`; None where there are none."""
    return boto3.session.Session().get_credentials()


def arrow_filesystem(client: Any) -> "pyarrow.fs.FileSystem":
    """Arrow's file system with the keys and the endpoint of a client."""
    from pyarrow import fs

    keys = session_keys()
    frozen = keys.get_frozen_credentials() if keys else None
    endpoint = client.meta.endpoint_url
    scheme, _, host = endpoint.partition("://")
    if not is_aws(endpoint):
        for key in CHECKSUMS:  # Arrow's SDK takes them from the environment alone
            os.environ.setdefault(f"AWS_{key.upper()}", WHEN_REQUIRED)
    return fs.S3FileSystem(
        access_key=frozen and frozen.access_key,
        secret_key=frozen and frozen.secret_key,
        session_token=frozen and frozen.token,
        anonymous=frozen is None,
        region=client.meta.region_name,
        scheme=scheme,
        endpoint_override=None if is_aws(endpoint) else host,
        tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE") or None,
    )
