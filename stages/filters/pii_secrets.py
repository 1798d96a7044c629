"""Finders for secrets: keys and tokens of known forms, by the patterns of detect-secrets, in time linear in the text.

Some patterns of the package take time that grows with the square or the cube of a line: a password before a thousand
blanks takes seconds. Here these are replaced by forms that find the same matches.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib import import_module

from gristmill.stages.filters.pii_numbers import Span

# Modules and classes of detect-secrets. Its guesses by entropy and by variable name are left out: they call much
# prose and code a secret; so are plugins for firms whose patterns are words.
PLUGINS = (
    "aws.AWSKeyDetector azure_storage_key.AzureStorageKeyDetector basic_auth.BasicAuthDetector "
    "discord.DiscordBotTokenDetector github_token.GitHubTokenDetector gitlab_token.GitLabTokenDetector "
    "ibm_cloud_iam.IbmCloudIamDetector ibm_cos_hmac.IbmCosHmacDetector jwt.JwtTokenDetector "
    "mailchimp.MailchimpDetector npm.NpmDetector openai.OpenAIDetector private_key.PrivateKeyDetector "
    "pypi_token.PypiTokenDetector sendgrid.SendGridDetector slack.SlackDetector softlayer.SoftlayerDetector "
    "square_oauth.SquareOAuthDetector stripe.StripeDetector telegram_token.TelegramBotTokenDetector "
    "twilio.TwilioKeyDetector"
).split()
# A line without any of these holds no secret of the plugins; most lines are skipped by it.
MAY_HOLD = re.compile(
    r"AKIA|ASIA|A3T|ABIA|ACCA|(?i:aws|key|pwd|password|pass|token)|://|gh[pousr]_|gl[a-z]{1,8}-|GR1348941|eyJ|-us\d|"
    r"sk-|pypi-|SG\.|xox|sq0csp-|[rs]k_live_|\d{8}:|AC[a-z0-9]{30}|SK[a-z0-9]{30}|[MNO][\w\-]{23,25}\.|PRIVATE|PuTTY"
)
KEY_BODY = re.compile(r"^[A-Za-z0-9+/=]{40,}\s*$", re.MULTILINE)
KEY_END = re.compile(r"-----END [A-Z0-9 ]+-----")
MAX_KEY_CHARS = 8000
PLACEHOLDER = re.compile(r"EXAMPLE|x{8}|X{8}|\*{4}|<[^<>]*>|(.)\1{11}")
TOKEN = re.compile(r"[\w\-]*")  # extends a match, because some patterns stop within a token
MAX_LINE_CHARS = 20_000  # a longer line is searched in overlapping pieces
OVERLAP_CHARS = 500

# Between a name and its value, in three plugins: blanks, a sign or none, blanks. The three runs of blanks can share a
# long run in a cubic number of ways; in the second form each run is taken whole.
SLOW_SIGN, SIGN = r"(?: *)(?:=|:|:=|=>| +|::)(?: *)", r"(?: *+(?:=>|=|:=|::|:) *+| ++)"
# Plugins of one pattern that searches from every start to the end of a run: the pattern that is expected, and for
# `_in_runs` what a match begins with and the characters that a run holds.
IN_RUNS = {
    "jwt": (r"eyJ[A-Za-z0-9-_=]+\.[A-Za-z0-9-_=]+\.?[A-Za-z0-9-_.+/=]*?", "eyJ", re.compile(r"[A-Za-z0-9\-_=]*")),
    "openai": (r"sk-[A-Za-z0-9-_]*[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}", "sk-", re.compile(r"[A-Za-z0-9\-_]*")),
}
NPM = r"\/\/.+\/:_authToken=\s*((npm_.+)|([A-Fa-f0-9-]{36})).*"
NPM_TOKEN = re.compile(r"/:_authToken=(?=\s*+(?:npm_.|[A-Fa-f0-9\-]{36}))")
REST_OF_LINE = re.compile(r".*")

Finder = Callable[[str], Iterable[Span]]


def in_runs(pattern: re.Pattern[str], beginning: str, run: re.Pattern[str]) -> Finder:
    """The matches of a pattern for which the first `beginning` in a run of its characters is as good as the others.

    A run in which that fails has no match, so it is searched once.
    """

    def finder(line: str) -> Iterator[Span]:
        at = line.find(beginning)
        while at >= 0:
            match = pattern.match(line, at)
            if match is not None:
                yield match.span()
            run_end = run.match(line, at)
            assert run_end is not None
            at = line.find(beginning, match.end() if match else run_end.end())

    return finder


def npm_tokens(line: str) -> Iterator[Span]:
    """The match of NPM: from the first address that has a token somewhere after it to the end of the line."""
    tokens = [match.start() for match in NPM_TOKEN.finditer(line)]
    at = line.find("//") if tokens else -1
    if at >= 0 and at + 3 <= tokens[-1]:
        rest = REST_OF_LINE.match(line, tokens[-1])
        assert rest is not None
        yield at, rest.end()


@lru_cache(maxsize=1)
def finders() -> list[tuple[Finder, Callable[[str], bool] | None, bool]]:
    """(finder, test of a match or None, whether it finds the header of a private key) of every pattern."""
    entries: list[tuple[Finder, Callable[[str], bool] | None, bool]] = []
    for path in PLUGINS:
        module, _, name = path.partition(".")
        plugin = getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
        valid = getattr(plugin, "is_formally_valid", None)
        entries += [(finder_of(module, pattern), valid, module == "private_key") for pattern in plugin.denylist]
    return entries


def finder_of(module: str, pattern: re.Pattern[str]) -> Finder:
    """A finder with the matches of a plugin's pattern, `finditer` or a faster form."""
    if module == "npm" and pattern.pattern == NPM:
        return npm_tokens
    slow, beginning, run = IN_RUNS.get(module, ("", "", re.compile("")))
    if pattern.pattern == slow:
        return in_runs(pattern, beginning, run)
    fast = re.compile(pattern.pattern.replace(SLOW_SIGN, SIGN), pattern.flags)
    return lambda line: (match.span() for match in fast.finditer(line))


