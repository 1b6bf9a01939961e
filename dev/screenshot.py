"""docs/browser.png: a picture of the page that `modernbert export MODEL OUT --page` writes.

    python dev/screenshot.py OUT docs/browser.png "if x is not [MASK]:"

OUT needs `npm install` first; Chromium and playwright must be there.
"""

import functools
import http.server
import shutil
import sys
import threading

from playwright.sync_api import sync_playwright


def main(site: str, picture: str, text: str) -> None:
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 760, "height": 900}, device_scale_factor=1.5)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        for button, field, given in (("#fill", "#masked", text), ("#search", "#query", page.input_value("#query"))):
            page.wait_for_selector("body[data-state=ready]")
            page.fill(field, given)
            page.click(f"{button} button")
            page.wait_for_function("document.body.dataset.state != 'working'")
        page.screenshot(path=picture, full_page=True)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
