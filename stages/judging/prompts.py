"""Default prompts of a judge, by mode."""

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

PAIRWISE_QUESTION = """\
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

STEPS_QUESTION = """\
A problem is solved step by step. Rate the last step from {low} (wrong) to {high} (right and useful), taking the steps
before it as they are. Answer with JSON: {{"score": number}}.

Problem:
{question}

Steps before:
{before}

Last step:
{step}"""


def default_prompt(mode: str, has_question: bool) -> str:
    """The prompt of a mode; `has_question`: whether the texts answer a question, which the prompt then includes."""
    if mode == "pairwise":
        return PAIRWISE_QUESTION if has_question else PAIRWISE
    if mode == "steps":
        return STEPS_QUESTION if has_question else STEPS
    return POINTWISE
