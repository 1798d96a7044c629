"""The policy for one prefix of a bucket: it allows every request of the stores, and nothing outside the prefix."""

import json
import re

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "iam"
# Requests of boto3 and what IAM calls them. A multipart upload is PutObject at its start, for its parts and at its end.
ACTIONS = {
    "head_object": "s3:GetObject",
    "get_object": "s3:GetObject",
    "put_object": "s3:PutObject",
    "delete_object": "s3:DeleteObject",
    "head_bucket": "s3:ListBucket",
    "list_objects_v2": "s3:ListBucket",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "list_parts": "s3:ListMultipartUploadParts",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
}


def test_every_request_of_the_stores_is_allowed() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "records" / "stores").glob("s3*.py"))
    requests = set(re.findall(r"\bclient\.([a-z][\w]*)\(", code)) - {"close"}
    assert {"put_object", "list_objects_v2"} <= requests <= ACTIONS.keys()
    policy = json.loads((FOLDER / "policy.json").read_text())
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert allowed == set(ACTIONS.values()) | {"s3:DeleteObjectVersion"}  # `delete_object` with a VersionId


def test_nothing_is_allowed_outside_the_prefix() -> None:
    policy = json.loads((FOLDER / "policy.json").read_text())
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        if statement["Resource"].endswith("/*"):
            assert re.fullmatch(r"arn:aws:s3:::[\w-]+/[\w-]+/\*", statement["Resource"])
        else:
            assert set(statement["Action"]) <= {"s3:ListBucket", "s3:ListBucketMultipartUploads"}
            assert statement["Condition"]  # a prefix, or no prefix at all: HeadBucket


def test_only_the_accounts_of_the_manifests_take_the_role() -> None:
    (statement,) = json.loads((FOLDER / "trust-web-identity.json").read_text())["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    conditions = {key.partition(":")[2]: value for key, value in statement["Condition"]["StringEquals"].items()}
    assert conditions["aud"] == "sts.amazonaws.com"
    assert {subject.rpartition(":")[2] for subject in conditions["sub"]} == {"gristmill-head", "gristmill-worker"}
