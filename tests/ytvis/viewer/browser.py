"""Headless Chromium for tests of the page. Set CHROMIUM to one that is not on the PATH."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)


def executable() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def why_missing() -> str | None:
    """Why the tests have no browser; None if they have one."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install -e '.[browser]'"
    return None if executable() else "no chromium on the PATH, nor named by CHROMIUM: apt-get install chromium"


@contextmanager
def launch() -> Iterator:
    """A playwright browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(ARGUMENTS), timeout=120_000)
        yield browser
        browser.close()


@contextmanager
def new_page(browser, **options) -> Iterator:
    """An empty page; `options` are playwright's of a context (viewport, color_scheme, …).

    AssertionError if in the end a script failed, or the content security policy had to stop something.
    """
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        try:
            yield page
        except Exception as error:
            error.add_note(f"the page said: {problems}")
            raise
    assert problems == [], problems


def photograph(page, **options) -> bytes:
    """A PNG of what is seen of a page, or of a part of one; `options` are those of playwright's `screenshot`.

    The caret is left as it is: to hide it, older playwrights add a style that the page's content security policy stops.
    """
    return page.screenshot(caret="initial", **options)
