"""A bank of plain English sentences, made once from word lists, for texts that cost microseconds."""

from functools import lru_cache

from gristmill.generators.text.contract import mix

NOUNS = """
river bridge harvest window market garden teacher village engine harbour mountain forest letter machine library
kitchen season answer question measure castle island winter summer journey bottle mirror carpet ladder lantern
compass orchard meadow valley quarry tunnel railway station captain farmer baker painter doctor student neighbour
merchant traveller gardener carpenter musician writer clock wheel rope anchor basket blanket candle chimney cottage
fence field flour fountain furnace glass grain hammer helmet hill horse kettle kiln knife lake lamp leather lesson
loaf loom magnet map marble mill needle oven paper path pebble pencil pigeon planet plough pond potter pulley quilt
rain road roof root sail salt sand seed shadow shell shepherd shore silver soil spice spring square stable stone
storm stream street string sugar sword table tailor temple thread tide timber tower tree vessel violin wagon wall
warehouse water wave weather well whale wheat wind wine wing wolf wood wool workshop
""".split()
VERBS = """
carried followed watched measured crossed repaired described painted covered gathered reached divided changed
counted noticed lifted opened closed pushed pulled turned raised lowered joined protected explained remembered
visited supported surrounded replaced examined weighed cleaned traded borrowed returned planted watered harvested
stored heated cooled mixed shaped sharpened polished delivered collected sorted compared discussed recorded improved
""".split()
ADJECTIVES = """
old young quiet heavy narrow broad gentle bright distant early late wooden golden silver hollow steady careful
curious patient clever humble modern ancient common rare simple gradual sudden regular eastern western northern
southern local foreign public private useful ordinary remarkable familiar strange deep shallow smooth rough cold
warm dry damp fresh empty crowded hidden open broken
""".split()
ADVERBS = """
slowly quickly carefully quietly often rarely usually gradually suddenly finally together alone nearby elsewhere
early again twice patiently eagerly gently
""".split()
PLACES = """
near behind beside above below beyond across inside outside around against
""".split()
TIMES = """
morning evening night week month year season century summer winter spring autumn afternoon holiday
""".split()

SHAPES = (
    "The {a} {n} {v} the {a2} {n2} {p} the {n3} and {v2} a {n4} {d}.",
    "Every {t} a {n} from the {a} {n2} {v} the {n3} that the {n4} had {v2} {d}.",
    "When the {n} {v} the {a} {n2}, the {n3} of the {n4} {v2} it {d}.",
    "It was the {a} {n} that {v} the {n2} {p} the {a2} {n3} during the {t}.",
    "To have a {a} {n} is to be {d} with the {n2}, as the {n3} {v} the {n4} {p} the {t}.",
    "In the {t} the {n} {v} {d}, but the {a} {n2} of the {n3} {v2} the {a2} {n4}.",
    "Because the {n} {v} the {n2} {d}, a {a} {n3} with the {n4} {v2} that {t}.",
    "Neither the {n} nor the {a} {n2} {v} the {n3}, and so the {n4} {v2} {p} the {n5}.",
)
NUM_SENTENCES = 8192  # two rows of 27 sentences share a tenth of a sentence
PARAGRAPH = 5  # sentences
DRAW_BITS = 13


class Bank:
    """`NUM_SENTENCES` sentences; a text is a run of them drawn from a seed."""

    def __init__(self) -> None:
        self.sentences = [self._sentence(number) for number in range(NUM_SENTENCES)]
        self.mean_words = sum(s.count(" ") + 1 for s in self.sentences) / NUM_SENTENCES

    @staticmethod
    def _sentence(number: int) -> str:
        def draw(words: list[str], salt: int) -> str:
            return words[mix(number, salt) % len(words)]

        return SHAPES[mix(number, 0) % len(SHAPES)].format(
            n=draw(NOUNS, 1), n2=draw(NOUNS, 2), n3=draw(NOUNS, 3), n4=draw(NOUNS, 4), n5=draw(NOUNS, 5),
            v=draw(VERBS, 6), v2=draw(VERBS, 7), a=draw(ADJECTIVES, 8), a2=draw(ADJECTIVES, 9), d=draw(ADVERBS, 10),
            p=draw(PLACES, 11), t=draw(TIMES, 12),
        )  # fmt: skip

    @staticmethod
    def word(draw: int) -> str:
        return NOUNS[draw % len(NOUNS)]

    def text(self, seed: int, num_words: int) -> str:
        """About `num_words` words in paragraphs of five sentences; the same seed gives the same text."""
        sentences, count = self.sentences, max(1, round(num_words / self.mean_words))
        parts: list[str] = []
        draws = 0
        for number in range(count):
            if number % 4 == 0:  # one mix yields four draws of 13 bits
                draws = mix(seed, number)
            parts.append(sentences[draws & (NUM_SENTENCES - 1)])
            parts.append("\n" if number % PARAGRAPH == PARAGRAPH - 1 else " ")
            draws >>= DRAW_BITS
        return "".join(parts[:-1])


@lru_cache(maxsize=1)
def bank() -> Bank:
    """The bank of this process: writing its sentences takes a second."""
    return Bank()
