"""Computes all metrics of the quality rules in one pass over the bytes of a text and one over its words.

- A word is a run of anything but ASCII white space. Where numbers of words count, a run of a script without spaces
  counts as many words as it is long (records/words.py): 1.5 ideographs or 3 letters of Thai a word, at least one word.
- A length is in characters (code points).
- Lines and paragraphs are compared by their words, so white space inside them makes no difference. Empty lines separate
  paragraphs and do not count as lines.
- Fractions of characters count characters that are not white space.
- Which characters are in an alphabet, end a sentence or close one is Unicode's to say, for every script. A full stop of
  a script without spaces, such as U+3002, ends a sentence inside a run, too.
- A duplicate n-gram, line or paragraph is one that occurred before: the first occurrence does not count.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gristmill.records.normal_form import (
    ALPHABETIC,
    CLOSING,
    IDEOGRAPH,
    IS_IDEOGRAPH,
    IS_UNSPACED,
    LETTER,
    TERMINAL,
    UNSPACED,
)
from gristmill.records.normal_form import IN_WORD as LETTER_OR_DIGIT
from gristmill.records.words import SIXTHS
from gristmill.stages.kernels.byte_classes import (
    ALPHA,
    CLASS,
    CLOSE,
    CONTINUATION,
    IN_WORD,
    PHRASE,
    PUNCT,
    SPACE,
    core_hash,
    ends_sentence,
    folded_core_hash,
    has,
    is_bullet,
    is_ellipsis,
    is_punctuated,
    properties_at,
)
from gristmill.stages.kernels.fold import MAX_GROWTH, fold_scratch
from gristmill.stages.kernels.mixing import FNV_PRIME, GOLDEN, POLYNOMIAL, mix
from gristmill.stages.kernels.repetition import add_span, repeats, table_size
from gristmill.stages.kernels.scratch import longest_text


class Places(NamedTuple):
    """The metrics and their columns in `out`."""

    num_words: int = 0
    mean_word_length: int = 1
    symbol_ratio: int = 2
    bullet_lines: int = 3
    ellipsis_lines: int = 4
    alpha_words: int = 5
    stop_words: int = 6
    dup_lines: int = 7
    dup_line_chars: int = 8
    dup_paragraphs: int = 9
    dup_paragraph_chars: int = 10
    top_2gram: int = 11
    top_3gram: int = 12
    top_4gram: int = 13
    dup_5gram: int = 14
    dup_6gram: int = 15
    dup_7gram: int = 16
    dup_8gram: int = 17
    dup_9gram: int = 18
    dup_10gram: int = 19
    line_punct: int = 20
    short_lines: int = 21
    newline_ratio: int = 22
    num_sentences: int = 23
    lorem_ipsum: int = 24
    curly_brackets: int = 25
    javascript: int = 26
    policy: int = 27


AT = Places()  # numba compiles its fields as constants
METRICS = Places._fields
WORD, OF_IDEOGRAPH, OF_UNSPACED = SIXTHS[LETTER], SIXTHS[IDEOGRAPH], SIXTHS[UNSPACED]
MAX_STOP_WORD = 24  # bytes
AFTER_STOP, ELSEWHERE = np.uint8(255), np.uint8(0)  # behind a full stop that needs no space, as a mask of a byte
NUM_CORES = 4096  # words beyond ASCII whose core hashes are kept
CORE_MASK = np.uint64(NUM_CORES - 1)
GENERAL, AFTER_GENERAL = 0x2000, 0x2070  # General Punctuation, whose marks are followed by a space
NGRAM_METRICS = slice(AT.top_2gram, AT.dup_10gram + 1)
PHRASES = (
    b"lorem ipsum",
    b"javascript",
    b"terms of use",
    b"privacy policy",
    b"cookie policy",
    b"uses cookies",
    b"use of cookies",
    b"use cookies",
)
PHRASE_METRIC = np.array([AT.lorem_ipsum, AT.javascript, *[AT.policy] * 6])  # the metric that each phrase adds to
PHRASE_ENDS = np.cumsum([len(p) for p in PHRASES])
PHRASE_BYTES = np.frombuffer(b"".join(PHRASES), np.uint8)


@njit(cache=True, nogil=True)
def measure(
    data: np.ndarray, offsets: np.ndarray, tables: Any, stop_words: np.ndarray, short_line: int, with_phrases: bool,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Fill out[row, m] with metric m, in the order of METRICS, of each text. `stop_words` are their core hashes."""
    room = longest_text(offsets) // 2 + 2
    size = table_size(room)
    keys, epochs, counts = np.empty(size, np.uint64), np.zeros(size, np.int64), np.empty(size, np.int32)
    sums, chars, powers = np.zeros(room + 1, np.uint64), np.zeros(room + 1, np.int64), np.empty(room + 1, np.uint64)
    places, slots = np.empty(room, np.int64), np.empty(room, np.int64)
    powers[0] = 1
    for i in range(room):
        powers[i + 1] = powers[i] * POLYNOMIAL
    scratch = fold_scratch(MAX_STOP_WORD, MAX_STOP_WORD * MAX_GROWTH)
    core_words, cores = np.zeros(NUM_CORES, np.uint64), np.zeros(NUM_CORES, np.uint64)
    epoch = 0
    for row in range(len(offsets) - 1):
        epoch = measure_one(
            data, offsets[row], offsets[row + 1], tables, stop_words, short_line, with_phrases, out[row], keys, epochs,
            epoch, counts, sums, chars, powers, places, slots, scratch, core_words, cores,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def measure_one(
    data: np.ndarray, start: int, stop: int, tables: Any, stop_words: np.ndarray, short_line: int, with_phrases: bool,
    out: np.ndarray, keys: np.ndarray, epochs: np.ndarray, epoch: int, counts: np.ndarray, sums: np.ndarray,
    chars: np.ndarray, powers: np.ndarray, places: np.ndarray, slots: np.ndarray, scratch: Any,
    core_words: np.ndarray, cores: np.ndarray,
) -> int:  # fmt: skip
    """Fill `out` with the metrics of data[start:stop]; return the last epoch used.

    The arrays from `keys` on are scratch.
    """
    out[:] = 0
    epoch += 1
    pages, properties = tables.pages, tables.properties
    words, alpha_words, stop_bits, sentences, is_sentence_end = 0, 0, 0, 0, True
    all_sixths = 0  # length of the text in sixths of a word
    lines, bullets, ellipses_end, num_punctuated, short, dup_lines, dup_line_chars = 0, 0, 0, 0, 0, 0, 0
    paragraphs, dup_paragraphs, dup_paragraph_chars, paragraph_words = 0, 0, 0, 0
    newlines, hashes, ellipses, dots, curly = 0, 0, 0, 0, 0
    line_words, line_start, line_end, line_chars_before, char_number, line_end_char = 0, 0, 0, 0, 0, 0
    at = start
    while True:
        byte = data[at] if at < stop else np.uint8(10)
        kind = CLASS[byte]
        if kind & SPACE:
            if byte == 10:
                if words > line_words:
                    lines += 1
                    bullets += is_bullet(data, line_start, line_end, pages, properties)
                    ellipses_end += is_ellipsis(data, line_start, line_end)
                    num_punctuated += is_punctuated(data, line_start, line_end, pages, properties)
                    short += line_end_char - line_chars_before < short_line
                    if add_span(sums, powers, line_words, words, GOLDEN, keys, epochs, epoch):
                        dup_lines += 1
                        dup_line_chars += chars[words] - chars[line_words]
                if (words == line_words or at >= stop) and words > paragraph_words:
                    paragraphs += 1
                    if add_span(sums, powers, paragraph_words, words, POLYNOMIAL, keys, epochs, epoch):
                        dup_paragraphs += 1
                        dup_paragraph_chars += chars[words] - chars[paragraph_words]
                    paragraph_words = words
                line_words = words
                newlines += at < stop
            if at >= stop:
                break
            at += 1
            char_number += 1
            continue
        first = at
        first_char = char_number
        h = GOLDEN
        seen_kinds, sixths = 0, 0
        inside = False
        after_stop = ELSEWHERE
        while True:
            h = (h ^ np.uint64(byte)) * FNV_PRIME
            if byte | after_stop >= 0xC2:
                if byte >= 0xC2:
                    bits, code = properties_at(data, at, stop, pages, properties)
                    kind |= ALPHA if bits & ALPHABETIC else 0
                    kind |= IN_WORD if bits & LETTER_OR_DIGIT else 0
                    if bits & (IS_IDEOGRAPH | IS_UNSPACED):
                        sixths += OF_IDEOGRAPH if bits & IS_IDEOGRAPH else OF_UNSPACED
                    if after_stop and not bits & (TERMINAL | CLOSING):
                        sentences += 1
                    if bits & TERMINAL and not GENERAL <= code < AFTER_GENERAL:
                        after_stop = AFTER_STOP
                    elif not bits & CLOSING:
                        after_stop = ELSEWHERE
                elif byte < 0x80 and not kind & (PUNCT | CLOSE):
                    sentences += 1
                    after_stop = ELSEWHERE
            seen_kinds |= kind
            char_number += (kind & CONTINUATION) == 0
            if byte == 0x2E:
                dots += 1
            else:
                ellipses += dots // 3
                dots = 0
                hashes += byte == 0x23
                curly += byte == 0x7B
            if with_phrases and kind & PHRASE and not inside:
                begin = 0
                for p in range(len(PHRASE_ENDS)):
                    if has(data, at, stop, PHRASE_BYTES[begin : PHRASE_ENDS[p]]):
                        out[PHRASE_METRIC[p]] += 1
                    begin = PHRASE_ENDS[p]
            if with_phrases:
                inside = (kind & IN_WORD) != 0 or (inside and (kind & CONTINUATION) != 0)
            at += 1
            if at == stop:
                break
            byte = data[at]
            kind = CLASS[byte]
            if kind & SPACE:
                break
        ellipses += dots // 3
        dots = 0
        if seen_kinds & CONTINUATION:
            for i in range(first, at - 2):
                ellipses += data[i] == 0xE2 and data[i + 1] == 0x80 and data[i + 2] == 0xA6
        if words == line_words:
            line_start = first
            line_chars_before = first_char
        line_end, line_end_char = at, char_number
        alpha_words += (seen_kinds & ALPHA) != 0
        is_sentence_end = ends_sentence(data, first, at, pages, properties)
        sentences += is_sentence_end
        if at - first <= MAX_STOP_WORD:
            if seen_kinds & CONTINUATION:
                slot = np.int64(h & CORE_MASK)
                if core_words[slot] != h:  # folding a word takes half a microsecond, and words come again
                    core_words[slot] = h
                    cores[slot] = folded_core_hash(data, first, at, tables, scratch)
                core = cores[slot]
            else:
                core = core_hash(data, first, at)
            for s in range(len(stop_words)):
                if stop_words[s] == core:
                    stop_bits |= 1 << s
        sums[words + 1] = sums[words] * POLYNOMIAL + mix(h)
        chars[words + 1] = chars[words] + char_number - first_char
        words += 1
        all_sixths += max(sixths, WORD)
    sentences += not is_sentence_end
    length = all_sixths / WORD
    out[AT.num_words] = length
    out[AT.num_sentences] = sentences
    out[AT.curly_brackets] = curly
    if chars[words] == 0:  # no word, or none of whole characters
        return epoch
    total = chars[words]
    out[AT.mean_word_length] = total / length
    out[AT.symbol_ratio] = max(hashes, ellipses) / length
    out[AT.bullet_lines] = bullets / lines
    out[AT.ellipsis_lines] = ellipses_end / lines
    out[AT.alpha_words] = alpha_words / words
    while stop_bits:
        out[AT.stop_words] += stop_bits & 1
        stop_bits >>= 1
    out[AT.dup_lines] = dup_lines / lines
    out[AT.dup_line_chars] = dup_line_chars / total
    out[AT.dup_paragraphs] = dup_paragraphs / paragraphs
    out[AT.dup_paragraph_chars] = dup_paragraph_chars / total
    out[AT.line_punct] = num_punctuated / lines
    out[AT.short_lines] = short / lines
    out[AT.newline_ratio] = newlines / length
    return repeats(sums, chars, words, keys, epochs, epoch, places, slots, counts, out[NGRAM_METRICS])
