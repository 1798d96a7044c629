"""Lists the packages of the wheel; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

FLOORS = ("records", "engines", "stages", "evaluation", "generators", "cluster", "jobs")
DATA = (
    "recipes",
    "recipes.fit",
    "recipes.schemas",
    "recipes.principles",
    "recipes.tools",
    "studies",
    "mixtures",
    "flows",
)


def packages() -> list[str]:
    """`gristmill`, its floors with their subpackages, and the folders that hold only data."""
    code = [name for floor in FLOORS for name in (floor, *(f"{floor}.{inner}" for inner in find_packages(floor)))]
    return ["gristmill", *(f"gristmill.{name}" for name in (*find_packages("gristmill"), *code, *DATA))]


setup(packages=packages())
