"""Pictures of the page: light and dark, as wide as a desktop and as a phone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from servers import ours


def look(run: str, photo: Path, out: Path) -> dict[str, Any]:
    """Take pictures of the page with a photo and its explanation, on each device in both colours.

    Args:
        run: The run that is served.
        photo: The photo that is chosen on the page.
        out: The folder of the pictures.
    """
    from playwright.sync_api import expect, sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with ours(run) as (address, _), sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for device, (width, height) in {"desktop": (1280, 900), "phone": (390, 844)}.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )  # type: ignore[arg-type]
                page.goto(address)
                page.set_input_files("#file", photo)
                expect(page.locator("article")).to_have_count(1)
                page.get_by_label("Show where it looked").check()
                page.wait_for_timeout(400)  # its transitions
                page.screenshot(path=out / f"{device}-{scheme}.png", full_page=True)
        browser.close()
    return {"pictures": sorted(map(str, out.iterdir()))}