def secrets(text: str, reserved: bool) -> Iterator[Span]:
    """Keys and tokens of known forms, credentials in addresses, private keys with their bodies.

    Without `reserved`, placeholders do not count (EXAMPLE, xxxxxxxx, one repeated character).
    """
    run_start, run_end = 1, 0  # the run of TOKEN that was read last: many matches may lie in one; at first none
    for start, line in _lines(text):
        if not MAY_HOLD.search(line):
            continue
        for finder, is_valid, is_header in finders():
            for first, last in finder(line):
                value = line[first:last]
                token = value.strip(" \t\"'=:")
                at = start + first + value.index(token)
                if is_header:
                    if (end := _key_end(text, at)) is not None:
                        yield at, end
                elif (is_valid is None or is_valid(token)) and (reserved or not PLACEHOLDER.search(token)):
                    end = at + len(token)
                    if token[-1:] not in "@":
                        if not run_start <= end <= run_end:
                            rest = TOKEN.match(text, end)
                            assert rest is not None
                            run_start, run_end = end, rest.end()
                        end = run_end
                    yield at, end


def _lines(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    for line in text.splitlines(keepends=True):
        for first in range(0, len(line), MAX_LINE_CHARS - OVERLAP_CHARS):
            yield at + first, line[first : first + MAX_LINE_CHARS]
        at += len(line)


def _key_end(text: str, header: int) -> int | None:
    """End of the private key whose header is at `header`; None for a header without a body, as in manuals."""
    window = text[header : header + MAX_KEY_CHARS]
    end = KEY_END.search(window)
    bodies = list(KEY_BODY.finditer(window, 0, end.start() if end else len(window)))
    if not bodies:
        return None
    return header + (end.end() if end else bodies[-1].end())
