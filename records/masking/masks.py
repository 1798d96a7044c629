"""The one way in which secrets leave a tree of literals or a message.

masked(literals)         for what people read: manifests, cards, pages, refusals, --json
covered(literals)        for fingerprints: without secrets, so that a rotated key is no other recipe
masked_text(message)     for log lines, errors and printed commands
remember(literals)       keeps the secrets of a recipe in mind, so that messages that quote them are masked too
"""

import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from gristmill.records.masking.keys import is_secret_key
from gristmill.records.masking.patterns import MASK, in_message, in_text, is_secret, parts_of

MIN_CHARS = 8  # a shorter secret is masked where its key stands, but not wherever its characters occur
ENVIRONMENTS = frozenset({"env", "env_vars", "environ", "environment"})  # tables whose values are masked as a whole
HEADERS = frozenset({"headers", "default_headers", "extra_headers", "http_headers"})
PLAIN_HEADERS = frozenset("accept accept-encoding accept-language content-type host origin referer user-agent".split())
CONTAINERS = frozenset({"credentials", "secrets", "cookies", "creds", "passwords"})  # tables that hold nothing else
SCHEMAS = frozenset({"properties", "patternproperties", "$defs", "definitions"})  # their keys are names of fields
TEXT_TOKEN = re.compile(r"[<\[{|].*[>\]}|]|\W*", re.DOTALL)  # "<|endoftext|>", "[PAD]": a token of a text

_remembered: set[str] = set()
_environment: tuple[Any, frozenset[str]] = None, frozenset()  # the environment, and the secrets in it
_lock = threading.Lock()


def masked(value: Any, key: str = "") -> Any:
    """`value` with every secret in it replaced by `MASK`; `key` is the key under which it stands.

    A secret is found by its key, by its form, or because it is also the value of a secret key in the same tree.
    """
    # A text of several words may be part of a prompt, which is content.
    values = {v for v in (*secrets_in(value, key), *_remembered) if len(v) >= MIN_CHARS and not re.search(r"\s", v)}
    return _masked(value, key, _longest_first(values))


def _masked(value: Any, key: str, secrets: list[str], parent: str = "") -> Any:
    if _is_masked(value, key, parent):
        return _mask(value)
    if isinstance(value, Mapping):
        return {_key(str(k)): _masked(v, str(k), secrets, key) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(v, key, secrets, parent) for v in value]
    return _in(value, secrets) if isinstance(value, str) else value


def _mask(value: Any) -> Any:
    """The mask in the place of each value of a table or a list: a spec can still be built of it."""
    if isinstance(value, Mapping):
        return {str(k): _mask(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_mask(v) for v in value]
    return value if _is_empty(value) else MASK


_key = lru_cache(maxsize=4096)(in_text)  # tables of rows repeat their keys


def _in(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return in_text(text)


def holds_mask(value: Any) -> bool:
    """Whether something in stored literals was masked, so that their fingerprint cannot be computed again."""
    if isinstance(value, Mapping):
        return any(MASK in str(k) or holds_mask(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return any(map(holds_mask, value))
    return isinstance(value, str) and MASK in value


def covered(value: Any, key: str = "") -> Any:
    """`value` for a fingerprint. Entries of secret keys are left out; a text that is a secret as a whole is masked.

    A prompt that quotes a secret stays as it is: it is content, and a fingerprint is a hash.
    """
    if isinstance(value, Mapping):
        return {
            k: covered(v, str(k))
            for k, v in value.items()
            if not (_is_secret(v, str(k), key) or (v == MASK and is_secret_key(str(k))))
        }
    if isinstance(value, list | tuple):
        return [covered(v, key) for v in value]
    return MASK if isinstance(value, str) and is_secret(value) else value


def secrets_in(value: Any, key: str = "", parent: str = "") -> Iterator[str]:
    """The texts that are secrets by their key, and those that are secrets as a whole."""
    if isinstance(value, str):
        if _is_secret(value, key, parent) or key.lower() in CONTAINERS:
            yield value
        if is_secret(value):
            yield from parts_of(value)
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from secrets_in(v, key if key.lower() in CONTAINERS else str(k), key)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from secrets_in(v, key, parent)


def _is_masked(value: Any, key: str, parent: str) -> bool:
    """Whether people see nothing of a value because of its key: a secret, an environment, a header."""
    name = _last(key)
    if _is_empty(value):
        return False
    if name in ENVIRONMENTS:
        return True
    if isinstance(value, str):
        if parent.lower() in HEADERS and name not in PLAIN_HEADERS:
            return True
        if name in HEADERS and ":" in value and value.partition(":")[0].strip().lower() not in PLAIN_HEADERS:
            return True  # "X-Api-Key: ..." in a list
    return _is_secret(value, key, parent)


def _is_secret(value: Any, key: str, parent: str) -> bool:
    """Whether a value is a secret because of its key."""
    name = _last(key)
    if _is_empty(value) or parent.lower() in SCHEMAS:
        return False
    if isinstance(value, Mapping):
        return name in CONTAINERS
    if not is_secret_key(key):
        return False
    if isinstance(value, list | tuple):
        return all(isinstance(v, str) for v in value) and not all(map(_is_text_token, value))
    return not _is_text_token(value) if isinstance(value, str) else "token" not in name


def _is_empty(value: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return False
    return value is None or isinstance(value, bool) or value == MASK or not value


def _last(key: str) -> str:
    return key.rpartition(".")[2].lower()


def _is_text_token(value: str) -> bool:
    return bool(TEXT_TOKEN.fullmatch(value))


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=lambda text: (-len(text), text))


def shown(value: Any, key: str) -> str:
    """The repr of a value for a message about the key `key`; UserError masks what else it holds."""
    return repr(MASK if _is_masked(value, key, "") else value)


def remember(value: Any, key: str = "") -> None:
    """Mask the secrets of these literals in all messages of this process from now on."""
    with _lock:
        _remembered.update(text for text in secrets_in(value, key) if len(text) >= MIN_CHARS)


def masked_text(text: str) -> str:
    """A message without secrets: those of known forms, of assignments, of the environment, and remembered ones."""
    for secret in _longest_first(_remembered | environment_secrets()):
        text = text.replace(secret, MASK)
    return in_message(text)


def environment_secrets() -> frozenset[str]:
    """Values of environment variables with the name of a secret: messages of errors may quote them."""
    global _environment
    variables = getattr(os.environ, "_data", None)  # a copy of os.environ decodes each variable
    if variables is None or variables != _environment[0]:
        names = [k for k, v in os.environ.items() if len(v) >= MIN_CHARS and (is_secret_key(k) or k.endswith("_KEY"))]
        _environment = dict(variables or {}), frozenset(os.environ[name] for name in names)
    return _environment[1]


def masked_setting(setting: str) -> str:
    """ "a.b.api_key=value", as --set takes it, with a secret value replaced."""
    address, sep, value = setting.partition("=")
    return f"{address}{sep}{masked_text(masked(value, address.strip()))}" if sep else masked_text(setting)
