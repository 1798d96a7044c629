"""Law checkers for your own components: they raise AssertionError with the law that a component breaks."""

from gristmill.testing.families import check_family
from gristmill.testing.generators import check_generator
from gristmill.testing.sources import check_row_function
from gristmill.testing.stages import check_batch, check_stage, random_batches

__all__ = ["check_batch", "check_family", "check_generator", "check_row_function", "check_stage", "random_batches"]
