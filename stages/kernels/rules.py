"""Every metric of the quality rules in one pass over a text's bytes and one over its words.

Words are runs of anything but ASCII white space. Lines and paragraphs are compared by their words, so white space
inside them does not tell them apart; empty lines part paragraphs and count as no line. Character fractions are of
characters that are not white space. An n-gram (or line, or paragraph) is a duplicate where it has occurred before:
its first occurrence is none. Lengths are in characters (code points).
"""

import numpy as np
from numba import njit

from gristmill.stages.kernels.byte_classes import (
    ALPHA,
    CLASS,
    CONTINUED,
    LETTER,
    PHRASE,
    SPACE,
    core_hash,
    ends_sentence,
    has,
    is_bullet,
    is_ellipsis,
    is_punctuated,
)
from gristmill.stages.kernels.mixing import mix
from gristmill.stages.kernels.repetition import BASE, SEED, TABLE_FACTOR, WORD, add_span, repeats

METRICS = (
    "num_words",
    "mean_word_length",
    "symbol_ratio",
    "bullet_lines",
    "ellipsis_lines",
    "alpha_words",
    "stop_words",
    "dup_lines",
    "dup_line_chars",
    "dup_paragraphs",
    "dup_paragraph_chars",
    "top_2gram",
    "top_3gram",
    "top_4gram",
    "dup_5gram",
    "dup_6gram",
    "dup_7gram",
    "dup_8gram",
    "dup_9gram",
    "dup_10gram",
    "line_punct",
    "short_lines",
    "newline_ratio",
    "num_sentences",
    "lorem_ipsum",
    "curly_brackets",
    "javascript",
    "policy",
)
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
PHRASE_METRIC = np.array([0, 2, 3, 3, 3, 3, 3, 3])  # places after "lorem_ipsum"
PHRASE_ENDS = np.cumsum([len(p) for p in PHRASES])
PHRASE_BYTES = np.frombuffer(b"".join(PHRASES), np.uint8)


@njit(cache=True, nogil=True)
def measure(
    data: np.ndarray, offsets: np.ndarray, stop_words: np.ndarray, short_line: int, with_phrases: bool, out: np.ndarray
) -> None:
    """out[row, m] = metric m (in the order of METRICS) of each text. `stop_words` are sorted core hashes."""
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    room = longest // 2 + 2
    size = 16
    while size < TABLE_FACTOR * room:
        size *= 2
    keys, epochs, seen = np.empty(size, np.uint64), np.zeros(size, np.int64), np.empty(size, np.int32)
    sums, chars, powers = np.zeros(room + 1, np.uint64), np.zeros(room + 1, np.int64), np.empty(room + 1, np.uint64)
    places, slots = np.empty(room, np.int64), np.empty(room, np.int64)
    powers[0] = 1
    for i in range(room):
        powers[i + 1] = powers[i] * BASE
    epoch = 0
    for row in range(len(offsets) - 1):
        epoch = measure_one(
            data, offsets[row], offsets[row + 1], stop_words, short_line, with_phrases, out[row], keys, epochs, epoch,
            seen, sums, chars, powers, places, slots,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def measure_one(
    data: np.ndarray, start: int, stop: int, stop_words: np.ndarray, short_line: int, with_phrases: bool,
    out: np.ndarray, keys: np.ndarray, epochs: np.ndarray, epoch: int, seen: np.ndarray, sums: np.ndarray,
    chars: np.ndarray, powers: np.ndarray, places: np.ndarray, slots: np.ndarray,
) -> int:  # fmt: skip
    out[:] = 0
    epoch += 1
    words, alpha_words, stops_met, sentences, ended = 0, 0, 0, 0, True
    lines, bullets, ellipses_end, punctuated, short, dup_lines, dup_line_chars = 0, 0, 0, 0, 0, 0, 0
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
                    bullets += is_bullet(data, line_start, line_end)
                    ellipses_end += is_ellipsis(data, line_start, line_end)
                    punctuated += is_punctuated(data, line_start, line_end)
                    short += line_end_char - line_chars_before < short_line
                    if add_span(sums, powers, line_words, words, SEED, keys, epochs, epoch):
                        dup_lines += 1
                        dup_line_chars += chars[words] - chars[line_words]
                if (words == line_words or at >= stop) and words > paragraph_words:
                    paragraphs += 1
                    if add_span(sums, powers, paragraph_words, words, BASE, keys, epochs, epoch):
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
        h = SEED
        seen_kinds = 0
        inside = False
        while True:
            h = (h ^ np.uint64(byte)) * WORD
            seen_kinds |= kind
            char_number += (kind & CONTINUED) == 0
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
                        out[24 + PHRASE_METRIC[p]] += 1
                    begin = PHRASE_ENDS[p]
            inside = (kind & LETTER) != 0
            at += 1
            if at == stop:
                break
            byte = data[at]
            kind = CLASS[byte]
            if kind & SPACE:
                break
        ellipses += dots // 3
        dots = 0
        if seen_kinds & CONTINUED:
            for i in range(first, at - 2):
                ellipses += data[i] == 0xE2 and data[i + 1] == 0x80 and data[i + 2] == 0xA6
        if words == line_words:
            line_start = first
            line_chars_before = first_char
        line_end, line_end_char = at, char_number
        alpha_words += (seen_kinds & ALPHA) != 0
        ended = ends_sentence(data, first, at)
        sentences += ended
        if at - first <= 24:
            core = core_hash(data, first, at)
            for s in range(len(stop_words)):
                if stop_words[s] == core:
                    stops_met |= 1 << s
        sums[words + 1] = sums[words] * BASE + mix(h)
        chars[words + 1] = chars[words] + char_number - first_char
        words += 1
    sentences += not ended
    out[0] = words
    out[23] = sentences
    out[25] = curly
    if words == 0:
        return epoch
    total = chars[words]
    out[1] = total / words
    out[2] = max(hashes, ellipses) / words
    out[3] = bullets / lines
    out[4] = ellipses_end / lines
    out[5] = alpha_words / words
    while stops_met:
        out[6] += stops_met & 1
        stops_met >>= 1
    out[7] = dup_lines / lines
    out[8] = dup_line_chars / total
    out[9] = dup_paragraphs / paragraphs
    out[10] = dup_paragraph_chars / total
    out[20] = punctuated / lines
    out[21] = short / lines
    out[22] = newlines / words
    return repeats(sums, chars, words, keys, epochs, epoch, places, slots, seen, out[11:20])
