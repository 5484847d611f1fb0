"""axe-core: whether people with screen readers and poor sight can use a page."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.process.settings import ROOT
from tests.helpers.chromium import Page

AXE = ROOT / "tests/js/node_modules/axe-core/axe.min.js"
needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core (scripts/check_js.sh installs it)")


async def serious(page: Page) -> list[str]:
    """The faults of the two worst kinds that axe finds on the page as it is now."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(f"{AXE.read_text(encoding='utf-8')}; void 0")
    found: dict[str, Any] = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
