"""Write LICENSES.md: the licence that each package of requirements.lock states, as installed in this environment."""

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS = re.findall(r"^(\S+)==(\S+)(?: ; (.*?))? \\$", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
HEAD = """# Licences of the packages in requirements.lock

`make licences` derives this list from what the packages say of themselves. They are installed, not copied into this
repository; what a built book contains of others' work is in `NOTICE`.

| package | version | licence |
|---|---|---|
"""


def licence(name: str) -> str:
    """An SPDX expression where there is one, else the classifiers, else the first line of the text."""
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    named = [line.rpartition(" :: ")[2] for line in told.get_all("Classifier", []) if line.startswith("License ::")]
    text = next(iter((told.get("License") or "").strip().splitlines()), "")
    return told.get("License-Expression") or ", ".join(named) or text or "see the package"


lines = []
for name, version, marker in PINS:
    found = licence(name) or f"not installed here ({marker or 'missing'})"
    lines.append(f"| {name} | {version} | {found.replace('|', '/')} |\n")
(ROOT / "LICENSES.md").write_text(HEAD + "".join(lines), "utf-8")
