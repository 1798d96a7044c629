"""What a judge is asked unless a recipe says otherwise, by mode."""

POINTWISE = """\
Rate the text below from {low} (poor) to {high} (excellent) for being correct, clear and complete.
Answer with JSON: {{"score": number}}.

Text:
{text}"""

PAIRWISE = """\
Rate each of the two texts below from {low} (poor) to {high} (excellent) for being correct, helpful and clear.
Neither their order nor their length must matter. Answer with JSON: {{"a": number, "b": number}}.

Text A:
{a}

Text B:
{b}"""

PAIRWISE_ASKED = """\
Rate each of the two answers to the question below from {low} (poor) to {high} (excellent) for being correct, helpful
and clear.
Neither their order nor their length must matter. Answer with JSON: {{"a": number, "b": number}}.

Question:
{question}

Answer A:
{a}

Answer B:
{b}"""

STEPS = """\
A solution is given step by step. Rate the last step from {low} (wrong) to {high} (right and useful), taking the steps
before it as they are. Answer with JSON: {{"score": number}}.

Steps before:
{before}

Last step:
{step}"""

STEPS_ASKED = """\
A problem is solved step by step. Rate the last step from {low} (wrong) to {high} (right and useful), taking the steps
before it as they are. Answer with JSON: {{"score": number}}.

Problem:
{question}

Steps before:
{before}

Last step:
{step}"""


def default_prompt(mode: str, is_asked: bool) -> str:
    """The rubric of a mode; `is_asked`: with the question that the texts answer."""
    if mode == "pairwise":
        return PAIRWISE_ASKED if is_asked else PAIRWISE
    if mode == "steps":
        return STEPS_ASKED if is_asked else STEPS
    return POINTWISE
