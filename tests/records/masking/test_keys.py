"""Keys that name a secret, and keys that only look like it."""

import ast

import pytest

from gristmill.cluster.connect import FLOORS
from gristmill.engines.served import PLACEMENT, SAMPLING
from gristmill.records.masking.keys import is_secret_key
from tests.conftest import ROOT

SECRETS = (
    "secret token auth_token api_secret aws_secret_access_key hf_token HF_TOKEN password db_password dbPassword passwd "
    "passphrase pwd credential credentials api_key apikey apiKey APIKey x-api-key X-API-Key access_key private_key "
    "privateKey secret_key account_key sas sas_token signature authorization Authorization Proxy-Authorization bearer "
    "cookie Set-Cookie session_token AWS_SESSION_TOKEN connection_string connectionString webhook SLACK_WEBHOOK_URL "
    "dsn sentry_dsn clientSecret client_secret accessToken refresh_token auth_tokens token_2 token_value password_2 "
    "x-auth-token X-Amz-Signature X-Amz-Security-Token OPENAI_API_KEY GITHUB_TOKEN AccountKey SharedAccessKey "
    "signing_key generator.engine.api_key stages.0.headers.authorization"
).split()
INNOCENT = (
    "max_tokens tokenizer tokenizer_mode eos_token eos_token_id pad_token bos_token key_column primary_key keys key "
    "token_budget sort_key monkey tokens_per_s token_ids token_count kept_tokens tokens tokens_in min_tokens author "
    "stop_token_ids allowed_token_ids skip_special_tokens prompt_tokens num_tokens secretary keyboard turkey "
    "author_key limits.tokens passes pass_rate passage compass api_key_env password_column token_type "
    "max_num_batched_tokens token_file secretariat"
).split()


@pytest.mark.parametrize("key", SECRETS)
def test_keys_of_secrets(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize("key", INNOCENT)
def test_keys_that_name_no_secret(key: str) -> None:
    assert not is_secret_key(key)


def test_no_key_of_a_spec_is_taken_for_a_secret() -> None:
    """Masking would hide a setting, and leave it out of the fingerprint."""
    names: set[str] = set()
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
                    fields = [f.target for f in node.body if isinstance(f, ast.AnnAssign)]
                    names |= {field.id for field in fields if isinstance(field, ast.Name)}
    assert len(names) > 500
    assert not {name for name in names | SAMPLING if is_secret_key(name)}
    assert {name for name in PLACEMENT if is_secret_key(name)} == {"hf_token"}
