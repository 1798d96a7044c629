"""Names of licences: those that dataset hubs list, and SPDX expressions.

Sources: the list of licences of the Hugging Face Hub, and the SPDX License List through `packaging`.
"""

import re

from gristmill.records.spec import nearest

UNKNOWN, OTHER = "unknown", "other"
HUB = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
    etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3
    llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++
    osl-3.0 pddl postgresql unlicense wtfpl zlib unknown other
    """.split()
)
SPDX_OF_HUB = {"odc-by": "ODC-By-1.0", "odbl": "ODbL-1.0", "pddl": "PDDL-1.0", "lppl-1.3c": "LPPL-1.3c"}
PAGE = re.compile(r"https?://spdx\.org/licenses/([^/]+?)(?:\.html)?")
HUB_OF_SPDX = {spdx: hub for hub, spdx in SPDX_OF_HUB.items()}


def license_id(name: str) -> str:
    """The licence as hubs name it ("cc-by-4.0"), else its canonical SPDX expression ("MIT OR Apache-2.0").

    Raises ValueError, with the nearest name, for any other text.
    """
    if name.strip().lower() in HUB:
        return name.strip().lower()
    if (spdx := _canonical(name)) is None:
        raise ValueError(f"'{name}' is neither a licence of the Hub nor of SPDX{_nearest(name)}")
    return HUB_OF_SPDX.get(spdx, spdx.lower() if spdx.lower() in HUB else spdx)


def license_url(license: str) -> str:
    """The page of a licence (see `license_id`) in the SPDX list; the name itself where there is no such page."""
    spdx = SPDX_OF_HUB.get(license) or _canonical(license)
    is_one = spdx is not None and " " not in spdx and not spdx.startswith("LicenseRef-")
    return f"https://spdx.org/licenses/{spdx}.html" if is_one else license


def named_license(url: str) -> str:
    """The licence (see `license_id`) of a page in the SPDX list; any other text as it is. Undoes `license_url`."""
    page = PAGE.fullmatch(url)
    try:
        return license_id(page[1]) if page else url
    except ValueError:
        return url


def _canonical(name: str) -> str | None:
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(name))
    except InvalidLicenseExpression:
        return None


def _nearest(name: str) -> str:
    hint = nearest(name.strip().lower().replace(" ", "-"), HUB)
    return hint if "did you mean" in hint else "; write an id of spdx.org/licenses, or 'other' with license_link"
