"""The pass rate over several samples of a problem: the share of them that is right, a measure of its difficulty.

It estimates pass@1 (Chen et al. 2021, arXiv 2107.03374) of the model that has made the samples, for one problem.
"""

import pyarrow as pa

COLUMNS = (("pass_rate", pa.float32()), ("num_samples", pa.int32()))


def fields_of(stage: str, samples: str | None) -> list[pa.Field]:
    """The columns that a stage adds if it is given a column of samples."""
    return [pa.field(f"{stage}_{name}", kind) for name, kind in COLUMNS] if samples else []


def check_bounds(samples: str | None, min_pass_rate: float, max_pass_rate: float) -> None:
    """Raise ValueError if the bounds of the pass rate are no range in 0..1, or if there are no samples to bound."""
    if not 0 <= min_pass_rate <= max_pass_rate <= 1:
        raise ValueError("min_pass_rate and max_pass_rate must lie in 0..1, the first not above the second")
    if samples is None and (min_pass_rate, max_pass_rate) != (0, 1):
        raise ValueError("min_pass_rate and max_pass_rate bound the share of samples that pass; name their column")


def pass_rate(are_right: list[bool]) -> float | None:
    """The share of samples that is right; None without any."""
    return sum(are_right) / len(are_right) if are_right else None


def reason_of(rate: float | None, min_pass_rate: float, max_pass_rate: float) -> str | None:
    """The reject reason of a problem outside the bounds. A problem without samples counts as one that none passes."""
    if (rate or 0.0) < min_pass_rate:
        return "too_hard"
    return "too_easy" if (rate or 0.0) > max_pass_rate else None


def refusal_of(field: pa.Field) -> str | None:
    """Why a column cannot be one of samples, or None if it can."""
    is_texts = pa.types.is_list(field.type) and pa.types.is_string(field.type.value_type)
    return None if is_texts else "is not a list of texts"
