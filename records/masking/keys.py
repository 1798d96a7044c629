"""Which keys of free-form tables name a secret: `aws_secret_access_key`, `authToken`, `X-Api-Key`; not `max_tokens`."""

import itertools
import re
from functools import lru_cache

WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")  # of snake_case, kebab-case, camelCase and ALL_CAPS

# Words that mark a secret wherever they stand in a key.
SECRET_WORDS = frozenset(
    "secret secrets password passwords passwd passphrase passcode pwd credential credentials creds authorization "
    "bearer cookie cookies webhook webhooks dsn sas signature jwt "
    "apikey apikeys accesskey privatekey secretkey accountkey authkey authtoken accesstoken apitoken hftoken "
    "sessiontoken refreshtoken bearertoken connectionstring connstring connstr".split()
)
LAST_WORDS = frozenset("auth sig pat otp pass".split())  # words that mark a secret as the last one of a key
SECRET_PAIRS = frozenset(
    {(word, "key") for word in "api access private secret account encryption signing session master ssh auth "
     "subscription storage shared service server client admin license hmac aes".split()}
    | {("connection", "string"), ("conn", "string"), ("conn", "str"), ("pass", "phrase"), ("pass", "word")}
)  # fmt: skip
# A token is a secret or a piece of text. Before "token" these words mean a secret even in the plural.
CREDENTIAL_KINDS = frozenset(
    "auth access api bearer refresh session hf hub huggingface secret security oauth csrf xsrf github gitlab slack "
    "personal service login jwt sas id wandb npm pypi deploy device push vault app client identity oidc aws".split()
)
TEXT_KINDS = frozenset(
    "eos bos pad unk sep cls mask stop end start begin special max min per next first last image audio video sot eot "
    "eom eod fim prefix suffix middle control think thinking reasoning tool dummy extra assistant system role newline "
    "blank space prompt answer question separator boundary content label trigger target context kept out in of num "
    "new old generated cached accepted rejected draft placeholder word sub byte padding delimiter".split()
)
TOKEN_ENDS = frozenset("value string secret key raw plain prod production dev staging test main backup".split())
# A key that ends in one of these says where a secret is kept, or describes it.
DESCRIPTIVE_ENDS = frozenset(
    "column columns field fields file path dir folder env var variable length policy kind type count ttl expiry "
    "required enabled".split()
)


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Whether a key names a secret, by the words of its last part ("generator.engine.api_key" -> "api_key")."""
    words = [word.lower() for word in WORDS.findall(key.rpartition(".")[2])]
    named = [word for word in words if not word.isdigit()]
    if not named:
        return False
    pairs = set(itertools.pairwise(named))
    if named[-1] in DESCRIPTIVE_ENDS and "webhook" not in named:
        return False
    if SECRET_WORDS & set(named) or pairs & SECRET_PAIRS or named[-1] in LAST_WORDS:
        return True
    if {"".join(pair) for pair in pairs} & SECRET_WORDS:
        return True
    return _has_secret_token(named)


def _has_secret_token(words: list[str]) -> bool:
    for at, word in enumerate(words):
        before, after = words[at - 1] if at else "", words[at + 1 :]
        if word not in ("token", "tokens") or any(end not in TOKEN_ENDS for end in after):
            continue
        if before in CREDENTIAL_KINDS or (word == "token" and before not in TEXT_KINDS):
            return True
    return False
