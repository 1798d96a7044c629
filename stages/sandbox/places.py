"""Where exceptions were raised, which goes with them from one process to the other."""

import contextlib

PLACE = "_gristmill_place"  # attribute of an exception: where the other side raised it


def place(error: BaseException, own: str) -> str | None:
    """Where an exception was raised: as the other side says, else the last line of the file `own` on its way."""
    trace, last = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == own:
            last = f"{own}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place_mark(error) or last


def place_mark(error: BaseException) -> str | None:
    try:
        mark = object.__getattribute__(error, PLACE)
    except AttributeError:
        return None
    return mark if isinstance(mark, str) else None


def mark_place(error: BaseException, at: str | None) -> None:
    with contextlib.suppress(Exception):  # a class without attributes
        object.__setattr__(error, PLACE, at)


def forget_frames(error: BaseException | None, at: str | None) -> None:
    """Remove what an exception holds of frames, which hold variables."""
    if error is not None and at is not None:
        mark_place(error, at)
    for _ in range(100):
        if error is None:
            return
        error.__traceback__ = None
        context, error.__context__ = error.__context__, None
        error = context
