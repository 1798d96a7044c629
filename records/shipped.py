"""Files in the package: recipes, studies, mixtures, flows, schemas and principles.

In a checkout they are top-level folders; in a wheel they are inside the package. `package:NAME` names a file wherever a
path is expected: `package:demo`, `package:fit/adult-mst`, `package:schemas/adult`.
"""

import sys
from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[1]  # holds recipes/, studies/, mixtures/ and flows/
PACKAGE_FOLDER = Path(str(sys.modules[__name__.split(".")[0]].__file__)).resolve().parent
PACKAGE_ROOT = PACKAGE_FOLDER.parent  # on sys.path, this makes `import gristmill` work
FOLDERS = ("recipes", "studies", "mixtures", "flows")
PREFIX = "package:"


def shipped_file(uri: str) -> Path | None:
    """The file that `package:NAME` names, None when `uri` has another form or names no file of the package.

    NAME is a path below recipes/, studies/, mixtures/ or flows/, with or without `.toml` and the folder.
    """
    if not uri.startswith(PREFIX):
        return None
    name = uri.removeprefix(PREFIX).removesuffix(".toml") + ".toml"
    for folder in ("", *FOLDERS):
        path = (SHIPPED / folder / name).resolve()
        if path.is_file() and any(path.is_relative_to(SHIPPED / known) for known in FOLDERS):
            return path
    return None


def shipped_names() -> list[str]:
    """All names of shipped files, as `package:NAME` takes them: "demo", "fit/adult-mst", "gaussian-laws"."""
    return sorted(
        path.relative_to(SHIPPED / folder).with_suffix("").as_posix()
        for folder in FOLDERS
        for path in (SHIPPED / folder).rglob("*.toml")
    )


def shipped_path(path: str) -> str:
    """`path` itself, or the local file that `package:NAME` names."""
    file = shipped_file(path)
    return path if file is None else str(file)
