"""The metrics of the quality rules as datatrove 0.10 reads them, to match FineWeb (`words = "datatrove"`).

They differ from the kernel's in what a word is, and in what is divided by what. datatrove splits words with a tokenizer
that makes marks, and the parts of contractions and of hyphenated words, words of their own. `split_words` does the same
for English by a few rules; tests/oracles compares it with datatrove and spaCy. This is plain Python: some hundred
documents of 2 KB a second and core, where the kernel reads some ten thousand.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

# Rules whose comparison or threshold is another one in datatrove than in the papers: (passes, threshold).
RULES: dict[str, tuple[str, float]] = {
    "fineweb_line_punct": (">=", 0.12),
    "fineweb_dup_line_chars": ("<=", 0.01),
    "fineweb_short_lines": ("<=", 0.67),
}
# Characters that alone do not make a word.
SIGNS = frozenset(
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»—–’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"
    + "".join(map(chr, [*range(9), 11, 12, *range(13, 32), *range(127, 160)]))
)
ENDS = frozenset(".!?։؟۔।॥။።៕。．！？｡؞‼⁇⁈⁉…") - {"…"}
BULLETS = ("•", "-")
MAX_RUN = 300  # characters that are split together, because the time grows with their square

OPENING = re.compile(r"""(?:\.{2,}|[\[\](){}<>,:;!?¿¡"'`“”„‟‘’‚‛«»‹›*&#_§%=…$£€¥•–—]|\+(?!\d)|[^\w\s'.\-@/\\^~|+])""")
CLOSING = re.compile(
    r"""(?:(?<!\.)\.{2,}|[\[\](){}<>,:;!?¿¡"'`“”„‟‘’‚‛«»‹›*&#_…–—•]|['’][sS]|(?<=\d)[+%$£€¥]|(?<=\d)(?:km|kg|mg|cm|mm|kb|mb|gb)
    |(?<=[0-9a-z%²\-+)\]}>"'”’:;!?,*`_])\.|(?<=[A-Z][A-Z])\.|[^\w\s'./\\^~|+\-$%=@])$""",
    re.VERBOSE,
)
CONTRACTION = re.compile(
    r"(?i)^(can)(not)$|^(.*\w)(n['’]t)$"
    r"|^(i|you|he|she|it|we|they|who|what|that|there|how|why|where|when)(['’](?:m|re|ve|ll|d))$"
)
INFIX = re.compile(
    r"""\.{2,}|…|(?<=[0-9])[+\-*^](?=[0-9\-])|(?<=[a-z"'”’])\.(?=[A-Z"'“‘])|(?<=[^\W\d_]),(?=[^\W\d_])
    |(?<=[^\W_])(?:--+|[-–—~])(?=[^\W\d_])|(?<=[^\W_])[:<>=/](?=[^\W\d_])
    |[^\w\s'".,:;!?()\[\]{}<>\-/\\^~|+*&#$%=@`“”„‟‘’‚‛«»‹›–—]""",
    re.VERBOSE,
)
TITLES = "e.g|i.e|a.m|p.m|vs|Mr|Mrs|Ms|Dr|Prof|St|Inc|Ltd|Co|Jr|Sr|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec"
WHOLE = re.compile(  # not split: addresses, initials, abbreviations, some emoticons
    r"(?:https?|ftp)://\S+|www\.\S+|[\w.+-]+@[\w-]+\.[\w.-]+|(?:[A-Za-z]\.){2}|[A-Z]\.[A-Z]\.[A-Z]\.|[a-z]\."
    rf"|(?:{TITLES.replace('.', chr(92) + '.')})\.|and/or|[:;]-?[()DPp]|<[/\\]?3"
)


def split_words(text: str) -> list[str]:
    """Words, marks and parts of words of an English text, in order."""
    words: list[str] = []
    parts: dict[str, list[str]] = {}  # of runs that have been split
    for run in text.split():
        if run.isalpha() and run.isascii() and run not in ("cannot", "Cannot"):
            words.append(run)
            continue
        words_of_run = parts.get(run)
        if words_of_run is None:
            pieces = [run[at : at + MAX_RUN] for at in range(0, len(run), MAX_RUN)]
            words_of_run = parts[run] = [word for piece in pieces for word in _split(piece)]
        words += words_of_run
    return words


def _split(run: str) -> list[str]:
    before, after = list[str](), list[str]()
    while run and not WHOLE.fullmatch(run):
        if match := OPENING.match(run):
            before.append(match[0])
            run = run[match.end() :]
        elif match := CLOSING.search(run):
            after.append(match[0])
            run = run[: match.start()]
        else:
            break
    if not run:
        return before + after[::-1]
    middle = [run]
    if not WHOLE.fullmatch(run):
        if match := CONTRACTION.match(run):
            middle = [part for part in match.groups() if part]
        else:
            middle, at = [], 0
            for match in INFIX.finditer(run):
                middle += [run[at : match.start()], match[0]]
                at = match.end()
            middle = [part for part in [*middle, run[at:]] if part]
    return [*before, *middle, *reversed(after)]


def metrics(texts: Sequence[str], stop_words: Sequence[str], short_line_length: int) -> dict[str, np.ndarray]:
    """float64 (texts,) of each metric of the sets "gopher_quality", "gopher_repetition" and "fineweb", by its name.

    The share of duplicate lines that the set "fineweb" limits is under the name of its rule.
    """
    stops = frozenset(stop_words)
    rows = [
        {**_quality(t, w, stops), **_lines(t, w, short_line_length), **_grams(t, w)}
        for t in texts
        for w in [split_words(t)]
    ]
    return {name: np.array([row[name] for row in rows], np.float64) for name in (rows[0] if rows else {})}


def _quality(text: str, words: list[str], stops: frozenset[str]) -> dict[str, float]:
    lengths = [len(word) for word in words if not SIGNS.issuperset(word)]
    lines, num = text.splitlines(), max(len(words), 1)
    num_lines = max(len(lines), 1)
    return {
        "num_words": len(lengths),
        "mean_word_length": sum(lengths) / max(len(lengths), 1),
        "symbol_ratio": max(text.count("#"), text.count("...") + text.count("…")) / num,
        "bullet_lines": sum(line.lstrip().startswith(BULLETS) for line in lines) / num_lines,
        "ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines) / num_lines,
        "alpha_words": sum(any(map(str.isalpha, word)) for word in words) / num,
        "stop_words": len(stops.intersection(words)),
        "newline_ratio": text.count("\n") / num,
    }


def _repeats(blocks: list[str]) -> tuple[int, int]:
    """(blocks, their characters) that occurred before."""
    counts = Counter(blocks)
    return len(blocks) - len(counts), sum((n - 1) * len(block) for block, n in counts.items())


def _lines(text: str, words: list[str], short_line_length: int) -> dict[str, float]:
    size = max(len(text), 1)
    paragraphs, lines = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)
    filled = [line for line in text.split("\n") if line.strip()]
    (same_paragraphs, paragraph_chars), (same_lines, line_chars) = _repeats(paragraphs), _repeats(lines)
    num = max(len(filled), 1)
    return {
        "dup_lines": same_lines / len(lines),
        "dup_line_chars": line_chars / size,
        "dup_paragraphs": same_paragraphs / len(paragraphs),
        "dup_paragraph_chars": paragraph_chars / size,
        "line_punct": sum(line[-1] in ENDS for line in filled) / num,
        "short_lines": sum(len(line) <= short_line_length for line in filled) / num,
        "fineweb_dup_line_chars": _repeats(filled)[1] / max(len(text.replace("\n", "")), 1),
    }


def _grams(text: str, words: list[str]) -> dict[str, float]:
    """An n-gram that occurs once counts as the most frequent where none occurs twice, as in datatrove."""
    size, values = max(len(text), 1), dict[str, float]()
    for n in range(2, 11):
        if n < 5:
            counts = Counter(zip(*(words[i:] for i in range(n))))
            gram, most = counts.most_common(1)[0] if counts else ((), 0)
            values[f"top_{n}gram"] = (sum(map(len, gram)) + n - 1) * most / size if most else 0.0
            continue
        seen, chars, at = set[tuple[str, ...]](), 0, 0
        while at + n <= len(words):
            gram = tuple(words[at : at + n])
            if gram in seen:
                chars += sum(map(len, gram))
                at += n
            else:
                seen.add(gram)
                at += 1
        values[f"dup_{n}gram"] = chars / size
    return values
