"""Finds the packages of the wheel; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

FLOORS = ("records", "engines", "stages", "evaluation", "generators", "cluster", "jobs")
DATA = ("recipes", "recipes.fit", "recipes.schemas", "recipes.principles", "studies", "mixtures")


def packages() -> list[str]:
    """`gristmill`, its floors with all that is in them, and the folders that hold data only."""
    code = [name for floor in FLOORS for name in (floor, *(f"{floor}.{inner}" for inner in find_packages(floor)))]
    return ["gristmill", "gristmill.testing", *(f"gristmill.{name}" for name in (*code, *DATA))]


setup(packages=packages())
