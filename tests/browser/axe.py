"""axe-core, which finds what keeps people with an impairment from using a page.

Its script comes with axe-playwright-python; it is run in the page past the page's own policy.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

GRAVE = ("serious", "critical")
SCRIPT = files("axe_playwright_python").joinpath("axe.min.js").read_text()


def grave_problems(page: Page) -> Sequence[str]:
    """What axe-core calls serious or critical on the page as it is now: the rule, and where."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(f"{SCRIPT}; undefined")
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
    assert len(found["passes"]) > 10, "axe-core found nothing to look at"
    return [
        f"{rule['id']} ({rule['impact']}): {json.dumps([node['target'] for node in rule['nodes']])}"
        for rule in found["violations"]
        if rule["impact"] in GRAVE
    ]
